# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judgements that need no systemd; what a real host answers is tested on the lab."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import services, status

SCHEDULER = {"name": "scheduler", "service": "airflow-scheduler", "instance": ""}
WORKER = {"name": "worker", "service": "airflow-worker@default", "instance": "default"}


def unit(name: str, **changes: Any) -> dict[str, Any]:
    stem, _dash, colour = name.removesuffix(".service").rpartition("-")
    return {
        "name": name,
        "component": name.split(".")[0].split("@")[0].removeprefix("airflow-"),
        "instance": stem if "@default" in name and colour in ("a", "b") else "",
        "state": "active",
        "substate": "running",
        "result": "success",
        "since": "2026-11-22T01:59:39Z",
        "enabled": "enabled",
        "restarts": 0,
        "memory": 1,
        "release": "3.3.2-0000000000",
        "current": True,
        "tasks": [],
        **changes,
    }


A, B, TARGET = "airflow-worker@default-a.service", "airflow-worker@default-b.service", "airflow-worker.target"
IDLE = {"state": "inactive", "substate": "dead", "enabled": "disabled", "current": None, "memory": None}


@pytest.fixture(name="drained", autouse=True)
def _drained(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "drained"
    monkeypatch.setattr(status.units_of, "DRAINED", str(path))
    return path


def judge(*shown: dict[str, Any], tls: str = "") -> tuple[list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    status.judge(status.Question([], [], tls, 30, problems.append, notes.append), shown)
    return problems, notes


@pytest.mark.parametrize(
    "shown",
    [
        [unit("airflow-scheduler.service")],
        [unit(TARGET, substate="active", current=None), unit(A), unit(B, **IDLE)],
        # The one that finishes has other settings: that is why it finishes.
        [unit(A), unit(B, state="deactivating", current=False, enabled="disabled")],
        [unit("redis-server.service", current=None)],
        [unit("airflow-firewall.service", component="", substate="exited", current=None)],
        # Installed by somebody, for something else.
        [unit("haproxy.service", component="", **IDLE)],
    ],
)
def test_all_well(shown: list[dict[str, Any]]) -> None:
    assert judge(*shown)[0] == []


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ([unit("airflow-scheduler.service", state="not-found", substate="")], ["airflow-scheduler.service is not installed"]),
        (
            [unit("airflow-scheduler.service", state="failed", substate="failed", result="exit-code", current=None)],
            ["airflow-scheduler.service is failed (exit-code) since 2026-11-22T01:59:39Z; see journalctl"],
        ),
        (
            [unit("airflow-scheduler.service", state="activating", substate="auto-restart", restarts=5)],
            ["is activating (auto-restart) since 2026-11-22T01:59:39Z, restarted 5 times"],
        ),
        ([unit("airflow-scheduler.service", current=False)], ["was started with other settings"]),
        ([unit("airflow-scheduler.service", enabled="disabled")], ["does not come back after a reboot"]),
        (
            [unit("airflow-firewall.service", component="", state="failed", substate="failed")],
            ["airflow-firewall.service is failed"],
        ),
        ([unit(A), unit(B)], ["both colours take tasks"]),
        ([unit(A, current=False), unit(B, **IDLE)], [f"{A} was started with other settings"]),
        ([unit(A, state="deactivating"), unit(B, **IDLE)], ["takes no tasks (a is deactivating, b is inactive)"]),
        ([unit(A, enabled="disabled"), unit(B, **IDLE)], [f"{A} is disabled"]),
        (
            [unit(TARGET, substate="dead", state="inactive"), unit(A, **IDLE), unit(B, **IDLE)],
            [TARGET, "takes no tasks (a is inactive, b is inactive)"],
        ),
    ],
)
def test_each_problem_is_named_once(shown: list[dict[str, Any]], words: list[str]) -> None:
    problems, _notes = judge(*shown)
    assert len(problems) == len(words), problems
    for problem, word in zip(problems, words):
        assert word in problem


def test_a_drained_host_is_no_problem(drained: pathlib.Path) -> None:
    drained.touch()
    shown = [unit(TARGET, state="inactive"), unit(A, state="deactivating", tasks=["x"]), unit(B, **IDLE)]
    assert judge(*shown) == ([], [f"{A} finishes 1 running task"])


def test_what_has_left_is_a_note() -> None:
    problems, notes = judge(unit("airflow-triggerer.service", component="", state="failed"))
    assert not problems
    assert notes == ["airflow-triggerer.service (failed) belongs to no group of this host; site.yml removes it"]


def test_expected_units() -> None:
    assert status.expected([SCHEDULER, WORKER], ["redis"]) == {
        "redis-server.service": "redis",
        "airflow-scheduler.service": "scheduler",
        TARGET: "worker",
        A: "worker",
        B: "worker",
    }


def test_units_without_all_properties_are_read() -> None:
    found = status.properties("Id=airflow-worker.target\nActiveState=active\n\nMainPID=7\nId=redis-server.service\n")
    assert found["airflow-worker.target"]["MainPID"] == ""
    assert found["redis-server.service"]["MainPID"] == "7"


def test_only_installed_packages_are_listed() -> None:
    text = "ii  postgresql-17 17.12-0+deb13u1\nun  postgresql-9.1 \nhi  redis-server 5:8.0.2-3\nrc  haproxy 3.0.8\n"
    assert status.packages(text) == {"postgresql-17": "17.12-0+deb13u1", "redis-server": "5:8.0.2-3"}


@pytest.mark.parametrize("counted", ["[not set]", "18446744073709551615", ""])
def test_memory_that_systemd_does_not_count(counted: str) -> None:
    assert status.memory({"MemoryCurrent": counted, "ControlGroup": "/none.such"}) is None
    assert status.memory({"MemoryCurrent": "4096", "ControlGroup": "/none.such"}) == 4096


def test_a_supervisors_title_outlives_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [
        "airflow supervisor: 01a2\0",
        "airflow worker -- 01a3\0\0\0",
        "[celeryd: default-a@w:MainProcess]\0",
        "airflow worker \0",
    ]
    monkeypatch.setattr(services, "of_processes", lambda *_: titles)
    assert services.running_tasks("/x") == ["01a3"]


def test_the_release_is_the_one_that_the_process_has_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "unit": "[Service]\nExecStart=/opt/airflow/releases/3.3.2-bb/bin/airflow scheduler\n",
        "/proc/7/maps": "7f00 r-xp 00 08:01 9 /usr/lib/libc.so\n7f01 r-xp 00 08:01 9 /opt/airflow/releases/3.2.2-aa/lib/x.so\n",
    }
    monkeypatch.setattr(status, "_text", lambda path: texts.get(path, ""))
    assert status.release("unit", "7") == "3.2.2-aa"
    assert status.release("unit", "8") == "3.3.2-bb"
    assert status.release("other", "7") == ""


# --- certificates -----------------------------------------------------------------------------------------------------
def make_certificate(folder: pathlib.Path, days: int, *extensions: str) -> str:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl")
    path = folder / "new"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null",
         "-out", str(path), "-subj", "/O=Wind, Ltd/CN=worker1", "-days", str(days), *extensions],
        check=True, capture_output=True,
    )  # fmt: skip
    return path.read_text()


def look(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    return status.certificates(status.Question([], [], str(folder), 30, problems.append, problems.append)), problems


def test_a_certificate_is_read(tmp_path: pathlib.Path) -> None:
    tls = tmp_path / "tls"
    tls.mkdir()
    (tls / "redis.pem").write_text(
        make_certificate(tmp_path, 90, "-addext", "subjectAltName=IP:192.0.2.3,IP:2001:db8::1,DNS:worker1")
    )
    (tls / "redis.key").write_text("never read")
    shown, problems = look(tls)
    assert not problems
    (one,) = shown
    assert one["path"] == str(tls / "redis.pem")
    assert one["subject"] == "CN=worker1,O=Wind\\, Ltd"
    assert one["names"] == ["192.0.2.3", "2001:DB8:0:0:0:0:0:1", "worker1"]
    assert one["days_left"] == 89


def test_one_that_ends_soon_is_a_problem(tmp_path: pathlib.Path) -> None:
    (tmp_path / "redis.pem").write_text(make_certificate(tmp_path, 12))
    assert look(tmp_path)[1][0].startswith(f"{tmp_path}/redis.pem expires in 11 days, on ")


def test_a_new_authority_beside_the_old_one_will_do(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").write_text(make_certificate(tmp_path, 2) + make_certificate(tmp_path, 900))
    shown, problems = look(tmp_path)
    assert [one["days_left"] for one in shown] == [1, 899]
    assert not problems


def test_a_file_without_certificate_is_a_problem(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert look(tmp_path)[1] == [f"{tmp_path}/ca.pem holds no certificate; run site.yml"]


def test_one_unreadable_section_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")

    def broken(_question: status.Question) -> Any:
        raise status.units_of.ServicesError("systemctl show: no\nbus")

    monkeypatch.setitem(status.SECTIONS, "units", (broken, []))
    found = status.read([], [], str(tmp_path), 30)
    assert found["problems"] == [
        "units cannot be read: systemctl show: no bus",
        "certificates cannot be read: openssl cannot read a certificate",
    ]
    assert found["units"] == found["certificates"] == []
    assert found["host"]["python"]
