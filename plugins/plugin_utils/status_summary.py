# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the answers of all hosts say of the cluster as a whole. Runs on the controller."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import queues as queues_of

UP = ("active", "reloading")
SETS = "airflow_worker_"
WORKER = "airflow-worker"
# A component's name, or a unit's, where they differ from what people say.
LABELS = {"airflow-firewall": "firewall", "logs": "log server"}
# What a component needs beside it comes after it.
HELPERS = ("logs", "haproxy", "keepalived", "airflow-firewall")
PACKAGES = {"postgresql": "postgresql-", "redis": "redis-server", "haproxy": "haproxy", "keepalived": "keepalived"}


# A host's components ----------------------------------------------------------


def parts(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each thing that a host runs or should run; a worker's two colours are one unless both do something."""
    if not status.get("units"):
        groups = [group for group in status["groups"] if not group.startswith(SETS)]
        state = "unknown" if status["reachable"] else "unreachable"
        return [_part(group.removeprefix("airflow_"), "unknown", state) for group in groups]
    found: list[dict[str, Any]] = []
    instances: list[str] = []
    for unit in status.get("units") or []:
        if unit["instance"]:
            if unit["instance"] not in instances:
                instances.append(unit["instance"])
                found += _instance(status, unit["instance"])
        # A target stands for its units, and is worth a line only when it does not.
        elif unit["health"] != "idle" and (unit["health"] == "ill" or not unit["name"].endswith(".target")):
            found.append(_of_unit(status, unit))
    return sorted(found, key=lambda part: part["component"] in HELPERS)


def _instance(status: Mapping[str, Any], instance: str) -> list[dict[str, Any]]:
    colours = [unit for unit in status["units"] if unit["instance"] == instance]
    serving = [unit for unit in colours if unit["state"] in UP]
    draining = [unit for unit in colours if unit["state"] == "deactivating"]
    found = [_of_unit(status, unit) for unit in serving + draining]
    drained = bool((status.get("host") or {}).get("drained"))
    # One that finishes its tasks on a drained host says enough.
    if not serving and not (drained and draining) and any(unit["component"] for unit in colours):
        # Its last settings, of whichever colour still has them.
        known = next((unit for unit in colours if unit["queues"]), colours[0])
        state = "drained" if drained else "starting" if known["state"] == "activating" else "down"
        absent = _of_unit(status, {**known, "health": "off" if drained else "ill", "tasks": [], "uptime": None, "memory": None})
        found.insert(0, {**absent, "state": state})
    return found


def _of_unit(status: Mapping[str, Any], unit: Mapping[str, Any]) -> dict[str, Any]:
    # One that no group asks for any more is still something that people know by a name.
    component = unit["component"] or re.sub(r"^airflow-(?=worker@)|[@.].*$", "", unit["name"])
    running = unit["state"] in UP or unit["health"] == "draining"
    state = "draining" if unit["health"] == "draining" else "up" if unit["state"] in UP else unit["state"]
    if unit["health"] == "ill" and unit["state"] in UP:
        other = "disabled" if unit["enabled"] == "disabled" else "unhealthy"
        state = "stale" if unit["current"] is False else other
    return {
        **_part(component, unit["health"], state),
        "label": label(component, unit["instance"]),
        "unit": unit["name"],
        "version": unit["release"].partition("-")[0] or package(component, (status.get("host") or {}).get("packages") or {}),
        "release": unit["release"],
        "uptime": unit["uptime"] if running else None,
        "tasks": list(unit["tasks"]),
        "slots": unit["slots"],
        "queues": list(unit["queues"]),
        "memory": unit["memory"],
        "restarts": unit["restarts"],
    }


def _part(component: str, health: str, state: str) -> dict[str, Any]:
    return {
        "component": component,
        "label": label(component),
        "health": health,
        "state": state,
        "unit": "",
        "version": "",
        "release": "",
        "uptime": None,
        "tasks": [],
        "slots": None,
        "queues": [],
        "memory": None,
        "restarts": 0,
    }


def label(component: str, instance: str = "") -> str:
    name = instance.partition("@")[2]
    text = LABELS.get(component, component.replace("_", " "))
    return f"{text} {name}" if name and name != "default" else text


def package(component: str, packages: Mapping[str, str]) -> str:
    """Such as 15.14, of 15.14-0+deb12u1."""
    wanted = PACKAGES.get(component)
    found = next((version for name, version in packages.items() if wanted and name.startswith(wanted)), "")
    return re.sub(r"^\d+:", "", found).partition("-")[0]


def health_of(status: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """Of a host as a whole."""
    if not status["reachable"] or status["problems"]:
        return "ill"
    if (status.get("host") or {}).get("drained"):
        return "off"
    return "draining" if any(part["health"] == "draining" for part in shown) else "well"


# The cluster ------------------------------------------------------------------


def summary(
    hosts: Mapping[str, Mapping[str, Any]], workers: Mapping[str, Sequence[Mapping[str, Any]]] | None, now: float
) -> dict[str, Any]:
    """`workers`: the inventory's, of hosts outside of a --limit too; None where the inventory does not tell."""
    shown = {name: parts(status) for name, status in hosts.items()}
    queues = _queues(hosts, shown, workers)
    serving = [part for own in shown.values() for part in own if _serves(part)]
    draining = [part for own in shown.values() for part in own if part["health"] == "draining"]
    names: Mapping[str, Any] = next((status["queues"]["running"] for status in hosts.values() if status.get("queues")), {})
    found = {
        "health": {name: health_of(status, shown[name]) for name, status in hosts.items()},
        "components": shown,
        "queues": queues,
        "slots": {
            "all": sum(part["slots"] or 0 for part in serving),
            "used": sum(len(part["tasks"]) for part in serving),
            "draining": sum(len(part["tasks"]) for part in draining),
        },
        "tasks": [
            {"id": task, "host": name, "unit": part["unit"], "draining": part["health"] == "draining", **_named(names.get(task))}
            for name, own in shown.items()
            for part in own
            for task in part["tasks"]
        ],
        "releases": _by(shown, lambda part: part["release"] if part["health"] != "draining" else ""),
        "dags": _revisions(hosts),
        "backup": _backup(hosts, now),
        "certificate": _certificate(hosts),
    }
    return {**found, "warned": warnings(found, hosts, workers)}


def _serves(part: Mapping[str, Any]) -> bool:
    return bool(part["queues"]) and part["state"] not in ("down", "drained", "starting", "draining")


def _named(task: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "name": task["name"] if task else "",
        "run": task["run"] if task else "",
        "seconds": task["seconds"] if task else None,
    }


def _queues(
    hosts: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Sequence[Mapping[str, Any]]],
    workers: Mapping[str, Sequence[Mapping[str, Any]]] | None,
) -> dict[str, dict[str, Any]]:
    """What is known of each queue, and who serves it now; of one that no worker serves, why."""
    known: Mapping[str, Any] = next((status["queues"] for status in hosts.values() if status.get("queues")), {"queues": {}})
    wanted = queues_of.served(workers or {})
    taken: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name, own in shown.items():
        for part in own:
            for queue in part["queues"] if _serves(part) else []:
                taken.setdefault(queue, {}).setdefault(name, []).append(part)
    found = {}
    for queue in sorted({*known["queues"], *wanted, *taken}):
        use = known["queues"].get(queue) or {
            "dags": 0, "paused": 0, "examples": [], "waiting": 0, "running": 0, "later": 0, "length": None,
        }  # fmt: skip
        there = taken.get(queue, {})
        slots = [part for own in there.values() for part in own]
        found[queue] = {
            **use,
            "workers": list(there),
            # Not asked, as they are outside of the run: they may serve it.
            "outside": [name for name in wanted.get(queue, []) if name not in hosts],
            "away": [name for name in wanted.get(queue, []) if name in hosts and name not in there],
            "slots": sum(part["slots"] or 0 for part in slots),
            "used": sum(len(part["tasks"]) for part in slots),
        }
    return found


def _by(shown: Mapping[str, Sequence[Mapping[str, Any]]], key: Any) -> dict[str, list[str]]:
    """Value -> hosts, the most common first."""
    found: dict[str, list[str]] = {}
    for name, own in shown.items():
        for value in dict.fromkeys(key(part) for part in own if key(part)):
            found.setdefault(value, []).append(name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _revisions(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for name, status in hosts.items():
        if (status.get("dags") or {}).get("revision"):
            found.setdefault(status["dags"]["revision"], []).append(name)
    times = {status["dags"]["revision"]: status["dags"]["shipped"] for status in hosts.values() if status.get("dags")}
    ordered = sorted(found, key=lambda revision: (-len(found[revision]), revision))
    return {revision: {"hosts": found[revision], "shipped": times[revision]} for revision in ordered}


def _backup(hosts: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Any]:
    for name, status in hosts.items():
        one = status.get("backup")
        if one:
            age = int(now - seconds_of(one["time"])) if one["id"] else None
            return {
                "host": name,
                "age": age,
                **{key: one[key] for key in ("id", "bytes", "count", "fernet", "copied_to", "schedule")},
            }
    return {}


def _certificate(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The first to expire; of a file with several, such as old and new authorities, the last one of it counts."""
    files: dict[tuple[str, str], Mapping[str, Any]] = {}
    for name, status in hosts.items():
        for one in status.get("certificates") or []:
            other = files.get((name, one["path"]))
            if other is None or one["days_left"] > other["days_left"]:
                files[name, one["path"]] = one
    if not files:
        return {}
    (name, path), one = min(files.items(), key=lambda item: item[1]["days_left"])
    return {"host": name, "path": path, "not_after": one["not_after"], "days_left": one["days_left"], "count": len(files)}


def seconds_of(text: str) -> float:
    """Of a time in ISO 8601 and UTC, or of a backup's id, which is one without dashes."""
    digits = re.sub(r"\D", "", text)[:14]
    return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S"))) if len(digits) == 14 else 0.0


# Warnings ---------------------------------------------------------------------


def warnings(
    found: Mapping[str, Any],
    hosts: Mapping[str, Mapping[str, Any]],
    workers: Mapping[str, Sequence[Mapping[str, Any]]] | None,
) -> list[dict[str, str]]:
    """What no host can see alone. No problem of the cluster, but tasks may wait for ever, or run something else than meant."""
    told = []
    for queue, use in found["queues"].items():
        about = f"queue {queue}"
        somewhere = use["workers"] or use["outside"]
        if workers is not None and not (somewhere or use["away"]) and queues_of.in_use(use):
            told.append((about, queues_of.warning(queue, queues_of.used_by(use)).removeprefix(f"{about}: ")))
        elif not somewhere and (use["waiting"] or use["length"]):
            count = max(use["waiting"], use["length"] or 0)
            why = ", ".join(f"{name} is {_absent(found['components'][name], hosts[name], queue)}" for name in use["away"][:5])
            what = "1 task waits" if count == 1 else f"{count} tasks wait"
            told.append((about, f"{what} and no worker takes them now ({why})"))
    if _differ(found["releases"], hosts):
        told.append(("releases", f"{_places(found['releases'])}; run upgrade.yml or site.yml"))
    if len(found["dags"]) > 1:
        told.append(("DAG files", f"{_places({name: one['hosts'] for name, one in found['dags'].items()})}; run dags.yml"))
    told += _entry(hosts)
    return [{"about": about, "warning": text} for about, text in told]


def _entry(hosts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The address of the entry hosts is on exactly one; where one was not asked, or does not answer, it may be there."""
    shown = {name: status["entry"] for name, status in hosts.items() if status.get("entry")}
    told = []
    for address in sorted({one["address"] for one in shown.values() if one["address"]}):
        sharing = {name: one for name, one in shown.items() if one["address"] == address}
        holders = [name for name, one in sharing.items() if one["held"]]
        if len(holders) > 1:
            told.append(
                (f"address {address}", f"is on {' and '.join(holders)}, which do not hear each other; see that VRRP passes")
            )
        elif not holders and all(len(sharing) >= one["shared"] for one in sharing.values()):
            told.append((f"address {address}", "is on no entry host; see journalctl -u keepalived there"))
    return told


def _differ(releases: Mapping[str, Sequence[str]], hosts: Mapping[str, Mapping[str, Any]]) -> bool:
    """Another Python makes another release of the same; a cluster may have several."""
    by_python: dict[str, set[str]] = {}
    for release, names in releases.items():
        for name in names:
            python = str((hosts[name].get("host") or {}).get("python", "")).rpartition(".")[0]
            by_python.setdefault(python, set()).add(release)
    versions = {release.partition("-")[0] for release in releases}
    return len(versions) > 1 or any(len(found) > 1 for found in by_python.values())


def _absent(own: Sequence[Mapping[str, Any]], status: Mapping[str, Any], queue: str) -> str:
    if not status["reachable"]:
        return "unreachable"
    states = [part["state"] for part in own if queue in part["queues"] or part["component"] == "worker"]
    return states[0] if states else "without a worker for it"


def _places(found: Mapping[str, Sequence[str]]) -> str:
    return "hosts differ: " + ", ".join(f"{name} on {listed(hosts)}" for name, hosts in found.items())


def listed(names: Sequence[str], most: int = 4) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def duration(seconds: float | None) -> str:
    """Such as 45 s, 12 min, 3 h, 5 d; empty for none."""
    if seconds is None:
        return ""
    for size, unit in ((172800, "d"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{int(seconds // {'d': 86400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{int(seconds)} s"
