# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of all hosts as one document, and as one screen of text for people. Runs on the controller."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_markup import plain
from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_summary import duration, listed, summary

MISSING = {"reachable": False, "groups": [], "problems": ["has not answered"], "notes": []}
# With more lines than this, hosts that look the same become one line.
LINES = 30
TASKS = 8


def collect(results: Mapping[str, Any], workers: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> dict[str, Any]:
    """What airflow_status has registered on each host, and the inventory's workers -> the report."""
    hosts = {name: dict((result or {}).get("status") or MISSING) for name, result in results.items()}
    problems = [{"host": name, "problem": problem} for name, status in hosts.items() for problem in status["problems"]]
    now = time.time()
    cluster = summary(hosts, workers, now)
    return {
        "well": not problems,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "problems": problems,
        "warned": cluster.pop("warned"),
        "cluster": cluster,
        "hosts": hosts,
    }


def plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def verdict(report: Mapping[str, Any]) -> str:
    problems, warnings = len(report["problems"]), len(report["warned"])
    words = plural(problems, "problem") if problems else "all well"
    return f"{words}, {plural(warnings, 'warning')}" if warnings else words


def text(report: Mapping[str, Any]) -> list[str]:
    """Lines, the verdict last. One begins with an exclamation mark for a problem, with a question mark for a warning."""
    hosts = report["hosts"]
    notes = [f"- {name}: {note}" for name, status in hosts.items() for note in status["notes"]]
    warnings = [f"? {one['about']}: {one['warning']}" for one in report["warned"]]
    problems = [f"! {one['host']}: {one['problem']}" for one in report["problems"]]
    sections = [components(report), queues(report), facts(report), notes, [*warnings, *problems]]
    lines = [line for section in sections if section for line in ["", *section]]
    return [*map(plain, lines), "", verdict(report)]


def table(rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """The first row names the columns, those of `right` hold numbers. A column that is empty but for its name is left out."""
    columns = [column for column in zip(*rows) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    aligned = [
        [cell.rjust(width) if column[0] in right else cell.ljust(width) for cell in column]
        for column, width in zip(columns, widths)
    ]
    return ["  ".join(cells).rstrip() for cells in zip(*aligned)]


# Sections ---------------------------------------------------------------------


def components(report: Mapping[str, Any]) -> list[str]:
    cluster = report["cluster"]
    found = [(name, _host_rows(report, name)) for name in report["hosts"]]
    if sum(len(rows) for _name, rows in found) > LINES:
        found = _merged(found, cluster["health"])
    lines = [["   host", "component", "health", "version", "up", "tasks", "memory", "restarts"]]
    for name, rows in found:
        for at, row in enumerate(rows):
            lines.append([f"{row[0]}  {'' if at else name}", *row[1:]])
    return table(lines, right=("up", "tasks", "memory", "restarts"))


def _host_rows(report: Mapping[str, Any], name: str) -> list[list[str]]:
    parts = report["cluster"]["components"][name]
    status = report["hosts"][name]
    if not status.get("units"):
        state = "status unknown" if status["reachable"] else "unreachable"
        return [["!", listed([part["label"] for part in parts], 8), state, *[""] * 5]]
    return [
        [
            "!" if part["health"] == "ill" else " ",
            part["label"],
            part["state"],
            part["version"],
            duration(part["uptime"]),
            of_slots(part),
            f"{part['memory'] / 2**20:.0f} MB" if part["memory"] else "",
            str(part["restarts"] or ""),
        ]
        for part in parts
    ]


def of_slots(part: Mapping[str, Any]) -> str:
    """Running tasks of how many; a draining worker takes no more."""
    if part["slots"] is None:
        return ""
    return str(len(part["tasks"])) if part["health"] == "draining" else f"{len(part['tasks'])}/{part['slots']}"


def _merged(found: list[tuple[str, list[list[str]]]], health: Mapping[str, str]) -> list[tuple[str, list[list[str]]]]:
    """Hosts that are well and differ in numbers alone, as one."""
    merged: dict[Any, list[tuple[str, list[list[str]]]]] = {}
    for name, rows in found:
        same = tuple(tuple(row[1:4]) for row in rows) if health[name] == "well" else name
        merged.setdefault(same, []).append((name, rows))
    lines = []
    for alike in merged.values():
        names = [name for name, _rows in alike]
        if len(names) == 1:
            lines += alike
            continue
        rows = [[*row[:4], "", _sum([other[at][5] for _name, other in alike]), "", ""] for at, row in enumerate(alike[0][1])]
        lines.append((f"{names[0]} … {names[-1]} ({len(names)})", rows))
    return lines


def _sum(cells: Sequence[str]) -> str:
    pairs = [cell.partition("/")[::2] for cell in cells if cell]
    if not pairs:
        return ""
    used, slots = (sum(int(pair[at] or 0) for pair in pairs) for at in (0, 1))
    return f"{used}/{slots}" if slots else str(used)


def queues(report: Mapping[str, Any]) -> list[str]:
    rows = [["   queue", "waiting", "running", "slots", "DAGs", "workers"]]
    warned = {one["about"] for one in report["warned"]}
    for name, use in report["cluster"]["queues"].items():
        waiting = max(use["waiting"], use["length"] or 0)
        slots = f"{use['used']}/{use['slots']}" if use["slots"] else "none"
        workers = listed(use["workers"]) or ("not asked" if use["outside"] else "none")
        mark = "?" if f"queue {name}" in warned else " "
        rows.append([f"{mark}  {name}", str(waiting), str(use["running"]), slots, str(use["dags"]), workers])
    return table(rows, right=("waiting", "running", "slots", "DAGs")) if len(rows) > 1 else []


def facts(report: Mapping[str, Any]) -> list[str]:
    """What there is one of."""
    cluster, now = report["cluster"], report["time"]
    draining = [task for task in cluster["tasks"] if task["draining"]]
    rows = [
        (
            "draining",
            [f"{task['host']}: {task['name'] or task['id']}{_since(task)}" for task in draining[:TASKS]] + _more(draining),
        ),
        ("release", [f"{release} on {listed(hosts)}" for release, hosts in cluster["releases"].items()]),
        (
            "DAG files",
            [f"{name}, shipped {one['shipped']}, on {listed(one['hosts'])}" for name, one in cluster["dags"].items()],
        ),
        ("last backup", backup(cluster["backup"])),
        ("certificates", certificate(cluster["certificate"])),
        ("seen at", [now]),
    ]
    width = max(len(name) for name, _lines in rows)
    return [f"   {name.ljust(width)}  {line}" for name, lines in rows for line in lines]


def _more(tasks: Sequence[Any]) -> list[str]:
    return [f"and {len(tasks) - TASKS} more"] if len(tasks) > TASKS else []


def _since(task: Mapping[str, Any]) -> str:
    return f", for {duration(task['seconds'])}" if task["seconds"] is not None else ""


def backup(one: Mapping[str, Any]) -> list[str]:
    if not one:
        return []
    if not one["id"]:
        return [f"none yet on {one['host']} ({one['schedule'] or 'by hand only'})"]
    kept = f"{plural(one['count'], 'backup')} kept on {one['host']}, copied to {one['copied_to'] or 'no other place'}"
    size = f"{one['bytes'] / 10**6:.1f} MB, of Fernet key {one['fernet'] or 'unknown'}"
    return [f"{one['id']}, {duration(one['age'])} ago, {size}; {kept}"]


def certificate(one: Mapping[str, Any]) -> list[str]:
    if not one:
        return []
    first = f"of {one['count']} the first expires" if one["count"] > 1 else "the only one expires"
    return [f"{first} in {one['days_left']} days, on {one['not_after'].partition('T')[0]}: {one['host']} {one['path']}"]
