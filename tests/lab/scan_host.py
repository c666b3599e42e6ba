# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Searches the host that it runs on for texts. Sent through ssh's standard input by secret_scan.py, with what it looks for,
so that the secrets are neither in a file nor on a command line there. Standard library only.

Order (JSON): texts, roots, skip (folders), since (0 or a time: younger files only), sources (also journal, units, processes,
databases). Answer: counts and hits, each as [place, index of the text]."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

# Arguments of one grep; a command line may hold 2 MB.
BATCH = 4000
GREP_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
STREAMS = {
    # Every field, such as the command line that a message came from.
    "journal": ["journalctl", "--no-pager", "--quiet", "--all", "-o", "export"],
    "units": ["systemctl", "--no-pager", "show", "--all", "*"],
    # What files of the server hold compressed.
    "databases": ["runuser", "-u", "postgres", "--", "pg_dumpall"],
}


class Search:
    def __init__(self, texts: list[str]) -> None:
        self.texts = [text.encode() for text in texts]
        self._lines = b"".join(text + b"\n" for text in self.texts)
        self.hits: set[tuple[str, int]] = set()

    def grep(self, *arguments: str, data: bytes | None = None) -> bytes:
        """grep with the texts from a pipe of their own, as standard input may be what is searched."""
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(self._lines)
            os._exit(0)
        os.close(write)
        try:
            done = subprocess.run(
                ["grep", "-aF", "-f", f"/dev/fd/{read}", *arguments],
                input=data or b"",
                capture_output=True,
                pass_fds=[read],
                env=GREP_ENVIRONMENT,
                check=False,
            )
        finally:
            os.close(read)
            os.wait()
        # Files come and go while it reads.
        bad = [line for line in done.stderr.splitlines() if not line.endswith((b"No such file or directory", b"No such process"))]
        if bad:
            raise SystemExit(f"grep: {bad[0].decode(errors='replace')}")
        return done.stdout

    def note(self, place: str, data: bytes) -> None:
        self.hits.update((place, index) for index, text in enumerate(self.texts) if text in data)

    def stream(self, place: str, data: bytes) -> None:
        if self.grep("-c", "-m1", data=data).strip() != b"0":
            self.note(place, data)

    def files(self, paths: list[str]) -> None:
        for start in range(0, len(paths), BATCH):
            for name in self.grep("-lZ", "--", *paths[start : start + BATCH]).split(b"\0"):
                if name:
                    try:
                        with open(name, "rb") as file:
                            self.note(f"file {os.fsdecode(name)}", file.read())
                    except FileNotFoundError:
                        continue


def walk(roots: list[str], skip: list[str], since: float) -> Iterator[tuple[str, int]]:
    """Regular files, and their sizes; once, where uv links a package of its cache into a release."""
    seen = set()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in skip]
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if not stat.S_ISREG(status.st_mode) or not status.st_blocks or max(status.st_mtime, status.st_ctime) < since:
                    continue
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                yield path, status.st_size


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def owner(pid: str) -> tuple[str, str]:
    """User and systemd unit of a process."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        user = pwd.getpwuid(uid).pw_name
    except (OSError, KeyError):
        return "?", "?"
    units = re.findall(r"/([^/\n]+\.(?:service|scope))", read(f"/proc/{pid}/cgroup").decode(errors="replace"))
    return user, units[-1] if units else "-"


def processes(search: Search) -> int:
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        line, environment = read(f"/proc/{pid}/cmdline"), read(f"/proc/{pid}/environ")
        if line or environment:
            count += 1
            user, unit = owner(pid)
            search.note(f"command line of {user} in {unit}", line)
            search.note(f"environment of {user} in {unit}", environment)
    return count


def main() -> None:
    order: dict[str, Any] = json.loads(sys.stdin.read())
    begin = time.monotonic()
    search = Search(order["texts"])
    found = list(walk(order["roots"], order["skip"], order["since"]))
    search.files([path for path, _size in found])
    sizes = {"files": sum(size for _path, size in found)}
    answer: dict[str, Any] = {"files": len(found), "processes": 0}
    for source in order["sources"]:
        if source == "processes":
            answer["processes"] = processes(search)
            continue
        done = subprocess.run(STREAMS[source], capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"{source}: {done.stderr.decode(errors='replace').strip()}")
        sizes[source] = len(done.stdout)
        search.stream(source, done.stdout)
    answer.update(sizes=sizes, hits=sorted(search.hits), seconds=round(time.monotonic() - begin, 1))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
