# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import host_info


def test_this_machine() -> None:
    found = {**host_info.system(), **host_info.memory()}
    assert found["distribution"] == "Debian" or not pathlib.Path("/etc/debian_version").exists()
    assert len(found["boot_id"]) == 36
    assert found["memory_mb"] > 100 and found["processors"] >= 1 and found["open_files"] > 100
    limits = "Max processes  1 2 x\nMax open files     1024   20000   files\n"
    assert host_info.open_files(limits) == 20000
    assert host_info.open_files("Max open files     unlimited   unlimited   files\n") == 0
    assert found["root"] == (os.geteuid() == 0)
    assert host_info.interpreter(sys.executable).startswith("3.")
    assert host_info.interpreter("no-such-python") == host_info.interpreter("false") == ""


def test_disks_are_measured_where_a_folder_will_be(tmp_path: pathlib.Path) -> None:
    found = host_info.disk(str(tmp_path / "not" / "there"))
    assert found["device"] == os.stat(tmp_path).st_dev and found["free_mb"] >= 0


def test_who_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (found,) = host_info.ports([port])
        assert found["address"] == "127.0.0.1" and found["pid"] == os.getpid() and found["program"].startswith("python")
    assert host_info.ports([port]) == []
    assert host_info.ports([]) == []


def test_addresses_of_the_kernel() -> None:
    if sys.byteorder != "little":
        pytest.skip("the kernel writes them in the machine's order")
    assert host_info._address("0100007F:1F90") == ("127.0.0.1", 8080)
    assert host_info._address("00000000000000000000000001000000:0050") == ("::1", 80)


def test_names() -> None:
    assert host_info.resolved("127.0.0.1") == ["127.0.0.1"]
    assert host_info.resolved("nowhere.invalid") == []
    assert host_info.resolved("a" * 300) == []


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("postgresql", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main"),
        ("redis", "/usr/bin/redis-server 127.0.0.1:6379"),
        ("redis", "redis-server *:6400"),
        ("redis", "/usr/bin/valkey-server 127.0.0.1:6379"),
        ("airflow", "/opt/venv/bin/python3 /opt/venv/bin/airflow scheduler"),
        ("airflow", "/home/me/.venv/bin/python /home/me/.venv/bin/airflow standalone"),
        ("airflow", "/opt/venv/bin/python3 /opt/venv/bin/airflow celery worker -q default"),
        ("airflow", "airflow api_server -- host:0.0.0.0 port:8080"),
    ],
)
def test_what_is_known_by_its_command(kind: str, command: str) -> None:
    assert [name for name, pattern in host_info.SERVERS.items() if pattern.search(command)] == [kind]


@pytest.mark.parametrize(
    "command",
    [
        "vi /etc/airflow/scheduler.cfg",
        "airflow dags list",
        "postgres_exporter",
        "redis-cli",
        "less redis-server.log",
        "grep airflow",
    ],
)
def test_what_is_none(command: str) -> None:
    assert [name for name, pattern in host_info.SERVERS.items() if pattern.search(command)] == []


def test_running_servers(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "redis-server"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            deadline = time.monotonic() + 10
            while (
                not (found := [one for one in host_info.servers() if one["pid"] == process.pid]) and time.monotonic() < deadline
            ):
                time.sleep(0.05)
            assert found[0]["kind"] == "redis" and found[0]["program"] == "redis-server"
        finally:
            process.kill()


@pytest.mark.parametrize("gone", ["_parent", "owner_of"])
def test_a_child_that_ends_while_it_is_looked_at_is_no_server(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """Before it is asked for its parent, or after."""
    monkeypatch.setattr(host_info, "processes", lambda: iter([10, 11, 12]))
    monkeypatch.setattr(host_info, "command_of", lambda pid: "/usr/lib/postgresql/15/bin/postgres -D x" if pid < 12 else "sh")
    monkeypatch.setattr(host_info, "_parent", lambda pid: 1 if pid == 10 or gone == "owner_of" else 0)
    monkeypatch.setattr(host_info, "owner_of", lambda pid: "postgres" if pid == 10 or gone == "_parent" else "")
    assert [one["pid"] for one in host_info.servers()] == [10]


def test_dumps_with_and_without_keys(tmp_path: pathlib.Path) -> None:
    head = b"REDIS0010\xfa\tredis-ver\x067.0.15\xfa\nredis-bits\xc0@"
    empty, full = tmp_path / "empty.rdb", tmp_path / "full.rdb"
    empty.write_bytes(head + b"\xff12345678")
    full.write_bytes(head + b"\xfe\x00\xfb\x01\x00\x00\x05order\xc0\x01\xff12345678")
    assert [host_info._holds_keys(str(path)) for path in (empty, full, tmp_path / "none.rdb")] == [False, True, False]
    (tmp_path / "x.aof").write_bytes(b"*2\r\n$6\r\nSELECT\r\n")
    assert host_info._holds_keys(str(tmp_path / "x.aof"))


def test_revision_of_dag_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "dags").symlink_to("dags.revisions/20261122T000000-abc")
    assert host_info.dags_revision(str(tmp_path / "dags")) == "20261122T000000-abc"
    assert host_info.dags_revision(str(tmp_path)) == host_info.dags_revision("") == ""


def test_local_facts_are_files_and_programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "FACT_FOLDER", str(tmp_path))
    (tmp_path / "windfarm_airflow.fact").write_text('{"fingerprints": {}}')
    (tmp_path / "windfarm_airflow_worker.fact").write_text("#!/bin/sh\necho '{\"drained\": true}'\n")
    (tmp_path / "windfarm_airflow_worker.fact").chmod(0o755)
    (tmp_path / "windfarm_airflow_broken.fact").write_text("{")
    (tmp_path / "windfarm_airflow_failing.fact").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "windfarm_airflow_failing.fact").chmod(0o755)
    (tmp_path / "somebody.fact").write_text("{}")
    assert host_info.local_facts() == {"windfarm_airflow": {"fingerprints": {}}, "windfarm_airflow_worker": {"drained": True}}
