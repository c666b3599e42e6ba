# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that users meet is documented, once; what is made from that is as `make docs` writes it."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# ansible-test's copy of the collection has it too; an installed one has not.
_spec = importlib.util.spec_from_file_location("docs", ROOT / "tools/docs.py")
assert _spec and _spec.loader
docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs)

SECTIONS = ("Requirements", "Role Variables", "Example Playbook", "Idempotence", "License")


def undocumented(where: str, options: Mapping[str, Any]) -> Iterator[str]:
    for name, spec in options.items():
        if not spec.get("description"):
            yield f"{where}: {name}"
        yield from undocumented(f"{where}: {name}", spec.get("options") or spec.get("suboptions") or spec.get("contains") or {})


def test_what_is_made_is_up_to_date() -> None:
    differing = [
        str(path.relative_to(ROOT)) for path, text in docs.documents().items() if path.read_text(encoding="utf-8") != text
    ]
    assert differing == [], "run `make docs`"


def test_every_variable_is_documented() -> None:
    specs = {
        **{role: docs.options(role) for role in docs.roles()},
        **{name: one.get("options") or {} for name, one in docs.playbooks().items()},
    }
    lacking = [line for where, options in specs.items() for line in undocumented(where, options)]
    print(f"variables: {sum(map(len, specs.values())) - len(lacking)} of {sum(map(len, specs.values()))} documented")
    assert lacking == []


def test_the_figures_of_coverage() -> None:
    """As `tools/docs.py --check` prints them."""
    found = re.findall(r"(\d+) of (\d+) (\w+)", docs.coverage())
    assert [name for _done, _all, name in found] == ["variables", "modules", "filters", "playbooks"]
    assert all(done == everything and int(done) > 10 for done, everything, _name in found), docs.coverage()


def test_every_playbook_is_documented() -> None:
    there = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    assert set(docs.playbooks()) == there
    assert [name for name, entry in docs.playbooks().items() if not entry.get("short_description")] == []
    # And has a section for whoever runs it.
    assert [name for name in there if not docs.anchor(name)] == []
    print(f"playbooks: {len(there)} of {len(there)} documented")


def texts(path: pathlib.Path) -> dict[str, Any]:
    """The documents in a plugin's file."""
    if path.suffix == ".yml":
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return found
    names = ("DOCUMENTATION", "EXAMPLES", "RETURN")
    tree = ast.parse(path.read_text(encoding="utf-8")).body
    return {
        str(getattr(node.targets[0], "id", "")): yaml.safe_load(ast.literal_eval(node.value))
        for node in tree
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names
    }


PLUGINS = sorted(
    [
        *(ROOT / "plugins/modules").glob("*.py"),
        *(ROOT / "plugins/filter").glob("*.yml"),
        *(ROOT / "plugins/callback").glob("*.py"),
    ]
)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_every_plugin_is_documented(path: pathlib.Path) -> None:
    found = texts(path)
    about = found["DOCUMENTATION"]
    assert about["short_description"] and about["description"]
    assert list(undocumented("option", about.get("options") or {})) == []
    if path.parent.name != "callback":
        assert found["EXAMPLES"] and found["RETURN"]
        assert list(undocumented("return", found["RETURN"])) == []


def test_every_filter_has_its_file() -> None:
    documented = {path.stem for path in (ROOT / "plugins/filter").glob("*.yml")}
    named = set()
    for path in (ROOT / "plugins/filter").glob("*.py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        named |= set(module.FilterModule().filters())
    assert documented == named


def test_every_action_belongs_to_a_module() -> None:
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert {path.stem for path in (ROOT / "plugins/action").glob("*.py")} <= modules


@pytest.mark.parametrize("role", docs.roles())
def test_role_readmes_have_one_shape(role: str) -> None:
    found = re.findall(r"^## (.*)$", (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8"), re.M)
    assert [title for title in found if title in SECTIONS] == list(SECTIONS)


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C(a b) and V(c), O(d)", "`a b` and `c`, `d`"),
        ("V()", "empty"),
        ("see M(windfarm.airflow.airflow_dags) or P(windfarm.airflow.airflow#role)", "see `airflow_dags` or `airflow`"),
        ("RV(windfarm.airflow.airflow_database#module:pending)", "`pending`"),
        ("C([api] base_url), C(f(x))", "`[api] base_url`, `f(x)`"),
        (["One.", "Two | three"], "One. Two \\| three"),
    ],
)
def test_markup(text: object, expected: str) -> None:
    assert docs.markdown(text) == expected
