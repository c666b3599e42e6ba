# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of all hosts as one document, and as text for people. Runs on the controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MISSING = {"reachable": False, "groups": [], "problems": ["has not answered"], "notes": []}


def collect(results: Mapping[str, Any]) -> dict[str, Any]:
    """What airflow_status has registered on each host -> the report."""
    hosts = {name: dict((result or {}).get("status") or MISSING) for name, result in results.items()}
    problems = [{"host": name, "problem": problem} for name, status in hosts.items() for problem in status["problems"]]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"well": not problems, "time": now, "problems": problems, "hosts": hosts}


def verdict(report: Mapping[str, Any]) -> str:
    count = len(report["problems"])
    return "all well" if not count else f"{count} problem{'' if count == 1 else 's'}"


def text(report: Mapping[str, Any]) -> list[str]:
    """Lines, the verdict last; a line with a problem begins with an exclamation mark."""
    lines: list[str] = []
    for name, status in report["hosts"].items():
        lines += ["", heading(name, status), f"   groups: {', '.join(status['groups']) or 'none'}"]
        for section, render in SECTIONS.items():
            lines += render(status.get(section) or [], status["problems"])
        lines += [f"   note: {note}" for note in status["notes"]]
    lines.append("")
    lines += [f"! {problem['host']}: {problem['problem']}" for problem in report["problems"]]
    return [*lines, verdict(report)]


def heading(name: str, status: Mapping[str, Any]) -> str:
    host = status.get("host") or {}
    versions = [
        f"{what} {version}"
        for what, version in [("Debian", host.get("debian")), ("Python", host.get("python")), *host.get("packages", {}).items()]
        if version
    ]
    state = ", ".join(versions) if status["reachable"] else "unreachable"
    return f"{'!' if status['problems'] else ' '} {name}: {state or 'no answer'}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def mark(what: str, problems: Sequence[str]) -> str:
    return "!" if any(what in problem for problem in problems) else " "


def units(shown: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> list[str]:
    rows = [["   unit", "state", "since", "restarts", "memory", "release"]]
    for unit in shown:
        # Of two colours, the idle one is nothing to look at.
        if unit["instance"] and unit["state"] in ("inactive", "not-found"):
            continue
        count = len(unit["tasks"])
        tasks = f", {count} task{'' if count == 1 else 's'}" if count else ""
        state = "draining" if unit["instance"] and unit["state"] == "deactivating" else unit["substate"] or unit["state"]
        rows.append(
            [
                f"{mark(unit['name'], problems)}  {unit['name'].removesuffix('.service')}",
                f"{unit['state']} ({state}){tasks}" if state not in ("running", unit["state"]) else f"{state}{tasks}",
                unit["since"].replace("T", " ").removesuffix("Z"),
                str(unit["restarts"]) if unit["memory"] or unit["restarts"] else "",
                f"{unit['memory'] / 2**20:.0f} MB" if unit["memory"] else "",
                unit["release"] + (" (stale)" if unit["current"] is False and state != "draining" else ""),
            ]
        )
    return table(rows) if len(rows) > 1 else []


def certificates(shown: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> list[str]:
    rows = [["   certificate", "until", "left", "for"]] + [
        [
            f"{mark(one['path'], problems)}  {one['path']}",
            one["not_after"].partition("T")[0],
            f"{one['days_left']} days",
            ", ".join(one["names"]) or one["subject"],
        ]
        for one in shown
    ]
    return table(rows) if len(rows) > 1 else []


def backup(shown: Any, problems: Sequence[str]) -> list[str]:
    if not shown or not shown["id"]:
        return []
    rows = [["   backup", "size", "verified in", "Fernet key", "kept", "copied to"]]
    rows.append(
        [
            f"{mark('backup', problems)}  {shown['id']}",
            f"{shown['bytes'] / 10**6:.1f} MB",
            f"{shown['seconds']} s",
            shown["fernet"] or "unknown",
            str(shown["count"]),
            shown["copied_to"] or "nowhere",
        ]
    )
    return table(rows)


SECTIONS: dict[str, Callable[[Any, Sequence[str]], list[str]]] = {
    "units": units,
    "certificates": certificates,
    "backup": backup,
}
