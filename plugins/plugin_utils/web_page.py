# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where users reach the cluster's web page, for who runs a playbook: from the inventory alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible import context
from ansible_collections.windfarm.airflow.plugins.module_utils import cluster
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole


def words_of(variables: Any) -> dict[str, str]:
    """url, user, secrets (a file) and inventory; without what cannot be told. `variables` is Ansible's variable manager."""
    inventories = [str(path) for path in context.CLIARGS.get("inventory") or ()]
    words = {"inventory": " -i ".join(os.path.relpath(path) if os.path.exists(path) else path for path in inventories)}
    try:
        hostvars = whole(variables._hostvars)
        groups = variables._inventory.get_groups_dict()
        if not groups.get("airflow_webserver"):
            return words
        plan = cluster.plan(hostvars, groups)
        first = hostvars[plan["members"]["webserver"][0]]
        words["url"] = url_of(plan, first)
        words["user"] = str(first.get("airflow_admin_user") or "admin")
        words["secrets"] = str(first.get("airflow_secrets_file") or _beside(first.get("inventory_dir")))
    except Exception:
        # The end of a run is no place to fail: who wrote a wrong inventory has been told by preflight.
        return words
    return words


def _beside(folder: object) -> str:
    path = os.path.join(str(folder), "group_vars", "all", "vault.yml")
    return os.path.relpath(path) if os.path.exists(path) else ""


def url_of(plan: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """What users type: their own name for it, the entry, or the first webserver."""
    given = variables.get("airflow_base_url") or plan["entry"]["url"]
    if given:
        return str(given)
    server = plan["webservers"][0]
    host = str(variables.get("ansible_host") or server["address"]) if plan["single"] else str(server["address"])
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if plan['tls'] else 'http'}://{host}:{server['port']}/"
