# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an entry host says of the users' way to the webservers. Runs on the host; asks HAProxy, changes nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import haproxy_server, keepalived_server

NAME = "entry"
KEEPALIVED = "/etc/keepalived/keepalived.conf"
_PEERS = re.compile(r"unicast_peer \{([^}]*)\}")
_ADDRESS = re.compile(r"virtual_ipaddress \{\s*([0-9A-Fa-f:.]+)/")


def virtual_address(text: str) -> tuple[str, int]:
    """The one that moves, of keepalived's configuration as this collection writes it, and how many hosts share it."""
    found = _ADDRESS.search(text) if text.startswith(keepalived_server.MARK) else None
    peers = _PEERS.search(text)
    return (found[1], 1 + len(peers[1].split()) if peers else 1) if found else ("", 0)


def ask_haproxy(command: str) -> str:
    """Empty where none answers."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(haproxy_server.SOCKET)
            link.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: link.recv(65536), b"")).decode(errors="replace")
    except OSError:
        return ""


def read(
    text: Callable[[str], str], output: Callable[[list[str]], str], problem: Callable[[str], None], note: Callable[[str], None]
) -> dict[str, Any]:
    """Empty on a host that is no entry."""
    servers = haproxy_server.server_states(ask_haproxy("show stat")).get(NAME, {})
    address, shared = virtual_address(text(KEEPALIVED))
    if not servers and not address:
        return {}
    down = {name: state for name, state in servers.items() if state != "UP"}
    if servers and len(down) == len(servers):
        problem(f"users reach no webserver through this entry: {_states(down)}")
    elif down:
        note(f"users are not led to {_states(down)}")
    held = bool(address) and bool(keepalived_server.interface_of(output(["ip", "-o", "address", "show"]), address))
    if held:
        note(f"has the address {address}, by which users come")
    return {"address": address, "held": held, "shared": shared, "servers": servers}


def _states(servers: dict[str, str]) -> str:
    return ", ".join(f"{name}, which is {state}" for name, state in servers.items())
