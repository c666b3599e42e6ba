# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The queues that DAGs and unfinished tasks use, and the workers that serve them.

`read` asks the metadata database and the broker, on a host with a scheduler or a webserver. The rest is judgement, for
any machine.
"""

from __future__ import annotations

import configparser
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import queues_script
from ansible_collections.windfarm.airflow.plugins.module_utils.database import ENVIRONMENT, USER, Database, DatabaseError
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script

CONFIG = "/etc/airflow/cli/airflow.cfg"
# Some names of DAGs are enough to find the cause.
EXAMPLES = 5
# What waits for a worker, and what comes to need one when something else has ended.
WAITING, LATER = ("queued", "scheduled"), ("none", "up_for_retry", "up_for_reschedule", "deferred", "awaiting_input")


def read(queues: Collection[str] = (), release: str = "", broker: bool = False, names: bool = False) -> dict[str, Any]:
    """Each queue's use; with `broker` also how much waits in it, for those named too; with `names` also which tasks run.

    DatabaseError where nobody answers.
    """
    database = Database(release or None)
    if not database.prepared():
        raise DatabaseError(f"{ENVIRONMENT} or its release is missing; run site.yml")
    if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in database.environment:
        raise DatabaseError("this host may not read the metadata database; ask one with a scheduler or a webserver")
    question = {"queues": sorted(queues), "broker": broker, "names": names, "prefix": key_prefix()}
    try:
        answer = run_script(database.release, USER, database.environment, queues_script, question)
    except ScriptError as error:
        # The first line names it; below it is what Python printed.
        raise DatabaseError(f"queues cannot be read: {str(error).splitlines()[0]}") from None
    return summary(answer, queues)


def key_prefix() -> str:
    parser = configparser.RawConfigParser()
    parser.read(CONFIG, encoding="utf-8")
    return parser.get("celery_broker_transport_options", "global_keyprefix", fallback="")


def summary(answer: Mapping[str, Any], queues: Collection[str] = ()) -> dict[str, Any]:
    """The script's rows -> queues by name."""
    broker = answer.get("broker") or {}
    lengths = broker.get("lengths") or {}
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({*queues, *lengths, *(row[2] for row in answer["dags"]), *(row[0] for row in answer["tasks"])}):
        dags = sorted((paused, dag) for dag, paused, queue in answer["dags"] if queue == name)
        states: dict[str, int] = {}
        for queue, state, count in answer["tasks"]:
            if queue == name:
                states[state] = states.get(state, 0) + count
        found[name] = {
            "dags": len(dags),
            "paused": sum(paused for paused, _dag in dags),
            "examples": [dag for _paused, dag in dags[:EXAMPLES]],
            "waiting": sum(states.get(state, 0) for state in WAITING),
            "running": states.get("running", 0) + states.get("restarting", 0),
            "later": sum(states.get(state, 0) for state in LATER),
            "length": lengths.get(name),
        }
    return {
        "queues": found,
        "taken": broker.get("taken"),
        "broker_problem": broker.get("detail", ""),
        "running": {row[0]: task(*row[1:]) for row in answer["running"]},
    }


def task(dag: str, name: str, index: int, run: str, seconds: int | None) -> dict[str, Any]:
    mapped = f"[{index}]" if index >= 0 else ""
    return {"name": f"{dag}.{name}{mapped}", "run": run, "seconds": max(0, seconds or 0)}


def served(workers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Queue -> hosts of whose instances one takes it, from plan()["workers"]."""
    found: dict[str, list[str]] = {}
    for host, instances in workers.items():
        for queue in dict.fromkeys(queue for instance in instances for queue in instance["queues"]):
            found.setdefault(queue, []).append(host)
    return found


def in_use(use: Mapping[str, Any]) -> bool:
    """Whether somebody would miss its workers: a DAG, paused or not, or a task that is not done."""
    return bool(use["dags"] or use["waiting"] or use["running"] or use["later"] or use["length"])


def without_worker(
    queues: Mapping[str, Mapping[str, Any]],
    workers: Mapping[str, Sequence[Mapping[str, Any]]],
    leaving: Collection[str] = (),
) -> dict[str, str]:
    """Queues in use that no worker takes (once the `leaving` hosts are gone) -> by what they are used."""
    there = served({host: instances for host, instances in workers.items() if host not in leaving})
    return {name: used_by(use) for name, use in queues.items() if in_use(use) and name not in there}


def lost_with(
    queues: Mapping[str, Mapping[str, Any]],
    workers: Mapping[str, Sequence[Mapping[str, Any]]],
    leaving: Collection[str],
) -> dict[str, str]:
    """Of the queues in use those that only the `leaving` hosts take -> by what they are used."""
    before = without_worker(queues, workers)
    return {name: why for name, why in without_worker(queues, workers, leaving).items() if name not in before}


def warning(name: str, why: str) -> str:
    return f"queue {name}: no worker takes it ({why}); add it to airflow_worker_queues"


def used_by(use: Mapping[str, Any]) -> str:
    """Such as: DAG etl_daily, 3 waiting tasks."""
    words = []
    if use["dags"]:
        more = f" and {use['dags'] - len(use['examples'])} more" if use["dags"] > len(use["examples"]) else ""
        words.append(f"DAG{'' if use['dags'] == 1 else 's'} {', '.join(use['examples'])}{more}")
    # The broker's number is of the same tasks, unless the database has forgotten them.
    waiting = max(use["waiting"], use["length"] or 0)
    for count, what in ((waiting, "waiting"), (use["running"], "running"), (use["later"], "unfinished")):
        if count:
            words.append(f"{count} {what} task{'' if count == 1 else 's'}")
    return ", ".join(words)
