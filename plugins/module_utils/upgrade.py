# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From which release to which a cluster may go."""

from __future__ import annotations

import os
import re

from ansible_collections.windfarm.airflow.plugins.module_utils import services
from ansible_collections.windfarm.airflow.plugins.module_utils.last_good import unit_release
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest

UNIT = "airflow-scheduler.service"


class UpgradeError(Exception):
    """What is refused, in one line that ends with the cure."""


def release_of(maps: str, directory: str) -> str:
    """The release that a process has mapped, from its /proc/PID/maps."""
    found = re.search(rf" ({re.escape(directory)}/[^/\n]+)/", maps)
    return found[1] if found else ""


def running() -> str:
    """The folder of the release that this host's scheduler runs, or would run; empty where it has none."""
    path = f"{services.UNITS}/{UNIT}"
    named = unit_release(path)
    if not named:
        return ""
    properties = services.show([UNIT])[UNIT]
    if properties["ActiveState"] in ("active", "reloading") and properties["MainPID"] not in ("", "0"):
        try:
            with open(f"/proc/{properties['MainPID']}/maps", encoding="utf-8", errors="replace") as file:
                return release_of(file.read(), os.path.dirname(named)) or named
        except OSError:
            pass
    return named


def version_of(path: str) -> str:
    """The Airflow version of a release's folder, which may be gone."""
    manifest = read_manifest(path) if path else None
    return str(manifest["version"]) if manifest else os.path.basename(path).rpartition("-")[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def refuse(state: str, now: str, wanted: str, host: str) -> None:
    """UpgradeError where a playbook must not go from what runs to what the inventory wants."""
    if state == "same":
        if now and now != wanted:
            way = "rollback.yml" if _numbers(wanted) < _numbers(now) else "upgrade.yml"
            raise UpgradeError(
                f"airflow_version is {wanted}, but the cluster runs {now} ({host}); run playbooks/{way}, which keeps tasks "
                f"running, or set airflow_version to {now}"
            )
        return
    if not now:
        raise UpgradeError(f"host {host} has no scheduler yet, so there is no cluster to change; run playbooks/site.yml")
    if _numbers(now)[:1] != _numbers(wanted)[:1]:
        raise UpgradeError(
            f"airflow_version {wanted} is another major version than the cluster's {now}, which no rolling upgrade can reach; "
            "set up a new cluster and migrate to it"
        )
    if state == "upgrade" and _numbers(wanted) < _numbers(now):
        raise UpgradeError(f"airflow_version {wanted} is older than the cluster's {now}; going back is playbooks/rollback.yml's")
    if state == "rollback" and _numbers(wanted) > _numbers(now):
        raise UpgradeError(f"airflow_version {wanted} is newer than the cluster's {now}; run playbooks/upgrade.yml")
