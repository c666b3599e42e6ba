# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules of preflight about workers: their sets and instances, and whether everything has room for their slots."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.windfarm.airflow.plugins.module_utils import cluster, workers
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem

if TYPE_CHECKING:
    from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory

PREFIX = "airflow_worker_"
INSTANCES = "airflow_worker_instances"
VARIABLES = (INSTANCES, "airflow_worker_concurrency_max", *(f"{PREFIX}{key}" for key in workers.KEYS))

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
WORD_CURE = "use letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# An idle worker of four slots has 280 MB.
LEAST_MEMORY = 512 * 2**20
# systemd takes 255 characters, of which airflow-worker@ and -a.service are ours.
LONGEST = 64


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.7)
    return found[0] if found else ""


def _known(name: str, known: Sequence[str]) -> str:
    near = _near(name, known)
    return f"did you mean {near}?" if near else f"known are {', '.join(known)}"


# One value: what is wrong with it and the cure, or nothing


def queues_problem(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list) or not value:
        return "is no list of names", "write a list such as [default]"
    wrong = next((queue for queue in value if not _WORD.fullmatch(str(queue))), None)
    return None if wrong is None else (f"has the queue {wrong!r}", WORD_CURE)


def _number(value: object) -> int | None:
    """A whole number, also one that is given as text, as `-e` does."""
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value).strip()):
        return None
    return int(str(value))


def concurrency_problem(value: object) -> tuple[str, str] | None:
    return None if _number(value) is not None else (f"is {value!r}", "write a number of tasks, or 0 to derive it from the host")


def most_problem(value: object) -> tuple[str, str] | None:
    return None if _number(value) else (f"is {value!r}", "write a number of tasks, at least 1")


def autoscale_problem(value: object) -> tuple[str, str] | None:
    text = workers.autoscale_text(value)
    cure = 'write two numbers, the larger one first, such as "8,2"'
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if not text:
        return None
    if not found:
        return f"is {value!r}, not MAX,MIN", cure
    most, least = int(found[1]), int(found[2])
    if least < 1:
        return f"is {value!r}, and a worker without a process would never start one again", cure
    return None if most >= least else (f"is {value!r}, with the smaller number first", cure)


def memory_bytes(value: object) -> float | None:
    """Of systemd's sizes those without a per cent sign."""
    found = _SIZE.fullmatch(str(value).strip())
    return float(found[1]) * _UNITS[found[2]] if found else None


def memory_problem(value: object) -> tuple[str, str] | None:
    text = "" if value is None else str(value).strip()
    cure = "write a size as systemd has it, such as 6G, 1500M or 50%"
    if text in ("", "infinity"):
        return None
    size, percent = memory_bytes(text), _PERCENT.fullmatch(text)
    if percent:
        return None if 0 < float(percent[1]) <= 100 else (f"is {text}", cure)
    if size is None:
        return f"is {value!r}", cure
    return None if size >= LEAST_MEMORY else (f"is {text}, less than the 512M that a worker needs before its first task", cure)


def environment_problem(value: object) -> tuple[str, str] | None:
    cure = "write it as {NAME: value}, each value on one line"
    if value is None or value == "":
        return None
    if not isinstance(value, Mapping):
        return "is no dictionary", cure
    for name, one in value.items():
        if not _VARIABLE.fullmatch(str(name)):
            return f"has the name {name!r}", cure
        if "\n" in str(one):
            return f"has a line break in {name}", cure
    return None


_VALUES: dict[str, Callable[[object], tuple[str, str] | None]] = {
    "queues": queues_problem,
    "concurrency": concurrency_problem,
    "concurrency_max": most_problem,
    "autoscale": autoscale_problem,
    "environment": environment_problem,
    "memory_high": memory_problem,
    "memory_max": memory_problem,
}


def _value_problems(where: str, values: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for key, problem in _VALUES.items():
        if key in values:
            found = problem(values[key])
            problems += [Problem(f"{where}{key}", *found)] if found else []
    high, most = (memory_bytes(values.get(key) or "") for key in ("memory_high", "memory_max"))
    if high and most and high > most:
        problems.append(Problem(f"{where}memory_high", "is more than memory_max, so it is never reached", "make it less"))
    return problems


# Instances


def _name_problem(name: object) -> tuple[str, str] | None:
    if not isinstance(name, (str, int)) or isinstance(name, bool) or name == "":
        return "has no name", "give each instance a name, such as etl"
    if not _WORD.fullmatch(str(name)) or len(str(name)) > LONGEST:
        return f"has the name {name!r}", f"{WORD_CURE}; at most {LONGEST}"
    if str(name)[-2:] in ("-a", "-b"):
        return f"has the name {name}, which ends like a colour of another instance", "use a name that does not end in -a or -b"
    return None


def instance_problems(given: object) -> list[Problem]:
    """Of one host's airflow_worker_instances."""
    cure = "write a list of dictionaries, such as [{name: etl, queues: [etl]}]"
    if given is None or given == "" or given == []:
        return []
    if not isinstance(given, list):
        return [Problem(INSTANCES, "is no list", cure)]
    problems, seen = [], set()
    for number, one in enumerate(given, 1):
        if not isinstance(one, Mapping):
            problems.append(Problem(f"{INSTANCES}, number {number}", "is no dictionary", cure))
            continue
        name = one.get("name")
        wrong = _name_problem(name)
        where = f"{INSTANCES}, number {number}" if wrong else f"{INSTANCES}.{name}"
        problems += [Problem(where, *wrong)] if wrong else []
        if not wrong and str(name) in seen:
            problems.append(Problem(INSTANCES, f"has the name {name} twice", "give each instance of a host a name of its own"))
        seen.add(str(name))
        known = ("name", *workers.KEYS)
        problems += [
            Problem(f"{where}.{key}", "is not a setting of a worker instance", _known(str(key), known))
            for key in one
            if key not in known
        ]
        problems += _value_problems(f"{where}.", {key: value for key, value in one.items() if value is not None})
    return problems


def check_workers(inventory: Inventory) -> list[Problem]:
    """Each mistake once, however many hosts have it."""
    problems: dict[Problem, None] = {}
    for host in inventory.members("airflow_worker"):
        variables = inventory.hosts[host]
        problems.update(dict.fromkeys(instance_problems(variables.get(INSTANCES))))
        values = {name.removeprefix(PREFIX): value for name, value in variables.items() if name in VARIABLES}
        problems.update(dict.fromkeys(_value_problems(PREFIX, values)))
    return list(problems)


def check_worker_sets(inventory: Inventory) -> list[Problem]:
    """Of two groups that say what a host serves, Ansible silently takes one."""
    problems: dict[tuple[str, ...], list[str]] = {}
    for host in inventory.members("airflow_worker"):
        if host in inventory.settled:
            continue
        sets = {name: one for name, one in inventory.worker_sets.items() if host in one["hosts"] and one["serves"]}
        # What stands in a group wins over what stands in a group above it, which is meant so.
        lowest = {name: one["serves"] for name, one in sets.items() if not any(name in other["above"] for other in sets.values())}
        if len({repr(serves) for serves in lowest.values()}) > 1 and not _serves_all(inventory.hosts[host], lowest.values()):
            problems.setdefault(tuple(sorted(lowest)), []).append(host)
    return [
        Problem(
            f"host {', '.join(hosts)}",
            f"is in the worker sets {' and '.join(names)}, which say differently what it serves, and only one would count",
            f"set {INSTANCES} for the host, one instance for each set, or leave all but one of the groups",
        )
        for names, hosts in problems.items()
    ]


def _serves_all(variables: Mapping[str, Any], given: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the instances that count serve what every set asks for."""
    if not variables.get(INSTANCES) or instance_problems(variables[INSTANCES]):
        return False
    found = workers.instances(lambda name: cluster.setting(variables, name))
    served = {queue for one in found for queue in one["queues"]}
    asked = [serves.get("airflow_worker_queues") for serves in given]
    return all(isinstance(queues, list) and set(map(str, queues)) <= served for queues in asked if queues)


# Room for their slots


def _plan(inventory: Inventory) -> dict[str, Any] | None:
    """The plan of the cluster, where its numbers are numbers; where they are not, other rules say so."""
    if not all(map(inventory.members, ("airflow_scheduler", "airflow_worker"))):
        return None
    if check_workers(inventory) or check_numbers(inventory):
        return None
    try:
        return cluster.plan(inventory.hosts, inventory.groups)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _section(variables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    config = variables.get("airflow_config")
    found = config.get(name) if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else {}


# Section, key and least of what is counted with. Of SQLAlchemy's, less means without limit.
_COUNTED = (
    ("database", "sql_alchemy_pool_size", 1),
    ("database", "sql_alchemy_max_overflow", 0),
    ("api", "workers", 1),
    ("core", "parallelism", 1),
)


def check_numbers(inventory: Inventory) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for host in inventory.members("airflow"):
        for section, key, least in _COUNTED:
            value = _section(inventory.hosts[host], section).get(key)
            number = _number(value)
            if value is not None and (number is None or number < least):
                cure = f"write a number, at least {least}, or remove it"
                what = f"is {value!r}, and the connections and tasks of the cluster are counted with it"
                problems[Problem(f"airflow_config.{section}.{key}", what, cure)] = None
    for host in inventory.members("postgresql"):
        for name, value in cluster.given_connections(inventory.hosts[host]):
            if _number(value) is None:
                problems[Problem(name, f"is {value!r}", "write a number, or remove it")] = None
    return list(problems)


def check_connections(inventory: Inventory) -> list[Problem]:
    found = _plan(inventory)
    if not found:
        return []
    problems = []
    for host in inventory.members("postgresql")[:1]:
        for name, value in cluster.given_connections(inventory.hosts[host])[:1]:
            needed = found["connections_needed"]
            if int(value) < needed:
                slots = sum(one["concurrency"] for instances in found["workers"].values() for one in instances)
                what = f"is {value}, and the inventory's processes, with {slots} worker slots, may open {needed} connections"
                problems.append(Problem(name, what, f"raise it to {needed} or more, or remove it"))
    return problems


def check_parallelism(inventory: Inventory) -> list[Problem]:
    """[core] parallelism is each scheduler's own limit. What exceeds all of them together no worker is ever given."""
    found = _plan(inventory)
    if not found:
        return []
    given = [_section(inventory.hosts[host], "core").get("parallelism") for host in inventory.members("airflow_scheduler")]
    slots = sum(one["concurrency"] for instances in found["workers"].values() for one in instances)
    numbers = [found["parallelism"] if value is None else int(value) for value in given]
    if all(value is None for value in given) or sum(numbers) >= slots:
        return []
    count = "1 scheduler start" if len(given) == 1 else f"{len(given)} schedulers start"
    return [
        Problem(
            "airflow_config.core.parallelism",
            f"lets {count} {sum(numbers)} tasks at once, and the workers have {slots} slots",
            f"raise it to {-(-slots // len(given))} or more, or remove it; pools and max_active_tasks limit what a DAG may take",
        )
    ]


RULES: tuple[Callable[[Inventory], list[Problem]], ...] = (
    check_workers,
    check_worker_sets,
    check_numbers,
    check_connections,
    check_parallelism,
)


def told(inventory: Inventory) -> list[Problem]:
    """What is only told: tasks that name no queue go to one that nobody serves."""
    found = _plan(inventory)
    if not found:
        return []
    section = _section(inventory.hosts[inventory.members("airflow_scheduler")[0]], "operators")
    queue = str(section.get("default_queue") or "default")
    if queue in found["queues"]:
        return []
    what = f"no worker serves {queue}, to which tasks go that name no queue"
    return [Problem("airflow_worker_queues", what, f"add {queue} to a worker, or set airflow_config.operators.default_queue")]
