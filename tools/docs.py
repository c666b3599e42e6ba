#!/usr/bin/env python3
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write what the documentation says of variables, playbooks, roles, modules and ports: `make docs`; with --check only compare.

Sources are the argument_specs of roles and playbooks, the DOCUMENTATION of plugins, and the catalog of components. In files that
people write, what stands between `<!-- NAME: made by make docs -->` and `<!-- NAME: end -->` is replaced.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.windfarm.airflow.plugins.module_utils import cluster, preflight_figures  # noqa: E402
from ansible_collections.windfarm.airflow.plugins.module_utils import entry as users_entry  # noqa: E402
from ansible_collections.windfarm.airflow.plugins.module_utils.layout import dashed  # noqa: E402

COLLECTION = "windfarm.airflow"
ROLES = ("postgresql", "redis", "haproxy", "keepalived", "firewall", "airflow", "airflow_init", "airflow_dags")
HEADER = "<!-- Made by `make docs` from argument_specs; changes made here are lost. -->\n"
# Playbooks are made of these; nobody runs them alone.
PARTS = "plays"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# Sources


def roles() -> list[str]:
    """Those that a host meets first stand first; a new one comes last."""
    found = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "meta/argument_specs.yml").exists())
    return sorted(found, key=lambda name: (ROLES.index(name) if name in ROLES else len(ROLES), name))


def entries(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    return found


def options(role: str) -> dict[str, Any]:
    return {name: spec for entry in entries(role).values() for name, spec in (entry.get("options") or {}).items()}


def playbooks() -> dict[str, Any]:
    found: dict[str, Any] = load(ROOT / "playbooks/meta/argument_specs.yml")["argument_specs"]
    return found


def documentation(path: Path) -> dict[str, Any]:
    """What a plugin's file says of it."""
    if path.suffix == ".yml":
        found: dict[str, Any] = load(path)["DOCUMENTATION"]
        return found
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            found = yaml.safe_load(ast.literal_eval(node.value))
            return found
    return {}


def plugins(kind: str) -> dict[str, dict[str, Any]]:
    paths = sorted((ROOT / "plugins" / kind).glob("*.yml" if kind == "filter" else "*.py"))
    return {path.stem: found for path in paths if (found := documentation(path))}


# Words

_LINK = re.compile(r"\b[MP]\(windfarm\.airflow\.([a-z_]+)(?:#\w+)?\)")
_RETURNED = re.compile(r"\b(?:RV|O)\((?:windfarm\.airflow\.[a-z_]+#\w+:)?([^)]*)\)")
_CODE = re.compile(r"\b[CVE]\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_LOUD = re.compile(r"\b[BI]\(([^)]*)\)")


def markdown(text: object) -> str:
    """A description in Ansible's own markup, on one line."""
    parts = text if isinstance(text, list) else [text]
    line = " ".join(" ".join(str(part).split()) for part in parts)
    line = _LINK.sub(r"`\1`", line)
    line = _RETURNED.sub(r"`\1`", line)
    line = _CODE.sub(lambda found: f"`{found[1]}`" if found[1] else "empty", line)
    return _LOUD.sub(r"**\1**", line).replace("|", "\\|")


def sentence(text: object) -> str:
    line = markdown(text)
    return line if line.endswith((".", ":")) else f"{line}."


def kind(spec: Mapping[str, Any]) -> str:
    name = str(spec.get("type", "str"))
    return f"{name} of {spec['elements']}" if spec.get("elements") else name


def default(spec: Mapping[str, Any], literal: object = None) -> str:
    if spec.get("required"):
        return "required"
    value = spec.get("default")
    if "default" not in spec:
        return ""
    if value is not None and literal is not None and "{{" in str(literal):
        # In words: the value follows from others.
        return markdown(value)
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) or value == "" else value
    return f"`{text}`" if len(text) <= 60 else "[see](defaults/main.yml)"


def choices(spec: Mapping[str, Any]) -> str:
    found = [str(choice) for choice in spec.get("choices") or [] if choice != ""]
    return f" One of {', '.join(f'`{choice}`' for choice in found)}." if found else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


# Parts of the documents


def variable_rows(specs: Mapping[str, Any], literals: Mapping[str, Any], see: str = "") -> Iterator[list[str]]:
    for name, spec in specs.items():
        text = default(spec, literals.get(name)).replace("(defaults/main.yml)", f"({see}defaults/main.yml)")
        yield [f"`{name}`", kind(spec), text, sentence(spec.get("description", "")) + choices(spec)]


def inner_tables(specs: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Of lists and dictionaries with keys of their own."""
    seen: dict[str, str] = {}
    for name, spec in specs.items():
        inner = spec.get("options")
        if not inner:
            continue
        where = f"{path}{name}"
        known = seen.setdefault(json.dumps(inner), where)
        if known != where:
            yield f"\nKeys of each of `{where}`: as of `{known}`.\n"
            continue
        yield f"\nKeys of each of `{where}`:\n\n" + table(("key", "type", "default", "meaning"), variable_rows(inner, {}))
        yield from inner_tables(inner, f"{where}.")


HEAD = ("variable", "type", "default", "meaning")


def role_variables(role: str, see: str = "") -> str:
    path = ROOT / "roles" / role / "defaults/main.yml"
    literals = load(path) or {}
    specs = options(role)
    return table(HEAD, variable_rows(specs, literals, see)) + "".join(inner_tables(specs))


def role_entries(role: str) -> str:
    rows = (
        [f"`{name}`", sentence(entry["short_description"]), " ".join(map(sentence, listed(entry.get("description"))))]
        for name, entry in entries(role).items()
    )
    return table(("entry", "what it does", ""), rows)


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def variables_page() -> str:
    parts = [
        f"# Variables\n\n{HEADER}\n"
        "Each has one place: the argument_specs of its role or playbook, which preflight checks names, types and choices by. "
        "Where a variable may stand: anywhere that Ansible looks, most often `group_vars/all/`; those of playbooks also behind "
        "`-e`.\n"
    ]
    for role in roles():
        parts.append(f"\n## Role {role}\n\n{role_variables(role, f'../roles/{role}/')}")
    parts.append("\n## Playbooks\n")
    for name, entry in playbooks().items():
        if entry.get("options"):
            parts.append(f"\n### {name}\n\n{table(HEAD, variable_rows(entry['options'], {}))}")
    return "".join(parts)


def playbooks_table() -> str:
    same: dict[str, list[str]] = {}
    for name, entry in playbooks().items():
        same.setdefault(sentence(entry["short_description"]), []).append(f"[`{name}`](docs/operations.md{anchor(name)})")
    return table(("playbook", "what it does"), ([", ".join(names), text] for text, names in same.items()))


def anchor(name: str) -> str:
    """The heading of docs/operations.md that tells of the playbook."""
    for line in (ROOT / "docs/operations.md").read_text(encoding="utf-8").splitlines():
        title = line.removeprefix("## ")
        if title != line and name in re.split(r"[ ,]+", title):
            return "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
    return ""


def roles_table() -> str:
    cells = []
    for role in roles():
        found = entries(role)
        whole = found.get("main") or found.get("converge") or next(iter(found.values()))
        cells.append([f"[`{role}`](roles/{role}/README.md)", sentence(whole["short_description"])])
    return beside("role", cells, 2)


def modules_table() -> str:
    return beside(
        "module", [[f"`{name}`", sentence(found["short_description"])] for name, found in plugins("modules").items()], 4
    )


def beside(title: str, cells: Sequence[Sequence[str]], columns: int) -> str:
    """Several in a row: the README is short."""
    filled = [*cells, *([["", ""]] * (-len(cells) % columns))]
    rows = ([cell for pair in filled[at : at + columns] for cell in pair] for at in range(0, len(filled), columns))
    return table((title, "") * columns, rows)


# The picture


def picture() -> str:
    """Groups, what they run, where it listens, and who connects: a cluster with one host for each component."""
    catalog = load(ROOT / "roles/airflow/vars/main.yml")["__airflow_catalog"]
    groups = {**cluster.SERVER_GROUPS, "entry": users_entry.GROUP, **cluster.COMPONENT_GROUPS}
    members = {**{group: [name] for name, group in groups.items()}, "airflow": list(cluster.COMPONENT_GROUPS)}
    plan = cluster.plan({name: {} for name in groups}, members)
    lines = []
    for name, group in groups.items():
        ports = {found["name"]: found for found in plan["ports"][name]}
        for owned, number in preflight_figures.listeners(plan, name):
            ports.setdefault(owned, {"port": number, "clients": ["users"]})
        rows = owners(units_of(name, group, catalog), ports)
        for number, (unit, owned) in enumerate(rows):
            branch = "" if number == 0 else "├" if number + 1 < len(rows) else "└"
            lines.append(row(branch or group, unit, ports.get(owned)))
    return "```text\n" + "\n".join([f"{'group':25}{'unit':32}{'port':18}who connects", "", *lines]) + "\n```\n"


def units_of(name: str, group: str, catalog: Mapping[str, Any]) -> list[str]:
    if name in cluster.SERVER_GROUPS:
        return ["postgresql@VERSION-main" if name == "postgresql" else "redis-server"]
    if group == users_entry.GROUP:
        return ["haproxy"]
    found = [
        f"airflow-{dashed(one)}{'@INSTANCE-a or -b' if 'instances' in entry else ''}"
        for one, entry in catalog.items()
        if "exec" in entry and group in entry["groups"]
    ]
    # The host's own component first, what helps it after.
    found.sort(key=lambda unit: not unit.startswith(f"airflow-{dashed(name)}"))
    return [*found, *(["haproxy"] if name == "worker" else [])]


def owners(units: Sequence[str], ports: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each unit with the port that is its own."""
    rows = []
    for unit in units:
        own = [
            name
            for name in ports
            if any(start and f"{unit}.".startswith(start) for start in [preflight_figures.PORTS.get(name, ("", ""))[1]])
        ]
        rows += [(unit, name) for name in own] or [(unit, "")]
    return rows


def row(group: str, unit: str, port: Mapping[str, Any] | None) -> str:
    arrow = f"{'':19}{group}──►  " if group in "├└" else f"{group} {'─' * (21 - len(group))}►  "
    if not port:
        return f"{arrow}{unit}"
    clients = [str(one).replace("_", " ") for one in port["clients"]]
    if len(clients) > len(cluster.COMPONENT_GROUPS):
        clients = ["every host of the cluster"]
    where = f"{port['port']}" if clients else f"{port['port']} (loopback)"
    text = f"◄── {', '.join(clients)}" if clients else ""
    return f"{arrow}{unit:32}{where:18}{text}".rstrip()


# Files


def between(text: str, name: str, made: str) -> str:
    start, end = f"<!-- {name}: made by make docs -->\n", f"<!-- {name}: end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"{name}: its two marks must be in the file once each")
    head, rest = text.split(start)
    return f"{head}{start}{made}{end}{rest.split(end)[1]}"


def documents() -> dict[Path, str]:
    """Every file with what it shall be."""

    def text(path: str) -> str:
        return (ROOT / path).read_text(encoding="utf-8")

    found = {"docs/variables.md": variables_page()}
    readme = between(text("README.md"), "playbooks", playbooks_table())
    readme = between(readme, "roles", roles_table())
    readme = between(readme, "picture", picture())
    found["README.md"] = between(readme, "modules", modules_table())
    found["docs/architecture.md"] = between(text("docs/architecture.md"), "picture", picture())
    for role in roles():
        path = f"roles/{role}/README.md"
        made = between(text(path), "variables", role_variables(role))
        found[path] = between(made, "entries", role_entries(role)) if len(entries(role)) > 1 else made
    return {ROOT / name: content for name, content in found.items()}


def coverage() -> str:
    """How much of what users meet is documented: variables, modules, filters, playbooks."""
    specs = [spec for role in roles() for spec in options(role).values()]
    specs += [spec for one in playbooks().values() for spec in (one.get("options") or {}).values()]
    found = {"variables": [bool(spec.get("description")) for spec in specs]}
    for kind in ("modules", "filter"):
        files = {path.stem for path in (ROOT / "plugins" / kind).glob("*.yml" if kind == "filter" else "*.py")}
        written = plugins(kind)
        found[kind.rstrip("s") + "s"] = [bool(written.get(name, {}).get("description")) for name in sorted(files)]
    there = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    found["playbooks"] = [bool(playbooks().get(name, {}).get("short_description") and anchor(name)) for name in there]
    return "documented: " + ", ".join(f"{sum(done)} of {len(done)} {name}" for name, done in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where something differs")
    differing = 0
    check = parser.parse_args().check
    for path, wanted in documents().items():
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        if present == wanted:
            continue
        differing += 1
        name = path.relative_to(ROOT)
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(present.splitlines(True), wanted.splitlines(True), str(name), f"{name} by make docs")
            )
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote {name}")
    print(coverage())
    if check and differing:
        sys.exit(f"{differing} files differ from their source: run `make docs`")


if __name__ == "__main__":
    main()
