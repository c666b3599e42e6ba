# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock

# Another module: it takes the lock as ours does, starts a process that outlives it, and ends after a line on stdin.
OTHER = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import host_lock
host_lock.LOCK = sys.argv[2]
class Module:
    check_mode, _name = False, "redis_server"
host_lock.hold(Module())
child = subprocess.Popen(["sleep", "20"], stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, flush=True)
sys.stdin.readline()
"""


class Refused(Exception):
    pass


class Module:
    _name = "airflow_files"

    def __init__(self, check_mode: bool = False) -> None:
        self.check_mode = check_mode

    def fail_json(self, msg: str, **_answer: Any) -> NoReturn:
        raise Refused(msg)


@pytest.fixture()
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    lock = str(tmp_path / "lock")
    monkeypatch.setattr(host_lock, "LOCK", lock)
    command = [sys.executable, "-c", OTHER, str(Path(str(host_lock.__file__)).parent), lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(child, 9)


def test_who_waits_too_long_is_told_for_whom(other: subprocess.Popen[str]) -> None:
    with pytest.raises(Refused, match=rf"^process {other.pid} \(redis_server\) still changes this host"):
        host_lock.hold(Module(), patience=0.3)


def test_it_waits_for_the_end_of_the_process_and_not_of_what_that_has_started(other: subprocess.Popen[str]) -> None:
    start = time.monotonic()
    other.stdin.write("\n")  # type: ignore[union-attr]
    other.stdin.flush()  # type: ignore[union-attr]
    host_lock.hold(Module(), patience=15)
    assert time.monotonic() - start < 15
    assert Path(host_lock.LOCK).read_text() == f"process {os.getpid()} (airflow_files)"
    assert Path(host_lock.LOCK).stat().st_mode & 0o777 == 0o600


def test_a_killed_process_holds_nothing(other: subprocess.Popen[str]) -> None:
    other.kill()
    host_lock.hold(Module(), patience=15)


def test_check_mode_waits_for_nobody(other: subprocess.Popen[str]) -> None:
    host_lock.hold(Module(check_mode=True), patience=0)


def test_who_is_not_root_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even root may write here.
    monkeypatch.setattr(host_lock, "LOCK", "/proc/lock")
    with pytest.raises(Refused, match=r"^/proc/lock: .*; this module changes the host, as root: give its task become$"):
        host_lock.hold(Module())


MODULES = Path(str(host_lock.__file__)).parent.parent / "modules"
# With what keeps a second one of it away, or why nothing has to.
FREE = {
    "airflow_admission": "only reads",
    "airflow_clients": "only reads",
    "airflow_dag_check": "only reads",
    "airflow_dags": "locks the store of DAG files",
    "airflow_host_info": "only reads",
    "airflow_info": "only reads",
    "airflow_queues": "only reads",
    "airflow_release": "locks the folder of releases",
    "airflow_release_info": "only reads",
    "airflow_rotation": "replaces a value only where it is still what it was",
    "airflow_status": "only reads",
    "airflow_upgrade": "only reads",
    "airflow_worker_proof": "only reads, but for a file of its own",
    "postgresql_restore": "shares the lock of backups, which does not wait",
    "redis_consumers": "only reads",
    "redis_queues": "deletes keys, each at once",
    "server_packages": "waits for apt's lock",
}


def test_every_module_that_changes_a_host_waits() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in MODULES.glob("*.py")}
    on_hosts = {name for name, text in texts.items() if "module = AnsibleModule(" in text}
    assert {name for name in on_hosts if "host_lock.hold(module)" not in texts[name]} == set(FREE)
