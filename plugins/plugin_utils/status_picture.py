# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A picture of the cluster as inline SVG: groups hold hosts, hosts hold components. Runs on the controller.

Colours are classes of the page that it stands in; shapes tell the same for who cannot tell the colours apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_markup import escape, plain
from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_summary import SETS, duration, label

GAP, PAD, LINE = 12, 12, 18
TILE, HEAD, ROW = 238, 34, 22
# A worker's slots in use.
METER, NUMBERS = 36, 44
# A box with more hosts than this draws them small: a name, and a mark for each component.
FULL = 18
SMALL, SMALL_HEIGHT = 148, 44
# Width of a letter of the page's font at the sizes used here, on the safe side.
LETTER = 7.3
# Who talks to users comes first, then who keeps the state, then who does the work.
ORDER = (
    "haproxy",
    "airflow_webserver",
    "airflow_scheduler",
    "airflow_dag_processor",
    "airflow_triggerer",
    "airflow_flower",
    "postgresql",
    "redis",
    "airflow_worker",
)
MARKS = {
    "well": '<circle class="well" cx="{x}" cy="{y}" r="5"/>',
    "ill": '<circle class="ill" cx="{x}" cy="{y}" r="6.5"/><path class="cut" d="M{x} {y}m-2.6-2.6l5.2 5.2m0-5.2l-5.2 5.2"/>',
    "draining": '<circle class="ring" cx="{x}" cy="{y}" r="4.5"/><path class="slow" d="M{x} {y}m0-5a5 5 0 0 1 0 10z"/>',
    "off": '<circle class="ring" cx="{x}" cy="{y}" r="4.5"/><path class="bar" d="M{x} {y}m-2.4 0h4.8"/>',
    "unknown": '<circle class="dashed" cx="{x}" cy="{y}" r="4.5"/>',
    "left": '<rect class="ring" x="{x}" y="{y}" width="8" height="8" transform="translate(-4 -4)"/>',
}
WORDS = {
    "well": "well",
    "ill": "a problem",
    "draining": "finishes its tasks",
    "off": "drained",
    "unknown": "not known",
    "left": "belongs to no group any more",
}


class Box(NamedTuple):
    """Groups, and the hosts that are in exactly these."""

    title: str
    hosts: list[str]


class Drawn(NamedTuple):
    width: float
    height: float
    markup: str


def boxes_of(hosts: Mapping[str, Mapping[str, Any]]) -> list[Box]:
    members: dict[tuple[str, ...], list[str]] = {}
    for name, status in hosts.items():
        members.setdefault(tuple(sorted(status["groups"], key=_rank)), []).append(name)
    return [Box(_title(groups), members[groups]) for groups in sorted(members, key=lambda groups: [_rank(one) for one in groups])]


def _rank(group: str) -> tuple[int, str]:
    return (ORDER.index(group) if group in ORDER else len(ORDER), group)


def _title(groups: Sequence[str]) -> str:
    sets = [group.removeprefix(SETS) for group in groups if group.startswith(SETS)]
    names = [label(group.removeprefix("airflow_")) for group in groups if not group.startswith(SETS)]
    return " · ".join([*names, *sets]) or "no group"


def picture(report: Mapping[str, Any], width: int, full: int = FULL) -> str:
    """One SVG, at most that wide."""
    placed: list[str] = []
    x = y = shelf = used = 0.0
    for box in boxes_of(report["hosts"]):
        drawn = _box(box, report, width, full)
        # Beside the others only as wide as it would be alone.
        if x and drawn.width > width - x:
            x, y, shelf = 0.0, y + shelf + GAP, 0.0
        placed.append(f'<g transform="translate({x:.0f} {y:.0f})">{drawn.markup}</g>')
        x, shelf, used = x + drawn.width + GAP, max(shelf, drawn.height), max(used, x + drawn.width)
    height = y + shelf
    return (
        f'<svg viewBox="-1 -1 {used + 2:.0f} {height + 2:.0f}" width="{used + 2:.0f}" role="img"'
        f' aria-label="The cluster: groups, their hosts and components">{"".join(placed)}</svg>'
    )


def _box(box: Box, report: Mapping[str, Any], room: float, full: int) -> Drawn:
    small = len(box.hosts) > full
    least = SMALL if small else TILE
    inner = max(room - 2 * PAD, least)
    columns = min(len(box.hosts), max(1, int((inner + GAP) // (least + GAP))))
    # A box that is filled from side to side leaves no ragged edge; one with a single column has all the room of a phone.
    filled = len(box.hosts) > columns or inner < 2 * least
    tile = (inner + GAP) / columns - GAP if filled else float(least)
    width = columns * (tile + GAP) - GAP + 2 * PAD
    title = _wrapped(box.title, width - 2 * PAD)
    top = PAD + LINE * len(title) + 4
    drawn: list[str] = []
    for first in range(0, len(box.hosts), columns):
        row = box.hosts[first : first + columns]
        height = SMALL_HEIGHT if small else max(_height(report["cluster"]["components"][name]) for name in row)
        for at, name in enumerate(row):
            inside = _small(name, report, tile) if small else _tile(name, report, tile, height)
            drawn.append(f'<g transform="translate({PAD + at * (tile + GAP):.1f} {top:.0f})">{inside}</g>')
        top += height + GAP
    height = top - GAP + PAD
    lines = "".join(
        f'<text class="title" x="{PAD}" y="{PAD + 12 + LINE * at}">{escape(text)}</text>' for at, text in enumerate(title)
    )
    return Drawn(width, height, f'<rect class="box" width="{width:.0f}" height="{height:.0f}" rx="10"/>{lines}{"".join(drawn)}')


def _height(parts: Sequence[Any]) -> int:
    return HEAD + ROW * max(1, len(parts)) + 6


def _tile(name: str, report: Mapping[str, Any], width: float, height: float) -> str:
    health = report["cluster"]["health"][name]
    status = report["hosts"][name]
    word = "unreachable" if not status["reachable"] else "drained" if health == "off" else ""
    room = width - 30 - len(word) * LETTER - (8 if word else 0)
    drawn = [
        _frame(name, status, health, width, height),
        f'<text class="host" x="14" y="22">{escape(clipped(name, room))}</text>',
        f'<text class="state{" amber" if health == "off" else ""}" x="{width - 12:.1f}" y="22">{word}</text>' if word else "",
    ]
    for at, part in enumerate(report["cluster"]["components"][name]):
        drawn.append(_component(part, width, HEAD + ROW * at + 11))
    return "".join(drawn)


def _component(part: Mapping[str, Any], width: float, y: float) -> str:
    detail = duration(part["uptime"]) if part["health"] == "well" else part["state"]
    meter = ""
    if part["slots"] and part["health"] == "well":
        detail = f"{len(part['tasks'])}/{part['slots']}"
        filled = METER * min(1.0, len(part["tasks"]) / part["slots"])
        place = f'x="{width - 12 - NUMBERS - METER:.1f}" y="{y - 3:.0f}" height="6" rx="3"'
        meter = f'<rect class="meter" {place} width="{METER}"/>'
        meter += f'<rect class="used" {place} width="{max(filled, 6):.1f}"/>' if filled else ""
    elif part["health"] == "draining":
        detail = f"finishes {len(part['tasks'])}"
    room = width - 40 - (METER + NUMBERS + 12 if meter else max(5, len(detail) + 1) * LETTER)
    look = "state" if part["health"] == "ill" else "detail"
    return (
        f"<g><title>{escape(_told(part))}</title>{mark(part['health'], 18, y)}"
        f'<text class="part" x="32" y="{y + 4.5:.1f}">{escape(clipped(part["label"], room))}</text>{meter}'
        f'<text class="{look}" x="{width - 12:.1f}" y="{y + 4.5:.1f}">{escape(detail)}</text></g>'
    )


def _small(name: str, report: Mapping[str, Any], width: float) -> str:
    parts = report["cluster"]["components"][name]
    health = report["cluster"]["health"][name]
    slots = sum(part["slots"] or 0 for part in parts if part["health"] == "well")
    tasks = f"{sum(len(part['tasks']) for part in parts)}/{slots}" if slots else ""
    most = max(1, int((width - 24 - len(tasks) * LETTER) // 15))
    marks = "".join(
        f"<g><title>{escape(_told(part))}</title>{mark(part['health'], 17 + 15 * at, 32)}</g>"
        for at, part in enumerate(parts[:most])
    )
    return (
        f"{_frame(name, report['hosts'][name], health, width, SMALL_HEIGHT)}"
        f'<text class="host" x="12" y="18">{escape(clipped(name, width - 20))}</text>{marks}'
        f'<text class="detail" x="{width - 10:.1f}" y="36">{tasks}</text>'
    )


def _frame(name: str, status: Mapping[str, Any], health: str, width: float, height: float) -> str:
    told = [name, *status["problems"], *status["notes"]]
    return (
        f"<title>{escape(' — '.join(told))}</title>"
        f'<rect class="tile host-{health}" width="{width:.1f}" height="{height:.0f}" rx="7"/>'
    )


def _told(part: Mapping[str, Any]) -> str:
    words = [
        part["label"],
        part["version"],
        part["state"],
        f"for {duration(part['uptime'])}" if part["uptime"] is not None else "",
    ]
    if part["slots"]:
        words.append(f"{len(part['tasks'])} of {part['slots']} tasks, queues {', '.join(part['queues'])}")
    return ", ".join(word for word in words if word)


def mark(health: str, x: float, y: float) -> str:
    return MARKS[health if health in MARKS else "off"].format(x=f"{x:g}", y=f"{y:g}")


def clipped(text: str, room: float) -> str:
    most = max(3, int(room // LETTER))
    text = plain(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _wrapped(text: str, room: float) -> list[str]:
    most = max(8, int(room // LETTER))
    lines = [""]
    for word in text.split(" · "):
        longer = f"{lines[-1]} · {word}" if lines[-1] else word
        if len(longer) > most and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return [clipped(line, room) for line in lines]
