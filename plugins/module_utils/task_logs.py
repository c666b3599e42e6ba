# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Task logs of a host that leaves, packed there and put where webservers read them. Runs on the hosts.

A webserver looks for the log of an ended task in its own log folder first, and asks the task's host only when nothing is there.
A deferred task may go on in another worker, and of its log Airflow then shows the last host's part alone: a part of such a log
that lay in the webserver's folder would hide that last one. So it is kept beside, under a name that Airflow does not look for.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import task_logs_script
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import set_attributes
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import read_environment

WORKER = "/var/log/airflow/worker"
WEBSERVER = "/var/log/airflow/webserver"
USER = "airflow-webserver"
ENVIRONMENT = "/etc/airflow/webserver/environment"
# A part of the logs that is packed, sent and unpacked at a time.
SLICE_BYTES = 256 * 2**20
SLICE_FILES = 20000
_ATTEMPT = re.compile(r"dag_id=([^/]+)/run_id=([^/]+)/task_id=([^/]+)/(?:map_index=(\d+)/)?attempt=(\d+)\.log\Z")


class LogsError(Exception):
    """What could not be done, with the cure."""


def walk(folder: str) -> Iterator[str]:
    """Paths of all regular files below, relative, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)


def measure(folder: str) -> tuple[int, int]:
    """How many files, and how many bytes they take on the disk."""
    sizes = [os.stat(os.path.join(folder, path)).st_blocks * 512 for path in walk(folder)]
    return len(sizes), sum(sizes)


def pack(folder: str, start: int, target: str, owner: int, most_bytes: int = SLICE_BYTES, most_files: int = SLICE_FILES) -> int:
    """An archive of as many files as may go into one, beginning with that number; how many there are in it."""
    count = size = 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
        # Who connects reads it; root, who makes it, may be another.
        os.fchown(file.fileno(), owner, -1)
        for number, path in enumerate(walk(folder)):
            if number < start:
                continue
            if count and (size >= most_bytes or count >= most_files):
                break
            archive.add(os.path.join(folder, path), arcname=path, recursive=False)
            count, size = count + 1, size + os.stat(os.path.join(folder, path)).st_size
    return count


def key_of(path: str) -> list[Any] | None:
    """The attempt that a log is of, where it lies as Airflow's own template has it."""
    found = _ATTEMPT.match(path)
    if not found:
        return None
    dag, run, task, index, number = found.groups()
    return [dag, run, task, int(index or -1), int(number)]


def shown_elsewhere(paths: Sequence[str], others: Sequence[str]) -> set[str]:
    """Of these logs those that Airflow will look for on one of the others, as the database says."""
    keys = [(path, key) for path in paths if (key := key_of(path))]
    environment = read_environment(ENVIRONMENT)
    if not keys or "AIRFLOW_RELEASE" not in environment:
        return set()
    question = {"others": list(others), "keys": [key for _path, key in keys]}
    answer = run_script(environment["AIRFLOW_RELEASE"], USER, environment, task_logs_script, question)
    return {keys[number][0] for number in answer["elsewhere"]}


def place(folder: str, path: str, host: str, hidden: bool, size: int, time: float) -> str:
    """Where to put a log; empty where it is already."""
    parent, name = os.path.split(path)
    names = [f"part-of-{host}-{name}"] if hidden else [name, f"{name}.{host}"]
    for one in names:
        target = os.path.join(folder, parent, one)
        if not os.path.lexists(target):
            return target
        found = os.lstat(target)
        if found.st_size == size and int(found.st_mtime) == int(time):
            return ""
    # Written by an earlier run, and there is more of it now.
    return os.path.join(folder, parent, names[-1])


def unpack(source: str, host: str, others: Sequence[str], folder: str = WEBSERVER) -> dict[str, int]:
    """Put the logs into the webserver's folder, with their times, by which they are deleted when they are old enough."""
    done = {"added": 0, "present": 0, "hidden": 0}
    with tarfile.open(source, mode="r:gz") as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        for member in members:
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise LogsError(f"{member.name!r} leads out of the folder of logs; the archive is not of this collection's")
        elsewhere = shown_elsewhere([member.name for member in members], others)
        for member in members:
            hidden = member.name in elsewhere
            done["hidden"] += hidden
            target = place(folder, member.name, host, hidden, member.size, member.mtime)
            if not target:
                done["present"] += 1
                continue
            make_folders(folder, os.path.dirname(member.name))
            content = archive.extractfile(member)
            temporary = f"{os.path.dirname(target)}/.new-log"
            with open(temporary, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)  # type: ignore[arg-type]
            set_attributes(temporary, {"mode": "0640", "owner": USER, "group": USER})
            os.utime(temporary, (member.mtime, member.mtime))
            os.rename(temporary, target)
            done["added"] += 1
    return done


def make_folders(base: str, relative: str) -> None:
    path = base
    for part in filter(None, relative.split("/")):
        path = os.path.join(path, part)
        if not os.path.isdir(path):
            os.mkdir(path, 0o750)
            set_attributes(path, {"mode": "0750", "owner": USER, "group": USER})


def free(folder: str) -> int:
    return shutil.disk_usage(folder).free


def summary(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(one[name] for one in counts) for name in ("added", "present", "hidden")}
