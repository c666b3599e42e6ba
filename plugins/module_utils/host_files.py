# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users, directories and files of one host, brought to what is wanted in one go. Runs on the host."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

_ASSIGNMENT = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$")


class HostFilesError(Exception):
    """What could not be done, in one line."""


def mask(before: str, after: str) -> tuple[str, str]:
    """Both texts of a secret file for a diff: names stay, values go, and a changed value shows as changed."""
    old = {match[1]: match[2] for match in map(_ASSIGNMENT.match, before.splitlines()) if match}

    def masked(text: str, changed: str) -> str:
        lines = []
        for line in text.splitlines():
            found = _ASSIGNMENT.match(line)
            if not found:
                lines.append(line if line.startswith("#") or not line.strip() else "<hidden>")
            elif found[1] in old and old[found[1]] != found[2]:
                lines.append(f"{found[1]}=<hidden{changed}>")
            else:
                lines.append(f"{found[1]}=<hidden>")
        return "".join(f"{line}\n" for line in lines)

    return masked(before, ""), masked(after, ", changed")


def missing_accounts(groups: Sequence[str], users: Sequence[Mapping[str, Any]]) -> list[str]:
    """sysusers.d lines for the groups, users and memberships that this host lacks."""
    lines = []
    members: dict[str, list[str]] = {}
    for name in groups:
        try:
            members[name] = grp.getgrnam(name).gr_mem
        except KeyError:
            members[name] = []
            lines.append(f"g {name} -")
    for user in users:
        try:
            pwd.getpwnam(user["name"])
        except KeyError:
            lines.append(f'u {user["name"]} - "{user["comment"]}" {user["home"]} /usr/sbin/nologin')
        lines += [f"m {user['name']} {group}" for group in user["groups"] if user["name"] not in members.get(group, [])]
    return lines


def create_accounts(lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    command = ["systemd-sysusers", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)  # pylint: disable=ansible-bad-function
    if done.returncode:
        raise HostFilesError(f"systemd-sysusers cannot create the users: {done.stderr.strip()}")


def _owner(name: str | None) -> int | None:
    try:
        return pwd.getpwnam(name or "root").pw_uid
    except KeyError:
        return None


def _group(name: str | None) -> int | None:
    try:
        return grp.getgrnam(name or "root").gr_gid
    except KeyError:
        return None


def attributes(path: str, wanted: Mapping[str, Any]) -> list[str]:
    """Which of mode, owner and group differ; a user that a check mode run has not created counts as different."""
    found = os.lstat(path)
    differing = []
    if stat.S_IMODE(found.st_mode) != int(wanted["mode"], 8):
        differing.append("mode")
    if found.st_uid != _owner(wanted.get("owner")):
        differing.append("owner")
    if found.st_gid != _group(wanted.get("group")):
        differing.append("group")
    return differing


def set_attributes(path: str, wanted: Mapping[str, Any]) -> None:
    owner, group = _owner(wanted.get("owner")), _group(wanted.get("group"))
    if owner is None or group is None:
        raise HostFilesError(f"{path}: no user {wanted.get('owner')} or group {wanted.get('group')} on this host")
    os.chown(path, owner, group)
    # After chown, which clears set-group-ID.
    os.chmod(path, int(wanted["mode"], 8))


def ensure_directory(wanted: Mapping[str, Any], check: bool) -> dict[str, Any] | None:
    """A change that was, or in check mode would be, made; None if there is none."""
    path = wanted["path"]
    if os.path.isdir(path):
        differing = [] if wanted.get("keep") else attributes(path, wanted)
        if not differing:
            return None
        if not check:
            set_attributes(path, wanted)
        return _state_diff(path, f"other {', '.join(differing)}", f"{wanted['mode']} {wanted.get('owner') or 'root'}")
    if os.path.lexists(path):
        raise HostFilesError(f"{path} is not a directory; move it away and run again")
    if not check:
        os.makedirs(path, mode=0o755, exist_ok=True)
        set_attributes(path, wanted)
    return _state_diff(path, "absent", f"directory {wanted['mode']} {wanted.get('owner') or 'root'}")


def ensure_file(wanted: Mapping[str, Any], check: bool) -> dict[str, Any] | None:
    """Like ensure_directory; the new content appears at once or not at all, with its mode from the start."""
    path, content = wanted["path"], wanted["content"]
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            before: str | None = file.read()
    except (FileNotFoundError, NotADirectoryError):
        before = None
    if before == content:
        differing = attributes(path, wanted)
        if not differing:
            return None
        if not check:
            set_attributes(path, wanted)
        return _state_diff(path, f"other {', '.join(differing)}", f"{wanted['mode']} {wanted.get('owner') or 'root'}")
    if not check:
        write(path, content, wanted)
    old, new = mask(before or "", content) if wanted.get("secret") else (before or "", content)
    return {"before_header": path, "after_header": path, "before": old, "after": new}


def write(path: str, content: str, wanted: Mapping[str, Any]) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    # A fixed name: what a killed run leaves, perhaps a secret, is overwritten by the next.
    temporary = os.path.join(folder, f".{os.path.basename(path)}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        set_attributes(temporary, wanted)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _state_diff(path: str, before: str, after: str) -> dict[str, Any]:
    return {"before_header": path, "after_header": path, "before": f"{before}\n", "after": f"{after}\n"}


def converge(
    groups: Sequence[str],
    users: Sequence[Mapping[str, Any]],
    directories: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    check: bool,
) -> list[dict[str, Any]]:
    """Bring the host to what is wanted, in an order that holds after an interruption; one diff per change."""
    # Hardened hosts give root another one, and folders on the way to a file would be closed to the services.
    os.umask(0o022)
    diffs = []
    accounts = missing_accounts(groups, users)
    if accounts:
        if not check:
            create_accounts(accounts)
        diffs.append(
            {
                "before_header": "users and groups",
                "after_header": "users and groups",
                "before": "",
                "after": "".join(f"{line}\n" for line in accounts),
            }
        )
    for ensure, wanted in ((ensure_directory, directories), (ensure_file, files)):
        diffs += [diff for diff in (ensure(one, check) for one in wanted) if diff]
    return diffs
