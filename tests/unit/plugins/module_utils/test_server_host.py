# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import server_host as sh

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


class Module:
    """As much of AnsibleModule as Host uses; commands answer what the test says."""

    def __init__(self, check: bool = False, answers: dict[str, tuple[int, str, str]] | None = None) -> None:
        self.check_mode = check
        self.answers = answers or {}
        self.commands: list[str] = []

    def run_command(self, command: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        self.commands.append(" ".join(command))
        return next((answer for text, answer in self.answers.items() if text in self.commands[-1]), (0, "", ""))


def file(path: Path, text: str = "a = 1\nsecret x\n", mode: int = 0o640) -> sh.File:
    return sh.File(str(path), text, mode, USER, GROUP)


def silent(_command: Sequence[str]) -> tuple[int, str, str]:
    return 2, "", ""


# Files


def test_a_file_is_written_whole_once(tmp_path: Path) -> None:
    wish = file(tmp_path / "deep" / "f")
    host = sh.Host(Module(), ["secret"])
    assert host.put([wish]) == [wish]
    assert (tmp_path / "deep" / "f").read_text() == wish.text
    assert (tmp_path / "deep" / "f").stat().st_mode & 0o777 == 0o640
    assert host.put([wish]) == []
    assert host.actions == [f"write {wish.path}"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f"]


def test_the_mode_alone_is_a_difference(tmp_path: Path) -> None:
    wish = file(tmp_path / "f")
    sh.write_file(wish)
    os.chmod(wish.path, 0o644)
    assert sh.file_differs(wish)
    assert not sh.file_differs(file(tmp_path / "f", mode=0o644))


def test_check_mode_writes_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    host = sh.Host(Module(check=True), ["secret"])
    assert len(host.put([file(tmp_path / "f")])) == 1
    assert not (tmp_path / "f").exists()
    assert host.diff[0]["after"] == "a = 1\nsecret ********\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sh.write_file(file(tmp_path / "f", "old\n"))

    def broken(*_paths: str) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no"):
        sh.write_file(file(tmp_path / "f", "new\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old\n"


def test_diffs_leave_comments_out() -> None:
    assert sh.effective("# c\n\n a\n  # d\nb # e\n") == " a\nb # e\n"


# Packages and units


def test_an_installation_fetches_the_lists_when_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module()
    tries = iter([100, 0])
    plain = module.run_command

    def run(command: Sequence[str], **options: Any) -> tuple[int, str, str]:
        plain(command, **options)
        return (next(tries), "", "") if "install" in command else (0, "", "")

    monkeypatch.setattr(module, "run_command", run)
    sh.Host(module).install("redis-server")
    assert [command.split()[0] + " " + command.split()[-1] for command in module.commands] == [
        "apt-get redis-server", "dpkg -a", "apt-get update", "apt-get redis-server",
    ]  # fmt: skip


def test_an_impossible_installation_names_the_package() -> None:
    host = sh.Host(Module(answers={" install x": (100, "", "E: Unable to locate package x\n")}))
    with pytest.raises(sh.ServerError, match="installing the package x failed: E: Unable to locate"):
        host.install("x")


def test_check_mode_installs_nothing() -> None:
    module = Module(check=True)
    host = sh.Host(module)
    host.install("x")
    assert host.actions == ["install x"]
    assert module.commands == []


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ("ActiveState=active\nSubState=running\n", True),
        ("ActiveState=activating\nSubState=start\n", True),
        ("ActiveState=activating\nSubState=auto-restart\n", False),
        ("ActiveState=failed\nSubState=failed\n", False),
        ("ActiveState=inactive\nSubState=dead\n", False),
    ],
)
def test_whether_a_unit_runs(state: str, runs: bool) -> None:
    assert sh.Host(Module(answers={"show": (0, state, "")})).runs("x") is runs


def test_a_unit_is_reloaded_and_enabled_where_it_is_not(tmp_path: Path) -> None:
    wish = file(tmp_path / "d.conf")
    sh.write_file(wish)
    state = "ActiveState=active\nSubState=running\nUnitFileState=disabled\nNeedDaemonReload=yes\n"
    host = sh.Host(Module(answers={"show": (0, state, "")}))
    host.settle_unit("x", wish)
    assert host.actions == ["daemon-reload", "enable x"]
    host = sh.Host(Module(answers={"show": (0, "UnitFileState=enabled\nNeedDaemonReload=no\n", "")}))
    host.settle_unit("x", wish)
    assert host.actions == []
    with pytest.raises(sh.ServerError, match="masked"):
        sh.Host(Module(answers={"show": (0, "UnitFileState=masked\n", "")})).settle_unit("x", wish)


# Addresses


def test_addresses_to_listen_on() -> None:
    assert sh.listen_addresses("v", ["127.0.0.1", "127.0.0.1", "*"], silent) == ["127.0.0.1", "*"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["192.0.2.7"], "192.0.2.7 is not an address of this host"),
        (["nobody.invalid"], "cannot resolve 'nobody.invalid'"),
        (["a b"], "neither an address nor a host name"),
        ([], "is empty"),
    ],
)
def test_impossible_addresses_are_refused(given: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sh, "lookup", lambda _name: [])
    with pytest.raises(sh.ServerError, match=f"^v.*{words}"):
        sh.listen_addresses("v", given, silent)


def test_the_own_name_on_a_host_that_debians_installer_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/hosts says 127.0.1.1; the others reach the host by what the name server says, else by its outward address."""
    monkeypatch.setattr(sh, "lookup", lambda _name: ["127.0.1.1"])
    monkeypatch.setattr(sh, "is_own", lambda address: address == "10.0.0.5")
    monkeypatch.setattr(sh, "outward_address", lambda: "10.0.0.9")

    def server(_command: Sequence[str]) -> tuple[int, str, str]:
        return 0, "10.0.0.5  STREAM db1\n10.0.0.5  DGRAM\n10.0.0.6 STREAM\n", ""

    assert sh.own_addresses_of("db1", server) == ["10.0.0.5", "127.0.1.1"]
    assert sh.own_addresses_of("db1", silent) == ["10.0.0.9", "127.0.1.1"]


def test_whether_an_address_is_ones_own_and_answers() -> None:
    assert sh.is_own("127.0.0.1")
    assert not sh.is_own("192.0.2.7")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert sh.accepts("127.0.0.1", port)
        assert sh.accepts("*", port)
    assert not sh.accepts("127.0.0.1", port)


def test_addresses_are_sorted_by_family_and_number() -> None:
    assert sh.sort_addresses(["::1", "10.0.0.10", "10.0.0.9", "10.0.0.9"]) == ["10.0.0.9", "10.0.0.10", "::1"]
