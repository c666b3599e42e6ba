# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import status_health

NOW = 1_800_000_000.0
WELL = {"healthy": True, "strikes": 0, "restarts": 0, "last_restart": 0, "why": ""}


def judge(checked: float = NOW - 30, **more: Any) -> dict[str, Any]:
    return status_health.judge({"checked": checked, **more}, NOW)


def test_no_timer_is_nothing(tmp_path: pathlib.Path) -> None:
    assert status_health.read(NOW, str(tmp_path / "health.json")) == {}


def test_a_file_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps({"checked": NOW - 30, "components": {"scheduler": WELL}}))
    assert status_health.read(NOW, str(path))["problems"] == []
    path.write_text("[]")
    with pytest.raises(ValueError, match="not what the health timer writes"):
        status_health.read(NOW, str(path))


def test_unhealthy_is_a_problem_and_a_restart_a_note() -> None:
    ill = {**WELL, "healthy": False, "strikes": 2, "why": "port 8080: timed out"}
    found = judge(components={"webserver": ill, "scheduler": {**WELL, "restarts": 1, "last_restart": NOW - 7300}})
    assert found["problems"] == [
        "webserver is unhealthy (2 times in a row): port 8080: timed out; see journalctl -u 'airflow-*'",
    ]
    assert found["notes"] == ["scheduler was restarted 1 time as it did not answer, the last time 2 h ago"]


def test_a_restart_of_last_week_is_no_news() -> None:
    assert judge(components={"scheduler": {**WELL, "restarts": 1, "last_restart": NOW - 700_000}})["notes"] == []


def test_a_timer_that_has_stopped_tells_nothing_of_now() -> None:
    found = judge(NOW - 3600, components={"webserver": {**WELL, "healthy": False}})
    assert found["problems"] == ["the health of its components was last looked at 60 minutes ago; see systemctl list-timers"]


def test_withdrawn_says_why() -> None:
    assert judge(withdrawn="disk full:\n/var/lib/airflow")["problems"] == [
        "has taken itself out of the queues: disk full: /var/lib/airflow; it takes tasks again when that is mended"
    ]


@pytest.mark.parametrize("name", ["worker", "worker@gpu", "airflow-worker@gpu", "airflow-worker@gpu-a.service"])
def test_unhealthy_units_by_any_name(name: str) -> None:
    found = judge(components={name: {**WELL, "healthy": False}})
    unit = {"name": "airflow-worker@gpu-a.service", "instance": "airflow-worker@gpu", "component": "worker", "state": "active"}
    assert status_health.unhealthy(found, unit)
    assert not status_health.unhealthy(found, {**unit, "state": "deactivating"})
    assert not status_health.unhealthy(found, {**unit, "component": "logs", "instance": "", "name": "airflow-logs.service"})
