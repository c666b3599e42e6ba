# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import keepalived_server, status_entry

VALUES = {"address": "10.0.0.99", "router_id": 51, "priority": 1, "port": 443, "source": "10.0.0.5", "interface": "eth0"}
CONFIG, _HASH = keepalived_server.render(VALUES, ["10.0.0.6", "10.0.0.7"])
HELD = "7: eth0    inet 10.0.0.99/32 scope global eth0\n"


def stat(**servers: str) -> str:
    lines = [f"entry,{name},{state},Connection refused," for name, state in servers.items()]
    return "\n".join(["# pxname,svname,status,check_desc,", "entry,FRONTEND,OPEN,,", *lines, "webserver,a,DOWN,,"])


def read(
    monkeypatch: pytest.MonkeyPatch, text: str = "", listed: str = "", **servers: str
) -> tuple[dict[str, Any], list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    monkeypatch.setattr(status_entry, "ask_haproxy", lambda _command: stat(**servers) if servers else "")
    found = status_entry.read(lambda _path: text, lambda _command: listed, problems.append, notes.append)
    return found, problems, notes


def test_a_host_that_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch) == ({}, [], [])
    assert read(monkeypatch, text="vrrp_instance mine { virtual_ipaddress { 10.0.0.99/32 } }") == ({}, [], [])


def test_who_has_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found, problems, notes = read(monkeypatch, CONFIG, HELD, a="UP", b="UP")
    assert found == {"address": "10.0.0.99", "held": True, "shared": 3, "servers": {"a": "UP", "b": "UP"}}
    assert (problems, notes) == ([], ["has the address 10.0.0.99, by which users come"])
    assert read(monkeypatch, CONFIG, "", a="UP")[0]["held"] is False


def test_webservers_that_users_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    _found, problems, notes = read(monkeypatch, a="UP", b="DOWN")
    assert (problems, notes) == ([], ["users are not led to b, which is DOWN (Connection refused)"])
    _found, problems, notes = read(monkeypatch, a="DOWN", b="MAINT")
    assert len(problems) == 1 and problems[0].startswith("users reach no webserver through this entry: a, which is DOWN")
