# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life cycle of a task, step by step, on a deployed cluster (any inventory: one host or many)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from api import Airflow, wait
from browser import logged_in
from conftest import Shipment
from inventory import ROOT, Inventory
from playwright.sync_api import Page

# The promise is 30 s from the end of the playbook.
VISIBLE_SECONDS = 30
CORE = {
    "scheduler": "airflow-scheduler",
    "webserver": "airflow-webserver",
    "triggerer": "airflow-triggerer",
    "dag_processor": "airflow-dag-processor",
    "flower": "airflow-flower",
}
SNAPSHOT = """
select t.task_id, t.state, t.hostname, t.external_executor_id, t.trigger_id, r.triggerer_id, t.try_number
from task_instance t left join trigger r on r.id = t.trigger_id where t.run_id = '{run}'
"""


@dataclass
class Observed:
    """What PostgreSQL said of each task of a run while it ran."""

    run_id: str
    state: str
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def states(self, task: str) -> list[str]:
        return [row["state"] for row in self.rows[task]]

    def last(self, task: str) -> dict[str, str]:
        return self.rows[task][-1]


def test_preflight_is_quick(inventory: Inventory) -> None:
    """On the lab of four at most 4 s for the inventory, Ansible's own start included, and 6 s for the hosts: the best of three
    runs, and as many times longer as more processes want the processors than there are."""
    if len(inventory.plan["addresses"]) != 4:
        pytest.skip("the promise is about four hosts")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(Path(inventory.path).resolve()), "playbooks/preflight.yml"]
    spent = []
    for _run in range(3):
        marks = [time.monotonic()]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            said = []
            for line in process.stdout or ():
                said.append(line)
                if line.startswith("PLAY [Check the hosts]"):
                    marks.append(time.monotonic())
        assert process.returncode == 0 and len(marks) == 2, "".join(said)
        spent.append((marks[1] - marks[0], time.monotonic() - marks[1]))
    load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    of_inventory, of_hosts = (min(part) for part in zip(*spent))
    print(f"\npreflight: inventory {of_inventory:.1f} s, hosts {of_hosts:.1f} s, load {load:.1f} times the processors")
    assert of_inventory <= 4 * load and of_hosts <= 6 * load


def watch(inventory: Inventory, airflow: Airflow, dag_id: str, run_id: str) -> Observed:
    observed = Observed(run_id, "")
    names = ("state", "hostname", "celery_id", "trigger", "triggerer", "try")

    def look() -> bool:
        # The order matters: what is read after the run has ended is each task's last state.
        observed.state = airflow.run(dag_id, run_id)["state"]
        for task, *values in inventory.sql(SNAPSHOT.format(run=run_id)):
            row = dict(zip(names, values))
            seen = observed.rows.setdefault(task, [])
            if not seen or seen[-1] != row:
                seen.append(row)
        return observed.state in ("success", "failed")

    wait(f"{run_id} has ended", 180, look, interval=0.2)
    return observed


@pytest.fixture(scope="module")
def life_cycle(shipment: Shipment, airflow: Airflow) -> str:
    """The marker that the shipped DAG file carries and the webserver shows."""
    if not shipment.marker:
        shipment.ship("first")
    wait(
        "the shipped DAG is known",
        60,
        lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"),
    )
    return shipment.marker


@pytest.fixture(scope="module")
def observed(life_cycle: str, inventory: Inventory, airflow: Airflow) -> Observed:
    return watch(inventory, airflow, "life_cycle", airflow.trigger("life_cycle"))


@pytest.fixture(scope="module")
def page(inventory: Inventory, airflow: Airflow) -> Iterator[Page]:
    with logged_in(inventory.url, airflow.user, inventory.common("airflow_admin_password")) as opened:
        yield opened


@dataclass
class Queued:
    run_id: str
    waiting: dict[str, str]


@pytest.fixture(scope="module")
def queued(life_cycle: str, inventory: Inventory, airflow: Airflow) -> Queued:
    """A run whose tasks wait in queues that nobody serves: one message for each worker."""
    run_id = airflow.trigger("life_cycle_queues")
    queues = [f"test-{name}" for name in inventory.members["worker"]]
    wait(f"a message is in each of {queues}", 60, lambda: {inventory.redis("LLEN", queue) for queue in queues} == {"1"})
    return Queued(run_id, {queue: inventory.redis("LINDEX", queue, "0") for queue in queues})


@pytest.fixture(scope="module")
def taken(queued: Queued, inventory: Inventory, airflow: Airflow) -> dict[str, dict[str, Any]]:
    """The same run after each worker was told to serve its queue: worker -> task."""
    operator = inventory.members["scheduler"][0]
    celery = {name: celery_name(inventory, name) for name in inventory.members["worker"]}
    for name, node in celery.items():
        inventory.run(operator, "airflow", "celery", "add-queue", "-H", node, "-q", f"test-{name}")
    try:
        airflow.wait_for_run("life_cycle_queues", queued.run_id, 120)
    finally:
        for name, node in celery.items():
            inventory.run(operator, "airflow", "celery", "remove-queue", "-H", node, "-q", f"test-{name}")
    return {task["task_id"].removeprefix("on_"): task for task in airflow.tasks("life_cycle_queues", queued.run_id)}


def celery_name(inventory: Inventory, worker: str) -> str:
    """airflow-worker@default-a.service on worker1 is default-a@worker1 for Celery."""
    return inventory.worker_unit(worker).split("@")[1].removesuffix(".service") + f"@{worker}"


def log_file(inventory: Inventory, worker: str, run_id: str, task_id: str) -> str:
    found = inventory.run(
        worker, "find", "/var/log/airflow/worker", "-type", "f", "-path", f"*run_id={run_id}/task_id={task_id}/*"
    )
    assert len(found.splitlines()) == 1, f"{worker}: one log file of {task_id} expected, found: {found!r}"
    return found


def worker_of(inventory: Inventory, address: str) -> str:
    """The inventory name behind the host name that a task instance carries."""
    names = [name for name in inventory.members["worker"] if inventory.plan["addresses"][name] == address]
    assert len(names) == 1, f"{address} is no worker of {inventory.plan['addresses']}"
    return names[0]


# --- 0 ---------------------------------------------------------------------------------------------------------------
def test_00_init_was_done_before_any_component_started(inventory: Inventory) -> None:
    assert inventory.sql("select count(*) from alembic_version")[0] == ["1"]
    user = inventory.common("airflow_admin_user", "admin")
    made = inventory.sql(f"select extract(epoch from created_on at time zone 'UTC') from ab_user where username = '{user}'")
    assert made, f"init made no user {user}"
    starts = {}
    for component, unit in {**CORE, "worker": "airflow-worker@*"}.items():
        for name in inventory.members[component]:
            lines = inventory.run(name, "journalctl", "-q", "-o", "short-unix", "--no-pager", "-u", unit).splitlines()
            assert lines, f"{name}: the journal of {unit} is empty"
            starts[f"{name}/{unit}"] = float(lines[0].split()[0])
    early = {what: start for what, start in starts.items() if start < float(made[0][0])}
    assert not early, f"started before init had made the user at {made[0][0]}: {early}"


def test_00_every_component_is_active_under_its_own_user(inventory: Inventory, host: Callable[[str], Any]) -> None:
    for component, unit in CORE.items():
        for name in inventory.members[component]:
            assert host(name).service(unit).is_running, f"{unit} on {name}"
            assert host(name).service(unit).is_enabled, f"{unit} on {name}"
            assert inventory.run(name, "systemctl", "show", "-P", "User", unit) == unit
    for name in inventory.members["worker"]:
        unit = inventory.worker_unit(name)
        assert host(name).service(unit).is_enabled
        assert inventory.run(name, "systemctl", "show", "-P", "User", unit) == "airflow-worker"
        assert host(name).service("airflow-logs").is_running


# --- 1, 2, 3 ---------------------------------------------------------------------------------------------------------
def test_01_a_new_dag_file_is_parsed_within_30_seconds(shipment: Shipment, airflow: Airflow) -> None:
    end = shipment.ship("first") + VISIBLE_SECONDS
    airflow.wait_for_dag("life_cycle", end - time.monotonic())
    wait("its code is shown", end - time.monotonic(), lambda: shipment.marker in airflow.source("life_cycle"))


def test_01_a_changed_dag_file_is_parsed_within_30_seconds(life_cycle: str, shipment: Shipment, airflow: Airflow) -> None:
    end = shipment.ship("second") + VISIBLE_SECONDS
    assert shipment.marker != life_cycle
    wait("the new code is shown", end - time.monotonic(), lambda: shipment.marker in airflow.source("life_cycle"))


def test_02_the_page_shows_the_dag_and_its_code(life_cycle: str, shipment: Shipment, inventory: Inventory, page: Page) -> None:
    page.goto(f"{inventory.url}/dags")
    page.get_by_role("link", name="life_cycle", exact=True).first.wait_for()
    page.goto(f"{inventory.url}/dags/life_cycle/code")
    page.get_by_text(shipment.marker).first.wait_for()
    page.get_by_text("leave_and_return").first.wait_for()


def test_03_the_dag_structure_is_in_postgresql(life_cycle: str, inventory: Inventory) -> None:
    rows = inventory.sql(
        "select d.is_stale, s.data::text from dag d join serialized_dag s using (dag_id) where d.dag_id = 'life_cycle' "
        "order by s.created_at desc limit 1"
    )
    assert rows and rows[0][0] == "f"
    assert {"slow", "leave_and_return"} <= {task["__var"]["task_id"] for task in json.loads(rows[0][1])["dag"]["tasks"]}


def test_03_a_due_run_is_in_postgresql(life_cycle: str, inventory: Inventory) -> None:
    statement = "select run_id from dag_run where dag_id = 'life_cycle_due' and run_type = 'scheduled' and run_after <= now()"
    wait("a due run of life_cycle_due", 90, lambda: inventory.sql(statement), interval=2)


# --- 4, 5 ------------------------------------------------------------------------------------------------------------
def test_04_the_scheduler_puts_a_message_into_redis(queued: Queued, inventory: Inventory) -> None:
    for queue, message in queued.waiting.items():
        body = base64.b64decode(json.loads(message)["body"]).decode()
        assert queued.run_id in body and queue.replace("test-", "on_") in body
    states = inventory.sql(f"select state from task_instance where run_id = '{queued.run_id}'")
    assert states == [["queued"]] * len(inventory.members["worker"])


def test_05_each_worker_takes_its_message(taken: dict[str, dict[str, Any]], inventory: Inventory) -> None:
    assert sorted(taken) == sorted(inventory.members["worker"])
    for name, task in taken.items():
        assert (task["state"], task["hostname"]) == ("success", inventory.plan["addresses"][name])
        assert inventory.redis("LLEN", f"test-{name}") == "0"


# --- 6 to 10 ---------------------------------------------------------------------------------------------------------
def test_06_the_worker_reads_the_dag_file(observed: Observed, shipment: Shipment, inventory: Inventory) -> None:
    folder = inventory.common("airflow_dags_folder", "/srv/airflow/dags")
    worker = worker_of(inventory, observed.last("slow")["hostname"])
    text = inventory.run(worker, "cat", log_file(inventory, worker, observed.run_id, "slow"))
    assert f"{shipment.marker}: read {folder}" in text
    assert shipment.marker in inventory.run(worker, "cat", f"{folder}/life_cycle.py")


def test_07_postgresql_says_running_while_the_task_runs(observed: Observed) -> None:
    states = observed.states("slow")
    assert "running" in states and states.index("running") < states.index("success"), states


def test_08_the_worker_writes_the_log(observed: Observed, inventory: Inventory, host: Callable[[str], Any]) -> None:
    worker = worker_of(inventory, observed.last("slow")["hostname"])
    file = host(worker).file(log_file(inventory, worker, observed.run_id, "slow"))
    assert file.user == "airflow-worker"
    assert file.size > 0


def test_09_postgresql_says_success(observed: Observed, inventory: Inventory) -> None:
    assert [observed.last(task)["state"] for task in ("slow", "leave_and_return")] == ["success", "success"]
    assert observed.last("slow")["try"] == "1"
    assert inventory.sql(f"select state from dag_run where run_id = '{observed.run_id}'") == [["success"]]


def test_10_the_api_and_the_page_show_the_success(observed: Observed, inventory: Inventory, airflow: Airflow, page: Page) -> None:
    assert {task["task_id"]: task["state"] for task in airflow.tasks("life_cycle", observed.run_id)} == {
        "slow": "success",
        "leave_and_return": "success",
    }
    page.goto(f"{inventory.url}/dags/life_cycle/runs/{observed.run_id}/tasks/slow")
    page.get_by_test_id("state-badge").get_by_text("Success").first.wait_for()


def test_10_the_smoke_dag_succeeds(inventory: Inventory) -> None:
    command = [sys.executable, str(ROOT / "tests" / "lab" / "smoke.py"), "-i", str(Path(inventory.path).resolve())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spread[0]" in done.stdout and "smoke: success" in done.stdout


# --- the triggerer, Flower, the results -------------------------------------------------------------------------------
def test_a_deferrable_task_passes_through_the_triggerer_and_back(
    observed: Observed, inventory: Inventory, airflow: Airflow, shipment: Shipment
) -> None:
    rows = observed.rows["leave_and_return"]
    states = [row["state"] for row in rows]
    assert "deferred" in states and states[-1] == "success", states
    assert any(row["state"] == "deferred" and row["triggerer"] for row in rows), "no triggerer had its trigger"
    left = worker_of(inventory, next(row["hostname"] for row in rows if row["state"] == "deferred"))
    log = log_file(inventory, left, observed.run_id, "leave_and_return")
    assert f"{shipment.marker}: left " in inventory.run(left, "cat", log)
    # It may come back on another worker, and Airflow reads the log of the last one only.
    (task,) = (each for each in airflow.tasks("life_cycle", observed.run_id) if each["task_id"] == "leave_and_return")
    assert f"{shipment.marker}: back on " in airflow.log(task)


def test_the_result_is_in_the_results_database(observed: Observed, inventory: Inventory) -> None:
    celery_id = observed.last("slow")["celery_id"]
    statement = f"select status from celery_taskmeta where task_id = '{celery_id}'"
    wait("the result row", 15, lambda: inventory.sql(statement, "results_database") == [["SUCCESS"]])


FLOWER = """
import json, sys, urllib.error, urllib.request
port, user, password = json.loads({arguments!r})
for credentials in (None, (user, "wrong"), (user, password)):
    manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if credentials:
        manager.add_password(None, f"http://127.0.0.1:{{port}}/", *credentials, is_authenticated=True)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
    try:
        print(opener.open(f"http://127.0.0.1:{{port}}/api/workers?status=1", timeout=20).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def test_flower_lists_every_worker_and_asks_for_a_password(inventory: Inventory) -> None:
    flower = inventory.members["flower"][0]
    arguments = json.dumps(
        [
            inventory.common("airflow_flower_port", 5555),
            inventory.common("airflow_flower_user", "airflow"),
            inventory.common("airflow_flower_password"),
        ]
    )
    expected = {celery_name(inventory, name) for name in inventory.members["worker"]}

    def listed() -> bool:
        answers = inventory.run(flower, "python3", "-", stdin=FLOWER.format(arguments=arguments)).splitlines()
        assert answers[:2] == ["401", "401"], f"Flower answers without the password: {answers[:2]}"
        return expected <= {name for name, alive in json.loads(answers[2]).items() if alive}

    wait(f"Flower lists {sorted(expected)}", 60, listed, interval=2)


# --- 11 --------------------------------------------------------------------------------------------------------------
def test_11_the_log_of_a_task_on_each_worker_is_read_back(
    taken: dict[str, dict[str, Any]], airflow: Airflow, shipment: Shipment
) -> None:
    for name, task in taken.items():
        assert f"{shipment.marker}: on " in airflow.log(task), f"log of {name}"


def test_11_the_logs_stay_readable_while_the_workers_are_stopped(
    taken: dict[str, dict[str, Any]], inventory: Inventory, airflow: Airflow, shipment: Shipment
) -> None:
    units = {name: inventory.worker_unit(name) for name in taken}
    try:
        for name, unit in units.items():
            inventory.run(name, "systemctl", "stop", unit)
            assert inventory.run(name, "systemctl", "is-active", unit, check=False) == "inactive"
        for name, task in taken.items():
            assert f"{shipment.marker}: on " in airflow.log(task), f"log of {name}"
    finally:
        for name, unit in units.items():
            # A playbook may have started the other colour meanwhile.
            if not inventory.active_worker_units(name):
                inventory.run(name, "systemctl", "start", unit)


# --- shipping ---------------------------------------------------------------------------------------------------------
EXTRA = """
from airflow.sdk import dag
@dag(schedule=None)
def life_cycle_extra(): pass
life_cycle_extra()
"""


def test_a_removed_dag_file_is_removed_and_nothing_restarts(
    life_cycle: str, shipment: Shipment, inventory: Inventory, airflow: Airflow
) -> None:
    folder = inventory.common("airflow_dags_folder", "/srv/airflow/dags")
    readers = sorted({name for each in ("worker", "triggerer", "dag_processor") for name in inventory.members[each]})
    foreign = f"{Path(folder).parent}/not-ours"

    def main_pids() -> dict[str, str]:
        show = ("systemctl", "show", "-P", "MainPID", "--state=active", "airflow-*")
        return {name: inventory.run(name, *show) for name in inventory.plan["addresses"]}

    before = main_pids()
    extra = shipment.folder / "extra.py"
    extra.write_text(EXTRA)
    shipment.ship("extra")
    airflow.wait_for_dag("life_cycle_extra", VISIBLE_SECONDS)
    for name in readers:
        inventory.run(name, "touch", foreign)
    extra.unlink()
    shipment.ship("removed")
    for name in readers:
        assert "extra.py" not in inventory.run(name, "ls", f"{folder}/").split()
        inventory.run(name, "rm", foreign)
    stale = "select is_stale from dag where dag_id = 'life_cycle_extra'"
    wait("the DAG is no longer offered", 60, lambda: inventory.sql(stale) == [["t"]], interval=2)
    assert main_pids() == before
