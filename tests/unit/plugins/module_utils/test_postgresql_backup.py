# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is decided about backups without a server; making one is tested on the lab's hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_backup as pb

NOW = pb.seconds_of("20261122T051500Z")
DAY = 86400


def names(*ages: int) -> list[str]:
    return [time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(NOW - age * DAY)) for age in ages]


def sealed(folder: Path, name: str = "20261122T051500Z", **changes: Any) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "airflow.dump").write_bytes(b"PGDMP" * 100)
    (path / pb.ROLES).write_text("-- roles\n")
    manifest = {"format": 1, "id": name, "databases": {"airflow": {"file": "airflow.dump"}}, **changes}
    (path / pb.MANIFEST).write_text(json.dumps(manifest))
    files = ["airflow.dump", pb.ROLES, pb.MANIFEST]
    (path / pb.CHECKSUMS).write_text("".join(f"{pb.checksum(str(path / file))}  {file}\n" for file in files))
    return path


def test_only_what_has_its_final_name_is_a_backup(tmp_path: Path) -> None:
    sealed(tmp_path, "20261122T051500Z")
    sealed(tmp_path, "20261121T051500Z-2")
    sealed(tmp_path, "20261123T051500Z" + pb.PARTIAL)
    sealed(tmp_path, "mine")
    (tmp_path / "20261124T051500Z").mkdir()
    assert pb.ids(str(tmp_path)) == ["20261121T051500Z-2", "20261122T051500Z"]
    assert (pb.last_good(str(tmp_path)) or {})["id"] == "20261122T051500Z"
    assert pb.ids(str(tmp_path / "nowhere")) == []
    assert pb.last_good(str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize(
    ("ages", "least", "gone"),
    [
        ((1, 2, 20, 30), 1, (20, 30)),
        ((1, 2, 20, 30), 3, (30,)),
        ((20, 30, 40), 3, ()),
        ((20, 30, 40, 50), 3, (50,)),
        # However it is set, the last one stays.
        ((400,), 0, ()),
        ((400, 500), -5, (500,)),
        ((1, 2, 3, 4, 5), 1, ()),
        ((), 3, ()),
    ],
)
def test_old_ones_go_but_never_the_newest(ages: tuple[int, ...], least: int, gone: tuple[int, ...]) -> None:
    assert sorted(pb.expired(names(*ages), 14, least, NOW)) == sorted(names(*gone))


def test_a_removal_that_is_interrupted_leaves_nothing_that_looks_like_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sealed(tmp_path)

    def dies(_path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        pb.remove(str(path))
    assert pb.ids(str(tmp_path)) == []
    monkeypatch.undo()
    pb.remove(str(path) + pb.PARTIAL)
    assert os.listdir(tmp_path) == []


def test_whole_files_pass_and_damaged_ones_do_not(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    assert pb.check_files(str(path))["id"] == "20261122T051500Z"
    with (path / "airflow.dump").open("r+b") as file:
        file.seek(250)
        file.write(b"x")
    with pytest.raises(pb.BackupError, match=r"airflow\.dump is damaged"):
        pb.check_files(str(path))
    (path / "airflow.dump").unlink()
    with pytest.raises(pb.BackupError, match=r"airflow\.dump is missing"):
        pb.check_files(str(path))
    (path / pb.CHECKSUMS).write_text("")
    with pytest.raises(pb.BackupError, match="SHA256SUMS is damaged"):
        pb.check_files(str(path))
    (path / pb.CHECKSUMS).write_text("f" * 64 + "  ../../etc/shadow\n")
    with pytest.raises(pb.BackupError, match="SHA256SUMS is damaged"):
        pb.check_files(str(path))
    (path / pb.CHECKSUMS).unlink()
    with pytest.raises(pb.BackupError, match="no SHA256SUMS"):
        pb.check_files(str(path))


def test_a_dump_without_checksum_is_refused(tmp_path: Path) -> None:
    path = sealed(tmp_path, databases={"airflow": {"file": "airflow.dump"}, "other": {"file": "other.dump"}})
    with pytest.raises(pb.BackupError, match=r"other\.dump has no checksum"):
        pb.check_files(str(path))


@pytest.mark.parametrize(
    ("text", "word"), [("{", "damaged"), ('{"format": 2}', "of another kind"), ("[]", "of another kind"), (None, "is no backup")]
)
def test_a_strange_manifest_is_refused(tmp_path: Path, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / pb.MANIFEST).write_text(text)
    with pytest.raises(pb.BackupError, match=word):
        pb.read_manifest(str(tmp_path))


def test_one_at_a_time(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(pb.__file__).parent)!r}); import postgresql_backup as pb\n"
        f"with pb.lock({str(tmp_path)!r}): pass"
    )
    command = [sys.executable, "-c", code]
    with pb.lock(str(tmp_path)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another backup or restore is at work" in done.stderr
    subprocess.run(command, check=True)


def test_space_is_added_up_per_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path)
    monkeypatch.setattr(pb, "free", lambda path: (1000, os.stat(path).st_dev))
    pb.require_space([(folder, 500, "the dumps"), (folder, 500, "their verification")])
    with pytest.raises(pb.BackupError, match=r"the dumps and their verification may need 1\.1 kB, of which 1\.0 kB can"):
        pb.require_space([(folder, 500, "the dumps"), (folder, 550, "their verification")])


def test_a_share_of_the_disk_is_left_alone(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    usable, _device = pb.free(str(tmp_path))
    left = state.f_bavail * state.f_frsize - usable
    assert 0 < left <= pb.RESERVE


def test_a_process_that_fills_the_disk_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pb, "free", lambda path: (-1, 0))
    monkeypatch.setattr(pb.Server, "popen", lambda _self, _program, *argv, **more: subprocess.Popen(argv, **more))
    server = pb.Server("17", 5432)
    started = time.monotonic()
    with pytest.raises(pb.BackupError, match="pg_dump was ended before it filled the disk"), pb.Watch(str(tmp_path)) as watch:
        server.run("pg_dump", "pg_dump", "sleep", "30", watch=watch)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, ""),
        ({"a": 1, "b": 2}, {"a": 1, "b": 1}, "table b has 1 rows in the restored database and 2 in the backup"),
        ({"a": 1, "b": 2}, {"a": 1}, "table b has no rows"),
        ({"a": 1}, {"a": 1, "b": 0}, "and no in the backup"),
    ],
)
def test_counts_must_agree(wanted: dict[str, int], found: dict[str, int], said: str) -> None:
    expected = pytest.raises(pb.BackupError, match=said) if said else contextlib.nullcontext()
    with expected:
        pb.compare_counts(wanted, found, "airflow")


def test_the_key_is_found_in_a_comment() -> None:
    assert pb.fernet_of({"a": {"comment": "mine fernet:0a1b restored:x"}, "b": {"comment": ""}}) == "0a1b"
    assert pb.fernet_of({"a": {"comment": "no key"}}) == ""


def test_errors_are_told_by_the_line_that_says_what() -> None:
    assert pb.last_line("LINE 1: x\npsql:1: ERROR:  no such table\nDETAIL: y") == "psql:1: ERROR:  no such table"
    assert pb.last_line("\n") == "no message"


def test_a_database_name_is_no_connection_string() -> None:
    assert pb.conninfo("host=evil dbname='x'") == "dbname='host=evil dbname=\\'x\\''"


@pytest.mark.parametrize(("count", "text"), [(10, "10 B"), (1500, "1.5 kB"), (190000, "190 kB"), (2.5e9, "2.5 GB")])
def test_sizes(count: float, text: str) -> None:
    assert pb.size_text(count) == text


def test_the_ratio_of_the_last_dump_counts(tmp_path: Path) -> None:
    maker = pb.Maker({"directory": str(tmp_path), "version": "17", "port": 5432}, print)
    assert maker._ratio() == 0.5
    sealed(tmp_path, bytes=20, database_bytes=100)
    assert maker._ratio() == pytest.approx(0.3)
    sealed(tmp_path, "20261123T051500Z", bytes=1, database_bytes=100)
    assert maker._ratio() == 0.1


def test_how_a_run_ended_survives_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    pb.remember({"failure": "x"}, str(path))
    assert json.loads(path.read_text()) == {"failure": "x"}
    pb.remember({"failure": "y"}, str(tmp_path / "none" / "last.json"))
