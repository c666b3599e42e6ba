# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of a host's workers the action starts when it is put back; that they start is tested on the lab's hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.action import airflow_drain as action

ETL, GPU = ({"service": f"airflow-worker@{name}"} for name in ("etl", "gpu"))


class Action(action.ActionModule):
    def __init__(self, restart: str, units: dict[str, str]) -> None:
        self._task = type("Task", (), {"check_mode": False})()
        self._arguments = {"restart": restart, "services": [ETL, GPU], "health_timeout": 1, "timeout": 1}
        self._vars: dict[str, Any] = {}
        self.units = units
        self.started: list[str] = []

    def _execute_module(self, **options: Any) -> Any:
        if options["module_args"].get("phase") == "undo":
            return {"changed": True, "actions": ["remove the file"], "units": self.units, "drained": False}
        self.started = [one["service"] for one in options["module_args"]["services"]]
        return {"changed": True, "actions": []}


@pytest.mark.parametrize(
    ("restart", "finishing", "started"),
    [
        ("overlap", ["gpu"], [ETL, GPU]),
        ("wait", [], [ETL, GPU]),
        # systemd has been told to start it when its tasks have ended.
        ("wait", ["gpu"], [ETL]),
        ("wait", ["gpu", "etl"], []),
    ],
)
def test_every_worker_is_started_that_systemd_does_not_start(
    restart: str, finishing: list[str], started: list[dict[str, str]]
) -> None:
    states = {f"airflow-worker@{name}-a.service": "inactive" for name in ("etl", "gpu")}
    put_back = Action(restart, {**states, **{f"airflow-worker@{name}-a.service": "deactivating" for name in finishing}})
    assert not put_back._put_back().get("failed")
    assert put_back.started == [one["service"] for one in started]
