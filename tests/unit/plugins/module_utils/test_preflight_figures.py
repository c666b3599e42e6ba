# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import preflight_figures as figures
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import plan

COLLECTION = pathlib.Path(__file__).resolve().parents[4]
DEFAULTS = yaml.safe_load((COLLECTION / "roles/airflow/vars/main.yml").read_text(encoding="utf-8"))["__airflow_config_defaults"]
GROUPS = {
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "worker1"],
    "airflow_scheduler": ["control1"],
    "airflow_webserver": ["control1"],
    "airflow_worker": ["worker1"],
    "airflow_flower": ["control1"],
}


def hosts(**variables: Any) -> dict[str, dict[str, Any]]:
    return {
        host: {"ansible_host": f"192.0.2.{number}", **variables} for number, host in enumerate(("db1", "control1", "worker1"), 1)
    }


def test_the_roles_own_settings_end_a_task_after_the_measured_time() -> None:
    assert figures.seconds_until_killed({}, DEFAULTS) == 230
    assert figures.seconds_until_killed(None, DEFAULTS) == 230


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        # Upstream's: waits of 1, 2, 4 and 8 s at most.
        ({}, 3 * (5 + 5 * 5 + 1 + 2 + 4 + 8)),
        ({"execution_api_retries": 7, "execution_api_retry_wait_max": 20}, 3 * (5 + 7 * 5 + 1 + 2 + 4 + 8 + 16 + 20)),
        ({"max_failed_heartbeats": "1", "execution_api_retries": 1}, 10),
        ({"max_failed_heartbeats": "many"}, 3 * (5 + 25 + 15)),
    ],
)
def test_other_settings(workers: dict[str, Any], expected: float) -> None:
    assert figures.seconds_until_killed({"workers": workers}, {}) == expected


def test_a_task_never_runs_twice_at_once() -> None:
    assert figures.check_heartbeats(hosts(), GROUPS, DEFAULTS) == []
    assert figures.check_heartbeats(hosts(airflow_config={"workers": {"max_failed_heartbeats": 3}}), GROUPS, DEFAULTS) != []
    longer = {"workers": {"max_failed_heartbeats": 3}, "scheduler": {"task_instance_heartbeat_timeout": 600}}
    assert figures.check_heartbeats(hosts(airflow_config=longer), GROUPS, DEFAULTS) == []


def test_visibility() -> None:
    assert figures.check_visibility(hosts(), GROUPS, DEFAULTS) == []
    assert figures.check_visibility(hosts(airflow_worker_stop_timeout=604801), GROUPS, DEFAULTS) != []


def test_ports() -> None:
    def wrong(**variables: Any) -> list[str]:
        return [str(problem) for problem in figures.check_ports(plan(hosts(**variables), GROUPS))]

    assert wrong() == []
    assert wrong(airflow_worker_log_port=8079) == [
        "host worker1 — worker_logs and execution_api would both listen on port 8079 — "
        "change airflow_worker_log_port or airflow_execution_api_port"
    ]
    assert len(wrong(airflow_webserver_port=8974)) == 1


def test_every_listener_has_an_owner() -> None:
    found = plan(hosts(), {**GROUPS, "airflow_triggerer": ["worker1"]})
    assert {name for host in found["ports"] for name, _port in figures.listeners(found, host)} <= set(figures.PORTS)


def test_results_database() -> None:
    assert figures.check_results_database(hosts(), plan(hosts(), GROUPS)) == []
    same = hosts(airflow_results_database_user="airflow")
    (problem,) = figures.check_results_database(same, plan(same, GROUPS))
    assert problem.where == "airflow_results_database_user"
