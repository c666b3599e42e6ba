# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The worker instances of a host: what each serves, how many tasks it runs at once, what it may use. Runs on the controller."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DEFAULT = "default"
# What an instance may say itself, besides its name; else the host's variable airflow_worker_KEY counts.
KEYS = ("queues", "concurrency", "autoscale", "environment", "memory_high", "memory_max")
# MiB that a slot is counted with: its pool process, and the task's own (156 MB for the smallest DAG) with what it loads.
SLOT = 350
# MiB for Debian, HAProxy, the log server and the worker's main process.
HOST = 1024
# MiB of another component or server on the same host (140 to 280 MB when measured, idle).
NEIGHBOUR = 300
# Tasks mostly wait. Two processors, upstream's least, so get upstream's 16.
SLOTS_PER_PROCESSOR = 8
# Age in seconds, instance: a line of `ps -eo etimes,unit,args` about a task's process.
_TASK = re.compile(r"^ *(\d+) +airflow-worker@(\S+)-[ab]\.service +airflow worker -- ", re.M)


def instances(get: Callable[[str], Any]) -> list[dict[str, Any]]:
    """From a host's variables, defaults included. `concurrency` is the most tasks at once, and only a bound where `derived`."""
    return [_resolved(given, get) for given in get("airflow_worker_instances") or [{"name": DEFAULT}]]


def _resolved(given: Mapping[str, Any], get: Callable[[str], Any]) -> dict[str, Any]:
    own = {key: value for key, value in given.items() if value is not None}
    found = {key: own[key] if key in own else get(f"airflow_worker_{key}") for key in KEYS}
    # A number of its own is not meant to be overruled by what the host says of all.
    autoscale = "" if "concurrency" in own and "autoscale" not in own else autoscale_text(found["autoscale"])
    slots = int(autoscale.partition(",")[0]) if autoscale else int(found["concurrency"] or 0)
    return {
        "name": str(given["name"]),
        "queues": [str(queue) for queue in found["queues"]],
        "concurrency": slots or int(get("airflow_worker_concurrency_max")),
        "autoscale": autoscale,
        "environment": dict(found["environment"] or {}),
        "memory_high": str(found["memory_high"] or ""),
        "memory_max": str(found["memory_max"] or ""),
        "derived": not slots,
    }


def autoscale_text(value: object) -> str:
    """MAX,MIN without blanks."""
    return "".join(str(value or "").split())


def queues(workers: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Every queue that a worker of the cluster serves."""
    return sorted({queue for found in workers.values() for one in found for queue in one["queues"]})


def sized(found: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], neighbours: int) -> list[dict[str, Any]]:
    """The same instances with their own numbers where those are derived from the host's memory (GiB) and processors."""
    derived = [one for one in found if one["derived"]]
    if not derived or not machine:
        return [dict(one) for one in found]
    taken = sum(one["concurrency"] for one in found if not one["derived"])
    memory = int(machine["memory"]) * 1024 - HOST - NEIGHBOUR * neighbours
    share = (min(memory // SLOT, int(machine["processors"]) * SLOTS_PER_PROCESSOR) - taken) // len(derived)
    return [{**one, "concurrency": max(1, min(one["concurrency"], share))} if one["derived"] else dict(one) for one in found]


def words(instance: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the catalog for the parts of an instance."""
    pool = f"--autoscale {instance['autoscale']}" if instance["autoscale"] else f"-c {instance['concurrency']}"
    return {
        "@INSTANCE@": instance["name"],
        "@QUEUES@": ",".join(instance["queues"]),
        "@POOL@": pool,
        "@SLOTS@": str(instance["concurrency"]),
    }


def named(given: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Instances as far as their units' names need them, from airflow_worker_instances alone."""
    return [{"name": str(one["name"]), "queues": [], "autoscale": "", "concurrency": 0} for one in given or [{"name": DEFAULT}]]


def taking(text: str, found: Sequence[Mapping[str, Any]], seconds: int) -> list[str]:
    """Names of instances that have as many tasks as they may, or one that is younger than `seconds`; from ps."""
    ages = [(int(age), name) for age, name in _TASK.findall(text)]
    young = {name for age, name in ages if age < int(seconds)}
    names = [name for _age, name in ages]
    return [one["name"] for one in found if one["name"] in young or names.count(one["name"]) >= one["concurrency"]]
