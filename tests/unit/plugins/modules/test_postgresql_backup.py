# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's decisions; what systemd does with its units is tested on the lab's hosts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError
from ansible_collections.windfarm.airflow.plugins.modules import postgresql_backup as module

PARAMS: dict[str, Any] = {
    "enabled": True,
    "version": "17",
    "port": 5432,
    "databases": ["airflow", "airflow_results"],
    "directory": "/var/backups/postgresql",
    "schedule": "*-*-* 02:30:00",
    "retention_days": 14,
    "retention_least": 3,
    "copy_to": "",
    "copy_port": 22,
    "copy_key_file": "",
    "copy_host_keys": [],
}
COPY = {"copy_to": "keeper@backup1:/srv/copies", "copy_key_file": "/etc/copy_key", "copy_host_keys": ["backup1 ssh-ed25519 AAAA"]}


class Host:
    """Where systemd takes every schedule but one."""

    def __init__(self, check: bool = False) -> None:
        self.check = check
        self.notes: list[str] = []

    def run(self, command: list[str]) -> tuple[int, str, str]:
        return (1, "", "Failed to parse calendar specification 'never'\n") if command[-1] == "never" else (0, "", "")

    def note(self, text: str) -> None:
        self.notes.append(text)


def check(**changes: Any) -> None:
    module.check({**PARAMS, **changes}, Host(check=True))  # type: ignore[arg-type]


def test_what_is_right_passes() -> None:
    check()
    check(**COPY)
    check(**{**COPY, "copy_to": "keeper@10.0.0.9:/srv/copies"})
    check(**{**COPY, "copy_to": "keeper@fd00::1:/srv/copies"})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"directory": "/"}, "postgresql_backup_directory"),
        ({"directory": "/var"}, "below the top"),
        ({"directory": "backups"}, "postgresql_backup_directory"),
        ({"directory": "/srv/my backups"}, "postgresql_backup_directory"),
        ({"directory": "/srv/../etc"}, "postgresql_backup_directory"),
        ({"directory": "/srv/x\nExecStartPre=/bin/true"}, "postgresql_backup_directory"),
        ({"directory": "/srv/x\n"}, "postgresql_backup_directory"),
        ({"databases": []}, "postgresql_backup_databases is empty"),
        ({"retention_days": 0}, "postgresql_backup_retention_days"),
        ({"retention_least": 0}, "postgresql_backup_retention_least"),
        ({"schedule": "never"}, "systemd does not understand 'never'"),
        ({"schedule": "daily\nUser=root"}, "postgresql_backup_schedule"),
        ({**COPY, "copy_to": "backup1:/srv"}, "is not USER@HOST:/FOLDER"),
        ({**COPY, "copy_to": "keeper@backup1:srv"}, "is not USER@HOST:/FOLDER"),
        ({**COPY, "copy_to": "-oProxyCommand=x@h:/srv"}, "is not USER@HOST:/FOLDER"),
        ({**COPY, "copy_key_file": ""}, "postgresql_backup_copy_key_file is needed"),
        ({**COPY, "copy_host_keys": []}, "postgresql_backup_copy_host_keys is needed"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ServerError, match=word):
        check(**changes)


def test_a_missing_key_is_refused_but_not_in_check_mode() -> None:
    params = {**PARAMS, **COPY, "copy_key_file": "/nowhere/key"}
    module.check(params, Host(check=True))  # type: ignore[arg-type]
    with pytest.raises(ServerError, match="/nowhere/key does not exist"):
        module.check(params, Host())  # type: ignore[arg-type]


def test_the_unit_can_write_where_it_should_and_speaks_to_nobody() -> None:
    text = module.service(PARAMS)
    assert "\nUser=postgres\n" in text
    assert "ReadWritePaths=/var/backups/postgresql\n" in text
    assert "RestrictAddressFamilies=AF_UNIX\n" in text
    assert "LoadCredential" not in text
    assert "ProtectHome=yes" in text
    assert "ProtectHome=no" in module.service({**PARAMS, "directory": "/home/backups"})


def test_with_a_copy_it_gets_the_key_and_the_network() -> None:
    text = module.service({**PARAMS, **COPY})
    assert "LoadCredential=ssh_key:/etc/copy_key\n" in text
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n" in text
    assert json.loads(module.config({**PARAMS, **COPY}))["copy"] == {"target": "keeper@backup1:/srv/copies", "port": 22}


def test_without_a_timer_there_is_no_schedule_to_keep() -> None:
    assert json.loads(module.config(PARAMS))["schedule"] == "*-*-* 02:30:00"
    assert json.loads(module.config({**PARAMS, "enabled": False}))["schedule"] == ""


def test_a_folder_with_other_files_is_not_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Account:
        pw_uid, pw_gid = os.getuid(), os.getgid()

    monkeypatch.setattr(module.pwd, "getpwnam", lambda _name: Account)
    folder = tmp_path / "backups"
    host = Host()
    module.have_directory(str(folder), host)  # type: ignore[arg-type]
    assert folder.stat().st_mode & 0o777 == 0o700
    module.have_directory(str(folder), host)  # type: ignore[arg-type]
    assert host.notes == [f"folder {folder}"]
    folder.chmod(0o755)
    for name in ("20261122T051500Z", "20261122T051500Z.partial", "lost+found"):
        (folder / name).mkdir()
    module.have_directory(str(folder), host)  # type: ignore[arg-type]
    folder.chmod(0o755)
    (folder / "mine.txt").touch()
    with pytest.raises(ServerError, match=r"holds other files \(mine\.txt\)"):
        module.have_directory(str(folder), host)  # type: ignore[arg-type]
