# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must be right on the hosts, judged by what module airflow_host_info has read. Runs on the controller.

A rule is a function that takes a Case and returns problems; RULES is where a new one is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils import preflight_figures
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory, listed
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, is_address
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import setting as role_setting
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem
from ansible_collections.windfarm.airflow.plugins.module_utils.variable_rules import listed_in

Facts = Mapping[str, Any]

# MB that each process takes, measured (proportional set size); a task's own is upstream's example.
MEMORY = {"scheduler": 250, "webserver": 300, "dag_processor": 250, "triggerer": 300, "flower": 150, "worker": 300}
SYSTEM_MB, POSTGRESQL_MB, TASK_MB = 200, 250, 150
# Upstream's compose file asks two processors for everything on one machine; a part of it does with one.
SINGLE_PROCESSORS = 2
# Redis wants 10,032 for its clients, a component some hundred: below this, somebody has set a limit that stops both.
OPEN_FILES = 4096
# A release is 370 MB in 11,400 files; two of them stand side by side during an upgrade.
RELEASE_MB, RELEASE_FILES = 1000, 30000
SERVER_MB, SERVER_FILES = 500, 1000
LOG_MB = 300
LOG_FOLDER, HOME_FOLDER = "/var/log/airflow", "/var/lib/airflow"
SERVER_FOLDERS = {"postgresql": "/var/lib/postgresql", "redis": "/var/lib/redis"}


class Case(NamedTuple):
    """The hosts that answered, and what they shall be."""

    inventory: Inventory
    plan: Mapping[str, Any]
    facts: Mapping[str, Facts]
    limited: bool = False
    """Whether --limit leaves out hosts of the cluster."""

    def members(self, group: str) -> list[str]:
        return [host for host in self.inventory.members(group) if host in self.facts]

    def of(self, host: str, name: str) -> Any:
        return role_setting(self.inventory.hosts[host], name)

    def deployed(self, host: str) -> bool:
        """Whether an earlier run has left its mark."""
        return bool((self.facts[host].get("ansible_local") or {}).get("windfarm_airflow"))

    def adopts(self, host: str, kind: str) -> bool:
        return kind in listed_in(self.inventory.hosts[host].get("airflow_adopt"))


def question(inventory: Inventory, plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each host is asked: the arguments of airflow_host_info."""
    names = sorted({text for text in plan["addresses"].values() if not is_address(text)})
    return {
        host: {
            "paths": folders(inventory, host),
            "ports": sorted({port for _name, port in preflight_figures.listeners(plan, host)}),
            "names": names,
            "python": str(role_setting(inventory.hosts[host], "airflow_python")) if host in inventory.members("airflow") else "",
            "dags_folder": str(role_setting(inventory.hosts[host], "airflow_dags_folder")),
        }
        for host in plan["ports"]
    }


def folders(inventory: Inventory, host: str) -> list[str]:
    found = []
    if host in inventory.members("airflow"):
        found += [str(role_setting(inventory.hosts[host], "airflow_releases_directory")), LOG_FOLDER, HOME_FOLDER]
    return found + [folder for group, folder in SERVER_FOLDERS.items() if host in inventory.members(group)]


# One host after the other


def check_machines(case: Case) -> list[Problem]:
    """Two names of one machine, by two of its addresses, which the inventory alone does not show."""
    machines: dict[tuple[str, ...], list[str]] = {}
    for host, facts in case.facts.items():
        marks = tuple(str(facts.get(name) or "") for name in ("machine_id", "boot_id", "hostname"))
        if all(marks):
            machines.setdefault(marks, []).append(host)
    return [
        Problem(
            f"hosts {listed(hosts)}",
            f"are one machine, {hostname}",
            "use one inventory name per machine; it may be in any number of groups",
        )
        for (_machine, _boot, hostname), hosts in machines.items()
        if len(hosts) > 1
    ]


def check_cgroup(case: Case) -> list[Problem]:
    return [
        Problem(
            f"host {host}", "has no unified cgroup hierarchy (version 2)", "boot it without systemd.unified_cgroup_hierarchy=0"
        )
        for host, facts in case.facts.items()
        if facts.get("service_mgr") == "systemd" and facts.get("cgroup") == 1
    ]


def check_root(case: Case) -> list[Problem]:
    return [
        Problem(f"host {host}", "does not let Ansible become root", "reach it as root, or give its user sudo for everything")
        for host, facts in case.facts.items()
        if facts.get("root") is False
    ]


def check_interpreter(case: Case) -> list[Problem]:
    problems = []
    for host in case.members("airflow"):
        asked = str(case.of(host, "airflow_python"))
        if case.facts[host].get("interpreter") == "":
            problems.append(Problem("airflow_python", f"{asked} is no Python on {host}", "install it there, or correct the name"))
    return problems


def check_names(case: Case) -> list[Problem]:
    """A name as address must mean the same machine everywhere; Debian's own line 127.0.1.1 on the host itself does no harm."""
    problems = []
    for name in sorted({text for text in case.plan["addresses"].values() if not is_address(text)}):
        owners = [host for host, text in case.plan["addresses"].items() if text == name]
        lost = [
            host for host, facts in case.facts.items() if host not in owners and not (facts.get("names") or {}).get(name, [""])
        ]
        loops = [
            host
            for host, facts in case.facts.items()
            if host not in owners
            and any(one.startswith("127.") or one == "::1" for one in (facts.get("names") or {}).get(name, []))
        ]
        cure = f"make it known there (DNS or /etc/hosts), or set airflow_address of {listed(owners)} to an address"
        if lost:
            problems.append(
                Problem(f"host {listed(owners)}", f"has the address {name}, which {listed(lost)} cannot resolve", cure)
            )
        if loops:
            problems.append(
                Problem(f"host {listed(owners)}", f"has the address {name}, which on {listed(loops)} means the host itself", cure)
            )
    return problems


def check_port_owners(case: Case) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for host, facts in case.facts.items():
        names: dict[int, str] = {}
        for name, port in preflight_figures.listeners(case.plan, host):
            names.setdefault(port, name)
        for found in facts.get("ports") or []:
            name = names.get(found["port"], "")
            variable, unit = preflight_figures.PORTS.get(name, ("", ""))
            # Who cannot be seen, as the module did not run as root, is told of by another rule.
            if not name or not found.get("pid") or not unit or str(found.get("unit")).startswith(unit):
                continue
            # They have a rule of their own, and a way to be adopted.
            if name in SERVER_FOLDERS and any(one["pid"] == found["pid"] for one in facts.get("servers") or []):
                continue
            where = f" ({found['unit']})" if found.get("unit") else f" of user {found['user']}"
            cure = f"stop it, or set {variable} to another port" if variable else "stop it"
            problems[
                Problem(f"host {host}", f"port {found['port']}, for {name}, is taken by {found['program']}{where}", cure)
            ] = None
    return list(problems)


_OURS = {"postgresql": re.compile(r"postgresql@"), "redis": re.compile(r"redis-server\.service$")}


def check_foreign(case: Case) -> list[Problem]:
    """What somebody else has made is not taken over by mistake."""
    problems: dict[Problem, None] = {}
    for host in case.members("postgresql"):
        clusters = {f"postgresql@{one['version']}-{one['name']}.service": one for one in case.facts[host].get("clusters") or []}
        for one in clusters.values():
            if one["databases"] and not one["ours"]:
                what = f"has a PostgreSQL {one['version']} cluster {one['name']} with databases that this collection did not make"
                problems[_foreign(case, host, "postgresql", what)] = None
        for process in _running(case, host, "postgresql"):
            if process["unit"] not in clusters:
                problems[_foreign(case, host, "postgresql", f"runs another PostgreSQL{_by(process)}")] = None
    for host in case.members("redis"):
        found = case.facts[host].get("redis") or {}
        if not found.get("ours") and (found.get("kept") or found.get("closed")):
            what = (
                "has a Redis with keys that this collection did not make"
                if found.get("kept")
                else "has a Redis with a password of its own"
            )
            problems[_foreign(case, host, "redis", what)] = None
        for process in _running(case, host, "redis"):
            if not _OURS["redis"].match(str(process["unit"])):
                problems[_foreign(case, host, "redis", f"runs another Redis{_by(process)}")] = None
    for host in case.members("airflow"):
        ours = {f"{one}.service" for one in case.facts[host].get("units") or []}
        for unit in case.facts[host].get("units") or []:
            problems[_foreign(case, host, "airflow", f"has a unit {unit} that this collection did not write")] = None
        for process in _running(case, host, "airflow"):
            unit = str(process["unit"])
            if not re.match(r"airflow-[a-z-]+(@.+)?\.service$", unit) and unit not in ours:
                problems[_foreign(case, host, "airflow", f"runs another Airflow{_by(process)}")] = None
    return [problem for problem in problems if problem.what]


def _running(case: Case, host: str, kind: str) -> Iterator[Facts]:
    return (one for one in case.facts[host].get("servers") or [] if one["kind"] == kind)


def _by(process: Facts) -> str:
    return f" ({process['unit'] or process['program']}, user {process['user']})"


_NOTHING = Problem("", "", "")


def _foreign(case: Case, host: str, kind: str, what: str) -> Problem:
    if case.adopts(host, kind):
        return _NOTHING
    cures = {
        "postgresql": "use another host; or set airflow_adopt: [postgresql], which keeps databases and replaces access rules",
        "redis": "use another host; or set airflow_adopt: [redis], which keeps keys and replaces accounts",
        "airflow": "stop and remove it; or set airflow_adopt: [airflow] to let both run side by side for a while",
    }
    return Problem(f"host {host}", what, cures[kind])


# Figures


def check_disks(case: Case) -> list[Problem]:
    problems = []
    for host, facts in case.facts.items():
        if _level(case, host) == "skip":
            continue
        # What shares a file system adds up there.
        needs: dict[Any, list[tuple[str, int, int]]] = {}
        for path in folders(case.inventory, host):
            found = (facts.get("disks") or {}).get(path) or {}
            if found:
                needs.setdefault(found["device"], []).append((path, *_needed(path, host, case)))
        for device, wanted in needs.items():
            found = next(one for one in facts["disks"].values() if one and one["device"] == device)
            where, space, files = (
                ", ".join(path for path, _mb, _files in wanted),
                sum(one[1] for one in wanted),
                sum(one[2] for one in wanted),
            )
            if found.get("read_only"):
                problems.append(Problem(f"host {host}", f"can only read the file system of {where}", "mount it for writing"))
            if found["free_mb"] < space:
                problems.append(
                    Problem(
                        f"host {host}",
                        f"has {found['free_mb']} MB of disk free for {where}, {space} are needed",
                        _more("make room", case, host),
                    )
                )
            if found["inodes"] and found["free_inodes"] < files:
                problems.append(
                    Problem(
                        f"host {host}",
                        f"has {found['free_inodes']} inodes free for {where}, {files} are needed",
                        _more("make room", case, host),
                    )
                )
    return problems


def _needed(path: str, host: str, case: Case) -> tuple[int, int]:
    if path in SERVER_FOLDERS.values():
        return SERVER_MB, SERVER_FILES
    if path in (LOG_FOLDER, HOME_FOLDER):
        return LOG_MB, SERVER_FILES
    # What is deployed already needs room for one more.
    return (RELEASE_MB // 2, RELEASE_FILES // 2) if case.deployed(host) else (RELEASE_MB, RELEASE_FILES)


def _level(case: Case, host: str) -> str:
    return str(case.inventory.hosts[host].get("airflow_resource_check") or "enforce")


def _more(cure: str, case: Case, host: str) -> str:
    return f"{cure}, or set airflow_resource_check: warn"


def slots(case: Case, host: str) -> int:
    """Tasks that the host may run at once, so far as somebody has said so: what is derived from its memory fits."""
    return sum(1 if one["derived"] else int(one["concurrency"]) for one in case.plan["workers"].get(host, []))


def memory_needed(case: Case, host: str) -> int:
    """MB for everything that the host runs."""
    needed = SYSTEM_MB
    for component, group in COMPONENT_GROUPS.items():
        if host in case.inventory.members(group):
            needed += MEMORY.get(component, 300)
    if host in case.inventory.members("airflow_worker"):
        needed += slots(case, host) * TASK_MB
    return needed + (POSTGRESQL_MB if host in case.inventory.members("postgresql") else 0)


def check_memory(case: Case) -> list[Problem]:
    problems = []
    for host, facts in case.facts.items():
        there, needed = facts.get("memory_mb") or 0, memory_needed(case, host)
        if not there or _level(case, host) == "skip" or there >= needed:
            continue
        cure = "add memory"
        if host in case.inventory.members("airflow_worker"):
            fits = (there - needed + slots(case, host) * TASK_MB) // TASK_MB
            what = f"has {there} MB of memory, its components with {slots(case, host)} tasks at once need {needed}"
            cure = f"set airflow_worker_concurrency to {fits}, {cure}" if fits >= 1 else cure
        else:
            what = f"has {there} MB of memory, its components need {needed}"
        problems.append(Problem(f"host {host}", what, _more(cure, case, host)))
    return problems


def check_processors(case: Case) -> list[Problem]:
    problems = []
    for host, facts in case.facts.items():
        there, single = facts.get("processors") or 0, case.plan["single"]
        if there and single and there < SINGLE_PROCESSORS and _level(case, host) != "skip":
            what = f"has {there} processor, everything on one host needs {SINGLE_PROCESSORS}"
            problems.append(Problem(f"host {host}", what, _more("give it another", case, host)))
    return problems


def check_open_files(case: Case) -> list[Problem]:
    problems = []
    for host, facts in case.facts.items():
        there = facts.get("open_files") or 0
        if there and there < OPEN_FILES and _level(case, host) != "skip":
            what = f"lets a process open {there} files at most, {OPEN_FILES} are needed"
            problems.append(Problem(f"host {host}", what, _more("raise the limit of process 1", case, host)))
    return problems


def check_clocks(case: Case) -> list[Problem]:
    """Tokens carry times: a host whose clock is off fails each of its tasks at once."""
    offsets = {
        host: (facts["time"] - facts["answered"], facts["time"] - facts["asked"])
        for host, facts in case.facts.items()
        if isinstance(facts.get("time"), (int, float)) and isinstance(facts.get("asked"), (int, float))
    }
    if len(offsets) < 2:
        return []
    tolerance = min(float(case.inventory.hosts[host].get("airflow_clock_tolerance") or 2) for host in offsets)
    middle = sorted(offsets.values())[(len(offsets) - 1) // 2]
    # The host read its clock somewhere between: only what is off for certain counts.
    off = {}
    for host, (low, high) in offsets.items():
        apart = max(low - middle[1], middle[0] - high)
        if apart > tolerance:
            off[host] = (low + high - middle[0] - middle[1]) / 2
    if not off:
        return []
    what = ", ".join(
        f"{host} is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the others" for host, seconds in off.items()
    )
    return [
        Problem(
            f"clock of {listed(off)}",
            f"{what}, {tolerance:g} are allowed",
            "let systemd-timesyncd or chrony set the clocks of all hosts by the same servers",
        )
    ]


def check_limit(case: Case) -> list[Problem]:
    """A host that is new needs those that must admit it: a server refuses whom its access rules do not have."""
    # Of workers the servers themselves are asked.
    groups = set(COMPONENT_GROUPS.values()) - {COMPONENT_GROUPS["worker"]}
    new = [
        host
        for host in case.members("airflow")
        if not case.deployed(host) and any(host in case.inventory.members(group) for group in groups)
    ]
    servers = {server for group in SERVER_FOLDERS for server in case.inventory.members(group)}
    absent = [server for server in case.inventory.ours() if server in servers and server not in case.facts]
    if not (case.limited and new and absent):
        return []
    word, them, plural = ("is", "it", "") if len(new) == 1 else ("are", "them", "s")
    what = f"{word} new, and --limit leaves out {listed(absent)}, which must admit {them}"
    return [Problem(f"host{plural} {listed(new)}", what, f"run it with --limit {','.join([*new, *absent][:5])}")]


RULES: tuple[Callable[[Case], list[Problem]], ...] = (
    check_root,
    check_machines,
    check_cgroup,
    check_interpreter,
    check_names,
    check_port_owners,
    check_foreign,
    check_clocks,
    check_limit,
)
# What airflow_resource_check: warn makes a warning of.
RESOURCES: tuple[Callable[[Case], list[Problem]], ...] = (
    check_disks,
    check_memory,
    check_processors,
    check_open_files,
)


def problems(case: Case) -> tuple[list[Problem], list[Problem]]:
    """What ends the run, and what is only told."""
    found = [problem for rule in RULES for problem in rule(case)]
    told: list[Problem] = []
    for rule in RESOURCES:
        for problem in rule(case):
            warned = _level(case, problem.where.removeprefix("host ")) == "warn"
            (told if warned else found).append(problem)
    return found, [*told, *told_revisions(case)]


def told_revisions(case: Case) -> list[Problem]:
    """With --limit, hosts of the run get files that others may not have."""
    readers = [
        host
        for group in ("airflow_worker", "airflow_triggerer", "airflow_dag_processor")
        for host in case.members(group)
        if case.facts[host].get("dags")
    ]
    # A tree's name ends with its revision.
    revisions = {str(case.facts[host]["dags"]).rpartition("-")[2] for host in readers}
    if len(revisions) < 2 or not case.limited:
        return []
    what = f"differ between hosts ({', '.join(sorted(revisions))})"
    return [Problem("DAG files", what, "run playbooks/dags.yml without --limit")]
