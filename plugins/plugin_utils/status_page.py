# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of all hosts as one HTML page that needs no other file and no script. Runs on the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_markup import escape
from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_picture import WORDS, mark, picture
from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_report import backup, of_slots, plural, verdict
from ansible_collections.windfarm.airflow.plugins.plugin_utils.status_summary import duration, listed

WIDE, NARROW = 1160, 358
NARROW_FULL = 8
# Tasks that are shown, and hosts whose components are only shown when asked for.
TASKS, FOLDED = 30, 16

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #fff; --line: #d9dee5; --ink: #1a212b; --soft: #5c6877;
  --well: #1a8f5a; --ill: #cf2f3f; --ill-paper: #fdecee; --slow: #b87503; --slow-paper: #fdf4e1; --well-paper: #e6f5ed;
  --accent: #2c6fd1; --meter: #e3e8ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --card: #1a2028; --line: #303a47; --ink: #e6eaf0; --soft: #97a3b3;
    --well: #3fc587; --ill: #ff6b78; --ill-paper: #3a1d22; --slow: #f0b13c; --slow-paper: #362a12; --well-paper: #153325;
    --accent: #6aa5f5; --meter: #2c3541;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 20px 20px 40px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; margin-bottom: 16px; }
h1 { font-size: 22px; margin: 0; }
h2 { font-size: 16px; margin: 28px 0 10px; }
time, .soft { color: var(--soft); }
.verdict { padding: 3px 12px; border-radius: 99px; font-weight: 600; background: var(--well-paper); color: var(--well); }
.verdict.ill { background: var(--ill-paper); color: var(--ill); }
.verdict.slow { background: var(--slow-paper); color: var(--slow); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0 0 16px; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; min-width: 0; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-size: 19px; font-weight: 600; overflow-wrap: anywhere; }
.facts small { display: block; font-size: 13px; font-weight: 400; color: var(--soft); }
.told { list-style: none; margin: 0 0 16px; padding: 0; }
.told li { border-left: 4px solid var(--ill); background: var(--ill-paper); border-radius: 6px; padding: 8px 12px;
  margin-bottom: 6px; overflow-wrap: anywhere; }
.told li.slow { border-color: var(--slow); background: var(--slow-paper); }
.told li.note { border-color: var(--line); background: var(--card); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-size: 13px; font-weight: 500; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
tbody + tbody { border-top: 2px solid var(--line); }
.number { text-align: right; }
.number, .whole { white-space: nowrap; }
.name { font-weight: 600; overflow-wrap: anywhere; min-width: 8em; }
.group td { font-weight: 600; background: var(--paper); }
.group .soft { font-weight: 400; }
summary { cursor: pointer; margin: 28px 0 10px; }
summary h2 { display: inline; }
td svg { vertical-align: -2px; margin-right: 7px; }
.red { color: var(--ill); font-weight: 600; }
.amber { color: var(--slow); font-weight: 600; }
.bar { display: inline-block; width: 90px; height: 7px; border-radius: 4px; background: var(--meter);
  margin-right: 8px; vertical-align: 1px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; padding: 0; list-style: none;
  color: var(--soft); font-size: 13px; }
.legend svg { vertical-align: -3px; margin-right: 5px; }
.wide svg, .narrow svg { max-width: 100%; height: auto; display: block; }
.narrow { display: none; }
svg text { font-size: 13px; fill: var(--ink); }
svg .title { fill: var(--soft); font-weight: 500; }
svg .host { font-size: 13.5px; font-weight: 600; }
svg .detail, svg .state { text-anchor: end; fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .state { fill: var(--ill); font-weight: 600; }
svg .box { fill: none; stroke: var(--line); }
svg .tile { fill: var(--card); stroke: var(--line); }
svg .host-ill { stroke: var(--ill); stroke-width: 1.8; }
svg .host-off { stroke: var(--slow); stroke-dasharray: 5 4; }
svg .amber { fill: var(--slow); }
svg .well { fill: var(--well); } svg .ill { fill: var(--ill); } svg .slow { fill: var(--slow); }
svg .cut { stroke: var(--card); stroke-width: 1.8; stroke-linecap: round; }
svg .ring { fill: none; stroke: var(--slow); stroke-width: 1.5; }
svg .bar { fill: none; stroke: var(--slow); stroke-width: 1.5; }
svg .dashed { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2.4 2; }
svg .meter { fill: var(--meter); } svg .used { fill: var(--accent); }
footer { margin-top: 28px; color: var(--soft); font-size: 13px; }
@media (max-width: 700px) {
  main { padding: 14px 16px 28px; }
  .facts { grid-template-columns: repeat(2, 1fr); }
  .wide { display: none; }
  .narrow { display: block; }
  th, td { padding: 6px 9px; }
  .less { display: none; }
}
"""
# Whatever a name may smuggle in: nothing is loaded, nothing is run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Mapping[str, Any]) -> str:
    sections = [
        _told(report),
        _picture(report),
        _queues(report),
        _tasks(report),
        _components(report),
        _same(report),
    ]
    look = "ill" if report["problems"] else "slow" if report["warned"] else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Airflow cluster: {escape(verdict(report))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>Airflow cluster</h1><span class="verdict {look}">{escape(verdict(report))}</span>'
        f'<time datetime="{escape(report["time"])}">{escape(_moment(report["time"]))}</time></header>\n'
        f"{_facts(report)}\n{''.join(section for section in sections if section)}"
        "<footer>Written by playbooks/status.yml. It shows one moment and does not refresh itself; times are UTC.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _moment(time: str) -> str:
    return time.replace("T", " ").removesuffix("Z") + " UTC"


# What comes first -------------------------------------------------------------


def _facts(report: Mapping[str, Any]) -> str:
    cluster, hosts = report["cluster"], report["hosts"]
    up = sum(status["reachable"] for status in hosts.values())
    slots = cluster["slots"]
    draining = f"and {slots['draining']} draining" if slots["draining"] else "slots in use"
    # Never more of them than of the others, also where nobody could be asked.
    waiting = [max(use["waiting"], use["length"] or 0) for use in cluster["queues"].values()]
    known = any(status.get("queues") for status in hosts.values())
    saved, expiring = cluster["backup"], cluster["certificate"]
    cards = [
        ("hosts", f"{up} of {len(hosts)}", "answer" if up < len(hosts) else "all answer"),
        ("tasks running", f"{slots['used']} of {slots['all']}", draining),
        ("tasks waiting", str(sum(waiting)) if known else "unknown", f"in {plural(len(waiting), 'queue')}"),
    ]
    if saved:
        when = f"{duration(saved['age'])} ago" if saved["id"] else "none yet"
        cards.append(
            ("last backup", when, f"{saved['bytes'] / 10**6:.1f} MB on {saved['host']}" if saved["id"] else saved["host"])
        )
    if expiring:
        cards.append(("first certificate expires", f"in {expiring['days_left']} days", f"on {expiring['host']}"))
    versions = list(dict.fromkeys(release.partition("-")[0] for release in cluster["releases"]))
    if versions:
        cards.append(("Airflow", ", ".join(versions), "everywhere" if len(versions) == 1 else "hosts differ"))
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(small)}</small></dd></div>"
        for name, value, small in cards
    )
    return f'<dl class="facts">{shown}</dl>'


def _told(report: Mapping[str, Any]) -> str:
    items = [("ill", one["host"], one["problem"]) for one in report["problems"]]
    items += [("slow", one["about"], one["warning"]) for one in report["warned"]]
    items += [("note", name, note) for name, status in report["hosts"].items() for note in status["notes"]]
    lines = "".join(f'<li class="{look}"><b>{escape(about)}</b>: {escape(text)}</li>' for look, about, text in items)
    return f'<ul class="told">{lines}</ul>\n' if items else ""


def _picture(report: Mapping[str, Any]) -> str:
    seen = {part["health"] for own in report["cluster"]["components"].values() for part in own}
    legend = "".join(f"<li>{_mark(health)}{word}</li>" for health, word in WORDS.items() if health in seen)
    return (
        f'<section class="picture"><div class="wide">{picture(report, WIDE)}</div>'
        f'<div class="narrow">{picture(report, NARROW, NARROW_FULL)}</div><ul class="legend">{legend}</ul></section>\n'
    )


def _mark(health: str) -> str:
    return f'<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{mark(health, 7, 7)}</svg>'


# Tables -----------------------------------------------------------------------


def _table(title: str, head: str, bodies: Sequence[str], folded: bool = False) -> str:
    shown = "".join(f"<tbody>{body}</tbody>" for body in bodies)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{shown}</table></div>\n'
    return f"<details><summary><h2>{title}</h2></summary>{table}</details>\n" if folded else f"<h2>{title}</h2>\n{table}"


def _queues(report: Mapping[str, Any]) -> str:
    warned = {one["about"] for one in report["warned"]}
    rows = []
    for name, use in report["cluster"]["queues"].items():
        share = 100 * use["used"] // use["slots"] if use["slots"] else 0
        meter = f'<span class="bar"><i style="width:{share}%"></i></span>'
        slots = f'{meter}<span class="number">{use["used"]} of {use["slots"]}</span>' if use["slots"] else ""
        workers = escape(listed(use["workers"], 8) or ("not asked" if use["outside"] else ""))
        nobody = "" if use["outside"] else '<span class="amber">no worker</span>'
        look = "name amber" if f"queue {name}" in warned else "name"
        rows.append(
            f'<tr><td class="{look}">{escape(name)}</td><td class="number">{max(use["waiting"], use["length"] or 0)}</td>'
            f'<td class="number">{use["running"]}</td><td class="whole">{slots or nobody}</td><td class="less">{workers}</td>'
            f'<td class="number less">{use["dags"]}</td></tr>'
        )
    head = (
        '<th>queue</th><th class="number">waiting</th><th class="number">running</th><th>slots in use</th>'
        '<th class="less">workers</th><th class="number less">DAGs</th>'
    )
    return _table("Queues", head, ["".join(rows)]) if rows else ""


def _tasks(report: Mapping[str, Any]) -> str:
    tasks = sorted(report["cluster"]["tasks"], key=lambda task: (not task["draining"], -(task["seconds"] or 0)))
    rows = [
        f'<tr><td class="name">{escape(task["name"] or task["id"])}</td><td class="less">{escape(task["run"])}</td>'
        f"<td>{escape(task['host'])}</td>"
        f'<td class="whole">{_mark("draining") + "draining" if task["draining"] else "running"}</td>'
        f'<td class="number">{duration(task["seconds"])}</td></tr>'
        for task in tasks[:TASKS]
    ]
    if len(tasks) > TASKS:
        rows.append(f'<tr><td colspan="5" class="soft">and {len(tasks) - TASKS} more</td></tr>')
    head = '<th>task</th><th class="less">run</th><th>host</th><th></th><th class="number">for</th>'
    return _table("Running tasks", head, ["".join(rows)]) if rows else ""


def _components(report: Mapping[str, Any]) -> str:
    bodies = []
    for name, own in report["cluster"]["components"].items():
        system = report["hosts"][name].get("host") or {}
        under = f"Debian {system['debian']}" if system.get("debian") else ""
        first = f'<tr class="group"><td colspan="7">{escape(name)} <span class="soft">{escape(under)}</span></td></tr>'
        bodies.append(first + "".join(f"<tr>{_component(part)}</tr>" for part in own))
    head = (
        '<th>component</th><th>health</th><th class="less">version</th><th class="number">up</th>'
        '<th class="number">tasks</th><th class="number less">memory</th><th class="number less">restarts</th>'
    )
    return _table("Components", head, bodies, folded=len(bodies) > FOLDED)


def _component(part: Mapping[str, Any]) -> str:
    look = {"ill": "red", "draining": "amber", "off": "amber"}.get(part["health"], "")
    memory = f"{part['memory'] / 2**20:.0f} MB" if part["memory"] else ""
    return (
        f'<td>{escape(part["label"])}</td><td class="whole {look}">{_mark(part["health"])}{escape(part["state"])}</td>'
        f'<td class="less">{escape(part["version"])}</td><td class="number">{duration(part["uptime"])}</td>'
        f'<td class="number">{of_slots(part)}</td><td class="number less">{memory}</td>'
        f'<td class="number less">{part["restarts"] or ""}</td>'
    )


def _same(report: Mapping[str, Any]) -> str:
    """What should be one, and is told in full."""
    cluster = report["cluster"]
    rows = [("release", name, listed(hosts, 12)) for name, hosts in cluster["releases"].items()]
    rows += [
        ("DAG files", f"{name}, shipped {_moment(one['shipped'])}", listed(one["hosts"], 12))
        for name, one in cluster["dags"].items()
    ]
    rows += [("backup", line, "") for line in backup(cluster["backup"])]
    files = [
        ("certificate", f"{one['path']}, until {one['not_after'].partition('T')[0]}, {one['days_left']} days", name)
        for name, status in report["hosts"].items()
        for one in status.get("certificates") or []
    ]
    lines = [
        f'<tr><td class="soft">{escape(what)}</td><td>{escape(text)}</td><td>{escape(where)}</td></tr>'
        for what, text, where in rows + files
    ]
    return (
        _table("Releases, DAG files, backups, certificates", "<th></th><th></th><th>hosts</th>", ["".join(lines)])
        if lines
        else ""
    )
