# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the health timer of a host has found, as part of its status. Runs on the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FILE = "/run/airflow/health.json"
# Many times the timer's interval: with it, nobody restarts what hangs.
STALE = 900
DAY = 86400


def read(now: float, path: str = FILE) -> dict[str, Any]:
    """Empty where no timer has run since the boot."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not what the health timer writes")
    return judge(found, now)


def judge(found: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The file's contents, with what of it is a problem and what is worth a note."""
    problems: list[str] = []
    notes: list[str] = []
    age = int(now - float(found.get("checked") or 0))
    if age > STALE:
        problems.append(f"the health of its components was last looked at {age // 60} minutes ago; see systemctl list-timers")
    components = found.get("components") or {}
    for name, one in sorted(components.items()):
        if one.get("healthy", True) is False and age <= STALE:
            strikes = f" ({one['strikes']} times in a row)" if one.get("strikes") else ""
            problems.append(
                f"{name} is unhealthy{strikes}: {one.get('why') or 'no reason is given'}; see journalctl -u 'airflow-*'"
            )
        if one.get("restarts") and now - float(one.get("last_restart") or 0) < DAY:
            times = f"{one['restarts']} time{'' if one['restarts'] == 1 else 's'}"
            hours = int(now - float(one["last_restart"])) // 3600
            last = f"{hours} h ago" if hours else "less than an hour ago"
            notes.append(f"{name} was restarted {times} as it did not answer, the last time {last}")
    withdrawn = " ".join(str(found.get("withdrawn") or "").split())
    if withdrawn:
        problems.append(f"has taken itself out of the queues: {withdrawn}; it takes tasks again when that is mended")
    return {
        "age": age,
        "components": {
            name: {key: one.get(key) for key in ("healthy", "strikes", "restarts", "why")} for name, one in components.items()
        },
        "withdrawn": withdrawn,
        "disk": found.get("disk") or {},
        "clock": found.get("clock") or {},
        "problems": problems,
        "notes": notes,
    }


def unhealthy(found: Mapping[str, Any], unit: Mapping[str, Any]) -> bool:
    """Whether it has found so of a unit that is up: by the name of the component, of the instance, or of the unit."""
    if unit["state"] != "active" or found.get("age", 0) > STALE:
        return False
    stem = unit["instance"] or unit["name"].removesuffix(".service")
    names = {unit["component"], stem, stem.removeprefix("airflow-"), unit["name"]}
    return any(name in names and one["healthy"] is False for name, one in (found.get("components") or {}).items())
