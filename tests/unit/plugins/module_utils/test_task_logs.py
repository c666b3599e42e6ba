# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import io
import os
import pathlib
import tarfile
from collections.abc import Callable

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import task_logs

TASK = "dag_id=etl/run_id=manual__1/task_id=load"
ONE, TWO, DEFERRED = (
    f"{TASK}/attempt=1.log",
    f"{TASK}/map_index=4/attempt=2.log",
    "dag_id=etl/run_id=manual__1/task_id=wait/attempt=1.log",
)


@pytest.fixture(name="worker")
def _worker(tmp_path: pathlib.Path) -> str:
    for number, path in enumerate((ONE, TWO, DEFERRED)):
        file = tmp_path / "worker" / path
        file.parent.mkdir(parents=True)
        file.write_text(f"log {number}\n")
        os.utime(file, (1000 + number, 1000 + number))
    (tmp_path / "worker" / "link").symlink_to("/etc/passwd")
    return str(tmp_path / "worker")


@pytest.fixture(name="unpack")
def _unpack(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, int]]:
    monkeypatch.setattr(task_logs, "set_attributes", lambda _path, _wanted: None)
    monkeypatch.setattr(task_logs, "shown_elsewhere", lambda _paths, _others: {DEFERRED})
    (tmp_path / "webserver").mkdir()
    return lambda source: task_logs.unpack(source, "worker3", ["192.0.2.1"], str(tmp_path / "webserver"))


def archive(worker: str, start: int = 0, **most: int) -> tuple[int, str]:
    path = f"{worker}.{start}.tar.gz"
    return task_logs.pack(worker, start, path, os.getuid(), **most), path


def test_keys() -> None:
    assert task_logs.key_of(ONE) == ["etl", "manual__1", "load", -1, 1]
    assert task_logs.key_of(TWO) == ["etl", "manual__1", "load", 4, 2]
    assert task_logs.key_of("etl/load/1.log") is None


def test_in_slices_nothing_is_missed(worker: str) -> None:
    names, start = [], 0
    while True:
        count, path = archive(worker, start, most_files=2)
        if not count:
            break
        with tarfile.open(path) as found:
            names += found.getnames()
        start += count
    assert sorted(names) == sorted([ONE, TWO, DEFERRED]) and start == 3
    assert task_logs.measure(worker)[0] == 3


def test_kept_where_airflow_looks_with_their_times(
    worker: str, unpack: Callable[[str], dict[str, int]], tmp_path: pathlib.Path
) -> None:
    _count, path = archive(worker)
    assert unpack(path) == {"added": 3, "present": 0, "hidden": 1}
    there = tmp_path / "webserver"
    assert (there / ONE).read_text() == "log 0\n" and (there / ONE).stat().st_mtime == 1000
    assert (there / TWO).exists()
    # In the place of the whole log that its last host has, nothing; beside it, the part.
    assert not (there / DEFERRED).exists() and (there / DEFERRED).with_name("part-of-worker3-attempt=1.log").exists()
    assert unpack(path) == {"added": 0, "present": 3, "hidden": 1}


def test_another_hosts_part_of_a_log_is_not_written_over(
    worker: str, unpack: Callable[[str], dict[str, int]], tmp_path: pathlib.Path
) -> None:
    there = tmp_path / "webserver" / ONE
    there.parent.mkdir(parents=True)
    there.write_text("of another worker\n")
    _count, path = archive(worker)
    unpack(path)
    assert there.read_text() == "of another worker\n"
    # Airflow reads what begins with the log's name.
    assert there.with_name("attempt=1.log.worker3").read_text() == "log 0\n"
    assert unpack(path)["added"] == 0


def test_nothing_leads_out_of_the_folder(unpack: Callable[[str], dict[str, int]], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as bad:
        header = tarfile.TarInfo("../escaped")
        header.size = 1
        bad.addfile(header, io.BytesIO(b"x"))
    with pytest.raises(task_logs.LogsError, match="leads out"):
        unpack(str(path))
