# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A running cluster is changed, interrupted, checked and partly addressed; its tasks go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from api import Airflow, wait
from conftest import Shipment
from inventory import ROOT, Inventory
from processes import kill

LONG_SECONDS = 180
SECRETS = (
    "airflow_fernet_key",
    "airflow_jwt_private_key",
    "airflow_api_secret_key",
    "airflow_database_password",
    "airflow_results_database_password",
    "airflow_broker_password",
    "airflow_broker_admin_password",
    "airflow_ca_key",
    "airflow_flower_password",
    "airflow_admin_password",
)


def telling(value: str) -> list[str]:
    """What of a secret nothing else holds: of a PEM its body's lines."""
    return [line for line in value.splitlines() if len(line) >= 16 and not line.startswith("-----")]


RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


def command(inventory: Path | str, *arguments: str, **variables: Any) -> list[str]:
    playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    return [playbook, "-i", str(Path(inventory).resolve()), "playbooks/site.yml", *arguments, "-e", json.dumps(variables)]


def site(inventory: Path | str, *arguments: str, **variables: Any) -> str:
    """The output of a run that must succeed."""
    rc, output = attempt(inventory, *arguments, **variables)
    assert rc == 0, f"rc {rc}: {output[-6000:]}"
    return output


def attempt(inventory: Path | str, *arguments: str, **variables: Any) -> tuple[int, str]:
    done = subprocess.run(command(inventory, *arguments, **variables), cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def changed(output: str) -> dict[str, int]:
    return {host: int(count) for host, count, _unreachable, _failed in RECAP.findall(output)}


def started(inventory: Inventory, host: str, unit: str) -> str:
    return inventory.run(host, "systemctl", "show", "--property=InvocationID", "--value", unit)


def worker_states(inventory: Inventory, host: str) -> dict[str, str]:
    """State of each colour."""
    units = [f"airflow-worker@default-{colour}.service" for colour in "ab"]
    shown = inventory.run(host, "systemctl", "show", "--property=ActiveState", "--value", *units)
    return dict(zip(units, shown.split()))


@pytest.fixture(scope="module", autouse=True)
def life_cycle(shipment: Shipment, airflow: Airflow) -> str:
    shipment.ship("change")
    wait("the shipped DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    return shipment.marker


@pytest.fixture(scope="module")
def dags(shipment: Shipment) -> dict[str, str]:
    """Every run of site.yml ships the folder that the tests use."""
    return {"airflow_dags_source": str(shipment.folder)}


def test_a_setting_changes_while_a_task_runs(inventory: Inventory, airflow: Airflow, dags: dict[str, str]) -> None:
    operator = inventory.members["scheduler"][0]
    runs = [airflow.trigger("life_cycle", {"seconds": LONG_SECONDS}) for _ in inventory.members["worker"]]
    query = f"select count(*) from task_instance where run_id in ({str(runs)[1:-1]}) and task_id = 'slow' and state = 'running'"
    wait("the long tasks run", 60, lambda: inventory.sql(query) == [[str(len(runs))]])
    # Both may be on one worker; the runs' other tasks, which end at once, do not count.
    busy = {host for (host,) in inventory.sql(query.replace("count(*)", "hostname"))}
    host = next(name for name in inventory.members["worker"] if inventory.plan["addresses"][name] in busy)
    before = inventory.worker_unit(host)
    scheduler = started(inventory, operator, "airflow-scheduler.service")
    setting = {"airflow_environment": {"worker": {"TEST_SETTING": str(time.time())}}}

    begun = time.monotonic()
    site(inventory.path, **dags, **setting)
    assert time.monotonic() - begun < LONG_SECONDS / 2, "site.yml waited for the task"
    assert worker_states(inventory, host)[before] == "deactivating"
    after = inventory.worker_unit(host)
    assert after != before
    assert started(inventory, operator, "airflow-scheduler.service") == scheduler, "the scheduler does not use that setting"

    again = site(inventory.path, **dags, **setting)
    assert set(changed(again).values()) == {0}
    assert f"{before} finishes" in again, "a draining colour is reported"
    for run in runs:
        assert airflow.wait_for_run("life_cycle", run, LONG_SECONDS + 60) == "success"
        assert {task["try_number"] for task in airflow.tasks("life_cycle", run)} == {1}
    wait("the old colour has ended", 60, lambda: worker_states(inventory, host)[before] == "inactive")
    assert inventory.run(host, "systemctl", "is-enabled", before, check=False) == "disabled"
    assert inventory.run(host, "systemctl", "is-enabled", after) == "enabled"


def test_check_mode_sees_nothing_to_do_and_shows_no_secret(inventory: Inventory, dags: dict[str, str]) -> None:
    site(inventory.path, **dags)
    output = site(inventory.path, "--check", "--diff", "-vvv", **dags)
    assert set(changed(output).values()) == {0}
    for name in SECRETS:
        assert not any(text in output for text in telling(inventory.common(name))), f"{name} is in the output"


def test_check_mode_predicts_a_change_and_hides_its_value(inventory: Inventory, dags: dict[str, str]) -> None:
    host = inventory.members["worker"][0]
    unit = inventory.worker_unit(host)
    invocation = started(inventory, host, unit)
    variables = {"airflow_secret_config": {"worker": {"smtp": {"smtp_password": "planted-value"}}}}
    output = site(inventory.path, "--check", "--diff", "-vvv", **dags, **variables)
    assert f"let {unit} finish its tasks and stop" in output
    assert "planted-value" not in output
    assert started(inventory, host, unit) == invocation


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        pytest.param("Write users, folders, configuration and units", 0.2, marks=pytest.mark.long),
        ("Run what belongs to this host", 0.5),
        pytest.param("Run what belongs to this host", 6, marks=pytest.mark.long),
    ],
)
def test_a_killed_run_is_put_right_by_the_next(
    task: str, seconds: float, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    setting = {"airflow_environment": {"all": {"TEST_SETTING": f"{task} {seconds} {time.time()}"}}}
    process = subprocess.Popen(
        command(inventory.path, **dags, **setting),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("TASK") and task in line:
            break
    else:
        pytest.fail(f"no task {task!r} in the run")
    time.sleep(seconds)
    kill(process)
    site(inventory.path, **dags, **setting)
    assert set(changed(site(inventory.path, **dags, **setting)).values()) == {0}
    run = airflow.trigger("life_cycle", {"seconds": 1})
    assert airflow.wait_for_run("life_cycle", run, 120) == "success"
    for name in inventory.members["worker"]:
        assert "TEST_SETTING" in inventory.run(
            name,
            "cat",
            f"/etc/airflow/{inventory.worker_unit(name).removeprefix('airflow-').removesuffix('.service')}/environment",
        )


@pytest.mark.long
def test_one_worker_alone(inventory: Inventory, dags: dict[str, str]) -> None:
    site(inventory.path, **dags)
    host = inventory.members["worker"][-1]
    assert changed(site(inventory.path, "--limit", host, **dags)) == {host: 0}


@pytest.fixture()
def other(tmp_path: Path, inventory: Inventory) -> Path:
    """A copy of the inventory that a test may change."""
    folder = tmp_path / "inventory"
    shutil.copytree(inventory.path, folder)
    return folder


def edit(folder: Path, members: dict[str, list[str]]) -> None:
    """Put other hosts into groups; every host keeps its variables by being defined at the top as well."""
    file = folder / "hosts.yml"
    content = yaml.safe_load(file.read_text())
    hosts: dict[str, Any] = {}
    groups = {**content, **content["airflow"]["children"]}
    for group in groups.values():
        for name, variables in (group.get("hosts") or {}).items():
            hosts.setdefault(name, {}).update(variables or {})
    for group, names in members.items():
        # Plain text: what Ansible hands out carries tags that YAML has no form for.
        groups[group]["hosts"] = dict.fromkeys(map(str, names))
    content["all"] = {"hosts": hosts}
    file.write_text(yaml.safe_dump(content))


def test_a_component_follows_its_host_out_of_a_group(inventory: Inventory, other: Path, dags: dict[str, str]) -> None:
    host = inventory.members["worker"][0]
    operator = inventory.members["triggerer"][0]
    edit(other, {"airflow_triggerer": [operator, host]})
    site(other, **dags)
    assert inventory.run(host, "systemctl", "is-active", "airflow-triggerer") == "active"

    announced = site(inventory.path, "--check", "--diff", **dags)
    assert "stop and remove airflow-triggerer.service" in announced
    assert inventory.run(host, "systemctl", "is-active", "airflow-triggerer") == "active"
    site(inventory.path, **dags)
    assert inventory.run(host, "systemctl", "is-active", "airflow-triggerer", check=False) == "inactive"
    assert inventory.run(host, "ls", "-d", "/etc/airflow/triggerer", check=False) == ""
    assert set(changed(site(inventory.path, **dags)).values()) == {0}


def test_the_last_of_its_kind_stays(inventory: Inventory, other: Path, dags: dict[str, str]) -> None:
    """The dag processor is to move, but only the host that it leaves is addressed."""
    host = inventory.members["dag_processor"][0]
    edit(other, {"airflow_dag_processor": [inventory.members["worker"][0]]})
    rc, output = attempt(other, "--limit", host, **dags)
    assert rc == 2
    assert "no other host runs a dag processor that answers" in output
    assert inventory.run(host, "systemctl", "is-active", "airflow-dag-processor") == "active"
    site(inventory.path, **dags)


@pytest.mark.long
def test_a_worker_in_wait_mode_is_replaced_one_after_the_other(inventory: Inventory, dags: dict[str, str]) -> None:
    host = inventory.members["worker"][-1]
    before = started(inventory, host, inventory.worker_unit(host))
    variables = {"airflow_worker_restart": "wait", "airflow_environment": {"worker": {"TEST_SETTING": "wait"}}}
    site(inventory.path, "--limit", host, **dags, **variables)
    assert started(inventory, host, inventory.worker_unit(host)) != before
    site(inventory.path, **dags)


@pytest.mark.long
def test_a_drained_host_stays_drained(inventory: Inventory, dags: dict[str, str]) -> None:
    host = inventory.members["worker"][-1]
    unit = inventory.worker_unit(host)
    inventory.run(host, "touch", "/etc/airflow/drained")
    try:
        inventory.run(host, "systemctl", "stop", unit)
        output = site(inventory.path, **dags)
        assert set(changed(output).values()) == {0}
        assert "is drained" in output
        assert set(worker_states(inventory, host).values()) == {"inactive"}
    finally:
        inventory.run(host, "rm", "/etc/airflow/drained")
        site(inventory.path, **dags)
    assert inventory.worker_unit(host)


def test_no_secret_is_in_a_journal(inventory: Inventory, dags: dict[str, str]) -> None:
    """Modules report their arguments to the journal of each host, at every run."""
    site(inventory.path, **dags)
    for host in {name for names in inventory.members.values() for name in names}:
        patterns = "".join(f"{text}\n" for name in SECRETS for text in telling(inventory.common(name)))
        script = "cat > /run/patterns; journalctl --quiet --no-pager | grep -cFf /run/patterns; rm /run/patterns"
        assert inventory.run(host, "sh", "-c", script, stdin=patterns, check=False).splitlines()[0] == "0", host
