# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each worker set, a sub-group of airflow_worker, says itself. A host's variables only tell which of several has won."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.vars.plugins import get_vars_from_inventory_sources

SERVES = ("airflow_worker_queues", "airflow_worker_instances")


def _own(inventory: Any, loader: Any, entity: Any) -> dict[str, Any]:
    """From the inventory's own lines and the folders group_vars and host_vars beside it."""
    found = dict(entity.vars)
    # Which of the two stages reads files depends on Ansible's configuration.
    for stage in ("inventory", "task"):
        found.update(get_vars_from_inventory_sources(loader, inventory._sources, [entity], stage))
    return {name: found[name] for name in SERVES if name in found}


def worker_sets(hostvars: Any, loader: Any) -> tuple[dict[str, Mapping[str, Any]], set[str]]:
    """Each set's hosts, the groups above it and what it says its hosts serve; and the hosts that say so themselves."""
    inventory = hostvars._inventory
    top = inventory.groups.get("airflow_worker")
    if top is None:
        return {}, set()
    sets: dict[str, Mapping[str, Any]] = {
        group.name: {
            "hosts": [host.name for host in group.get_hosts()],
            "above": [above.name for above in group.get_ancestors()],
            "serves": _own(inventory, loader, group),
        }
        for group in sorted(top.get_descendants(), key=lambda group: group.name)
    }
    if len(sets) < 2:
        return sets, set()
    return sets, {host.name for host in top.get_hosts() if _own(inventory, loader, host)}
