# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Takes everything of this collection off a host that only ran workers, and remembers that it was removed. Runs on the host.

Each step looks at what is there, so a run after an interrupted one goes on where that ended. What others made stays.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import canary, drain, release, services
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import ensure_directory, write

FACT = "/etc/ansible/facts.d/windfarm_airflow.fact"
WORKER_FACT = "/etc/ansible/facts.d/windfarm_airflow_worker.fact"
# In each file that this collection writes, near its top.
MARK = "windfarm.airflow"
HAPROXY = "/etc/haproxy/haproxy.cfg"
HAPROXY_DROP_IN = "/etc/systemd/system/haproxy.service.d/90-ansible.conf"
HOMES = "/var/lib/airflow"
GROUPS = ("airflow", "airflow-logs")
# Whole folders and files that nobody else has any business in.
OURS = (
    WORKER_FACT,
    "/etc/needrestart/conf.d/90-windfarm-airflow.conf",
    "/etc/sudoers.d/airflow",
    "/etc/tmpfiles.d/airflow-logs.conf",
    "/run/airflow",
    "/usr/local/bin/airflow",
    "/usr/local/lib/airflow",
    "/var/log/airflow",
    HOMES,
)
SETTINGS = "/etc/airflow"
# What is left of folders that only we have put something into.
EMPTY = ("/etc/needrestart/conf.d", "/etc/needrestart", "/etc/systemd/system/nftables.service.d")


class RemovalError(Exception):
    """What could not be done, with the cure."""


def ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(400)
    except OSError:
        return False


# The mark -------------------------------------------------------------------


def read_fact() -> dict[str, Any]:
    try:
        with open(FACT, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def mark(hosts: Sequence[str], when: str, check: bool) -> tuple[list[str], dict[str, str]]:
    """Remember that these hosts were removed, until a run of site.yml writes the file anew, which it does only when none of them
    is in the inventory any more, or is meant to come back."""
    fact = read_fact()
    known: Mapping[str, str] = fact.get("removed") or {}
    new = [host for host in hosts if host not in known]
    removed = {**known, **dict.fromkeys(new, when)}
    if new and not check:
        ensure_directory({"path": os.path.dirname(FACT), "keep": True, "mode": "0755"}, False)
        write(FACT, json.dumps({**fact, "removed": removed}, sort_keys=True), {"mode": "0644"})
    return [f"note that {host} was removed" for host in new], removed


def forget(staying: Sequence[str], check: bool) -> tuple[list[str], dict[str, str]]:
    """Remember of the removed hosts only these. A host that runs no component has nobody else who writes the file anew."""
    fact = read_fact()
    known: Mapping[str, str] = fact.pop("removed", None) or {}
    gone = [host for host in known if host not in staying]
    removed = {host: when for host, when in known.items() if host in staying}
    if gone and not check:
        kept = {**fact, **({"removed": removed} if removed else {})}
        if kept:
            write(FACT, json.dumps(kept, sort_keys=True), {"mode": "0644"})
        else:
            os.unlink(FACT)
    return [f"forget that {host} was removed" for host in gone], removed


# The host -------------------------------------------------------------------


class Cleaning:
    def __init__(self, releases: str, dags: str, plugins: str, admin_group: str, check: bool) -> None:
        self.releases = releases
        self.dags = dags
        self.plugins = plugins
        self.admin_group = admin_group
        self.check = check
        self.actions: list[str] = []
        self.notes: list[str] = []

    def clean(self) -> None:
        # In check mode nobody has drained it.
        if not self.check and (busy := drain.busy(drain.look())):
            raise RemovalError(f"{', '.join(busy)} has not ended; drain the host first, with playbooks/drain.yml")
        self.units()
        self.haproxy()
        for path in OURS:
            self.remove(path)
        self.folders()
        self.accounts()
        # Last: with it goes the file that keeps workers from starting.
        self.remove(SETTINGS)

    def act(self, action: str) -> bool:
        """Whether to do it."""
        self.actions.append(action)
        return not self.check

    def remove(self, path: str) -> None:
        if os.path.lexists(path) and self.act(f"remove {path}"):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def units(self) -> None:
        # Of a trial that was interrupted just now: whose processes run cannot lose its account.
        if os.path.exists(canary.UNIT_FILE) and self.act(f"stop {canary.UNIT}"):
            canary.clear()
        found = [
            path
            for path in sorted(glob.glob(f"{services.UNITS}/airflow-*"))
            if not os.path.isdir(path) and not os.path.islink(path) and ours(path)
        ]
        units = [os.path.basename(path) for path in found]
        # A template has no state of its own; its instances are files here.
        stoppable = [unit for unit in units if "@." not in unit]
        if stoppable and self.act(f"stop and disable {', '.join(stoppable)}"):
            services.systemctl("--quiet", "disable", "--now", *stoppable)
            shown = services.show(stoppable)
            failed = [unit for unit, properties in shown.items() if properties["ActiveState"] == "failed"]
            if failed:
                services.systemctl("reset-failed", *failed)
        for path in found:
            for folder in (f"{path}.d", f"{path}.wants"):
                self.remove(folder)
            self.remove(path)
        if found and not self.check:
            services.systemctl("daemon-reload")

    def haproxy(self) -> None:
        """The package stays: nobody knows who needs it by now. Its drop-in goes, and of its settings what was ours."""
        if ours(HAPROXY):
            if self.act("stop and disable haproxy.service"):
                services.systemctl("--quiet", "disable", "--now", "haproxy.service")
            replaced = f"{HAPROXY}.replaced"
            if not os.path.exists(replaced):
                self.remove(HAPROXY)
            elif self.act(f"put {replaced} back as {HAPROXY}"):
                os.rename(replaced, HAPROXY)
        if ours(HAPROXY_DROP_IN):
            self.remove(HAPROXY_DROP_IN)
            if not self.check:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(HAPROXY_DROP_IN))
                services.systemctl("daemon-reload")

    def folders(self) -> None:
        """Of folders that may be elsewhere, only what this collection made in them."""
        for path in (self.dags, f"{self.dags}.revisions", f"{self.dags}.revisions.lock"):
            made = path != self.dags or os.path.islink(path)
            if made:
                self.remove(path)
            elif os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
                self.notes.append(f"{path} is not the link that airflow_dags makes, and stays")
        root = os.path.dirname(self.releases)
        uv, cache = os.path.join(root, "uv"), os.path.join(root, "cache")
        for name in (*release.present_in(self.releases), release.HISTORY, ".lock"):
            self.remove(os.path.join(self.releases, name))
        for name in sorted(os.listdir(uv)) if os.path.isdir(uv) else ():
            if re.fullmatch(r"[0-9a-f]{16}(\.new)?", name):
                self.remove(os.path.join(uv, name))
        # uv's sign of its own cache, by the convention of bford.info/cachedir.
        if os.path.exists(os.path.join(cache, "CACHEDIR.TAG")):
            self.remove(cache)
        if os.path.isdir(self.plugins) and os.listdir(self.plugins):
            self.notes.append(f"{self.plugins} holds files that this collection has not put there, and stays")
        beside = (
            self.releases,
            uv,
            cache,
            self.plugins,
            self.dags,
            os.path.dirname(self.plugins),
            os.path.dirname(self.dags),
            root,
        )
        for path in (*beside, *EMPTY):
            self.remove_empty(path)

    def remove_empty(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path) and path.count("/") > 1:
            self.remove(path)

    def accounts(self) -> None:
        users = [
            user.pw_name for user in pwd.getpwall() if user.pw_name.startswith("airflow-") and user.pw_dir.startswith(f"{HOMES}/")
        ]
        for user in users:
            if self.act(f"remove user {user}"):
                self.command("userdel", user)
        for group in [*(one for one in GROUPS), self.admin_group]:
            try:
                members = [name for name in grp.getgrnam(group).gr_mem if name not in users]
            except KeyError:
                continue
            if members:
                self.notes.append(f"group {group} has the members {', '.join(members)}, and stays")
            elif self.act(f"remove group {group}"):
                self.command("groupdel", group)

    @staticmethod
    def command(*words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
        if done.returncode:
            raise RemovalError(f"{' '.join(words)}: {done.stderr.strip()}; end what still runs as that user, then run again")
