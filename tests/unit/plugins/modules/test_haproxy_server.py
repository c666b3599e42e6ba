# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's decisions; what HAProxy does with them is tested on the lab's hosts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import haproxy_server as ha
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import File, Host, ServerError
from ansible_collections.windfarm.airflow.plugins.modules import haproxy_server as module

LISTENER: dict[str, Any] = {
    "name": "webserver",
    "bind": "127.0.0.1:8079",
    "certificate": "",
    "ca_file": "",
    "check_path": "/",
    "balance": "leastconn",
    "replay": "safe",
    "timeout": 60,
}


class AnsibleModule:
    check_mode = False

    def __init__(self) -> None:
        self.conffiles = ""
        self.warnings: list[str] = []

    def run_command(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        return (0, self.conffiles, "") if "dpkg-query" in command else (2, "", "")

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "haproxy.cfg"
    monkeypatch.setattr(module, "CONF", str(path))
    return path


def server(ansible: AnsibleModule, *servers: dict[str, Any], **params: Any) -> module.Server:
    listeners = [{**LISTENER, "servers": list(servers)}]
    return module.Server(Host(ansible), {"listeners": listeners, "maxconn": 1, "replace": False, **params})


def test_only_a_file_that_is_nobodys_is_replaced(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[File] = []
    monkeypatch.setattr(Host, "put", lambda _self, files: kept.__iadd__(files))
    ansible = AnsibleModule()
    server(ansible).own_file()
    conf.write_text("# packaged\n")
    ansible.conffiles = f" {conf} {hashlib.md5(b'# packaged' + bytes([10]), usedforsecurity=False).hexdigest()}\n"
    server(ansible).own_file()
    conf.write_text(f"{ha.MARK}\nedited\n")
    server(ansible).own_file()
    conf.write_text("mine\n")
    with pytest.raises(ServerError, match=r"somebody's own configuration.*haproxy_replace"):
        server(ansible).own_file()
    assert kept == []
    server(ansible, replace=True).own_file()
    assert [(file.path, file.text) for file in kept] == [(f"{conf}.replaced", "mine\n")]
    # A run that died after it had kept the file goes on.
    Path(f"{conf}.replaced").write_text("mine\n")
    server(ansible).own_file()


def test_names_become_addresses_and_unknown_ones_are_left_out(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ansible = AnsibleModule()
    monkeypatch.setattr(module, "own_addresses_of", lambda name, _run: ["10.0.0.5"] if name == "known" else [])
    servers = [{"name": name, "address": name, "port": 1, "verify_name": ""} for name in ("known", "unknown", "was")]
    conf.write_text(f"{ha.MARK}\nbackend webserver\n    server was [fd00::1]:1 check\n")
    found = server(ansible, *servers).addresses()
    assert found == {("webserver", "known"): "10.0.0.5", ("webserver", "was"): "fd00::1"}
    assert len(ansible.warnings) == 1
    assert "'unknown'" in ansible.warnings[0]
    with pytest.raises(ServerError, match="cannot resolve any of its servers' names"):
        server(ansible, servers[1]).addresses()


def test_a_missing_certificate_is_named_unless_it_is_only_a_prediction(conf: Path) -> None:
    ansible = AnsibleModule()
    with pytest.raises(ServerError, match=r"/nowhere/ca\.pem does not exist"):
        server(ansible)._content("/nowhere/ca.pem")
    ansible.check_mode = True
    assert server(ansible)._content("/nowhere/ca.pem") == ""
