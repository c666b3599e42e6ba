# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may read and write what the collection has put on a host. Sent through ssh it lists; imported it judges."""

from __future__ import annotations

import glob
import grp
import json
import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ROOTS = (
    "/etc/airflow", "/etc/ansible/facts.d/windfarm_airflow.fact", "/etc/systemd/system/airflow*", "/etc/sudoers.d/airflow",
    "/usr/local/bin/airflow", "/usr/local/lib/airflow", "/opt/airflow", "/srv/airflow", "/var/lib/airflow", "/var/log/airflow",
)  # fmt: skip
# Nobody but root writes here: programs, settings, units, code of users.
ROOT_ONLY = re.compile(r"/(?:etc|usr|opt|srv)/")
OWN_FOLDER = re.compile(r"/var/(lib|log)/airflow/([a-z-]+)(/.*)?")
# Packages ship keys of their own tests.
SECRET = re.compile(r"/(?:etc|var)/.*(?:/environment|\.key|/jwt\.pem)")


class Entry(NamedTuple):
    path: str
    kind: str
    mode: int
    user: str
    group: str


def closed(folder: str) -> bool:
    """uv's cache: files that uv makes writable for all, where nobody but root gets."""
    found = os.lstat(folder)
    return folder.startswith("/opt/") and found.st_uid == 0 and not found.st_mode & 0o077


def walk() -> Iterator[str]:
    for pattern in ROOTS:
        for root in glob.glob(pattern):
            yield root
            for folder, folders, files in os.walk(root):
                folders[:] = [name for name in folders if not closed(os.path.join(folder, name))]
                yield from (os.path.join(folder, name) for name in (*folders, *files))


def entries() -> Iterator[Entry]:
    users: dict[int, str] = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    groups: dict[int, str] = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    for path in walk():
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            continue
        kind = "link" if stat.S_ISLNK(found.st_mode) else "folder" if stat.S_ISDIR(found.st_mode) else "file"
        user, group = users.get(found.st_uid, str(found.st_uid)), groups.get(found.st_gid, str(found.st_gid))
        yield Entry(path, kind, stat.S_IMODE(found.st_mode), user, group)


def problem(entry: Entry) -> str:
    """What is wrong with one file or folder, or nothing."""
    path, kind, mode, user, group = entry
    if kind == "link":
        return "" if user == "root" or OWN_FOLDER.fullmatch(path) else "a link that is not root's"
    if mode & stat.S_IWOTH:
        return "everybody may write it"
    if mode & stat.S_ISUID or (mode & stat.S_ISGID and kind == "file"):
        return "has the setuid or setgid bit"
    if SECRET.fullmatch(path) and mode & 0o007:
        return "holds a secret and others may read it"
    if ROOT_ONLY.match(path):
        if user != "root":
            return f"belongs to {user}, not to root"
        if mode & stat.S_IWGRP and group != "root":
            return f"group {group} may write it"
        if path.endswith("/environment") and (mode, group) != (0o600, "root"):
            return f"is {mode:04o} root:{group}, not 0600 root:root"
        return ""
    own = OWN_FOLDER.fullmatch(path)
    if not own:
        return "" if user == "root" else f"belongs to {user}, not to root"
    expected = f"airflow-{own[2]}"
    if user != expected:
        return f"belongs to {user}, not to {expected}"
    if group not in (expected, "airflow-logs"):
        return f"is of group {group}"
    if not own[3] and mode & 0o007:
        return "others may enter"
    return ""


def problems(found: Iterable[Entry]) -> list[str]:
    return [f"{entry.path}: {what}" for entry in found if (what := problem(entry))]


if __name__ == "__main__":
    print(json.dumps(list(entries())))
