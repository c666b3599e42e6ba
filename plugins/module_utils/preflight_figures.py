# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures of the inventory that must fit each other: times, connections, ports. Runs on the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem

# What Airflow takes where nobody says otherwise.
UPSTREAM: dict[tuple[str, str], float] = {
    ("workers", "min_heartbeat_interval"): 5,
    ("workers", "max_failed_heartbeats"): 3,
    ("workers", "execution_api_retries"): 5,
    ("workers", "execution_api_retry_wait_min"): 1,
    ("workers", "execution_api_retry_wait_max"): 90,
    ("workers", "execution_api_timeout"): 5,
    ("scheduler", "task_instance_heartbeat_timeout"): 300,
    ("celery_broker_transport_options", "visibility_timeout"): 86400,
}
# Between the end of a task that lost its webserver and its next try.
MARGIN = 30

Settings = Mapping[str, Mapping[str, Any]]


def setting(config: object, defaults: Settings, section: str, key: str) -> float:
    """A number of airflow.cfg as the component will read it."""
    for settings in (config, defaults):
        found = settings.get(section) if isinstance(settings, Mapping) else None
        value = found.get(key) if isinstance(found, Mapping) else None
        try:
            if value is not None and not isinstance(value, bool):
                return float(value)
        except (TypeError, ValueError):
            continue
    return UPSTREAM[section, key]


def seconds_until_killed(config: object, defaults: Settings) -> float:
    """How long a task may run at most after the last heartbeat that got through: its supervisor then ends it.

    Each try may last its time-out, and waits before the next as Airflow's client does: longer each time, within the limits.
    """

    def of(key: str) -> float:
        return setting(config, defaults, "workers", key)

    tries = max(1, int(of("execution_api_retries")))
    least, most = of("execution_api_retry_wait_min"), of("execution_api_retry_wait_max")
    waits = sum(max(least, min(most, 2.0**number)) for number in range(tries - 1))
    return of("max_failed_heartbeats") * (of("min_heartbeat_interval") + tries * of("execution_api_timeout") + waits)


def check_heartbeats(
    hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], defaults: Settings
) -> list[Problem]:
    """A worker that lost everybody ends its tasks before the scheduler gives them to another one."""
    workers, schedulers = groups.get("airflow_worker") or [], groups.get("airflow_scheduler") or []
    killed = [seconds_until_killed(hosts[host].get("airflow_config"), defaults) for host in workers if host in hosts]
    patience = [
        setting(hosts[host].get("airflow_config"), defaults, "scheduler", "task_instance_heartbeat_timeout")
        for host in schedulers
        if host in hosts
    ]
    if not killed or not patience or max(killed) < min(patience) - MARGIN:
        return []
    what = (
        f"a worker without webserver ends its tasks after {max(killed):.0f} s, and the scheduler starts them elsewhere after "
        f"{min(patience):.0f} s, so a task could run twice at once"
    )
    cure = (
        f"keep {MARGIN} s between them: lower max_failed_heartbeats or execution_api_retries, or raise "
        "[scheduler] task_instance_heartbeat_timeout"
    )
    return [Problem("airflow_config.workers", what, cure)]


def check_visibility(
    hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], defaults: Settings
) -> list[Problem]:
    """Redis delivers again what takes longer; the shortest value of all its clients wins."""
    where = "airflow_config.celery_broker_transport_options.visibility_timeout"
    clients = [host for group in ("airflow_scheduler", "airflow_worker") for host in groups.get(group) or [] if host in hosts]
    values = {
        host: setting(hosts[host].get("airflow_config"), defaults, "celery_broker_transport_options", "visibility_timeout")
        for host in clients
    }
    if len(set(values.values())) > 1:
        found = ", ".join(f"{value:.0f}" for value in sorted(set(values.values())))
        what = f"differs between hosts ({found}), and the shortest wins"
        return [Problem(where, what, "define it once, in group_vars/all")]
    stops = [hosts[host].get("airflow_worker_stop_timeout") for host in groups.get("airflow_worker") or [] if host in hosts]
    longest = max((stop for stop in stops if isinstance(stop, int)), default=0)
    if values and longest > min(values.values()):
        what = f"is {min(values.values()):.0f} s, and a stopping worker may take {longest} s for its tasks, which would run twice"
        return [Problem(where, what, "raise it, or lower airflow_worker_stop_timeout")]
    return []


# Of a port in the cluster's plan -> the variable that sets it, and who listens there.
PORTS = {
    "postgresql": ("airflow_database_port", "postgresql@"),
    "redis": ("airflow_broker_port", "redis-server"),
    "worker_logs": ("airflow_worker_log_port", "airflow-logs."),
    "triggerer_logs": ("airflow_triggerer_log_port", "airflow-logs."),
    "execution_api": ("airflow_execution_api_port", "haproxy."),
    "flower": ("airflow_flower_port", "airflow-flower."),
    "scheduler_health": ("", "airflow-scheduler."),
    "webserver": ("airflow_webserver_port", "airflow-webserver."),
    "entry": ("airflow_entry_port", "haproxy."),
}


def listeners(plan: Mapping[str, Any], host: str) -> list[tuple[str, int]]:
    """Name and port of what listens on the host."""
    found = [(str(one["name"]), int(one["port"])) for one in plan["ports"].get(host, []) if one["name"] in PORTS]
    if host in plan["entry"]["hosts"] and "entry" not in dict(found):
        found.append(("entry", int(plan["entry"]["port"])))
    return found + [
        ("webserver", int(one["port"])) for one in plan["webservers"] if one["name"] == host and "webserver" not in dict(found)
    ]


def check_ports(plan: Mapping[str, Any]) -> list[Problem]:
    """Two listeners of one host want one port."""
    problems: dict[Problem, None] = {}
    for host in plan["ports"]:
        owners: dict[int, str] = {}
        for name, port in listeners(plan, host):
            other = owners.setdefault(port, name)
            # The entry tells of its neighbours itself.
            if other != name and "entry" not in (other, name):
                variables = [PORTS[one][0] for one in (other, name) if one in PORTS and PORTS[one][0]]
                what = f"{other} and {name} would both listen on port {port}"
                problems[Problem(f"host {host}", what, f"change {' or '.join(variables)}")] = None
    return list(problems)


def check_results_database(hosts: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> list[Problem]:
    """Workers know the results database's login: what is in the metadata database must not be its."""
    problems = []
    for key in ("name", "user"):
        if plan["database"][key] == plan["results_database"][key]:
            where = f"airflow_results_database_{key}"
            what = f"is {plan['database'][key]}, as airflow_database_{key} is, so workers would reach the metadata"
            problems.append(Problem(where, what, "choose another name"))
    return problems
