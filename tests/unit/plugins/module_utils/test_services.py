# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions that need no systemd; what the module does to real units is tested on the lab."""

from __future__ import annotations

import http.server
import itertools
import pathlib
import threading
from collections.abc import Iterator

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import services

STATES = ("active", "activating", "deactivating", "inactive", "failed")


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("airflow-worker@default-a.service", ("airflow-worker@default", "a")),
        ("airflow-worker@etl-b-b.service", ("airflow-worker@etl-b", "b")),
        ("airflow-dag-processor.service", ("airflow-dag-processor", "")),
    ],
)
def test_split_unit(unit: str, expected: tuple[str, str]) -> None:
    assert services.split_unit(unit) == expected


def test_since_reads_systemds_timestamps() -> None:
    assert services.since("Sat 2026-11-21 22:31:10 UTC") == 1795300270
    assert services.since("") == 0


def test_target_of_a_worker() -> None:
    assert services.target_of("airflow-worker@default") == "airflow-worker.target"
    assert services.needs_of("airflow-worker@default") == "airflow-worker-needs.target"


@pytest.fixture()
def port() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def test_ask_http(port: int) -> None:
    health = {"address": "127.0.0.1", "port": port, "path": "/health", "status": 200}
    assert services.ask_http(health) == (True, f"port {port}: HTTP status 200")
    assert not services.ask_http({**health, "path": "/other"})[0]
    assert not services.ask_http({**health, "port": 1})[0]


def test_the_last_of_its_kind_does_not_leave(port: int) -> None:
    health = {"kind": "http", "address": "127.0.0.1", "port": port, "path": "/health", "status": 200}
    assert services.last_of_its_kind("python", "webserver", health, [], "/x")
    assert services.last_of_its_kind("python", "webserver", {**health, "path": "/other"}, ["127.0.0.1"], "/x")
    assert not services.last_of_its_kind("python", "webserver", health, ["127.0.0.1"], "/x")


def test_flower_may_always_leave() -> None:
    assert not services.last_of_its_kind("python", "flower", {}, [], "/x")


def test_a_probe_that_cannot_run_is_no_proof() -> None:
    assert not services.ask_probe("/nonexistent/python", {"kind": "job"}, {})[0]


def test_a_worker_that_reaches_no_webserver_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ask_probe", lambda *_: (True, "answers"))
    monkeypatch.setattr(services, "read_environment", lambda _: {})
    host = services.Host([], {}, "/nonexistent/python", 1, 1, "overlap", False)
    way = {"address": "127.0.0.1", "port": 9, "path": "/", "status": 200}
    service = {"config": "/x", "instance": "default", "health": {"kind": "celery", "name": "x", "webserver": way}}
    properties = {"ExecMainStartTimestamp": "Sun 2026-11-22 03:00:00 UTC"}
    healthy, detail = host.ask(service, "airflow-worker@default-a.service", properties)
    assert not healthy and "no webserver answers through HAProxy" in detail


@pytest.mark.parametrize("restart", ["overlap", "wait"])
@pytest.mark.parametrize("states", list(itertools.product(STATES, STATES)))
@pytest.mark.parametrize("enabled", ["a", "b", ""])
def test_every_pair_of_states_has_a_way_on(states: tuple[str, str], enabled: str, restart: str) -> None:
    """Whatever an interrupted run has left: the colour that starts is free by then, and nothing that works is touched."""
    found = dict(zip("ab", states))
    choice = services.choose_colour(found, {"a": False, "b": False}, {"a": enabled == "a", "b": enabled == "b"}, restart)
    assert not choice.serves
    assert all(found[colour] in ("active", "activating") for colour in choice.stop)
    assert all(found[colour] == "deactivating" or colour in choice.stop for colour in choice.wait)
    assert choice.colour in choice.wait or found[choice.colour] in ("inactive", "failed")
    if restart == "wait":
        assert {colour for colour in "ab" if found[colour] not in ("inactive", "failed")} == set(choice.wait)
    elif states.count("active") + states.count("activating") == 1:
        assert not choice.stop, "the one that serves goes on until the new one has answered"


@pytest.mark.parametrize("other", STATES)
def test_a_colour_that_has_the_hash_serves_on(other: str) -> None:
    choice = services.choose_colour({"a": other, "b": "active"}, {"a": False, "b": True}, {"a": True, "b": False}, "overlap")
    assert (choice.colour, choice.serves, choice.stop) == ("b", True, ())


def test_the_one_on_trial_goes_when_an_interrupted_run_left_both() -> None:
    choice = services.choose_colour({"a": "active", "b": "active"}, {"a": False, "b": False}, {"a": True, "b": False}, "overlap")
    assert (choice.colour, choice.stop, choice.wait) == ("b", ["b"], ["b"])


def test_a_stopped_worker_comes_back_in_the_colour_that_boot_would_start() -> None:
    choice = services.choose_colour(
        {"a": "inactive", "b": "inactive"}, {"a": True, "b": True}, {"a": False, "b": True}, "overlap"
    )
    assert (choice.colour, choice.serves) == ("b", False)


def test_a_restart_is_no_crash_loop_because_of_older_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd counts on through the stop and begins anew with the start."""
    seen = iter([("deactivating", "7"), ("activating", "0"), ("active", "0")])

    def show(units: list[str]) -> dict[str, dict[str, str]]:
        state, restarts = next(seen)
        return {units[0]: {"ActiveState": state, "SubState": state, "NRestarts": restarts, "ExecMainStartTimestamp": ""}}

    host = services.Host([], {"airflow-x": "h"}, "python", 60, 60, "overlap", False)
    monkeypatch.setattr(services, "show", show)
    monkeypatch.setattr(services, "running_hash", lambda unit: "h")
    monkeypatch.setattr(services.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(host, "ask", lambda *args: (True, ""))
    assert host.wait_one({"service": "airflow-x", "instance": ""}, "airflow-x.service", services.time.monotonic() + 60) == ""


@pytest.mark.parametrize(("left", "stays"), [([], False), (["etl"], False), ([], True), (["etl"], True)])
def test_the_workers_target_goes_with_the_last_instance(
    left: list[str], stays: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`left`: units of other instances on disk; `stays`: the inventory has another one, of which a drained host has no unit."""
    monkeypatch.setattr(services, "UNITS", str(tmp_path))
    monkeypatch.setattr(services, "systemctl", lambda *_arguments: "")
    for name in ["gone", *left]:
        (tmp_path / f"airflow-worker@{name}-a.service").write_text(f"{services.MARKER}x\n")
    for name in ("airflow-worker.target", "airflow-worker-needs.target"):
        (tmp_path / name).write_text("")
    staying = [{"name": "worker", "service": "airflow-worker@etl", "instance": "etl"}] if stays else []
    host = services.Host(staying, {}, "python", 1, 1, "overlap", False)
    ended = {"ActiveState": "inactive", "UnitFileState": "disabled"}
    host.remove_unit("airflow-worker@gone-a.service", ended, {}, {}, [])
    assert not (tmp_path / "airflow-worker@gone-a.service").exists()
    assert (tmp_path / "airflow-worker.target").exists() is (stays or bool(left))
    assert (tmp_path / "airflow-worker-needs.target").exists() is (stays or bool(left))


def test_an_instance_leaves_a_host_that_keeps_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody need be asked whether the host's last worker may go."""
    monkeypatch.setattr(services, "last_of_its_kind", lambda *_arguments: pytest.fail("it asked"))
    staying = {"name": "worker", "service": "airflow-worker@etl", "instance": "etl"}
    host = services.Host([staying], {}, "python", 1, 1, "overlap", True)
    host.remove_unit("airflow-worker@io-a.service", {"ActiveState": "active", "UnitFileState": "enabled"}, {}, {"worker": []}, [])
    assert host.actions == [
        "disable airflow-worker@io-a.service",
        "let airflow-worker@io-a.service finish its tasks and stop",
    ]
