# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import canary

CONFIG = "/etc/airflow/worker@default"
WORKER = """# Managed
[Unit]
Description=Airflow Celery worker (%i)
# Why
After=network-online.target
ConditionPathExists=!/etc/airflow/drained
PartOf=airflow-worker.target

[Service]
Type=exec
User=airflow-worker
EnvironmentFile=/etc/airflow/worker@default-@COLOUR@/environment
Environment=PATH=/opt/airflow/releases/one/bin:/usr/bin
ExecStartPre=+/bin/sh -c 'echo @HASH@ > /run/airflow/%n'
ExecStart=/opt/airflow/releases/one/bin/airflow celery worker --skip-serve-logs -q a,b --autoscale 8,2 -H default-@COLOUR@@w3
KillMode=mixed
TimeoutStopSec=604800
Restart=always
RestartSec=5
MemoryMax=2G
ProtectSystem=strict

[Install]
WantedBy=airflow-worker.target
"""
TRACEBACK = """ready.
OSError: [Errno 111] refused

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 1, in <module>
httpx.ConnectError: [Errno 111] refused
worker: Warm shutdown (MainProcess)
"""


def test_its_worker_is_like_the_host_s_own() -> None:
    assert canary.unit(WORKER, CONFIG, "w3", 300).splitlines() == [
        "[Unit]",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        "User=airflow-worker",
        f"EnvironmentFile={CONFIG}/environment",
        "EnvironmentFile=/run/airflow/canary.environment",
        "Environment=PATH=/opt/airflow/releases/one/bin:/usr/bin",
        "ExecStart=/opt/airflow/releases/one/bin/airflow celery worker --skip-serve-logs --without-gossip --without-mingle "
        "-q windfarm_canary.w3 -c 1 -H windfarm-canary@w3",
        "RuntimeMaxSec=300",
        "TimeoutStopSec=15",
        "KillMode=mixed",
        "MemoryMax=2G",
        "ProtectSystem=strict",
    ]


def test_names_are_such_as_airflow_takes() -> None:
    assert canary.name_of("worker-3.example.com") == "windfarm_canary.worker-3.example.com"
    assert canary.name_of("2001:db8::1") == "windfarm_canary.2001_db8__1"


def test_it_alone_knows_its_dag() -> None:
    found = canary.environment("w3")
    assert found["AIRFLOW_CANARY"] == "windfarm_canary.w3"
    (bundle,) = json.loads(found["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundle["name"] == "windfarm_canary.w3" and bundle["kwargs"] == {"path": "/usr/local/lib/airflow/canary"}


def test_the_last_error_is_told() -> None:
    log = "\n".join(
        json.dumps(entry)
        for entry in (
            {"level": "info", "event": "begins"},
            {"level": "error", "event": "first"},
            {"level": "error", "event": "Task failed", "error_detail": [{"exc_type": "OSError", "exc_value": "no\nroom"}]},
            {"level": "info", "event": "ends"},
        )
    )
    assert canary.last_error(f"{log}\nnot json\n[1]\n") == "Task failed — OSError: no room"
    assert canary.last_error("begins\n") == ""


@pytest.fixture(name="host")
def _host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host whose systemd says what `state` holds, and notes what it is told."""

    class Host:
        state = "ActiveState=active\nResult=success\nInvocationID=4f\n"
        logs = tmp_path / "logs" / "dag_id=windfarm_canary.w3"
        unit = tmp_path / "unit"

        def __init__(self) -> None:
            self.said: list[tuple[str, ...]] = []

        def systemctl(self, *words: str) -> str:
            self.said.append(words)
            return self.state if words[0] == "show" else ""

    host = Host()
    for name, path in {
        "UNIT_FILE": host.unit,
        "ENVIRONMENT": tmp_path / "run" / "environment",
        "LOGS": tmp_path / "logs",
    }.items():
        monkeypatch.setattr(canary, name, str(path))
    monkeypatch.setattr(canary, "systemctl", host.systemctl)
    monkeypatch.setattr(canary, "journal", {"4f": TRACEBACK}.__getitem__)
    return host


def log(host: Any) -> pathlib.Path:
    path: pathlib.Path = host.logs / "run_id=manual" / "task_id=sing" / "attempt=1.log"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"level": "error", "event": "No such file"}))
    return path


def test_nothing_is_left_of_one_that_succeeded(host: Any) -> None:
    host.unit.touch()
    log(host)
    assert canary.stop("w3", False) == ""
    assert not host.unit.exists() and not host.logs.exists()
    assert [words[0] for words in host.said] == ["show", "stop", "show", "daemon-reload"]


def test_one_that_failed_leaves_its_log(host: Any) -> None:
    host.unit.touch()
    path = log(host)
    assert canary.stop("w3", True) == f"No such file; see {path}"
    assert not host.unit.exists() and path.exists()


def test_a_worker_that_ended_by_itself_is_told(host: Any) -> None:
    host.unit.touch()
    host.state = "Result=oom-kill\nInvocationID=4f\nActiveState=failed\n"
    assert canary.stop("w3", True) == (
        "its trial worker ended by itself (oom-kill); httpx.ConnectError: [Errno 111] refused; "
        "see journalctl -u airflow-canary.service"
    )
    assert ("reset-failed", canary.UNIT) in host.said


def test_what_never_began_is_over(host: Any) -> None:
    assert canary.stop("w3", False) == "" and host.said == []
    assert canary.stop("w3", True) == "see journalctl -u airflow-canary.service"


def test_a_host_without_a_worker_is_named(host: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(canary.CanaryError, match=r"/worker@default/unit is missing; run site.yml"):
        canary.start("w3", str(tmp_path / "worker@default"), 180)
    assert host.said == []


def test_it_is_started_anew(host: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "unit").write_text(WORKER)
    canary.start("w3", str(tmp_path), 180)
    assert "RuntimeMaxSec=300\n" in host.unit.read_text()
    assert (tmp_path / "run" / "environment").stat().st_mode & 0o777 == 0o600
    assert [words[0] for words in host.said] == ["daemon-reload", "restart"]


def test_a_log_without_a_word_is_no_log(host: Any) -> None:
    host.unit.touch()
    log(host).write_text("")
    assert canary.stop("w3", True) == "httpx.ConnectError: [Errno 111] refused; see journalctl -u airflow-canary.service"
