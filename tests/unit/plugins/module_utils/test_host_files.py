# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import stat

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import host_files

ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


def converge(path: pathlib.Path, content: str, check: bool = False, **more: object) -> list[dict]:
    wanted = {"path": str(path), "content": content, "mode": "0600", **ME, **more}
    return host_files.converge([], [], [], [wanted], check)


def test_a_file_is_written_once(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "new" / "file"
    assert len(converge(file, "a\n")) == 1
    assert file.read_text() == "a\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert converge(file, "a\n") == []
    assert [one.name for one in file.parent.iterdir()] == ["file"]


def test_check_mode_writes_nothing(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "new" / "file"
    assert len(converge(file, "a\n", check=True)) == 1
    assert not file.parent.exists()


def test_a_mode_that_somebody_changed_is_put_right(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    converge(file, "a\n")
    file.chmod(0o644)
    assert len(converge(file, "a\n", check=True)) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert len(converge(file, "a\n")) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_directory_keeps_its_set_group_id(tmp_path: pathlib.Path) -> None:
    wanted = {"path": str(tmp_path / "logs"), "mode": "2750", **ME}
    assert len(host_files.converge([], [], [wanted], [], False)) == 1
    assert host_files.converge([], [], [wanted], [], False) == []


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(host_files.HostFilesError, match="is not a directory"):
        host_files.ensure_directory({"path": str(tmp_path / "logs"), "mode": "0755", **ME}, False)


def test_a_secret_is_never_in_a_diff(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "environment"
    converge(file, '# comment\nA="one"\nB="two"\n', secret=True)
    (diff,) = converge(file, '# comment\nA="other"\nB="two"\nstray words\n', secret=True)
    assert diff["before"] == "# comment\nA=<hidden>\nB=<hidden>\n"
    assert diff["after"] == "# comment\nA=<hidden, changed>\nB=<hidden>\n<hidden>\n"


def test_missing_accounts_are_those_that_the_host_lacks() -> None:
    user = {"name": "windfarm-nobody", "comment": "c", "home": "/var/lib/x", "groups": ["windfarm-none"]}
    present = {"name": ME["owner"], "comment": "c", "home": "/x", "groups": []}
    assert host_files.missing_accounts(["windfarm-none", ME["group"]], [user, present]) == [
        "g windfarm-none -",
        'u windfarm-nobody - "c" /var/lib/x /usr/sbin/nologin',
        "m windfarm-nobody windfarm-none",
    ]
