# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every mistake of an inventory: its variables, then what they mean together. Runs on the controller.

A rule is a function that takes an Inventory and returns problems; RULES is where a new one is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_preflight, preflight_figures, variable_rules
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory, listed
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import SECRETS
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import plan
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem
from ansible_collections.windfarm.airflow.plugins.module_utils.settings_rules import check_settings

# Their types have rules of their own, with better words.
TOLD = (
    *SECRETS,
    *airflow_preflight.CONTENT,
    "airflow_config",
    "airflow_secret_config",
    "airflow_environment",
    "airflow_requirements",
    "airflow_worker_queues",
    "airflow_worker_concurrency",
    "airflow_worker_concurrency_max",
    "airflow_worker_autoscale",
    "airflow_worker_environment",
    "airflow_worker_instances",
    "airflow_worker_memory_high",
    "airflow_worker_memory_max",
    "airflow_health_interval",
    "airflow_health_strikes",
    "airflow_health_disk_free_mb",
    "airflow_health_clock_seconds",
    "airflow_extra_secrets",
    "airflow_entry_port",
    "airflow_entry_http_port",
    "airflow_entry_certificate_file",
    "airflow_entry_certificate_key_file",
    "postgresql_max_connections",
    "airflow_jwt_trusted_keys",
    "airflow_jwt_other_key",
    "airflow_rotation",
    "airflow_certificate_file",
    "airflow_certificate_key_file",
)
# What all hosts of Airflow must have alike, besides what airflow_preflight compares.
ALIKE = (
    "airflow_version",
    "airflow_dags_folder",
    "airflow_dags_source",
    "airflow_plugins_folder",
    "airflow_worker_log_port",
    "airflow_triggerer_log_port",
)


def check_alike(inventory: Inventory) -> list[Problem]:
    problems = []
    for name in ALIKE:
        values = {str(inventory.hosts[host].get(name)) for host in inventory.members("airflow") if host in inventory.hosts}
        if len(values) > 1:
            what = f"differs between hosts ({', '.join(sorted(values))})"
            problems.append(Problem(name, what, "define it once, in group_vars/all"))
    return problems


def check_names_of_hosts(inventory: Inventory) -> list[Problem]:
    """Log servers, Celery and certificates tell hosts apart by their names, some of them without regard to capitals."""
    ours = inventory.ours()
    problems = []
    seen: dict[str, list[str]] = {}
    for host in ours:
        seen.setdefault(host.lower(), []).append(host)
    for names in seen.values():
        if len(names) > 1:
            problems.append(Problem(f"hosts {listed(names)}", "differ in capitals only", "give them names that differ otherwise"))
    problems += [
        Problem(f"host {host}", "has the name of a group, which Ansible takes instead", "rename the host or the group")
        for host in inventory.members("airflow_worker")
        if host in inventory.groups
    ]
    if len(ours) > 1:
        problems += [
            Problem(
                f"host {host}", "has a name that means another machine on each host", "give it the name by which people know it"
            )
            for host in ours
            if host.lower() in ("localhost", "localhost.localdomain", "127.0.0.1", "::1")
        ]
    return problems


def check_servers(inventory: Inventory) -> list[Problem]:
    """One PostgreSQL and one Redis: a second host of the group would be an empty server that nobody uses."""
    return [
        Problem(
            f"group {group}",
            f"has {len(inventory.members(group))} hosts ({listed(inventory.members(group))})",
            "keep one of them",
        )
        for group in airflow_preflight.EXTERNAL
        if len(inventory.members(group)) > 1
    ]


def check_all_settings(inventory: Inventory) -> list[Problem]:
    hosts = {host: inventory.hosts[host] for host in inventory.ours()}
    return check_settings(hosts, inventory.components, inventory.managed)


def check_figures(inventory: Inventory) -> list[Problem]:
    if not inventory.has_airflow():
        return []
    hosts, groups, defaults = inventory.hosts, inventory.groups, inventory.config_defaults
    problems = preflight_figures.check_heartbeats(hosts, groups, defaults)
    problems += preflight_figures.check_visibility(hosts, groups, defaults)
    found = planned(inventory)
    if found is not None:
        problems += preflight_figures.check_ports(found)
        problems += preflight_figures.check_results_database(hosts, found)
    return problems


def planned(inventory: Inventory) -> Mapping[str, Any] | None:
    """The cluster that the inventory describes, where it describes one."""
    try:
        found: Mapping[str, Any] = plan(inventory.hosts, inventory.groups)
        return found
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def check_plan(inventory: Inventory) -> list[Problem]:
    """The last resort: some value is wrong in a way that no rule knows."""
    try:
        plan(inventory.hosts, inventory.groups)
        return []
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        return [Problem("inventory", f"cannot be read as a cluster: {exc!r}", "compare it with inventories/cluster")]


RULES: tuple[Callable[[Inventory], list[Problem]], ...] = (
    *airflow_preflight.INVENTORY_RULES,
    check_alike,
    check_names_of_hosts,
    check_servers,
    check_all_settings,
    check_figures,
)


def inventory_problems(inventory: Inventory) -> list[Problem]:
    ours = set(inventory.ours())
    defined = {host: names for host, names in inventory.defined.items() if host in ours}
    problems, unusable = variable_rules.check_variables(inventory.hosts, defined, inventory.collection, TOLD)
    # A value of a wrong type is told of once; the other rules then see the default.
    usable = {
        host: {name: value for name, value in variables.items() if name not in unusable}
        for host, variables in inventory.hosts.items()
    }
    inventory = inventory._replace(hosts=usable)
    for rule in RULES:
        problems += [problem for problem in rule(inventory) if problem not in problems]
    return problems or check_plan(inventory)
