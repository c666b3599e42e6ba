# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The workers of one host: kept from new tasks, looked at, put back to work. Runs on the host.

Drained is a file, which the units name as a condition: it outlasts this process, a reboot and every run of site.yml.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterable
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import services
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import write

SERVING = ("active", "activating", "reloading")
_LOG = re.compile(r"/dag_id=([^/]+)/run_id=([^/]+)/task_id=([^/]+)/(?:map_index=(\d+)/)?attempt=(\d+)\.log$")
TEXT = """\
Drained by a playbook, drain.yml or remove_worker.yml, on {date}.
While this file is there, the workers of this host take no tasks and do not start, not even at boot.
To let them work again: playbooks/drain.yml -e worker=THIS_HOST -e undo=true
"""


def workers() -> list[str]:
    """Units of all colours of all instances on this host."""
    return [unit for unit in services.own_units() if unit.startswith("airflow-worker@")]


def task_names(control_group: str) -> list[str]:
    """DAG, run and task of each that runs, by the log that its supervisor writes; its id where there is none."""
    return [name_of(task, open_files(parent)) for task, parent in tasks_of(control_group)]


def tasks_of(control_group: str) -> list[tuple[str, str]]:
    """Id of each task that runs, and the process that supervises it."""
    found = []
    for path in glob.glob(f"/sys/fs/cgroup{glob.escape(control_group)}/**/cgroup.procs", recursive=True) if control_group else []:
        for pid in _read(path).split():
            title = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            # A supervisor's title outlives its task.
            if title.startswith("airflow worker -- "):
                parent = re.search(r"^PPid:\s*(\d+)", _read(f"/proc/{pid}/status"), re.M)
                found.append((title.rpartition(" ")[2], parent[1] if parent else ""))
    return sorted(found)


def _read(path: str) -> str:
    # What it belongs to may end while it is looked at.
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def open_files(pid: str) -> list[str]:
    found = []
    for path in glob.glob(f"/proc/{pid}/fd/*") if pid else []:
        try:
            found.append(os.readlink(path))
        except OSError:
            continue
    return found


def name_of(task: str, files: Iterable[str]) -> str:
    for path in files:
        if match := _LOG.search(path):
            dag, run, name, index, number = match.groups()
            return f"{dag}.{name}{f'[{index}]' if index else ''} (run {run}, try {number})"
    return f"task {task}"


def look() -> dict[str, Any]:
    """Whether the host is drained, the state of each unit, and what runs."""
    found = services.show(workers())
    return {
        "drained": os.path.exists(services.DRAINED),
        "units": {unit: properties["ActiveState"] for unit, properties in found.items()},
        "tasks": sorted(
            name
            for properties in found.values()
            if properties["ActiveState"] not in ("inactive", "failed")
            for name in task_names(properties["ControlGroup"])
        ),
    }


def busy(seen: dict[str, Any]) -> list[str]:
    """Units that have not ended."""
    return [unit for unit, state in seen["units"].items() if state not in ("inactive", "failed")]


def drain(check: bool) -> list[str]:
    """No new tasks from here on; what was done. The running ones finish, for as long as they take."""
    actions: list[str] = []
    # Bare, or cleaned by a removal that goes on.
    if not os.path.isdir(os.path.dirname(services.DRAINED)):
        return actions
    if not os.path.exists(services.DRAINED):
        actions.append(f"write {services.DRAINED}")
        if not check:
            # Before anything stops: whatever happens next, nothing starts again.
            date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            write(services.DRAINED, TEXT.format(date=date), {"mode": "0644"})
    for unit, state in look()["units"].items():
        if state in SERVING:
            actions.append(f"let {unit} finish its tasks and stop")
            if not check:
                services.systemctl("stop", "--no-block", unit)
    return actions


def kill(check: bool) -> list[str]:
    """End what still runs; the scheduler gives these tasks another try, or fails them, when their heartbeats are missed."""
    actions = []
    for unit in busy(look()):
        actions.append(f"kill {unit} and its tasks")
        if not check:
            services.systemctl("kill", "--signal=SIGKILL", unit)
    deadline = time.monotonic() + 30
    while actions and not check and busy(look()):
        if time.monotonic() > deadline:
            left = ", ".join(busy(look()))
            raise services.ServicesError(f"{left} did not end by SIGKILL; see journalctl -u 'airflow-worker@*'")
        time.sleep(0.2)
    failed = [] if check else [unit for unit, state in look()["units"].items() if state == "failed"]
    if failed:
        services.systemctl("reset-failed", *failed)
    return actions


def undo(restart: str, check: bool) -> list[str]:
    """The workers may start again. Where two may not run side by side, what finishes its tasks is started again after that."""
    actions = []
    if os.path.exists(services.DRAINED):
        actions.append(f"remove {services.DRAINED}")
        if not check:
            os.unlink(services.DRAINED)
    finishing = [unit for unit, state in look()["units"].items() if state == "deactivating"]
    if restart == "wait" and actions:
        for unit in finishing:
            actions.append(f"start {unit} when it has finished its tasks")
            if not check:
                services.systemctl("start", "--no-block", unit)
    return actions
