# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""playbooks/status.yml says what is so, of every host, and changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api import Airflow, wait
from conftest import Shipment
from inventory import ROOT, Inventory

SECRETS = re.compile(r"^airflow_\w*(password|key|secret)\w*$")
SECONDS = 60


@dataclass
class Run:
    rc: int
    text: str

    @property
    def verdict(self) -> str:
        """The last line before Ansible goes on."""
        (found,) = re.findall(r"^((?:all well|\d+ problems?)(?:, \d+ warnings?)?)$", self.text, re.M)
        return str(found)

    @property
    def document(self) -> dict[str, Any]:
        """As `grep '^{'` cuts it out."""
        (line,) = (line for line in self.text.splitlines() if line.startswith("{"))
        found: dict[str, Any] = json.loads(line)
        return found

    def problems(self, host: str) -> list[str]:
        return [one["problem"] for one in self.document["problems"] if one["host"] == host]

    def warning(self, about: str) -> str:
        return "".join(one["warning"] for one in self.document["warned"] if one["about"] == about)


def status(inventory: Inventory, *options: str, **variables: Any) -> Run:
    playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [playbook, "-i", str(Path(inventory.path).resolve()), "playbooks/status.yml", *options, "-e", json.dumps(variables)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return Run(done.returncode, done.stdout + done.stderr)


def as_json(inventory: Inventory, *options: str, **variables: Any) -> Run:
    return status(inventory, *options, airflow_status_format="json", **variables)


def unit(document: dict[str, Any], host: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in document["hosts"][host]["units"] if one["name"] == name)
    return dict(found)


def show(inventory: Inventory, host: str, name: str, what: str) -> str:
    return inventory.run(host, "systemctl", "show", "--value", f"--property={what}", name)


def started(inventory: Inventory, host: str, name: str) -> float:
    """Seconds since a unit's main process was started."""
    now, then = inventory.run(
        host, "sh", "-c", f'date +%s; date +%s -d "$(systemctl show --value --property=ExecMainStartTimestamp {name})"'
    ).split()
    return float(now) - float(then)


@pytest.fixture(scope="module")
def well(inventory: Inventory) -> Run:
    began = time.monotonic()
    run = as_json(inventory)
    assert time.monotonic() - began < SECONDS
    assert run.rc == 0, run.text
    # DAGs of other tests may still use queues that no worker takes.
    assert run.document["problems"] == [], "the other tests need a cluster that is well"
    return run


def test_text_for_people(well: Run, inventory: Inventory) -> None:
    run = status(inventory, "--check")
    assert run.rc == 0 and run.verdict.startswith("all well"), run.text
    for host, parts in well.document["cluster"]["components"].items():
        (first, *rest) = (rf"{re.escape(part['label'])} +{part['state']} *{re.escape(part['version'])}" for part in parts)
        rows = [rf"^   {host} +{first}\b.*", *(rf"^ {{4,}}{one}\b.*" for one in rest)]
        assert re.search("\n".join(rows), run.text, re.M), f"{host}: {run.text}"
    assert re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", run.text) == [("0", "0", "0")] * len(
        well.document["hosts"]
    )


def test_every_host_tells_what_is_so(well: Run, inventory: Inventory) -> None:
    hosts = well.document["hosts"]
    assert set(hosts) == set(inventory.plan["addresses"])
    for host, told in hosts.items():
        groups = {group for group, names in inventory.groups.items() if host in names}
        assert set(told["groups"]) == {group for group in groups if re.match(r"airflow_|postgresql$|redis$", group)}
        assert told["host"]["debian"] == inventory.run(host, "cat", "/etc/debian_version")
        assert f"Python {told['host']['python']}" == inventory.run(host, "python3", "--version")
        for one in told["units"]:
            # The idle colour of a worker that has never changed is not there yet.
            missing = show(inventory, host, one["name"], "LoadState") == "not-found"
            state = "not-found" if missing else show(inventory, host, one["name"], "ActiveState")
            assert one["state"] == state, f"{host}: {one['name']}"
            assert one["enabled"] == show(inventory, host, one["name"], "UnitFileState"), f"{host}: {one['name']}"
            if (
                one["state"] == "active"
                and one["name"].endswith(".service")
                and show(inventory, host, one["name"], "MainPID") != "0"
            ):
                assert abs(one["uptime"] - started(inventory, host, one["name"])) < SECONDS, f"{host}: {one['name']}"
            running = (
                one["state"] == "active" and one["name"].startswith("airflow-") and one["name"] != "airflow-firewall.service"
            )
            if running and one["name"].endswith(".service"):
                assert one["current"] is True
                assert f"/{one['release']}/bin/" in show(inventory, host, one["name"], "ExecStart")
                assert one["memory"] > 10 * 2**20
    for component, members in inventory.members.items():
        for host in members:
            assert component in {one["component"] for one in hosts[host]["units"]}, f"{host} does not show its {component}"


def test_every_certificate_is_told(well: Run, inventory: Inventory) -> None:
    for host, told in well.document["hosts"].items():
        files = inventory.run(host, "find", "/etc/airflow", "-path", "/etc/airflow/tls/*.pem").split()
        assert {one["path"] for one in told["certificates"]} == set(files)
        serving = any(host in inventory.members[name] for name in ("postgresql", "redis", "webserver"))
        assert bool(files) == (serving and inventory.plan["tls"]), f"{host}: {files}"
        for one in told["certificates"]:
            assert one["days_left"] >= 30


def test_the_file_holds_what_is_printed(well: Run, inventory: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    run = as_json(inventory, airflow_status_file=str(path))
    assert json.loads(path.read_text()) == run.document


def test_hosts_are_in_the_order_of_the_inventory(well: Run, inventory: Inventory) -> None:
    asked = set(well.document["hosts"])
    assert list(well.document["hosts"]) == [host for host in inventory.groups["all"] if host in asked]


def test_the_page_shows_every_host_and_component(well: Run, inventory: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    assert status(inventory, "--check", airflow_status_html=str(path)).rc == 0
    page = path.read_text()
    for host, parts in well.document["cluster"]["components"].items():
        assert f">{host}<" in page
        assert all(f">{part['label']}<" in page for part in parts)
    assert "all well" in page


def test_no_secret_is_shown(inventory: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    text = status(inventory, "-vvv", airflow_status_html=str(path)).text + path.read_text()
    host = inventory.members["scheduler"][0]
    names = [name for name in inventory._variables[host].available_variables if SECRETS.match(name)]
    assert "airflow_fernet_key" in names
    for name in names:
        value = inventory.get(host, name)
        assert not (isinstance(value, str) and len(value) > 7 and value in text), f"{name} is shown"


def test_the_tasks_of_a_worker_are_named(well: Run, shipment: Shipment, airflow: Airflow, inventory: Inventory) -> None:
    shipment.ship("status")
    wait("the shipped DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    run_id = airflow.trigger("life_cycle", {"seconds": 30})

    def running() -> list[str]:
        rows = inventory.sql(f"select id from task_instance where run_id = '{run_id}' and task_id = 'slow' and state = 'running'")
        return [row[0] for row in rows]

    (task,) = wait("the task runs", 60, running)
    time.sleep(2)
    document = as_json(inventory).document
    told = [name for host in inventory.members["worker"] for one in document["hosts"][host]["units"] for name in one["tasks"]]
    assert task in told
    airflow.wait_for_run("life_cycle", run_id, 120)
    time.sleep(2)
    document = as_json(inventory).document
    told = [name for host in inventory.members["worker"] for one in document["hosts"][host]["units"] for name in one["tasks"]]
    assert task not in told, "it has ended"


def test_a_stopped_unit(well: Run, inventory: Inventory) -> None:
    host = inventory.members["triggerer"][0]
    name = "airflow-triggerer.service"
    inventory.run(host, "systemctl", "stop", name)
    try:
        run = as_json(inventory)
        strict = status(inventory, airflow_status_strict=True)
    finally:
        inventory.run(host, "systemctl", "start", name)
    assert run.rc == 0, "that there is a problem was told, so the run has succeeded"
    (part,) = (part for part in run.document["cluster"]["components"][host] if part["component"] == "triggerer")
    assert (part["health"], part["state"]) == ("ill", "inactive")
    (problem,) = run.problems(host)
    assert problem.startswith(f"{name} is inactive (dead) since ")
    assert unit(run.document, host, name)["memory"] is None
    assert strict.rc == 2 and strict.verdict.startswith("1 problem")
    assert re.search(r"^! .* triggerer +inactive\b", strict.text, re.M)
    assert f"\n! {host}: {name} is inactive" in strict.text


@contextmanager
def other_hash(inventory: Inventory, host: str, name: str) -> Iterator[None]:
    path = f"/run/airflow/{name}"
    before = inventory.run(host, "cat", path)
    inventory.run(host, "tee", path, stdin="0123456789abcdef\n")
    try:
        yield
    finally:
        inventory.run(host, "tee", path, stdin=f"{before}\n")


def test_a_unit_that_runs_with_something_else(well: Run, inventory: Inventory) -> None:
    worker = inventory.members["worker"][0]
    for host, name in (
        (inventory.members["scheduler"][0], "airflow-scheduler.service"),
        (worker, inventory.worker_unit(worker)),
    ):
        with other_hash(inventory, host, name):
            run = as_json(inventory, "--limit", host)
        assert run.problems(host) == [
            f"{name} was started with other settings or another release than those on disk; run site.yml"
        ], run.text
        assert unit(run.document, host, name)["current"] is False


def test_a_drained_host_is_well(well: Run, inventory: Inventory) -> None:
    host = inventory.members["worker"][0]
    inventory.run(host, "touch", "/etc/airflow/drained")
    try:
        document = as_json(inventory, "--limit", host).document
    finally:
        inventory.run(host, "rm", "/etc/airflow/drained")
    assert document["well"] and document["hosts"][host]["host"]["drained"]
    assert any("is drained" in note for note in document["hosts"][host]["notes"])


def test_a_host_that_is_down(well: Run, inventory: Inventory, tmp_path: Path) -> None:
    """Port 1 refuses at once what a dead host lets run into its time-out."""
    extra = tmp_path / "down.yml"
    extra.write_text("airflow_worker: {hosts: {down1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    run = as_json(inventory, "-i", str(extra))
    assert run.rc == 0, run.text
    (problem,) = run.problems("down1")
    assert problem.startswith("unreachable: ") and "\n" not in problem
    assert run.document["hosts"]["down1"]["reachable"] is False
    assert [one["host"] for one in run.document["problems"]] == ["down1"]
    assert set(run.document["hosts"]) == {"down1", *well.document["hosts"]}
    alone = status(inventory, "-i", str(extra), "--limit", "down1", airflow_status_strict=True)
    assert alone.rc == 2 and alone.verdict.startswith("1 problem")
    assert re.search(r"^!  down1 +worker +unreachable$", alone.text, re.M)


@pytest.mark.long
def test_queues_of_dags_and_what_waits(well: Run, shipment: Shipment, airflow: Airflow, inventory: Inventory) -> None:
    """Every worker is drained while a task runs and another one waits."""
    workers = inventory.members["worker"]
    shipment.ship("status")
    wait("the shipped DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    first = airflow.trigger("life_cycle", {"seconds": 60})
    wait("its task runs", 60, lambda: states(inventory, first, "slow") == ["running"])
    units = {host: inventory.worker_unit(host) for host in workers}
    for host in workers:
        inventory.run(host, "touch", "/etc/airflow/drained")
        inventory.run(host, "systemctl", "--no-block", "stop", units[host])
    try:
        second = airflow.trigger("life_cycle", {"seconds": 1})
        wait("a task waits", 60, lambda: states(inventory, second, "slow") == ["queued"])
        run = as_json(inventory)
        text = status(inventory)
    finally:
        for host in workers:
            inventory.run(host, "rm", "/etc/airflow/drained")
            wait(f"{host} has finished", 120, lambda h=host: show(inventory, h, units[h], "ActiveState") == "inactive")
            inventory.run(host, "systemctl", "start", units[host])
    use = run.document["cluster"]["queues"]["default"]
    assert use["waiting"] >= 1 and use["length"] >= 1 and use["running"] >= 1 and use["slots"] == 0
    assert use["workers"] == [] and set(use["away"]) == set(workers)
    assert re.search(r"tasks? waits? and no worker takes them now", run.warning("queue default"))
    (draining,) = (one for one in run.document["cluster"]["tasks"] if one["name"] == "life_cycle.slow" and one["run"] == first)
    assert draining["draining"] and 0 < draining["seconds"] < 300
    assert f"{draining['host']}: life_cycle.slow, for " in text.text
    # No worker of the inventory takes the queues of another DAG of that file.
    for host in workers:
        assert "no worker takes it (DAG life_cycle_queues" in run.warning(f"queue test-{host}")
    assert text.verdict.startswith("all well, ")
    assert airflow.wait_for_run("life_cycle", second, 120) == "success"


def states(inventory: Inventory, run_id: str, task: str) -> list[str]:
    rows = inventory.sql(f"select state from task_instance where run_id = '{run_id}' and task_id = '{task}'")
    return [row[0] for row in rows]


def test_other_dag_files_than_the_others(well: Run, inventory: Inventory) -> None:
    reading = [host for host, told in well.document["hosts"].items() if told["dags"]]
    if len(reading) == 1:
        pytest.skip("on a single host they cannot differ")
    record = inventory.run(reading[0], "sh", "-c", 'echo "$(readlink -f /srv/airflow/dags).json"')
    before = inventory.run(reading[0], "cat", record)
    inventory.run(reading[0], "tee", record, stdin=json.dumps({**json.loads(before), "revision": "0123456789abcdef"}))
    try:
        run = as_json(inventory)
    finally:
        inventory.run(reading[0], "tee", record, stdin=before)
    assert f"0123456789abcdef on {reading[0]}; run dags.yml" in run.warning("DAG files")
