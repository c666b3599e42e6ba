"""Every variable of a role stands in its defaults and, described, in its argument_specs; both say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"


def load(role: Path, name: str) -> dict[str, Any]:
    path = role / name
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    entries = load(role, "meta/argument_specs.yml").get("argument_specs", {})
    return {name: option for entry in entries.values() for name, option in entry.get("options", {}).items()}


@pytest.fixture(params=sorted(path for path in ROLES.glob("*") if path.is_dir()), ids=lambda path: path.name)
def role(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_entry_points(role: Path) -> None:
    entries = load(role, "meta/argument_specs.yml").get("argument_specs", {})
    files = {path.stem for path in (role / "tasks").glob("*.yml")}
    assert entries
    assert set(entries) - files == set()
    assert {"main"} & files - set(entries) == set()
    assert all(entry.get("short_description") for entry in entries.values())


def test_defaults_are_specified(role: Path) -> None:
    assert set(load(role, "defaults/main.yml")) - set(options(role)) == set()


def test_specified_defaults_are_the_defaults(role: Path) -> None:
    defaults = load(role, "defaults/main.yml")
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    literal = {name: value for name, value in defaults.items() if name in specified and "{{" not in str(value)}
    assert set(specified) - set(defaults) == set()
    assert literal == {name: specified[name] for name in literal}


def test_specified_defaults_have_the_specified_type(role: Path) -> None:
    """A sentence as the default of a boolean, and antsibull-docs takes nothing of the role; a list may be told in words."""
    types: dict[str, Any] = {"bool": bool, "int": int, "float": (int, float), "dict": dict}
    wrong = [
        name
        for name, option in options(role).items()
        if option.get("default") is not None and not isinstance(option["default"], types.get(option["type"], object))
    ]
    assert wrong == []


def test_options_are_described(role: Path) -> None:
    poor = [name for name, option in options(role).items() if not option.get("description") or not option.get("type")]
    assert poor == []


def test_defaults_stay_short(role: Path) -> None:
    path = role / "defaults/main.yml"
    assert not path.exists() or len(path.read_text().splitlines()) < 120
