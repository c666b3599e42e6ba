# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts may be drained or removed, and what hosts say of their workers: judged before anything is changed.

A host says it by two local facts: `windfarm_airflow_worker` is a program that looks, `windfarm_airflow` a file that also
remembers which hosts were removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, SERVER_GROUPS
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem

WORKERS = COMPONENT_GROUPS["worker"]
# Every task that a worker runs needs both.
NEEDS = ("broker_clients", "database_clients")
READMIT = "airflow_readmit"


def names(given: Any) -> list[str]:
    """`-e worker=a,b` or a list -> names, each once."""
    found = given.split(",") if isinstance(given, str) else list(given or [])
    return list(dict.fromkeys(str(name).strip() for name in found if str(name).strip()))


def _few(hosts: Iterable[str], limit: int = 10) -> str:
    found = list(hosts)
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


# What hosts say -------------------------------------------------------------


def local_fact(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A local fact of ours; empty where the host has none that can be read."""
    found: Any = facts
    for key in ("ansible_local", name):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def working(facts: Mapping[str, Any]) -> dict[str, str]:
    """Units of workers that run, or finish their tasks -> their state."""
    units = local_fact(facts, "windfarm_airflow_worker").get("units")
    found = units.items() if isinstance(units, Mapping) else ()
    return {str(unit): str(state) for unit, state in found if state not in ("inactive", "failed", "")}


def serves(facts: Mapping[str, Any]) -> bool:
    """Whether a worker of the host takes tasks; one that was never deployed, is stopped, drained or withdrawn does not."""
    return not is_drained(facts) and any(state != "deactivating" for state in working(facts).values())


def is_drained(facts: Mapping[str, Any]) -> bool:
    return bool(local_fact(facts, "windfarm_airflow_worker").get("drained"))


def drained_hosts(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [host for host, found in facts.items() if is_drained(found)]


def removed_hosts(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Hosts that remove_worker.yml has removed, or begun to -> when, as any of the hosts remembers."""
    found: dict[str, str] = {}
    for one in facts.values():
        removed = local_fact(one, "windfarm_airflow").get("removed")
        found.update({str(host): str(when) for host, when in removed.items()} if isinstance(removed, Mapping) else {})
    return found


def removed_problems(workers: Sequence[str], facts: Mapping[str, Mapping[str, Any]], wanted: Sequence[str]) -> list[Problem]:
    """Removed hosts that the inventory still has: nobody should get them back by accident. `wanted` are meant."""
    return [
        Problem(
            f"host {host}",
            f"was removed, or half removed, by playbooks/remove_worker.yml ({when}), and is still in {WORKERS}",
            f"take it out of the inventory; to finish, run remove_worker.yml -e worker={host} again; to have it back, add "
            f"-e {READMIT}={host}",
        )
        for host, when in removed_hosts(facts).items()
        if host in workers and host not in wanted
    ]


def shut_out_problems(plan: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Hosts that left the workers by the inventory alone, whose tasks would lose Redis and their results in the middle."""
    problems = []
    results = {entry["address"] for entry in plan["database_clients"] if entry["database"] == plan["results_database"]["name"]}
    for host, found in facts.items():
        units = working(found)
        if not units or host in plan["members"]["worker"] or host not in plan["addresses"]:
            continue
        address = plan["addresses"][host]
        if address in plan["broker_clients"] and address in results:
            continue
        problems.append(
            Problem(
                f"host {host}",
                f"still runs {', '.join(units)}, but has left {WORKERS}, so its tasks would be cut off from Redis and results",
                f"put it back and run playbooks/remove_worker.yml -e worker={host}, or drain.yml and then this again",
            )
        )
    return problems


def admission_problems(
    refused: Mapping[str, Mapping[str, str]], servers: Mapping[str, Sequence[str]], limit: str
) -> list[Problem]:
    """Hosts whom a server does not admit, by what it said; `servers` are those that `limit` leaves out."""
    problems = []
    for host, kinds in refused.items():
        if not kinds:
            continue
        missing = list(dict.fromkeys(server for kind in kinds for server in servers.get(kind, [])))
        names = {"postgresql": "PostgreSQL", "redis": "Redis", "webserver": "webservers"}
        said = "; ".join(f"{names[kind]}: {why}" for kind, why in kinds.items())
        what = f"is not admitted yet by {_few(missing)} ({said}), which --limit leaves out"
        problems.append(Problem(f"host {host}", what, f"run again with --limit '{','.join([limit, *missing])}'"))
    return problems


# What is asked for ----------------------------------------------------------


def name_problems(given: Any, groups: Mapping[str, Sequence[str]], playbook: str) -> list[Problem]:
    """Anything but the exact names of workers: a pattern that fits one host today fits two tomorrow."""
    workers = list(groups.get(WORKERS, []))
    known = f"{WORKERS} has {_few(workers)}" if workers else f"{WORKERS} has no host"
    wanted = names(given)
    if not wanted:
        return [Problem("worker", "is not given", f"run playbooks/{playbook} with -e worker=NAME[,NAME]; {known}")]
    problems = []
    for name in wanted:
        if name in workers and name not in groups:
            continue
        if name in workers:
            # Of the two Ansible takes the group, and every host of it.
            what, cure = "is a host and a group", f"rename one of them; as a group it has {_few(groups[name])}"
        elif name in groups.get("all", []):
            what, cure = f"is in the inventory, but not in {WORKERS}", known
        elif name in groups:
            what, cure = "is a group", f"name each of its hosts: {_few(groups[name])}"
        elif re.search(r"[*?\[\]!&:~]", name):
            what, cure = "is a pattern", f"write exact names; {known}"
        else:
            what, cure = "is the name of no host", known
        problems.append(Problem(f"worker {name}", what, cure))
    return problems


def removal_problems(
    leaving: Sequence[str],
    lost: Sequence[str],
    members: Mapping[str, Sequence[str]],
    facts: Mapping[str, Mapping[str, Any]],
    entries: Sequence[str] = (),
) -> list[Problem]:
    """`facts` are those of the hosts that answer; `members` the hosts of each component and server; `entries` the users'."""
    problems = []
    for host in leaving:
        if host in entries:
            cure = "take it out of that group, run playbooks/site.yml, then remove it"
            problems.append(Problem(f"host {host}", "is an entry of the users (group haproxy)", cure))
        for name, group in SERVER_GROUPS.items():
            if host in members[name]:
                what = f"runs {'the database' if name == 'postgresql' else 'Redis'} of the cluster (group {group})"
                problems.append(Problem(f"host {host}", what, "move that to another host first"))
        for name, group in COMPONENT_GROUPS.items():
            others = [other for other in members[name] if other not in leaving]
            if name == "worker" or host not in members[name]:
                continue
            kind = name.replace("_", " ")
            if others or name == "flower":
                cure = f"take it out of {group}, run playbooks/site.yml, then remove it"
                problems.append(Problem(f"host {host}", f"also runs a {kind} (group {group})", cure))
            else:
                cure = f"put another host into {group} and run playbooks/site.yml, then take this one out, then remove it"
                problems.append(Problem(f"host {host}", f"runs the last {kind} of the cluster (group {group})", cure))
        if host in lost and host in facts:
            what = "answers, so it is not lost, and what it runs can finish"
            problems.append(Problem(f"host {host}", what, "run without -e worker_lost=true"))
        elif host not in lost and host not in facts:
            what = "does not answer, so its tasks cannot finish and its task logs cannot be kept"
            cure = "bring it back; if it is gone for good, run with -e worker_lost=true, which gives up its logs"
            problems.append(Problem(f"host {host}", what, cure))
    staying = [host for host in members["worker"] if host not in leaving]
    if leaving and not staying:
        what = f"{'is' if len(leaving) == 1 else 'are'} the last of {WORKERS}, and a cluster without workers runs no task"
        cure = "put another host into the group and run playbooks/site.yml first"
        problems.append(Problem(f"host {_few(leaving)}", what, cure))
    elif leaving:
        able = [host for host in staying if host in facts and serves(facts[host])]
        if not able:
            verb = "is" if len(staying) == 1 else "are"
            what = f"would be the last that takes tasks: {_few(staying)} {verb} drained, stopped or away"
            cure = "put another one to work first (drain.yml -e undo=true, or site.yml)"
            problems.append(Problem(f"host {_few(leaving)}", what, cure))
    return problems
