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
    "certificate_key": "",
    "forwarded": False,
    "redirect": "",
    "ca_file": "",
    "check_path": ["/"],
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


class Systemd:
    """What the module asks systemd, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, units: str = "") -> None:
        self.done: list[str] = []
        monkeypatch.setattr(Host, "must", lambda _self, _command, _meaning, **_options: units)
        monkeypatch.setattr(Host, "runs", lambda _self, _name: True)
        monkeypatch.setattr(Host, "unit", lambda _self, _name: {"UnitFileState": "enabled"})
        monkeypatch.setattr(Host, "systemctl", lambda _self, verb, unit="": self.done.append(f"{verb} {unit}"))


def nothing(**params: Any) -> module.Server:
    return module.Server(Host(AnsibleModule()), {"listeners": [], "keep_while": "", **params})


def test_without_listeners_only_what_is_ours_goes(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(monkeypatch)
    nothing().converge()
    conf.write_text("mine\n")
    nothing().converge()
    assert systemd.done == [] and conf.exists()
    conf.write_text(f"{ha.MARK}\n")
    nothing().converge()
    assert systemd.done == ["stop haproxy", "disable haproxy"] and not conf.exists()


def test_it_stays_while_it_is_needed(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(monkeypatch, "airflow-worker@default-a.service loaded deactivating stop-sigterm\n")
    conf.write_text(f"{ha.MARK}\n")
    nothing(keep_while="airflow-worker@*.service").converge()
    assert systemd.done == [] and conf.exists()


def test_the_key_is_found_beside_the_certificate(conf: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "entry.pem", tmp_path / "entry.key"
    listeners = [{**LISTENER, "servers": [], "certificate": str(certificate), "certificate_key": str(key)}]
    host = Host(AnsibleModule())
    link = Path(f"{certificate}.key")
    link.write_text("an old copy")
    for expected in (1, 1):
        module.Server(host, {"listeners": listeners}).link_keys()
        assert len(host.actions) == expected and link.is_symlink() and link.readlink() == key
