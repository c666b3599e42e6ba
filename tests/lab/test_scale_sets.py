# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Worker sets: one host of the inventory runs several worker instances, which serve different queues."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
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
# Two runs of site.yml and one with --check come before it ends.
LONGER_SECONDS = 180
TASKS = 3
# Small, pure Python, and nothing else has it.
PACKAGE = "cowsay"


def play(name: str, inventory: Path | str, **variables: Any) -> tuple[int, str]:
    """Return code and output of one of the collection's playbooks."""
    tool = str(Path(sys.executable).with_name("ansible-playbook"))
    words = [tool, "-i", str(Path(inventory).resolve()), f"playbooks/{name}.yml", "-e", json.dumps(variables)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def ask_redis(inventory: Inventory, **arguments: Any) -> dict[str, Any]:
    """What module redis_consumers says on the broker's host."""
    arguments["password"] = "{{ airflow_broker_admin_password }}"
    tool = str(Path(sys.executable).with_name("ansible"))
    words = [tool, "-i", str(Path(inventory.path).resolve()), inventory.members["redis"][0], "-b", "-m"]
    words += ["windfarm.airflow.redis_consumers", "-a", json.dumps(arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = yaml.safe_load(done.stdout.partition("=>")[2])
    return answer


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


def give(folder: Path, host: str, **variables: Any) -> None:
    """Other variables for the host: what host_vars say wins."""
    file = folder / "host_vars" / host / "sets.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Plain text: what Ansible hands out carries tags that YAML has no form for.
    file.write_text(yaml.safe_dump(json.loads(json.dumps(variables))))


def written(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a user would write what was resolved."""
    kept = [{key: value for key, value in one.items() if key != "derived"} for one in instances]
    return [{**one, "concurrency": None} if one["autoscale"] else one for one in kept]


def unchanged(output: str) -> None:
    assert set(changed(output).values()) == {0}, output[-6000:]


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
    unchanged(site(inventory.path, **dags))


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
    instances = [more if one is instance else one for one in inventory.plan["workers"][host]]
    give(other, host, airflow_worker_instances=written(instances))
    output = site(other, "--diff", **dags)
    assert f"let {old} finish its tasks and stop" in output
    assert state(inventory, host, old) == "deactivating"
    after = inventory.instance_units(host)
    assert after[instance["name"]] != old and after[neighbour["name"]] == before[host][neighbour["name"]]
    for (name, unit), invocation in invocations.items():
        if unit != old or name != host:
            assert started(inventory, name, unit) == invocation, f"{unit} on {name} was restarted"
    unchanged(site(other, **dags))
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
    run = airflow.trigger("scale_sets", {"seconds": LONGER_SECONDS})
    wait(f"tasks of queue {queue} run", 60, lambda: running(inventory, run, queue) == min(TASKS, instance["concurrency"]))
    taken = running(inventory, run, queue)

    left = [one for one in inventory.plan["workers"][host] if one is not instance]
    give(other, host, airflow_worker_instances=written(left))
    announced = site(other, "--check", "--diff", **dags)
    assert f"let {gone} finish its tasks and stop" in announced
    assert state(inventory, host, gone) == "active"
    output = site(other, **dags)
    assert state(inventory, host, gone) == "deactivating", output
    assert inventory.instance_units(host) == units
    again = site(other, "--diff", **dags)
    unchanged(again)
    assert f"{gone} is removed by a later run" in again

    wait("it has ended", LONGER_SECONDS + 60, lambda: state(inventory, host, gone) in ("inactive", "failed"))
    assert inventory.run(host, "systemctl", "is-failed", gone, check=False) == "inactive"
    site(other, **dags)
    stem = gone.removeprefix("airflow-").rpartition("-")[0]
    assert inventory.run(host, "sh", "-c", f"ls -d /etc/airflow/{stem}* /etc/systemd/system/{gone}", check=False) == ""
    assert {unit: started(inventory, host, unit) for unit in stay} == stay
    assert inventory.run(host, "systemctl", "is-active", "airflow-worker.target") == "active"
    assert inventory.run(host, "systemctl", "is-enabled", "airflow-worker.target") == "enabled"
    unchanged(site(other, **dags))

    # What it had not taken waits for it.
    site(inventory.path, **dags)
    assert airflow.wait_for_run("scale_sets", run, LONGER_SECONDS * TASKS + 180) == "success"
    tasks = [task for task in airflow.tasks("scale_sets", run) if task["task_id"] == f"in_{queue}"]
    assert {task["try_number"] for task in tasks} == {1} and len(tasks) == TASKS >= taken
    for task in tasks:
        assert f"ran in {instance['name']} on {inventory.plan['addresses'][host]}" in airflow.log(task)


def test_an_instance_has_a_new_name(inventory: Inventory, host: str, other: Path, dags: dict[str, str]) -> None:
    """While it is the last of its host, and no other host is asked."""
    instances = written(inventory.plan["workers"][host])
    give(other, host, airflow_worker_instances=[{**instances[0], "name": "renamed"}, *instances[1:]])
    before = inventory.instance_units(host)
    output = site(other, "--limit", host, "--diff", **dags)
    assert f"let {before[instances[0]['name']]} finish its tasks and stop" in output
    after = inventory.instance_units(host)
    assert set(after) == {"renamed", *(one["name"] for one in instances[1:])}
    assert {name: unit for name, unit in after.items() if name != "renamed"}.items() <= before.items()
    site(inventory.path, **dags)
    assert set(inventory.instance_units(host)) == set(before)


def test_a_set_has_packages_of_its_own(
    inventory: Inventory,
    airflow: Airflow,
    host: str,
    pair: tuple[dict[str, Any], dict[str, Any]],
    other: Path,
    dags: dict[str, str],
) -> None:
    queue = own_queue(inventory, pair[0])
    assert airflow.dag("scale_sets"), "whoever parses it has no such package"
    give(other, host, airflow_requirements=[PACKAGE])
    rc, output = attempt(other, **dags)
    assert rc == 2 and "airflow_requirements — not resolved yet" in output
    resolved = play("lock", other)
    assert resolved[0] == 0, resolved[1]
    site(other, **dags)
    releases = {name: inventory.run(name, "cat", "/etc/airflow/cli/environment") for name in inventory.members["worker"]}
    releases = {name: re.findall(r'AIRFLOW_RELEASE="(.+)"', text)[0] for name, text in releases.items()}
    assert list(releases.values()).count(releases[host]) == 1, "only that host has another release"
    run = airflow.trigger("scale_sets", {"module": PACKAGE})
    assert airflow.wait_for_run("scale_sets", run, 180) == "success"
    for task in airflow.tasks("scale_sets", run):
        log = airflow.log(task)
        there = f" on {inventory.plan['addresses'][host]}" in log
        assert f"{PACKAGE} is {'there' if there else 'not there'}" in log
        assert there or task["task_id"] != f"in_{queue}"
    unchanged(site(other, **dags))
    site(inventory.path, **dags)


@pytest.mark.parametrize("number", [0, 8])
def test_slots_of_a_host_that_has_no_number(
    inventory: Inventory, host: str, other: Path, dags: dict[str, str], number: int
) -> None:
    """Derived ones are the same in the unit and in the connections that are counted, or fewer."""
    give(other, host, airflow_worker_instances=[], airflow_worker_concurrency=number, airflow_worker_autoscale="")
    output = site(other, "--check", "--diff", **dags)
    (slots,) = {int(found) for found in re.findall(rf"^\+ExecStart=.* -c (\d+) -H default-@COLOUR@@{host}$", output, re.M)}
    counted = Inventory(str(other)).plan["workers"][host][0]["concurrency"]
    assert slots == number or (number == 0 and 1 <= slots <= counted)


def test_redis_knows_which_instances_wait(inventory: Inventory) -> None:
    """Each of them, and no more than there are."""
    hosts = {name: inventory.plan["addresses"][name] for name in inventory.plan["workers"]}
    counts = {name: len(instances) for name, instances in inventory.plan["workers"].items()}
    one_more = {name: count + 1 for name, count in counts.items()}
    for instances, silent in ((counts, []), (one_more, sorted(hosts))):
        answer = ask_redis(inventory, hosts=hosts, instances=instances, timeout=10)
        assert answer["seen"] == counts and answer["silent"] == silent


def test_the_status_knows_every_instance(inventory: Inventory, host: str, dags: dict[str, str]) -> None:
    site(inventory.path, **dags)
    rc, output = play("status", inventory.path, airflow_status_format="json", airflow_status_strict=True)
    assert rc == 0, output[-3000:]
    document = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    states = {one["name"]: one["state"] for one in document["hosts"][host]["units"]}
    assert all(states[unit] == "active" for unit in inventory.instance_units(host).values())
