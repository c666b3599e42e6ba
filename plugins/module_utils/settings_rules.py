# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What airflow_config, airflow_secret_config and airflow_environment may hold, so that the files say the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import SENSITIVE
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem
from ansible_collections.windfarm.airflow.plugins.module_utils.variable_rules import kind, nearest

_SECTION = re.compile(r"[A-Za-z0-9_.-]+")
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"AIRFLOW__(.+?)__(.+)")


def broken_text(value: object) -> str:
    """What a file of one line a setting cannot hold."""
    if isinstance(value, str):
        # Around the value they are taken off.
        text = value.strip()
        return "a line break" if "\n" in text or "\r" in text else "a zero byte" if "\0" in text else ""
    return ""


def setting_problems(where: str, sections: object) -> Iterator[Problem]:
    """{section: {key: value}}; other rules have told of other shapes."""
    for section, keys in sections.items() if isinstance(sections, Mapping) else ():
        if not isinstance(keys, Mapping):
            continue
        if not _SECTION.fullmatch(str(section)):
            yield Problem(f"{where}.{section}", "is no name of a section", "use letters, digits, dots, dashes and underscores")
        for key, value in keys.items():
            here = f"{where}.{section}.{key}"
            if not _KEY.fullmatch(str(key)):
                yield Problem(here, "is no name of a setting", "use letters, digits, dots, dashes and underscores")
            found = broken_text(value)
            if found:
                yield Problem(
                    here, f"holds {found}, and airflow.cfg keeps one line", "write it on one line; JSON may stand on one"
                )


def environment_problems(
    variable: str, value: object, components: Collection[str], managed: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    """{component or all: {NAME: value}}"""
    if value is None or value == "":
        return
    if not isinstance(value, Mapping):
        yield Problem(variable, f"is {kind(value)}, no dictionary", "write it as {component or all: {NAME: value}}")
        return
    owned = {f"{section}.{key}".lower() for section, keys in managed.items() for key in keys}
    yield from component_problems(variable, value, components)
    for component, names in value.items():
        where = f"{variable}.{component}"
        if names is None:
            continue
        if not isinstance(names, Mapping):
            yield Problem(where, f"is {kind(names)}, no dictionary", "write it as {component or all: {NAME: value}}")
            continue
        for name, text in names.items():
            if not _NAME.fullmatch(str(name)):
                yield Problem(f"{where}.{name}", "is no name for an environment variable", "use letters, digits and _")
            found = broken_text(text)
            if found:
                yield Problem(
                    f"{where}.{name}", f"holds {found}, which systemd's EnvironmentFile cannot keep", "write it on one line"
                )
            option = _OPTION.fullmatch(str(name).upper())
            meant = f"{option[1]}.{option[2]}".lower() if option else ""
            if SENSITIVE.get(meant):
                yield Problem(f"{where}.{name}", "is managed by the role", f"set {SENSITIVE[meant]} instead")
            elif meant in owned:
                yield Problem(
                    f"{where}.{name}", "is managed by the role", "remove it; the variables of role airflow set what may be set"
                )


def component_problems(variable: str, value: Mapping[Any, Any], components: Collection[str]) -> Iterator[Problem]:
    for component in value:
        if components and component not in components and component != "all":
            near = nearest(str(component), [*components, "all"], 0.6)
            cure = f"did you mean {near}?" if near else f"known are all, {', '.join(components)}"
            yield Problem(f"{variable}.{component}", "is no component", cure)


def check_settings(
    hosts: Mapping[str, Mapping[str, Any]], components: Collection[str], managed: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    found: dict[Problem, None] = {}
    for variables in hosts.values():
        found.update(dict.fromkeys(setting_problems("airflow_config", variables.get("airflow_config"))))
        secret = variables.get("airflow_secret_config")
        if isinstance(secret, Mapping):
            found.update(dict.fromkeys(component_problems("airflow_secret_config", secret, components)))
            for component, sections in secret.items():
                found.update(dict.fromkeys(setting_problems(f"airflow_secret_config.{component}", sections)))
        environment = variables.get("airflow_environment")
        found.update(dict.fromkeys(environment_problems("airflow_environment", environment, components, managed)))
    return list(found)
