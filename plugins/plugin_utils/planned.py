# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of the cluster, made once for all hosts and tasks that would make the same.

Every task of every host runs in a process of its own, and a plan reads the variables of all hosts: without this, twice as many
hosts take four times as long. Those processes share a file in the folder that Ansible has for one run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible import constants as C
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import plan

# Of this process: one task of one host asks many times.
_remembered: dict[tuple[int, tuple[str, ...]], dict[str, Any]] = {}


def planned(hostvars: Mapping[str, Any], groups: Mapping[str, Sequence[str]], removed: Sequence[str] = ()) -> dict[str, Any]:
    """What `plan` returns."""
    if multiprocessing.parent_process() is None:
        # Ansible's main process lives on while variables change, and has nobody to share with.
        return plan(hostvars, groups, removed)
    own = (os.getpid(), tuple(removed))
    if own not in _remembered:
        found = _shared(hostvars, groups, removed)
        _remembered.clear()
        _remembered[own] = found
    return _remembered[own]


def _shared(hostvars: Mapping[str, Any], groups: Mapping[str, Sequence[str]], removed: Sequence[str]) -> dict[str, Any]:
    key = _key(hostvars, groups, removed)
    if not key:
        return plan(hostvars, groups, removed)
    known = _read(key)
    if known is not None:
        return known
    found = plan(hostvars, groups, removed)
    try:
        text = json.dumps(found)
    except (TypeError, ValueError):
        # Something of a type of Ansible's that is no text: then each process makes its own.
        return found
    _write(key, text)
    # As the others will read it.
    made: dict[str, Any] = json.loads(text)
    return made


def _path(key: str) -> str:
    return os.path.join(C.DEFAULT_LOCAL_TMP, f"windfarm-airflow-{key}.json")


def _read(key: str) -> dict[str, Any] | None:
    try:
        with open(_path(key), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return found


def _write(key: str, text: str) -> None:
    """Without it, each process makes its own plan, so a full disk is no reason to fail."""
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(dir=C.DEFAULT_LOCAL_TMP)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, _path(key))


def _key(hostvars: Any, groups: Mapping[str, Sequence[str]], removed: Sequence[str]) -> str:
    """Differs when anything has that a plan depends on: who is in which group, and what was added to the inventory's variables.

    The inventory's own do not change within a run. Empty where Ansible keeps what was added elsewhere than it does now.
    """
    try:
        manager = hostvars._variable_manager
        added = {"": manager._extra_vars}, manager._vars_cache, manager._nonpersistent_fact_cache
    except AttributeError:
        return ""
    digest = hashlib.sha256("\0".join((str(os.getppid()), *removed)).encode())
    for name, hosts in groups.items():
        digest.update("\0".join(("\1", str(name), *map(str, hosts))).encode())
    for cache in added:
        digest.update(b"\2")
        for host in sorted(cache):
            for name, value in cache[host].items():
                # Names with two underscores are this collection's own answers of hosts: many, large, and nothing a plan reads.
                if not str(name).startswith("__"):
                    text = value if isinstance(value, str) else repr(value)
                    digest.update("\0".join((str(host), str(name), text)).encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
