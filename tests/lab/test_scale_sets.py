# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Worker sets: one host of the inventory runs several worker instances, which serve different queues."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from api import Airflow, wait
from conftest import Shipment
from inventory import ROOT, Inventory
from test_change import attempt, changed, site, started

LONG_SECONDS = 60
TASKS = 3


@pytest.fixture(scope="module")
def host(inventory: Inventory) -> str:
    """The one with several instances."""
    found = [name for name, instances in inventory.plan["workers"].items() if len(instances) > 1]
    assert found, "no host of the inventory has airflow_worker_instances"
    return found[0]


@pytest.fixture(scope="module")
def pair(inventory: Inventory, host: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two instances of the host; the first serves a queue that nobody else does."""
    instances = inventory.plan["workers"][host]
    everywhere = [queue for found in inventory.plan["workers"].values() for one in found for queue in one["queues"]]
    alone = [one for one in instances if [queue for queue in one["queues"] if everywhere.count(queue) == 1]]
    assert alone, f"no instance of {host} has a queue of its own"
    return alone[0], next(one for one in instances if one is not alone[0])


def own_queue(inventory: Inventory, instance: dict[str, Any]) -> str:
    everywhere = [queue for found in inventory.plan["workers"].values() for one in found for queue in one["queues"]]
    return str(next(queue for queue in instance["queues"] if everywhere.count(queue) == 1))


@pytest.fixture(scope="module")
def dags(shipment: Shipment, inventory: Inventory, airflow: Airflow) -> dict[str, str]:
    """Every run of site.yml ships the folder that the tests use."""
    text = (ROOT / "tests" / "lab" / "dags" / "scale_sets.py").read_text()
    text = text.replace("QUEUES: list[str] = []", f"QUEUES: list[str] = {json.dumps(inventory.plan['queues'])}")
    (shipment.folder / "scale_sets.py").write_text(text)
    shipment.ship("sets")
    airflow.wait_for_dag("scale_sets", 60)
    return {"airflow_dags_source": str(shipment.folder)}


@pytest.fixture()
def other(tmp_path: Path, inventory: Inventory) -> Path:
    """A copy of the inventory that a test may change."""
    folder = tmp_path / "inventory"
    shutil.copytree(inventory.path, folder)
    return folder


def give(folder: Path, host: str, instances: list[dict[str, Any]]) -> None:
    """Other instances for the host: what host_vars say wins."""
    file = folder / "host_vars" / host / "sets.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    # What is resolved has keys that nobody writes.
    kept = [{key: value for key, value in one.items() if key != "derived"} for one in instances]
    plain = json.loads(json.dumps([one if not one["autoscale"] else {**one, "concurrency": None} for one in kept]))
    file.write_text(yaml.safe_dump({"airflow_worker_instances": plain}))


def state(inventory: Inventory, host: str, unit: str) -> str:
    return inventory.run(host, "systemctl", "show", "--property=ActiveState", "--value", unit)


def running(inventory: Inventory, run: str, queue: str) -> int:
    query = f"select count(*) from task_instance where run_id = '{run}' and queue = '{queue}' and state = 'running'"
    return int(inventory.sql(query)[0][0])


def test_a_task_runs_where_its_queue_is_served_and_its_log_is_read(
    inventory: Inventory, airflow: Airflow, host: str, dags: dict[str, str]
) -> None:
    run = airflow.trigger("scale_sets")
    assert airflow.wait_for_run("scale_sets", run, 180) == "success"
    allowed: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, instances in inventory.plan["workers"].items():
        for one in instances:
            for queue in one["queues"]:
                allowed[queue].add((one["name"], inventory.plan["addresses"][name]))
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for task in airflow.tasks("scale_sets", run):
        (found,) = re.findall(r": \d+ ran in (\S+) on (\S+)", airflow.log(task))
        seen[task["task_id"].removeprefix("in_")].add(found)
        assert task["try_number"] == 1
    assert set(seen) == set(allowed)
    for queue, places in seen.items():
        assert places <= allowed[queue], f"queue {queue}"
    here = inventory.plan["addresses"][host]
    ran_here = {instance for places in seen.values() for instance, address in places if address == here}
    assert len(ran_here) > 1, f"tasks of several instances of {host} were to run, and their logs to be read: {ran_here}"


def test_each_instance_is_a_unit_with_what_it_was_given(inventory: Inventory, host: str) -> None:
    units = inventory.instance_units(host)
    assert set(units) == {one["name"] for one in inventory.plan["workers"][host]}
    for one in inventory.plan["workers"][host]:
        shown = inventory.run(host, "systemctl", "show", "--property=ExecStart,MemoryMax,MemoryHigh", units[one["name"]])
        node = units[one["name"]].partition("@")[2].removesuffix(".service")
        assert f" -q {','.join(one['queues'])} " in shown and f" -H {node}@{host} " in shown
        pool = f"--autoscale {one['autoscale']}" if one["autoscale"] else f"-c {one['concurrency']}"
        assert f" {pool} " in shown
        for name, given in (("MemoryMax", one["memory_max"]), ("MemoryHigh", one["memory_high"])):
            assert (f"{name}=infinity" in shown) is (given == ""), f"{one['name']}: {shown}"
        environment = inventory.run(host, "cat", f"/etc/airflow/worker@{node}/environment")
        assert all(f'{name}="{value}"' in environment for name, value in one["environment"].items())


def test_a_second_run_changes_nothing(inventory: Inventory, dags: dict[str, str]) -> None:
    site(inventory.path, **dags)
    assert set(changed(site(inventory.path, **dags)).values()) == {0}


def test_a_change_of_one_instance_rolls_that_one_alone(
    inventory: Inventory,
    airflow: Airflow,
    host: str,
    pair: tuple[dict[str, Any], dict[str, Any]],
    other: Path,
    dags: dict[str, str],
) -> None:
    instance, neighbour = pair
    queue = own_queue(inventory, instance)
    before = {name: inventory.instance_units(name) for name in inventory.members["worker"]}
    invocations = {(name, unit): started(inventory, name, unit) for name, units in before.items() for unit in units.values()}
    run = airflow.trigger("scale_sets", {"seconds": LONG_SECONDS})
    wait(f"a task of queue {queue} runs", 60, lambda: running(inventory, run, queue))

    old = before[host][instance["name"]]
    more = {**instance, "queues": [*instance["queues"], "added"], "concurrency": 3, "autoscale": ""}
    give(other, host, [more if one is instance else one for one in inventory.plan["workers"][host]])
    output = site(other, "--diff", **dags)
    assert f"let {old} finish its tasks and stop" in output
    assert state(inventory, host, old) == "deactivating"
    after = inventory.instance_units(host)
    assert after[instance["name"]] != old and after[neighbour["name"]] == before[host][neighbour["name"]]
    for (name, unit), invocation in invocations.items():
        if unit != old or name != host:
            assert started(inventory, name, unit) == invocation, f"{unit} on {name} was restarted"
    assert set(changed(site(other, **dags)).values()) == {0}
    assert airflow.wait_for_run("scale_sets", run, LONG_SECONDS * TASKS + 180) == "success"
    assert {task["try_number"] for task in airflow.tasks("scale_sets", run)} == {1}
    site(inventory.path, **dags)


def test_an_instance_that_is_removed_finishes_its_tasks(
    inventory: Inventory,
    airflow: Airflow,
    host: str,
    pair: tuple[dict[str, Any], dict[str, Any]],
    other: Path,
    dags: dict[str, str],
) -> None:
    instance, _neighbour = pair
    queue = own_queue(inventory, instance)
    units = inventory.instance_units(host)
    gone = units.pop(instance["name"])
    stay = {unit: started(inventory, host, unit) for unit in units.values()}
    run = airflow.trigger("scale_sets", {"seconds": LONG_SECONDS})
    wait(f"tasks of queue {queue} run", 60, lambda: running(inventory, run, queue) == min(TASKS, instance["concurrency"]))
    taken = running(inventory, run, queue)

    give(other, host, [one for one in inventory.plan["workers"][host] if one is not instance])
    announced = site(other, "--check", "--diff", **dags)
    assert f"let {gone} finish its tasks and stop" in announced
    assert state(inventory, host, gone) == "active"
    output = site(other, **dags)
    assert state(inventory, host, gone) == "deactivating", output
    assert inventory.instance_units(host) == units
    again = site(other, **dags)
    assert set(changed(again).values()) == {0} and f"{gone} is removed by a later run" in again

    wait("it has ended", LONG_SECONDS + 60, lambda: state(inventory, host, gone) in ("inactive", "failed"))
    assert inventory.run(host, "systemctl", "is-failed", gone, check=False) == "inactive"
    site(other, **dags)
    stem = gone.removeprefix("airflow-").rpartition("-")[0]
    assert inventory.run(host, "sh", "-c", f"ls -d /etc/airflow/{stem}* /etc/systemd/system/{gone}", check=False) == ""
    assert {unit: started(inventory, host, unit) for unit in stay} == stay
    assert inventory.run(host, "systemctl", "is-active", "airflow-worker.target") == "active"
    assert inventory.run(host, "systemctl", "is-enabled", "airflow-worker.target") == "enabled"
    assert set(changed(site(other, **dags)).values()) == {0}

    # What it had not taken waits for it.
    site(inventory.path, **dags)
    assert airflow.wait_for_run("scale_sets", run, LONG_SECONDS * TASKS + 180) == "success"
    tasks = [task for task in airflow.tasks("scale_sets", run) if task["task_id"] == f"in_{queue}"]
    assert {task["try_number"] for task in tasks} == {1} and len(tasks) == TASKS >= taken
    for task in tasks:
        assert f"ran in {instance['name']} on {inventory.plan['addresses'][host]}" in airflow.log(task)


def test_the_status_knows_every_instance(inventory: Inventory, host: str, dags: dict[str, str]) -> None:
    rc, output = attempt(inventory.path, **dags)
    assert rc == 0, output[-3000:]
    for unit in inventory.instance_units(host).values():
        assert inventory.run(host, "systemctl", "is-enabled", unit) == "enabled"
