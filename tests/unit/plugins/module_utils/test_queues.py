# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judgements; that the SQL finds them is seen on the lab."""

from __future__ import annotations

from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import queues, queues_script

ANSWER = {
    "dags": [
        ["train", False, "gpu"],
        ["old", True, "gpu"],
        ["etl", False, "default"],
        *([f"d{n}", False, "etl"] for n in range(7)),
    ],
    "tasks": [["gpu", "queued", 2], ["gpu", "scheduled", 1], ["default", "running", 4], ["gone", "up_for_retry", 1]],
    "running": [["i1", "etl", "load", 3, "r1", 62], ["i2", "etl", "sum", -1, "r1", None]],
    "broker": {"lengths": {"gpu": 2, "default": 0, "spare": 0}, "taken": 4},
}
WORKERS = {
    "worker1": [{"name": "default", "queues": ["default"]}],
    "worker2": [{"name": "gpu", "queues": ["gpu"]}, {"name": "default", "queues": ["default", "spare"]}],
}


def found() -> dict[str, Any]:
    return dict(queues.summary(ANSWER, ["spare"])["queues"])


def test_summary() -> None:
    use = found()
    assert list(use) == ["default", "etl", "gone", "gpu", "spare"]
    assert use["gpu"] == {
        "dags": 2, "paused": 1, "examples": ["train", "old"], "waiting": 3, "running": 0, "later": 0, "length": 2,
    }  # fmt: skip
    assert use["gone"]["later"] == 1
    assert use["gone"]["length"] is None
    assert not queues.in_use(use["spare"])


def test_running_tasks_have_names() -> None:
    assert queues.summary(ANSWER)["running"] == {
        "i1": {"name": "etl.load[3]", "run": "r1", "seconds": 62},
        "i2": {"name": "etl.sum", "run": "r1", "seconds": 0},
    }


def test_a_broker_that_does_not_answer_leaves_the_rest() -> None:
    answer = queues.summary({**ANSWER, "broker": {"detail": "ConnectionError: refused"}})
    assert answer["queues"]["gpu"]["length"] is None
    assert answer["broker_problem"] == "ConnectionError: refused"


def test_queues_without_a_worker() -> None:
    assert queues.without_worker(found(), WORKERS) == {
        "etl": "DAGs d0, d1, d2, d3, d4 and 2 more",
        "gone": "1 unfinished task",
    }


def test_queues_that_are_lost_with_a_worker() -> None:
    assert queues.lost_with(found(), WORKERS, ["worker1"]) == {}
    assert queues.lost_with(found(), WORKERS, ["worker2"]) == {"gpu": "DAGs train, old, 3 waiting tasks"}
    assert queues.lost_with(found(), WORKERS, list(WORKERS)) == {
        "default": "DAG etl, 4 running tasks",
        "gpu": "DAGs train, old, 3 waiting tasks",
    }


def task(**fields: Any) -> dict[str, Any]:
    return {"__type": "operator", "__var": {"task_id": "x", **fields}}


def test_queues_of_a_compressed_dag() -> None:
    tasks = [
        task(queue="gpu"),
        task(partial_kwargs={"queue": "mapped"}),
        task(),
        task(queue="never", _is_empty=True),
        task(queue="callback", _is_empty=True, has_on_success_callback=True),
    ]
    assert queues_script.queues_of({"dag": {"tasks": tasks}}) == {"gpu", "mapped", "default", "callback"}
    main = {"client_defaults": {"tasks": {"queue": "main"}}, "dag": {"tasks": [task()]}}
    assert queues_script.queues_of(main) == {"main"}
