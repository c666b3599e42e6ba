# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life cycle on a host that runs everything, and what only such a host can show: components kept apart, and a
reboot under load."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from api import FINISHED, Airflow, ApiError, wait
from conftest import Shipment
from inventory import ROOT, Inventory
from test_site import *  # noqa: F403  the same tests, collected here as well


@pytest.fixture(scope="module")
def single(inventory: Inventory) -> str:
    if not inventory.plan["single"]:
        pytest.skip("the inventory has more than one host")
    return inventory.members["worker"][0]


def test_a_task_can_read_no_other_components_files_or_environment(single: str, inventory: Inventory) -> None:
    """As the operating system's user of the tasks, so whatever a task does."""
    pids = {
        unit: inventory.run(single, "systemctl", "show", "-P", "MainPID", unit)
        for unit in ("airflow-scheduler", "airflow-webserver", "airflow-triggerer", "airflow-dag-processor")
    }
    targets = [f"/proc/{pid}/environ" for pid in pids.values()]
    targets += inventory.run(single, "find", "/etc/airflow", "-name", "environment").splitlines()
    targets += ["/var/lib/airflow/scheduler", "/var/log/airflow/scheduler"]
    assert all(pid != "0" for pid in pids.values()) and len(targets) > 8
    for target in targets:
        inventory.run(single, "test", "-e", target)
        opened = f"(ls '{target}/' || cat '{target}') >/dev/null 2>&1 && echo open || echo closed"
        assert inventory.run(single, "runuser", "-u", "airflow-worker", "--", "sh", "-c", opened) == "closed", target


def test_the_newest_ansible_core_has_nothing_to_change(
    single: str, inventory: Inventory, shipment: Shipment, playbook: Callable[..., str]
) -> None:
    """After a run of the oldest one that is supported."""
    if not (ROOT / ".venv-next/ready").exists():
        pytest.skip("no second ansible-core here: make .venv-next/ready")
    dags = {"airflow_dags_source": str(shipment.folder)}
    playbook("site", **dags)
    program = str(ROOT / ".venv-next/bin/ansible-playbook")
    command = [program, "-i", str(Path(inventory.path).resolve()), "playbooks/site.yml", "-e", json.dumps(dags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.M)
    assert recap == [(single, "0")], done.stdout[-3000:]


@pytest.mark.long
def test_the_rest_is_restarted_while_a_worker_finishes_its_tasks(
    single: str, inventory: Inventory, airflow: Airflow, shipment: Shipment, playbook: Callable[..., str]
) -> None:
    """A worker stops after what it needs; systemd would keep all of that from restarting until the last task has ended."""
    if not shipment.marker:
        shipment.ship("restart")
    wait("the DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    worker, dags = inventory.worker_unit(single), {"airflow_dags_source": str(shipment.folder)}
    run_id = airflow.trigger("life_cycle", {"seconds": 300})
    wait("the task runs", 60, lambda: any(task["state"] == "running" for task in airflow.tasks("life_cycle", run_id)))

    def show(name: str, unit: str) -> str:
        return inventory.run(single, "systemctl", "show", "-P", name, unit)

    environment = {"worker": {"TEST_SETTING": shipment.marker}}
    playbook("site", airflow_environment=environment, **dags)
    assert show("ActiveState", worker) == "deactivating"
    units = ("airflow-webserver", "airflow-logs", "redis-server")
    before = {unit: show("MainPID", unit) for unit in units}
    inventory.run(single, "systemctl", "kill", "--signal=SIGKILL", "airflow-triggerer")
    wait("a crashed one is back", 60, lambda: show("SubState", "airflow-triggerer") == "running")
    environment |= {"webserver": environment["worker"], "logs": environment["worker"]}
    playbook("site", airflow_environment=environment, **dags)
    playbook("upgrade_servers", servers="redis", restart_servers=True)
    assert show("ActiveState", worker) == "deactivating"
    assert [unit for unit in units if show("MainPID", unit) == before[unit]] == []
    assert airflow.wait_for_run("life_cycle", run_id, 400) == "success"
    playbook("site", **dags)


@pytest.mark.long
def test_a_task_survives_a_reboot(single: str, inventory: Inventory, airflow: Airflow, shipment: Shipment) -> None:
    if not shipment.marker:
        shipment.ship("reboot")
    wait("the DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    run_id = airflow.trigger("life_cycle", {"seconds": 60})

    def slow() -> dict[str, object]:
        (task,) = (each for each in airflow.tasks("life_cycle", run_id) if each["task_id"] == "slow")
        return task

    wait("the task runs", 60, lambda: slow()["state"] == "running")
    booted = inventory.run(single, "systemctl", "show", "-P", "UserspaceTimestamp")
    inventory.run(single, "systemctl", "reboot", check=False)

    def back() -> bool:
        try:
            return inventory.run(single, "systemctl", "show", "-P", "UserspaceTimestamp", check=False) not in (
                "",
                booted,
            )
        except subprocess.TimeoutExpired:
            return False

    # It waits for the task, so this takes as long as the task does.
    wait("the host has rebooted", 180, back, interval=2)

    def ended() -> str:
        try:
            state = str(airflow.run("life_cycle", run_id)["state"])
        except ApiError:
            return ""
        return state if state in FINISHED else ""

    assert wait("the run has ended", 240, ended, interval=2) == "success"
    assert slow()["state"] == "success" and slow()["try_number"] == 1
    failed = inventory.run(single, "systemctl", "list-units", "--failed", "--plain", "--no-legend", "airflow*")
    assert not failed, failed
