# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Holds and upgrades of server packages, with dpkg's and apt's answers as they were on Debian 12 and 13."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils import server_host as sh
from ansible_collections.windfarm.airflow.plugins.module_utils import status

SIMULATED = """\
Reading package lists...
Inst redis-server [5:8.0.2-3+deb13u2] (5:8.0.2-3+deb13u3 Debian-Security:13/stable-security [amd64]) []
Inst redis-tools [5:8.0.2-3+deb13u2] (5:8.0.2-3+deb13u3 Debian-Security:13/stable-security [amd64])
Conf redis-tools (5:8.0.2-3+deb13u3 Debian-Security:13/stable-security [amd64])
Conf redis-server (5:8.0.2-3+deb13u3 Debian-Security:13/stable-security [amd64])
"""
MAPS = """\
7f00-7f01 r-xp 00000000 00:2c 11 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)
7f01-7f02 r--p 00000000 00:2c 11 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)
7f02-7f03 r-xp 00000000 00:2c 12 /usr/lib/postgresql/17/bin/postgres (deleted)
7f03-7f04 rw-s 00000000 00:01 13 /dev/zero (deleted)
7f04-7f05 rw-s 00000000 00:01 14 /SYSV0012d687 (deleted)
7f05-7f06 r-xp 00000000 00:2c 15 /usr/lib/x86_64-linux-gnu/libc.so.6
"""


class Module:
    """dpkg's selections, and what apt says; `keeps` is whether apt leaves a hold as it was."""

    def __init__(self, check: bool = False, simulated: str = SIMULATED, **selections: str) -> None:
        self.check_mode = check
        self.simulated = simulated
        self.selections = {name.replace("_", "-"): want for name, want in selections.items()}
        self.commands: list[str] = []

    def run_command(self, command: Sequence[str], data: str | None = None, **_options: Any) -> tuple[int, str, str]:
        if command[0] == "dpkg-query":
            want = self.selections.get(command[-1])
            return (0, f"{want} installed", "") if want else (1, "", "")
        if command[:2] == ["dpkg", "--set-selections"]:
            self.commands.append(f"set {data!r}")
            self.selections.update(line.split() for line in (data or "").splitlines())  # type: ignore[misc]
            return 0, "", ""
        if "--simulate" in command:
            return 0, self.simulated, ""
        self.commands.append(" ".join(command))
        self.selections.update(dict.fromkeys(command[command.index("install") + 1 :], "install"))
        return 0, "", ""


@pytest.fixture(autouse=True)
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sh, "NEEDRESTART", f"{tmp_path}/90-{{}}.conf")
    monkeypatch.setattr(sh, "_ids", lambda file: (os.getuid(), os.getgid()))


def hold(module: Module, wish: bool) -> list[str]:
    host = sh.Host(module)
    host.only_on_purpose(wish, "redis", ["redis-server", "redis-tools"], "redis-server[.]service")
    return host.actions


def test_a_server_is_held_once_and_released_again(tmp_path: pathlib.Path) -> None:
    module = Module(redis_server="install", redis_tools="install")
    path = tmp_path / "90-redis.conf"
    assert hold(module, True) == [f"write {path}", "hold redis-server", "hold redis-tools"]
    assert path.read_text().splitlines()[-1] == "$nrconf{override_rc}{qr(^redis-server[.]service)} = 0;"
    assert set(module.selections.values()) == {"hold"}
    assert hold(module, True) == []
    module.selections["redis-tools"] = "install"
    assert hold(module, True) == ["hold redis-tools"]
    assert hold(module, False) == ["release redis-server", "release redis-tools", f"remove {path}"]
    assert hold(module, False) == []


def test_a_hold_of_somebody_else_stays() -> None:
    module = Module(redis_server="hold", redis_tools="install")
    assert hold(module, False) == []
    assert module.selections["redis-server"] == "hold"


def test_check_mode_holds_nothing(tmp_path: pathlib.Path) -> None:
    module = Module(check=True, redis_server="install", redis_tools="install")
    assert hold(module, True) == [f"write {tmp_path}/90-redis.conf", "hold redis-server", "hold redis-tools"]
    assert module.commands == []
    assert not list(tmp_path.iterdir())


def test_an_upgrade_tells_what_it_changes_and_holds_again() -> None:
    module = Module(redis_server="hold", redis_tools="hold")
    host = sh.Host(module)
    assert host.upgrade(["redis-server", "redis-tools"])[0] == ("redis-server", "5:8.0.2-3+deb13u2", "5:8.0.2-3+deb13u3")
    assert host.actions[1] == "upgrade redis-tools from 5:8.0.2-3+deb13u2 to 5:8.0.2-3+deb13u3"
    assert "--allow-change-held-packages" in module.commands[0]
    assert "--force-confold" in module.commands[0]
    assert set(module.selections.values()) == {"hold"}
    assert sh.Host(Module(simulated="")).upgrade(["redis-server"]) == []
    assert sh.Host(checked := Module(check=True)).upgrade(["redis-server"]) != []
    assert checked.commands == []


def test_another_major_version_is_refused() -> None:
    module = Module(simulated="Inst redis-server [5:7.0.15-1~deb12u5] (6:8.0.2-1 other [amd64])\n")
    with pytest.raises(sh.ServerError, match=r"redis-server: apt would replace 5:7\.0\.15-1~deb12u5 by 6:8\.0\.2-1"):
        sh.Host(module).upgrade(["redis-server"])
    assert module.commands == []


@pytest.mark.parametrize(("version", "found"), [("17.12-0+deb13u1", "17"), ("5:8.0.2-3", "8"), ("278", "278")])
def test_major_version(version: str, found: str) -> None:
    assert sh.major(version) == found


def test_replaced_files_are_programs_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sh, "read_text", lambda _path: MAPS)
    assert sh.Host(Module()).replaced_files("7") == ["libssl.so.3", "postgres"]


def test_who_waits_for_messages() -> None:
    clients = (
        "id=11 addr=10.0.0.21:39624 laddr=10.0.0.1:6379 flags=b db=0 cmd=brpop user=airflow\n"
        "id=12 addr=10.0.0.22:39632 laddr=10.0.0.1:6379 flags=N db=0 cmd=brpop user=airflow\n"
        "id=13 addr=10.0.0.23:39644 laddr=10.0.0.1:6379 flags=N db=0 cmd=ping user=airflow\n"
        "id=14 addr=[fd00::24]:39654 laddr=[fd00::1]:6379 flags=b db=0 cmd=brpop user=airflow\n"
    )
    found = rd.clients(clients)
    assert {number: one.address for number, one in found.items() if one.waits} == {"11": "10.0.0.21", "14": "fd00::24"}
    assert found["13"] == ("10.0.0.23", False)


def test_status_tells_of_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = (
        "redis-server:\n  Installed: 5:8.0.2-3+deb13u2\n  Candidate: 5:8.0.2-3+deb13u3\n  Version table:\n"
        "postgresql-17:\n  Installed: 17.12-0+deb13u1\n  Candidate: 17.12-0+deb13u1\n  Version table:\n"
    )
    monkeypatch.setattr(status, "_output", lambda command: policy if command[2:] == ["redis-server", "postgresql-17"] else "")
    text = "hi  redis-server 5:8.0.2-3+deb13u2\nhi  postgresql-17 17.12-0+deb13u1\nii  haproxy 3.0.11-1\n"
    assert status.waiting(text) == {"redis-server": "5:8.0.2-3+deb13u3"}
    assert status.waiting("ii  haproxy 3.0.11-1\n") == {}


# The service that deletes old rows


@pytest.fixture(name="clean")
def _clean() -> Any:
    path = pathlib.Path(__file__).resolve().parents[4] / "roles" / "airflow" / "files" / "db_clean.py"
    spec = importlib.util.spec_from_file_location("db_clean", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("table", "archived"),
    [
        ("_airflow_deleted__task_instance__20251122040000", "20251122040000"),
        ("_airflow_deleted__dag_run__20251122040000__b12", "20251122040000"),
        ("_airflow_deleted__mine", ""),
        ("_xcom_archive", ""),
        ("my_airflow_deleted__x__20251122040000", ""),
    ],
)
def test_archive_tables_are_known_by_their_names(clean: Any, table: str, archived: str) -> None:
    found = clean.ARCHIVE.match(table)
    assert (found[1] if found else "") == archived
