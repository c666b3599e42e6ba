# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's decisions; what PostgreSQL does with them is tested on the lab's hosts."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import File, Host, ServerError
from ansible_collections.windfarm.airflow.plugins.modules import postgresql_server as module

PARAMS: dict[str, Any] = {
    "version": "15",
    "listen_addresses": ["127.0.0.1"],
    "port": 5432,
    "max_connections": 100,
    "tls_certificate": "",
    "tls_key": "",
    "sandbox": True,
    "config": {},
    "hba_entries": [],
    "users": [],
    "databases": [],
    "start_timeout": 1,
    "hold": False,
    "upgrade": False,
    "restart": False,
}
RELEASE = {"12": 'ID=debian\nVERSION_ID="12"\n', "13": 'ID=debian\nVERSION_ID="13"\n', "ubuntu": "ID=ubuntu\nVERSION_ID=12\n"}


class AnsibleModule:
    def __init__(self, check: bool) -> None:
        self.check_mode = check
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Server(module.Server):
    """A cluster whose files lie in a folder of the test; the server itself answers what the test says."""

    def __init__(self, folder: Path, check: bool = False, **params: Any) -> None:
        self.folder = folder
        super().__init__(Host(AnsibleModule(check)), {**PARAMS, **params})
        self.settings = {"max_connections": "100", "work_mem": "4MB"}
        self.loaded = 0.0
        self.pending: list[str] = []
        self.fails = ""
        self.shown = ""

    @property
    def etc(self) -> str:
        return str(self.folder)

    def shows(self, file: File) -> bool:
        return self.shown == file.text

    def state(self) -> dict[str, Any]:
        conf = str(self.folder / "90.conf")
        return {
            "loaded": self.loaded,
            "pending": self.pending,
            "hba_errors": ["line 3: no"] if "broken" in (self.folder / "hba").read_text() else [],
            "settings": {
                "max_connections": {"value": "100", "file": conf, "context": "postmaster"},
                "work_mem": {"value": "4MB", "file": conf, "context": "user"},
            },
        }

    def restart(self, why: str) -> None:
        self.restarted = True
        self.host.note(f"restart ({why})")
        if self.fails:
            raise ServerError(self.fails)
        self.pending = []


@pytest.fixture
def files(tmp_path: Path) -> tuple[File, File]:
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    conf = File(str(tmp_path / "90.conf"), "max_connections = '100'\nwork_mem = '4MB'\n", 0o644, owner, group)
    hba = File(str(tmp_path / "hba"), "local all all reject\n", 0o640, owner, group)
    for file in (conf, hba):
        Path(file.path).write_text(file.text)
        os.chmod(file.path, file.mode)
        os.utime(file.path, (1000, 1000))
    return conf, hba


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    one = Server(tmp_path)
    one.loaded = 2000.0

    def systemctl(verb: str, unit: str = "") -> None:
        one.host.note(f"{verb} {unit}")
        one.loaded = 4e9

    monkeypatch.setattr(one.host, "systemctl", systemctl)
    monkeypatch.setattr(one.host, "must", lambda command, _meaning: one.host.note(" ".join(command[1:])))
    monkeypatch.setattr(one, "wait", lambda: None)
    return one


@pytest.fixture
def bundle(files: tuple[File, File], tmp_path: Path) -> File:
    one = File(str(tmp_path / "90-ansible.pem"), "certificate and key\n", 0o600, files[0].owner, files[0].group)
    Path(one.path).write_text(one.text)
    os.chmod(one.path, one.mode)
    os.utime(one.path, (1000, 1000))
    return one


# Which cluster


@pytest.mark.parametrize(
    ("clusters", "wanted", "release", "version"),
    [
        ([], "", "12", "15"),
        ([], "", "13", "17"),
        ([], "16", "13", "16"),
        (["15"], "", "13", "15"),
        (["15", "17"], "15", "13", "15"),
        (["15"], "15", "ubuntu", "15"),
    ],
)
def test_the_version(
    clusters: list[str], wanted: str, release: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.glob, "glob", lambda _pattern: [f"/etc/postgresql/{one}/main/x" for one in clusters])
    monkeypatch.setattr(module, "read_text", lambda _path: RELEASE[release])
    one = Server(tmp_path, version=wanted)
    assert (one.version, one.unit, one.package) == (version, f"postgresql@{version}-main", f"postgresql-{version}")


@pytest.mark.parametrize(
    ("clusters", "wanted", "words"),
    [
        (["15", "17"], "", "15/main, 17/main; say which one in postgresql_version"),
        (["15"], "17", "postgresql_version: this host has the cluster 15/main, not 17"),
        ([], "9.6", "is not a major version"),
        ([], "", "neither Debian 12 nor Debian 13"),
    ],
)
def test_an_impossible_version(
    clusters: list[str], wanted: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.glob, "glob", lambda _pattern: [f"/etc/postgresql/{one}/main/x" for one in clusters])
    monkeypatch.setattr(module, "read_text", lambda _path: RELEASE["ubuntu"])
    with pytest.raises(ServerError, match=words):
        Server(tmp_path, version=wanted)


def test_a_data_directory_without_a_database_is_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgresql.conf").write_text(f"#data_directory = '/no'\ndata_directory = '{tmp_path}/data'\t# here\n")
    monkeypatch.setattr(server.host, "installed", lambda _package: True)
    with pytest.raises(ServerError, match=f"{tmp_path}/data holds no database"):
        server.prepare()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("15\n")
    assert server.prepare()
    assert server.host.actions == []


# Reload and restart


def test_a_server_that_has_loaded_its_files_is_left_alone(server: Server, files: tuple[File, File]) -> None:
    server.apply_files(*files)
    assert server.host.actions == []
    assert not server.restarted


def test_a_file_younger_than_the_loaded_configuration_is_loaded(server: Server, files: tuple[File, File]) -> None:
    os.utime(files[1].path, (3000, 3000))
    server.apply_files(*files)
    assert server.host.actions == ["reload postgresql@15-main"]


def test_what_waits_for_a_restart_gets_one_though_nothing_was_written(server: Server, files: tuple[File, File]) -> None:
    server.pending = ["max_connections"]
    server.apply_files(*files)
    assert server.host.actions == ["restart (max_connections changed)"]
    assert server.restarted


def test_a_value_that_the_start_refuses_is_taken_back(server: Server, files: tuple[File, File]) -> None:
    conf = File(**{**files[0].__dict__, "text": "max_connections = '9'\n"})
    server.pending, server.fails = ["max_connections"], "does not answer"
    with pytest.raises(ServerError, match="postgresql_config: does not answer; the previous file is back"):
        server.apply_files(conf, files[1])
    assert Path(conf.path).read_text() == files[0].text
    assert server.host.actions[-1] == "restart postgresql@15-main"


def test_rules_that_postgresql_refuses_are_taken_back(server: Server, files: tuple[File, File]) -> None:
    hba = File(**{**files[1].__dict__, "text": "broken\n"})
    with pytest.raises(ServerError, match="postgresql_hba_entries: PostgreSQL refuses line 3: no"):
        server.apply_files(files[0], hba)
    assert Path(hba.path).read_text() == files[1].text


# The certificate


def test_a_server_that_shows_its_certificate_is_left_alone(server: Server, files: tuple[File, File], bundle: File) -> None:
    server.shown = bundle.text
    server.apply_files(*files, bundle)
    assert server.host.actions == []


def test_a_certificate_that_is_written_but_not_shown_is_loaded(server: Server, files: tuple[File, File], bundle: File) -> None:
    server.apply_files(*files, bundle)
    assert server.host.actions == ["reload postgresql@15-main"]


def test_a_renewed_certificate_is_loaded_and_its_key_shown_nowhere(
    server: Server, files: tuple[File, File], bundle: File
) -> None:
    renewed = File(**{**bundle.__dict__, "text": "another SECRET\n"})
    server.apply_files(*files, renewed)
    assert server.host.actions == [f"write {bundle.path}", "reload postgresql@15-main"]
    assert not server.restarted
    assert Path(bundle.path).read_text() == renewed.text
    assert "SECRET" not in str(server.host.diff) + str(server.host.actions)


def test_another_chain_after_the_same_certificate_is_loaded(server: Server, files: tuple[File, File], bundle: File) -> None:
    server.shown = bundle.text
    os.utime(bundle.path, (3000, 3000))
    server.apply_files(*files, bundle)
    assert server.host.actions == ["reload postgresql@15-main"]
    server.host.check, server.shown = True, bundle.text + "chain\n"
    server.apply_files(*files, File(**{**bundle.__dict__, "text": bundle.text + "chain\n"}))
    assert server.host.actions[1:] == [f"write {bundle.path}", "reload postgresql@15-main"]


def test_a_certificate_that_the_server_does_not_take_is_told(server: Server, bundle: File) -> None:
    with pytest.raises(ServerError, match="postgresql_tls_certificate: postgresql@15-main does not show"):
        server.prove_certificate(bundle)
    server.shown = bundle.text
    server.prove_certificate(bundle)


def test_without_tls_the_key_is_removed(server: Server, bundle: File) -> None:
    server.drop_certificate()
    server.drop_certificate()
    assert not os.path.exists(bundle.path)
    assert server.host.actions == [f"remove {bundle.path}"]


def test_files_that_are_yet_to_be_made_are_predicted_in_check_mode_only(server: Server) -> None:
    assert server.certificate() is None
    server.params.update(tls_certificate="/absent.pem", tls_key="/absent.key")
    with pytest.raises(ServerError, match=r"postgresql_tls_certificate: /absent.pem does not exist on this host"):
        server.certificate()
    server.host.check = True
    predicted = server.certificate()
    assert predicted is not None
    assert server.put_certificate(predicted)
    assert not os.path.exists(predicted.path)
    server.params.update(tls_key="")
    with pytest.raises(ServerError, match="postgresql_tls_key is empty but the other file is given"):
        server.certificate()


# The sandbox


@pytest.mark.parametrize(
    ("wished", "bounds", "action"),
    [
        (True, "0000000000000000", None),
        (True, "000001ffffffffff", "restart (into its sandbox)"),
        (False, "000001ffffffffff", None),
        (False, "0000000000000000", "restart (out of its sandbox)"),
    ],
)
def test_a_server_is_restarted_only_to_enter_or_leave_its_sandbox(
    wished: bool, bounds: str, action: str | None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.params["sandbox"] = wished
    monkeypatch.setattr(server, "lock", lambda: ["77 "])
    monkeypatch.setattr(module, "read_text", lambda path: {"/proc/77/status": f"CapBnd:\t{bounds}\n"}[path])
    server.confine()
    assert server.host.actions == ([action] if action else [])


def test_a_sandbox_in_which_the_server_does_not_start_is_taken_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[File] = []
    monkeypatch.setattr(server, "lock", lambda: ["1"])
    monkeypatch.setattr(module.pg, "confined", lambda _status: False)
    monkeypatch.setattr(module, "write_file", written.append)
    server.fails = "permission denied"
    with pytest.raises(ServerError, match=r"postgresql_sandbox: the server does not start .* set false \(permission denied\)"):
        server.confine()
    assert written[0].text == module.pg.UNIT
    assert server.host.actions[-2:] == ["daemon-reload", "restart postgresql@15-main"]


@pytest.mark.parametrize(
    ("text", "restart"), [("max_connections = '150'\nwork_mem = '4MB'\n", True), ("work_mem = '5MB'\n", False)]
)
def test_check_mode_knows_what_needs_a_restart(server: Server, files: tuple[File, File], text: str, restart: bool) -> None:
    server.host.check = True
    server.settings = {"max_connections": "150" if restart else "100", "work_mem": "4MB"}
    server.apply_files(File(**{**files[0].__dict__, "text": text}), files[1])
    assert server.restarted is restart
    assert Path(files[0].path).read_text() == files[0].text


def test_settings_that_count_elsewhere_are_told(server: Server, files: tuple[File, File]) -> None:
    state = server.state()
    state["settings"]["work_mem"]["file"] = "/data/postgresql.auto.conf"
    server._check_applied(state, files[0])
    assert "work_mem is overridden by /data/postgresql.auto.conf" in server.host.module.warnings[0]
    state["settings"]["max_connections"]["file"] = None
    with pytest.raises(ServerError, match=r"include_dir = 'conf.d'"):
        server._check_applied(state, files[0])


def test_a_server_without_an_address_is_restarted_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.settings = {"listen_addresses": "127.0.0.1, 10.0.0.5"}
    monkeypatch.setattr(module, "accepts", lambda address, _port: address == "127.0.0.1" or server.restarted)
    server.listening()
    assert server.host.actions == ["restart (it does not listen on 10.0.0.5)"]
    monkeypatch.setattr(module, "accepts", lambda address, _port: address == "127.0.0.1")
    with pytest.raises(ServerError, match=r"does not listen on 10\.0\.0\.5 port 5432"):
        server.listening()


def test_a_failed_statement_shows_no_verifier(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 3, "", "ERROR: at 'SCRAM-SHA-256$4096:abc$def:ghi'\n")
    monkeypatch.setattr(server, "psql", lambda _sql: failed)
    with pytest.raises(ServerError, match=r"cannot create role u: ERROR: at '\*{8}$"):
        server._execute([("create role u", "CREATE ROLE u;")])


def test_names_of_clients_keep_their_addresses_and_own_names_mean_the_host(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"type": "host", "database": "d", "user": "u", "method": "scram-sha-256"}
    server.params["hba_entries"] = [{**entry, "address": "gone"}, {**entry, "address": "db1"}]
    (tmp_path / "pg_hba.conf").write_text("host d u 10.0.0.7/32 scram-sha-256 # gone\n")
    monkeypatch.setattr(module, "lookup", lambda name: {"db1": ["127.0.1.1"]}.get(name, []))
    monkeypatch.setattr(module, "own_addresses_of", lambda _name, _run: ["10.0.0.5", "127.0.1.1"])
    lines = server.files()[1].text.splitlines()
    assert [line for line in lines if "#" in line][1:] == [
        "host d u 10.0.0.7/32 scram-sha-256 # gone",
        "host d u 10.0.0.5/32 scram-sha-256 # db1",
        "host d u 127.0.0.1/32 scram-sha-256 # db1",
    ]
    assert "'gone' cannot be resolved now" in server.host.module.warnings[0]


@pytest.mark.parametrize(("failures", "fails"), [(2, False), (99, True)])
def test_a_busy_database_is_tried_again(server: Server, failures: int, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def psql(sql: str) -> subprocess.CompletedProcess[str]:
        calls.append(sql)
        busy = len(calls) <= failures
        return subprocess.CompletedProcess([], int(busy), "", "ERROR:  deadlock detected\n" if busy else "")

    monkeypatch.setattr(server, "psql", psql)
    if fails:
        with pytest.raises(ServerError, match="deadlock detected"):
            server._execute([("give", "x")])
        assert len(calls) == module.ATTEMPTS
    else:
        server._execute([("give", "x")])
        assert len(calls) == failures + 1
