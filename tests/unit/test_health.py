# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions of the health timer; what it does to real units is tested on the lab."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pathlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FILE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "airflow" / "files" / "health.py"
SETTINGS: dict[str, Any] = {
    "services": [],
    "strikes": 3,
    "restart": True,
    "start_seconds": 180,
    "worker_restart": "overlap",
    "disk_free_mb": 1024,
    "disk_paths": [],
    "clock_seconds": 2,
}
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@pytest.fixture(name="health")
def _health() -> Any:
    spec = importlib.util.spec_from_file_location("airflow_health", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="done")
def _done(health: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[tuple[str, ...]]:
    """What systemd is told; all paths are the test's own."""
    calls: list[tuple[str, ...]] = []

    def systemctl(*words: str) -> str:
        calls.append(words)
        return ""

    for name in ("LOCK", "WITHDRAWN", "DRAINED", "RUNNING", "UNITS"):
        monkeypatch.setattr(health, name, str(tmp_path / name.lower()))
    monkeypatch.setattr(health, "systemctl", systemctl)
    return calls


# --- strikes -----------------------------------------------------------------------------------------------------------
def test_strikes_are_counted_in_a_row(health: Any) -> None:
    one = health.Component({}, {})
    one.failed("x", 1000)
    one.failed("x", 1030)
    assert (one.strikes, one.healthy, one.why) == (2, False, "x")
    one.found_healthy()
    assert (one.strikes, one.healthy, one.why) == (0, True, "")
    one.failed("x", 1090)
    assert one.strikes == 1


def test_no_strike_for_what_is_away_nor_right_after(health: Any) -> None:
    one = health.Component({"strikes": 2}, {})
    one.dependency_away("the database does not answer", 1000)
    assert one.strikes == 0
    one.failed("x", 1000 + health.SETTLE_SECONDS - 1)
    assert one.strikes == 0
    one.failed("x", 1000 + health.SETTLE_SECONDS + 1)
    assert one.strikes == 1


def test_a_storm_of_restarts_ends(health: Any) -> None:
    one = health.Component({"strikes": 3}, {})
    for now in (0, 300, 600):
        assert one.may_restart(now)
        one.restarted(now, 1.8e9)
    assert (one.restarts, one.strikes, one.last_restart) == (3, 0, 1800000000)
    assert not one.may_restart(900)
    assert not one.may_restart(3599)
    assert one.may_restart(3601)


def test_the_next_run_knows_what_this_one_has_seen(health: Any) -> None:
    one = health.Component({}, {})
    one.failed("x", 5)
    one.restarted(5, 7)
    one.dependency_away("y", 9)
    shown, memory = json.loads(json.dumps([one.shown(), one.memory()]))
    again = health.Component(shown, memory)
    assert again.shown()["restarts"] == 1
    assert again.memory() == {"away": 9, "times": [5], "progress": None, "heard": False, "restarts": 1, "last_restart": 7}


@pytest.mark.parametrize("state", ["inactive", "activating"])
def test_what_does_not_run_just_now_is_not_forgotten(
    state: str, health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = asked(health, ActiveState=state)
    monkeypatch.setattr(health, "show", lambda units: {unit: one.properties for unit in units})
    memory = {"away": None, "times": [7.0, 8.0], "progress": [[], 3], "heard": True, "restarts": 2, "last_restart": 9}
    before = {"components": {}, "memory": {"components": {"scheduler": memory, "triggerer": memory}}}
    first = health.Run({**SETTINGS, "services": [one.service]}, before).go()
    assert first["components"] == {}
    # But what it was about to do, and what has left the host.
    assert first["memory"]["components"] == {"scheduler": {**memory, "progress": None}}
    again = health.Component({}, first["memory"]["components"]["scheduler"])
    assert again.shown()["restarts"] == 2 and again.times == [7, 8] and again.heard


# --- a worker that takes nothing ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("waiting", "tasks", "ended", "before", "expected"),
    [
        (0, [], 7, [[], 7], True),  # nothing to take
        (5, ["a", "b"], 7, [["a", "b"], 7], True),  # as many as it may
        (5, ["a"], 7, None, True),  # nothing to compare with
        (5, ["a"], 7, [[], 7], True),  # has started one
        (5, ["a"], 9, [["a"], 7], True),  # one has come and gone
        (5, ["a"], 7, [["a"], 7], False),
        (5, [], 7, [["a"], 7], False),
    ],
)
def test_consumes(health: Any, waiting: int, tasks: list[str], ended: int, before: Any, expected: bool) -> None:
    assert health.consumes(waiting, tasks, 2, ended, before)[0] is expected


def test_what_was_seen_counts_only_while_tasks_wait(health: Any) -> None:
    assert health.consumes(0, [], 2, 7, [[], 7])[1] is None
    assert health.consumes(3, ["b"], 2, 7, None)[1] == [["b"], 7]


def test_a_stopped_task_does_not_run(health: Any) -> None:
    found = [("S", 0, "airflow worker -- 1"), ("T", 0, "airflow worker -- 2"), ("S", 0, "airflow supervisor: 1"), ("R", 0, "sh")]
    assert health.tasks_of(found) == ["1"]


# --- the host ----------------------------------------------------------------------------------------------------------
def test_too_full(health: Any) -> None:
    big, gigabyte = 100 * 2**30, 2**30
    assert health.too_full(big, gigabyte - 1, gigabyte, False)
    assert not health.too_full(big, gigabyte, gigabyte, False)
    assert health.too_full(big, gigabyte, gigabyte, True), "it comes back with a quarter more"
    assert not health.too_full(big, gigabyte * 5 // 4, gigabyte, True)
    # A small file system could not have as much free at all.
    assert not health.too_full(gigabyte, gigabyte // 5, gigabyte, False)
    assert health.too_full(gigabyte, gigabyte // 20, gigabyte, False)


@pytest.mark.parametrize(
    ("witnesses", "was", "expected"),
    [
        ({"redis": (0.001, 0.0), "webserver": (-0.7, 1.0)}, False, False),
        ({"redis": (3.0, 0.0), "webserver": (3.5, 1.0)}, False, True),
        ({"redis": (-3.5, 0.0), "webserver": (-3.5, 1.0)}, False, True),
        # One of the witnesses is off itself.
        ({"redis": (3.0, 0.0), "webserver": (0.1, 1.0)}, False, False),
        ({"redis": (3.5, 0.0), "webserver": (-3.5, 1.0)}, False, False),
        # An answer that took its time says less.
        ({"redis": (3.0, 2.0), "webserver": (3.5, 3.0)}, False, False),
        ({"redis": (1.5, 0.0), "webserver": (2.5, 1.0)}, True, True),
        ({"redis": (0.5, 0.0), "webserver": (0.5, 1.0)}, True, False),
        ({"redis": (9.0, 0.0)}, False, None),
        ({}, True, None),
    ],
)
def test_clock_is_off(health: Any, witnesses: dict[str, tuple[float, float]], was: bool, expected: bool | None) -> None:
    assert health.clock_is_off(witnesses, 2, was) is expected


def test_the_difference_to_a_date_header(health: Any) -> None:
    offset, error = health.difference(["Mon, 23 Nov 2026 00:12:37 GMT"], 1795392760.0, 1795392760.5)
    assert offset == pytest.approx(1795392760.25 - 1795392758)
    assert error == 1.25
    assert health.difference([], 0, 0) is None
    assert health.difference(["yesterday"], 0, 0) is None


# --- asking ------------------------------------------------------------------------------------------------------------
@pytest.fixture(name="serve")
def _serve() -> Iterator[Callable[..., int]]:
    servers = []

    def serve(*answers: bytes) -> int:
        """A server that waits for a line before each of these answers; the port."""

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for answer in answers:
                    self.request.recv(4096)
                    self.wfile.write(answer)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_address[1])

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_ask_http(health: Any, serve: Callable[..., int]) -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
    question = {"address": "127.0.0.1", "path": "/x", "status": 403}
    ok, _why, clock = health.ask_http({**question, "port": serve(b"HTTP/1.1 403 Forbidden\r\ndate: " + date + b"\r\n\r\nno")})
    assert ok and clock and abs(clock[0]) < 3
    assert health.ask_http({**question, "port": serve(b"HTTP/1.1 500 Oh\r\n\r\n")})[0] is False
    assert health.ask_http({**question, "port": serve(b"220 smtp\r\n\r\n")})[0] is False
    assert health.ask_http({**question, "port": 1})[0] is False
    # Nobody is stuck because a file of ours is missing.
    assert health.ask_http({**question, "port": serve(b""), "ca": "/nonexistent"})[0] is None


def heartbeat(name: str) -> bytes:
    text = json.dumps({"body": "e30=", "headers": {"hostname": name}}).encode()
    return b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$%d\r\n%s\r\n" % (len(text), text)


def test_redis(health: Any, serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 1)
    subscribed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
    heartbeats = subscribed + heartbeat("a@h") + heartbeat("b@other")
    port = serve(b"+OK\r\n", *[b":2\r\n", b":0\r\n", b":0\r\n", b":1\r\n"], heartbeats, b"")
    redis = health.Redis({health.BROKER_URL: f"redis://airflow:p%40ss@127.0.0.1:{port}/0"})
    assert redis.waiting(["default"]) == 3
    assert redis.hear({"a@h", "c@h"}) == {"a@h"}
    redis.close()


def test_redis_that_refuses(health: Any, serve: Callable[..., int]) -> None:
    port = serve(b"-WRONGPASS no\r\n")
    with pytest.raises(OSError, match="WRONGPASS"):
        health.Redis({health.BROKER_URL: f"redis://airflow:p@127.0.0.1:{port}/0"})


# --- one run -----------------------------------------------------------------------------------------------------------
def asked(health: Any, **changes: Any) -> Any:
    service = {
        "name": "scheduler",
        "service": "airflow-scheduler",
        "config": "/nonexistent",
        "instance": "",
        "health": {"kind": "job", "job_type": "SchedulerJob"},
    }
    started = int((time.monotonic() - 1000) * 1e6)
    properties = {
        "Id": "airflow-scheduler.service",
        "ActiveState": "active",
        "MainPID": "77",
        "ControlGroup": "",
        "ExecMainStartTimestampMonotonic": str(started),
    }
    one = health.Asked({**service, **changes.pop("service", {})}, "airflow-scheduler.service", {**properties, **changes})
    one.environment = {DATABASE: "postgresql+psycopg2://x"}
    one.ok, one.why = False, "its last heartbeat is 70 s old"
    return one


def run_of(health: Any, one: Any, strikes: int = 2, **settings: Any) -> Any:
    run = health.Run({**SETTINGS, **settings}, {})
    run.now = 10000.0
    run.components[one.key] = health.Component({"strikes": strikes}, {})
    run.reached = {"database": (True, ""), "broker": (True, ""), "webservers": (True, "")}
    return run


def test_the_third_strike_kills(health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    one = asked(health)
    monkeypatch.setattr(health, "show", lambda _units: {one.unit: one.properties})
    run = run_of(health, one, strikes=1)
    run.judge(one)
    assert done == [] and run.components["scheduler"].strikes == 2
    run.judge(one)
    assert done == [("kill", "--signal=SIGKILL", one.unit)]
    assert run.components["scheduler"].shown()["restarts"] == 1
    assert "airflow-scheduler.service does not work, 3 times in a row: its last heartbeat is 70 s old" in capsys.readouterr().out


@pytest.mark.parametrize("why", ["starts", "database", "unclear", "held", "switched off", "storm", "changed meanwhile", "busy"])
def test_what_is_not_killed(
    why: str, health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    recent = str(int((time.monotonic() - 20) * 1e6))
    one = asked(health, **({"ExecMainStartTimestampMonotonic": recent} if why == "starts" else {}))
    now = {**one.properties, "MainPID": "78"} if why == "changed meanwhile" else one.properties
    monkeypatch.setattr(health, "show", lambda _units: {one.unit: now})
    run = run_of(health, one, restart=why != "switched off")
    if why == "database":
        run.reached["database"] = False, "the database does not answer"
    if why == "unclear":
        one.ok = None
    if why == "held":
        (tmp_path / "units" / f"{one.unit}.d").mkdir(parents=True)
        (tmp_path / "units" / f"{one.unit}.d" / "held.conf").touch()
    if why == "storm":
        run.components["scheduler"].times = [9000.0, 9300.0, 9600.0]
    if why == "busy":
        playbook = os.open(health.LOCK, os.O_RDWR | os.O_CREAT)
        fcntl.flock(playbook, fcntl.LOCK_EX)
    run.judge(one)
    assert done == []
    counted = why in ("switched off", "storm", "changed meanwhile", "busy")
    assert run.components["scheduler"].strikes == (3 if counted else 0)


def worker(health: Any, tmp_path: pathlib.Path, template: str = "1a2b") -> Any:
    folder = tmp_path / "worker@default"
    folder.mkdir()
    (folder / "airflow.cfg").write_text("[core]\n")
    (folder / "environment").write_text(f'AIRFLOW_CONFIG="{folder}/airflow.cfg"\n')
    (folder / "unit").write_text(f"ExecStartPre=+/bin/sh -c 'echo {template} > /run/airflow/%n'\nname=default-@COLOUR@@h\n")
    (tmp_path / "units").mkdir(exist_ok=True)
    (tmp_path / "running").mkdir()
    unit = "airflow-worker@default-a.service"
    (tmp_path / "running" / unit).write_text("1a2b\n")
    (tmp_path / "units" / unit).write_text((folder / "unit").read_text())
    one = asked(
        health,
        service={
            "name": "worker",
            "service": "airflow-worker@default",
            "config": str(folder),
            "instance": "default",
            "health": {"kind": "celery", "name": "default-@COLOUR@@h", "queues": "default", "slots": "4", "webserver": {}},
        },
    )
    return health.Asked(one.service, unit, {**one.properties, "Id": unit, "ControlGroup": "/worker"})


@pytest.mark.parametrize(
    ("tasks", "template", "idle", "mode", "swapped"),
    [
        (2, "1a2b", "inactive", "overlap", True),
        (0, "1a2b", "inactive", "overlap", False),
        (2, "1a2b", "inactive", "wait", False),
        (2, "1a2b", "deactivating", "overlap", False),
        # Prepared by a playbook, and proven by none.
        (2, "3c4d", "inactive", "overlap", False),
    ],
)
def test_a_worker_with_tasks_is_not_killed(
    tasks: int,
    template: str,
    idle: str,
    mode: str,
    swapped: bool,
    health: Any,
    done: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    one = worker(health, tmp_path, template)
    one.ok, one.why = False, "it sends no heartbeat"
    other = "airflow-worker@default-b.service"
    monkeypatch.setattr(health, "show", lambda _units: {one.unit: one.properties})
    monkeypatch.setattr(health, "processes", lambda _group: [("S", 0, f"airflow worker -- {n}") for n in range(tasks)])
    run = run_of(health, one, worker_restart=mode)
    run.components[one.key].heard = True
    run.state = {one.unit: one.properties, other: {"ActiveState": idle}}
    run.judge(one)
    if swapped:
        assert ("start", "--no-block", other) in done and done[-1] == ("stop", "--no-block", one.unit)
        assert ("--quiet", "enable", other) in done and ("--quiet", "disable", one.unit) in done
        assert "name=default-b@h" in (tmp_path / "units" / other).read_text()
        assert (tmp_path / "worker@default-b" / "environment").stat().st_mode & 0o777 == 0o600
        assert f"{tmp_path}/worker@default-b/airflow.cfg" in (tmp_path / "worker@default-b" / "environment").read_text()
    else:
        assert done == [("restart", "--no-block", one.unit)]
    assert list(run.ending) == [one.unit]


def test_a_worker_that_cannot_be_heard_is_not_restarted(health: Any, done: list[Any], tmp_path: pathlib.Path) -> None:
    """Its own settings of the broker may lead the heartbeats elsewhere."""
    one = worker(health, tmp_path)
    one.ok, one.why = False, "it sends no heartbeat"
    run = run_of(health, one)
    run.judge(one)
    assert done == []
    assert run.components[one.key].shown()["why"] == "it has sent no heartbeat since the host's boot"


def test_a_worker_that_should_have_ended_is_killed_without_tasks_only(
    health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    one = worker(health, tmp_path)
    run = run_of(health, one)
    run.ending = {one.unit: [9900.0, None]}
    run.state = {one.unit: {**one.properties, "ActiveState": "deactivating"}}
    alive = [("S", 0, "celeryd"), ("S", 0, "airflow supervisor"), ("S", 0, "airflow worker -- 1")]
    killed = [("kill", "--signal=SIGKILL", one.unit)]
    monkeypatch.setattr(health, "processes", lambda _group: alive)
    run.end_what_should_have_ended()
    assert done == []
    # It has just ended; how, the webserver may not know yet.
    monkeypatch.setattr(health, "processes", lambda _group: alive[:2])
    run.end_what_should_have_ended()
    run.now += health.REPORT_SECONDS
    run.end_what_should_have_ended()
    assert done == []
    run.now += 1
    run.end_what_should_have_ended()
    assert done == killed
    done.clear()
    run.ending = {one.unit: [9900.0, None]}
    monkeypatch.setattr(health, "processes", lambda _group: [alive[0], *(("T", 0, line) for _state, _ended, line in alive[1:])])
    run.end_what_should_have_ended()
    assert done == killed, "all that could report is stopped"
    run.state = {one.unit: {**one.properties, "ActiveState": "inactive"}}
    run.end_what_should_have_ended()
    assert run.ending == {}


def test_only_a_worker_that_it_has_ended_itself(health: Any, done: list[Any], tmp_path: pathlib.Path) -> None:
    one = worker(health, tmp_path)
    run = run_of(health, one)
    run.state = {one.unit: {**one.properties, "ActiveState": "deactivating"}}
    run.end_what_should_have_ended()
    assert done == []


ENABLED = {"UnitFileState": "enabled"}
DISABLED = {"ActiveState": "inactive", "UnitFileState": "disabled"}


@pytest.fixture(name="units")
def _units(health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What systemd says of them."""
    found: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(health, "show", lambda names: {name: found[name] for name in names if name in found})
    return found


def test_a_worker_leaves_and_comes_back(
    health: Any, done: list[Any], units: dict[str, dict[str, str]], tmp_path: pathlib.Path
) -> None:
    one = worker(health, tmp_path)
    run = run_of(health, one, services=[one.service])
    other = "airflow-worker@default-b.service"
    run.withdraw([one], "the disk is full", False)
    assert (tmp_path / "withdrawn").read_text() == "the disk is full\n"
    assert done == [("stop", "--no-block", one.unit)]
    done.clear()
    # It still runs tasks: the other colour takes its place.
    units.update({one.unit: {"ActiveState": "deactivating", **ENABLED}, other: DISABLED})
    run.come_back()
    assert not (tmp_path / "withdrawn").exists()
    assert ("start", "--no-block", other) in done and run.stopped == []


def test_a_worker_that_may_not_overlap_comes_back_when_its_tasks_have_ended(
    health: Any, done: list[Any], units: dict[str, dict[str, str]], tmp_path: pathlib.Path
) -> None:
    one = worker(health, tmp_path)
    run = run_of(health, one, services=[one.service], worker_restart="wait")
    (tmp_path / "withdrawn").touch()
    units.update({one.unit: {"ActiveState": "deactivating", **ENABLED}, "airflow-worker@default-b.service": DISABLED})
    run.come_back()
    assert done == [] and run.stopped == ["airflow-worker@default"]
    # Which the next run knows.
    run = health.Run(run.settings, json.loads(json.dumps(run.result({}, {}))))
    units[one.unit] = {"ActiveState": "inactive", **ENABLED}
    run.look_at_host([])
    assert done == [("start", "--no-block", one.unit)] and run.stopped == []


@pytest.mark.parametrize(
    ("drained", "expected"), [(False, [("start", "--no-block", "airflow-worker@default-a.service")]), (True, [])]
)
def test_who_was_stopped_before_it_left_comes_back_unless_drained(
    drained: bool,
    expected: list[Any],
    health: Any,
    done: list[Any],
    units: dict[str, dict[str, str]],
    tmp_path: pathlib.Path,
) -> None:
    """A drained host whose disk fills, and which is put back before there is space: that starts nothing."""
    one = worker(health, tmp_path)
    run = run_of(health, one, services=[one.service], disk_free_mb=0)
    units.update({one.unit: {"ActiveState": "inactive", **ENABLED}, "airflow-worker@default-b.service": DISABLED})
    if drained:
        (tmp_path / "drained").touch()
    run.withdraw([], "the disk is full", False)
    run.look_at_host([])
    assert done == expected and run.stopped == [] and not (tmp_path / "withdrawn").exists()


def test_who_comes_back_has_what_was_prepared_meanwhile(
    health: Any, done: list[Any], units: dict[str, dict[str, str]], tmp_path: pathlib.Path
) -> None:
    """A rotation or an upgrade went on without it."""
    one = worker(health, tmp_path)
    config = pathlib.Path(one.service["config"])
    run = run_of(health, one, services=[one.service])
    units.update({one.unit: {"ActiveState": "inactive", **ENABLED}, "airflow-worker@default-b.service": DISABLED})
    unit = pathlib.Path(health.UNITS) / one.unit
    unit.write_text("ExecStartPre=/bin/sh -c 'echo 0 > x'\n")
    (tmp_path / "withdrawn").touch()
    run.come_back()
    assert done == [("daemon-reload",), ("start", "--no-block", one.unit)]
    assert health.unit_hash(str(unit)) == health.unit_hash(str(config / "unit")) != "0"
    assert pathlib.Path(f"{config}-a/environment").exists()


def test_a_colour_that_has_never_run_can_read_its_settings(health: Any, done: list[Any], tmp_path: pathlib.Path) -> None:
    """The service's own UMask= closes what it makes."""
    config = worker(health, tmp_path).service["config"]
    before = os.umask(0o077)
    try:
        health.materialise(config, "airflow-worker@default-b.service")
    finally:
        os.umask(before)
    made = (f"{config}-b", f"{config}-b/airflow.cfg", f"{config}-b/environment")
    assert [os.stat(path).st_mode & 0o777 for path in made] == [0o755, 0o644, 0o600]


def test_nobody_comes_back_twice(health: Any, done: list[Any], units: dict[str, dict[str, str]], tmp_path: pathlib.Path) -> None:
    one = worker(health, tmp_path)
    run = run_of(health, one, services=[one.service])
    (tmp_path / "withdrawn").touch()
    other = "airflow-worker@default-b.service"
    units.update({one.unit: {"ActiveState": "deactivating", **ENABLED}, other: {"ActiveState": "activating", **ENABLED}})
    run.come_back()
    assert done == [] and run.stopped == []


def test_a_worker_that_reaches_no_webserver_leaves(
    health: Any, done: list[Any], units: dict[str, dict[str, str]], tmp_path: pathlib.Path
) -> None:
    one = worker(health, tmp_path)
    found: dict[str, Any] = {}

    def look(webservers: bool | None, broker: bool = True, young: bool = False) -> str:
        run = health.Run({**SETTINGS, "services": [one.service], "disk_free_mb": 0}, found)
        run.reached = (
            {"broker": (broker, "")} if webservers is None else {"broker": (broker, ""), "webservers": (webservers, "no")}
        )
        properties = {**one.properties, "ExecMainStartTimestampMonotonic": str(int(time.monotonic() * 1e6))}
        run.look_at_host([health.Asked(one.service, one.unit, properties)] if young else [one])
        found.update(json.loads(json.dumps(run.result({}, {}))))
        return str(found["withdrawn"])

    # One more than it takes until an HAProxy that hangs is restarted, in a row, and while the worker gets tasks at all.
    assert [look(False) for _command in range(3)] == [""] * 3
    assert look(True) == "" and found["webservers"]["missed"] == 0
    assert [look(False) for _command in range(3)] == [""] * 3
    assert look(False, broker=False) == look(None) == look(False, young=True) == "" and done == []
    assert look(False) == "no" and done == [("stop", "--no-block", one.unit)]
    done.clear()
    # For as long as nobody can tell.
    units[one.unit] = {"ActiveState": "inactive", **ENABLED}
    assert look(None) == look(False) == look(False, broker=False) == "no"
    assert look(True) == "" and done[-1] == ("start", "--no-block", one.unit)


def test_who_has_left_asks_whether_it_may_come_back(
    health: Any, done: list[Any], units: dict[str, dict[str, str]], serve: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    """Its clock and its webserver: no worker runs that could be asked about."""
    one = worker(health, tmp_path)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
    web = serve(b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\n\r\n")
    redis = serve(b"*2\r\n$%d\r\n%d\r\n$1\r\n0\r\n" % (len(str(int(time.time()))), int(time.time())))
    one.service["health"]["webserver"] = {"address": "127.0.0.1", "port": web, "path": "/", "status": 200}
    with open(f"{one.service['config']}/environment", "a", encoding="utf-8") as file:
        file.write(f'{health.BROKER_URL}="redis://127.0.0.1:{redis}/0"\n')
    units.update({one.unit: {"ActiveState": "inactive", **ENABLED}, "airflow-worker@default-b.service": DISABLED})
    (tmp_path / "withdrawn").write_text("the clock is off\n")
    before = {"clock": {"offset": 10, "why": "the clock is off"}, "webservers": {"missed": 9, "why": "no webserver answers"}}
    found = health.Run({**SETTINGS, "services": [one.service], "disk_free_mb": 0}, before).go()
    assert found["clock"]["why"] == found["webservers"]["why"] == found["withdrawn"] == ""
    assert done == [("start", "--no-block", one.unit)]


def test_a_worker_without_a_webserver_is_not_called_healthy(health: Any, done: list[Any], tmp_path: pathlib.Path) -> None:
    one = worker(health, tmp_path)
    one.ok = True
    run = run_of(health, one)
    run.reached["webservers"] = False, "no webserver answers"
    run.judge(one)
    shown = run.components[one.key].shown()
    assert (shown["healthy"], shown["why"], shown["strikes"]) == (False, "no webserver answers", 0) and done == []


def test_ask_haproxy(health: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 1)
    path = str(tmp_path / "admin")
    assert health.ask_haproxy(path)[0] is None, "nobody is stuck because its socket is missing"
    with socket.socket(socket.AF_UNIX) as admin:
        admin.bind(path)
        assert health.ask_haproxy(path)[0] is False
        admin.listen()
        # The kernel connects, and that is all.
        assert health.ask_haproxy(path)[0] is False
        admin.accept()[0].close()

        def answer() -> None:
            link, _peer = admin.accept()
            with link:
                if link.recv(100) == b"show info\n":
                    link.sendall(b"Name: HAProxy\n")

        answers = threading.Thread(target=answer)
        answers.start()
        assert health.ask_haproxy(path)[0] is True
        answers.join()


def test_two_colours_are_left_alone(
    health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    one = worker(health, tmp_path)
    monkeypatch.setattr(health, "show", lambda units: {unit: {**one.properties, "Id": unit} for unit in units})
    state = health.Run({**SETTINGS, "services": [one.service], "disk_free_mb": 0}, {}).go()
    assert state["components"] == {} and done == []


@pytest.mark.parametrize("name", ["upgrading", "paused"])
def test_hands_off(name: str, health: Any, done: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    one = asked(health)
    (tmp_path / name).touch()
    monkeypatch.setattr(health, "HANDS_OFF", (str(tmp_path / "upgrading"), str(tmp_path / "paused")))
    monkeypatch.setattr(health, "show", lambda units: {unit: one.properties for unit in units})
    before = {"components": {"scheduler": {"strikes": 2}}, "memory": {"components": {"scheduler": {"restarts": 1}}}}
    state = health.Run({**SETTINGS, "services": [one.service]}, before).go()
    assert state["components"]["scheduler"] == {
        "healthy": None,
        "strikes": 0,
        "restarts": 1,
        "last_restart": 0,
        "why": f"not asked while {tmp_path}/{name} is there",
    }
    assert done == []
