# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Against servers that answer as PostgreSQL and Redis do at the door; real ones are on the lab."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.modules import airflow_admission


def refusal(text: str) -> bytes:
    body = b"SFATAL\0C28000\0M" + text.encode() + b"\0\0"
    return struct.pack("!ci", b"E", 4 + len(body)) + body


@pytest.fixture(name="server")
def _server() -> Iterator[Callable[[bytes], int]]:
    sockets = []

    def serve(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def once() -> None:
            connection, _address = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        threading.Thread(target=once, daemon=True).start()
        port: int = listening.getsockname()[1]
        return port

    yield serve
    for one in sockets:
        one.close()


def ask(kind: str, port: int) -> str:
    target: dict[str, Any] = {"kind": kind, "host": "127.0.0.1", "port": port, "tls": False, "user": "u", "database": "d"}
    return airflow_admission.ask(target)


def test_whoever_asks_for_a_password_admits(server: Callable[[bytes], int]) -> None:
    assert ask("redis", server(b"-NOAUTH Authentication required.\r\n")) == ""
    assert ask("postgresql", server(struct.pack("!cii", b"R", 8, 10))) == ""


def test_a_webserver_admits_whom_its_firewall_lets_through(server: Callable[[bytes], int]) -> None:
    assert ask("webserver", server(b"")) == ""
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    assert ask("webserver", port) == "Connection refused"


def test_whoever_does_not(server: Callable[[bytes], int]) -> None:
    assert ask("postgresql", server(refusal("no pg_hba.conf entry"))) == "no pg_hba.conf entry"
    assert ask("redis", server(b"")) == "it closes the connection"
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    assert ask("redis", port) == "Connection refused"
