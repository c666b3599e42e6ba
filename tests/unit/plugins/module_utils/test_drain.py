# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import drain, services

LOG = "/var/log/airflow/worker/dag_id=etl/run_id=scheduled__2026-11-22T00:00:00+00:00/task_id=load/"
A, B = (f"airflow-worker@default-{colour}.service" for colour in "ab")


@pytest.fixture(name="host")
def _host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """systemd as far as it is asked; what it is told is noted, and a colour that is stopped finishes its tasks."""

    class Host:
        def __init__(self) -> None:
            self.states = {A: "active", B: "inactive"}
            self.said: list[tuple[str, ...]] = []
            self.drained = tmp_path / "airflow" / "drained"

        def systemctl(self, *words: str) -> str:
            self.said.append(words)
            if words[0] == "stop":
                self.states[words[-1]] = "deactivating"
            if words[0] == "kill":
                self.states[words[-1]] = "failed"
            return ""

    host = Host()
    host.drained.parent.mkdir()
    monkeypatch.setattr(services, "DRAINED", str(host.drained))
    monkeypatch.setattr(services, "systemctl", host.systemctl)
    monkeypatch.setattr(services, "own_units", lambda: [*host.states, "airflow-logs.service"])
    monkeypatch.setattr(
        services, "show", lambda units: {unit: {"ActiveState": host.states[unit], "ControlGroup": ""} for unit in units}
    )
    monkeypatch.setattr(drain, "write", lambda path, text, _wanted: pathlib.Path(path).write_text(text))
    return host


def test_tasks_are_named_by_their_logs() -> None:
    assert (
        drain.name_of("1", ["/dev/null", f"{LOG}attempt=2.log"]) == "etl.load (run scheduled__2026-11-22T00:00:00+00:00, try 2)"
    )
    assert drain.name_of("1", [f"{LOG}map_index=3/attempt=1.log"]).startswith("etl.load[3] (run ")
    assert drain.name_of("0199", ["/dev/null"]) == "task 0199"


def test_it_drains_once(host: Any) -> None:
    assert drain.drain(True) == [f"write {host.drained}", f"let {A} finish its tasks and stop"]
    assert host.said == [] and not host.drained.exists()
    assert len(drain.drain(False)) == 2 and "undo=true" in host.drained.read_text()
    assert host.said == [("stop", "--no-block", A)]
    assert drain.drain(False) == [] and drain.busy(drain.look()) == [A]


def test_a_bare_host_is_left_bare(host: Any) -> None:
    host.drained.parent.rmdir()
    host.states.clear()
    assert drain.drain(False) == [] and not host.drained.parent.exists()


def test_killed_units_do_not_stay_failed(host: Any) -> None:
    drain.drain(False)
    assert drain.kill(False) == [f"kill {A} and its tasks"]
    assert host.said[-2:] == [("kill", "--signal=SIGKILL", A), ("reset-failed", A)]


def test_undone_while_tasks_finish(host: Any) -> None:
    drain.drain(False)
    assert drain.undo("overlap", False) == [f"remove {host.drained}"]
    drain.drain(False)
    assert drain.undo("wait", False) == [f"remove {host.drained}", f"start {A} when it has finished its tasks"]
    assert host.said[-1] == ("start", "--no-block", A)
    assert drain.undo("wait", False) == []
