# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back of test_argument_specs.py: nothing is specified that defaults and tasks do not know."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

ROLES = sorted((pathlib.Path(__file__).resolve().parents[2] / "roles").glob("*/"))
# A variable without default stands in a comment, with others or alone: `# airflow_fernet_key, airflow_api_secret_key`.
_COMMENTED = re.compile(r"^# ?((?:[a-z][a-z0-9_]*(?:, ?|:.*|\s|$))+)", re.MULTILINE)


def read(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def entries(role: pathlib.Path) -> dict[str, dict[str, Any]]:
    return (yaml.safe_load(read(role / "meta/argument_specs.yml")) or {}).get("argument_specs") or {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_in_defaults(role: pathlib.Path) -> None:
    text = read(role / "defaults/main.yml")
    defaults = yaml.safe_load(text) or {}
    commented = {word for line in _COMMENTED.findall(text) for word in re.findall(r"\b[a-z][a-z0-9_]*\b", line)}
    for name, entry in entries(role).items():
        options = entry.get("options") or {}
        required = {option for option, spec in options.items() if spec.get("required")}
        # What a role requires has no value of its own: a comment, or another variable that the inventory must set.
        passed = {option for option in required if re.fullmatch(r"\{\{ \w+ \}\}", str(defaults.get(option)))}
        assert set(options) - required <= set(defaults), f"{role.name} {name}: options without a default"
        assert required <= commented | passed, f"{role.name} {name}: required, but not in a comment of defaults/main.yml"
        assert not (required - passed) & set(defaults), f"{role.name} {name}: required, yet with a default"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_task_file_is_an_entry_point_or_part_of_one(role: pathlib.Path) -> None:
    files = {path.name: read(path) for path in sorted((role / "tasks").glob("*.yml"))}
    parts = {name for name in files for text in files.values() if re.search(rf"_tasks:\s+{re.escape(name)}", text)}
    assert {name.removesuffix(".yml") for name in set(files) - parts} <= set(entries(role))
