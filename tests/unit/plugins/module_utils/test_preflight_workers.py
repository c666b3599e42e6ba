# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import preflight_workers
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import INVENTORY_RULES, Inventory

GROUPS = {
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "control2", "worker1", "worker2"],
    "airflow_scheduler": ["control1"],
    "airflow_webserver": ["control1"],
    "airflow_triggerer": ["control1"],
    "airflow_dag_processor": ["control1"],
    "airflow_worker": ["worker1", "worker2"],
}
HOSTS: dict[str, dict[str, Any]] = {
    name: {"ansible_host": name} for name in ("db1", "control1", "control2", "worker1", "worker2")
}
INSTANCES = "airflow_worker_instances"
NAMES = "use letters, digits, dots, dashes and underscores, beginning with a letter or digit"
SIZE = "write a size as systemd has it, such as 6G, 1500M or 50%"


def inventory(groups: dict[str, list[str]] | None = None, **hosts: Any) -> Inventory:
    """Variables by host, or for all."""
    everywhere = hosts.pop("everywhere", {})
    found = {name: {**values, **everywhere, **hosts.get(name, {})} for name, values in HOSTS.items()}
    return Inventory(found, {**GROUPS, **(groups or {})}, "", {})


def lines(found: Inventory) -> list[str]:
    return [str(problem) for rule in preflight_workers.RULES for problem in rule(found)]


def test_preflight_has_these_rules() -> None:
    assert set(preflight_workers.RULES) <= set(INVENTORY_RULES)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {INSTANCES: []},
        {INSTANCES: [{"name": "io", "autoscale": "8,2"}, {"name": "etl.x_1", "queues": ["etl"], "environment": {"A": 1}}]},
        {INSTANCES: [{"name": "a", "memory_high": "50%", "memory_max": "6G"}, {"name": "b", "concurrency": None}]},
        {"airflow_worker_concurrency": 0, "airflow_worker_autoscale": "8, 2", "airflow_worker_memory_max": "infinity"},
        {"airflow_worker_concurrency": "12", "airflow_worker_memory_high": "1.5G", "airflow_worker_memory_max": "2048M"},
        # The user's own, which resembles nothing of ours.
        {"airflow_worker_rack": "r7"},
    ],
)
def test_what_is_allowed(variables: dict[str, Any]) -> None:
    assert lines(inventory(everywhere=variables)) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"airflow_worker_queues": []}, "airflow_worker_queues — is no list of names — write a list such as [default]"),
        ({"airflow_worker_queues": ["a,b"]}, f"airflow_worker_queues — has the queue 'a,b' — {NAMES}"),
        (
            {"airflow_worker_concurrency": "auto"},
            "airflow_worker_concurrency — is 'auto' — write a number of tasks, or 0 to derive it from the host",
        ),
        (
            {"airflow_worker_concurrency": True},
            "airflow_worker_concurrency — is True — write a number of tasks, or 0 to derive it from the host",
        ),
        ({"airflow_worker_concurrency_max": 0}, "airflow_worker_concurrency_max — is 0 — write a number of tasks, at least 1"),
        (
            {"airflow_worker_autoscale": "2,8"},
            "airflow_worker_autoscale — is '2,8', with the smaller number first — "
            'write two numbers, the larger one first, such as "8,2"',
        ),
        (
            {"airflow_worker_autoscale": 8},
            'airflow_worker_autoscale — is 8, not MAX,MIN — write two numbers, the larger one first, such as "8,2"',
        ),
        (
            {"airflow_worker_autoscale": "8,0"},
            "airflow_worker_autoscale — is '8,0', and a worker without a process would never start one again — "
            'write two numbers, the larger one first, such as "8,2"',
        ),
        ({"airflow_worker_memory_max": "6 GB"}, f"airflow_worker_memory_max — is '6 GB' — {SIZE}"),
        (
            {"airflow_worker_memory_max": 100},
            f"airflow_worker_memory_max — is 100, less than the 512M that a worker needs before its first task — {SIZE}",
        ),
        ({"airflow_worker_memory_high": "140%"}, f"airflow_worker_memory_high — is 140% — {SIZE}"),
        (
            {"airflow_worker_memory_high": "5G", "airflow_worker_memory_max": "4G"},
            "airflow_worker_memory_high — is more than memory_max, so it is never reached — make it less",
        ),
        (
            {"airflow_worker_environment": {"A-B": 1}},
            "airflow_worker_environment — has the name 'A-B' — write it as {NAME: value}, each value on one line",
        ),
        (
            {"airflow_worker_environment": ["A=1"]},
            "airflow_worker_environment — is no dictionary — write it as {NAME: value}, each value on one line",
        ),
        (
            {INSTANCES: {"etl": {}}},
            f"{INSTANCES} — is no list — write a list of dictionaries, such as [{{name: etl, queues: [etl]}}]",
        ),
        ({INSTANCES: [{"queues": ["a"]}]}, f"{INSTANCES}, number 1 — has no name — give each instance a name, such as etl"),
        ({INSTANCES: [{"name": "a b"}]}, f"{INSTANCES}, number 1 — has the name 'a b' — {NAMES}; at most 64"),
        (
            {INSTANCES: [{"name": "etl-a"}]},
            f"{INSTANCES}, number 1 — has the name etl-a, which ends like a colour of another instance — "
            "use a name that does not end in -a or -b",
        ),
        (
            {INSTANCES: [{"name": "etl"}, {"name": "etl"}]},
            f"{INSTANCES} — has the name etl twice — give each instance of a host a name of its own",
        ),
        (
            {INSTANCES: [{"name": "etl", "queue": ["etl"]}]},
            f"{INSTANCES}.etl.queue — is not a setting of a worker instance — did you mean queues?",
        ),
        (
            {INSTANCES: [{"name": "etl", "nice": 5}]},
            f"{INSTANCES}.etl.nice — is not a setting of a worker instance — "
            "known are name, queues, concurrency, autoscale, environment, memory_high, memory_max",
        ),
        (
            {INSTANCES: [{"name": "etl", "queues": []}]},
            f"{INSTANCES}.etl.queues — is no list of names — write a list such as [default]",
        ),
        (
            {INSTANCES: [{"name": "etl", "concurrency": -1}]},
            f"{INSTANCES}.etl.concurrency — is -1 — write a number of tasks, or 0 to derive it from the host",
        ),
        (
            {"airflow_config": {"database": {"sql_alchemy_max_overflow": -1}}},
            "airflow_config.database.sql_alchemy_max_overflow — is -1, and the connections and tasks of the cluster are counted "
            "with it — write a number, at least 0, or remove it",
        ),
        (
            {"airflow_config": {"core": {"parallelism": 16}}},
            "airflow_config.core.parallelism — lets 1 scheduler start 16 tasks at once, and the workers have 32 slots — "
            "raise it to 32 or more, or remove it; pools and max_active_tasks limit what a DAG may take",
        ),
        (
            {"postgresql_max_connections": 150},
            "postgresql_max_connections — is 150, and the inventory's processes, with 32 worker slots, may open 203 connections"
            " — raise it to 203 or more, or remove it",
        ),
        (
            {"postgresql_config": {"max_connections": 150}, "postgresql_max_connections": 800},
            "postgresql_config.max_connections — is 150, and the inventory's processes, with 32 worker slots, may open 203 "
            "connections — raise it to 203 or more, or remove it",
        ),
        ({"postgresql_max_connections": "many"}, "postgresql_max_connections — is 'many' — write a number, or remove it"),
    ],
)
def test_each_mistake_is_one_line(variables: dict[str, Any], expected: str) -> None:
    assert lines(inventory(everywhere=variables)) == [expected]


def test_numbers_that_are_enough() -> None:
    assert not lines(inventory(everywhere={"postgresql_max_connections": 203, "airflow_config": {"core": {"parallelism": 32}}}))
    # Each of two schedulers has its own limit.
    two = {"airflow_scheduler": ["control1", "control2"]}
    assert not lines(inventory(two, everywhere={"airflow_config": {"core": {"parallelism": 16}}}))


def test_every_mistake_of_an_instance_is_told() -> None:
    given = [{"name": "etl", "queues": ["a b"], "autoscale": "x", "memory_max": "y", "colour": "a"}]
    assert len(lines(inventory(worker1={INSTANCES: given}))) == 4


def sets(**serves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"airflow_worker_{name}": {"hosts": ["worker1"], "above": ["airflow_worker", "airflow"], "serves": one}
        for name, one in serves.items()
    }


ETL, GPU = ({"airflow_worker_queues": [name]} for name in ("etl", "gpu"))


def test_a_host_in_two_worker_sets() -> None:
    two = inventory(worker1=GPU)._replace(worker_sets=sets(etl=ETL, gpu=GPU))
    assert lines(two) == [
        "host worker1 — is in the worker sets airflow_worker_etl and airflow_worker_gpu, which say differently what it "
        "serves, and only one would count — set airflow_worker_instances for the host, one instance for each set, or leave "
        "all but one of the groups"
    ]
    assert not lines(two._replace(settled={"worker1"})), "its own variables say what it serves"
    assert not lines(two._replace(worker_sets=sets(etl=ETL, same=ETL, other={})))
    below = sets(etl=ETL, big=GPU)
    below["airflow_worker_big"]["above"] = ["airflow_worker_etl", "airflow_worker", "airflow"]
    assert not lines(two._replace(worker_sets=below)), "a group below another one is meant to win"
    both = {INSTANCES: [{"name": "etl", **{"queues": ["etl"]}}, {"name": "gpu", "queues": ["gpu"]}]}
    assert not lines(inventory(worker1=both)._replace(worker_sets=sets(etl=ETL, gpu=GPU)))
    one = {INSTANCES: [{"name": "etl", "queues": ["etl"]}]}
    assert len(lines(inventory(worker1=one)._replace(worker_sets=sets(etl=ETL, gpu=GPU)))) == 1


def test_tasks_that_name_no_queue() -> None:
    assert not preflight_workers.told(inventory())
    (told,) = preflight_workers.told(inventory(everywhere=ETL))
    assert str(told).startswith(
        "airflow_worker_queues — no worker serves default, to which tasks go that name no queue — add default"
    )
    assert not preflight_workers.told(inventory(everywhere={**ETL, "airflow_config": {"operators": {"default_queue": "etl"}}}))
