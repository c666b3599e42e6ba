# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decisions that need no systemd; what the module does to real units is tested on the lab."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import services


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
