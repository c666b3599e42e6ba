# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things lie on a host, and how configuration is written there. Runs on the controller."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.windfarm.airflow.plugins.module_utils import workers

SUPPORT = "/usr/local/lib/airflow"
CONFIG = "/etc/airflow"
UNITS = "/etc/systemd/system"

# What systemd still interprets between double quotes.
_SPECIAL = re.compile(r'([\\"`$])')
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def dashed(component: str) -> str:
    return component.replace("_", "-")


def components_of(
    catalog: Mapping[str, Mapping[str, Any]], group_names: Collection[str], only: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The components that a host with these groups runs, or only those, with the paths that follow from their names."""
    if unknown := set(only) - set(catalog):
        raise ValueError(f"airflow_components: {', '.join(sorted(unknown))} is none of {', '.join(catalog)}")
    here = []
    for name, entry in catalog.items():
        if not set(entry["groups"]) & set(group_names) or (only and name not in only):
            continue
        here += [_placed(name, one) for one in _by_instance(entry)]
    return here


def _by_instance(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An entry with instances is one component each, all with the same user, home and log folder."""
    if "instances" not in entry:
        return [dict(entry)]
    common = {key: value for key, value in entry.items() if key != "instances"}
    return [{**_filled(common, workers.words(one)), "instance": one["name"], "settings": dict(one)} for one in entry["instances"]]


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """The value with each word replaced in every text within it."""
    if isinstance(value, Mapping):
        return {key: _filled(part, words) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(part, words) for part in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value


def _placed(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    instance = entry.get("instance", "")
    directory = dashed(name)
    stem = f"{directory}@{instance}" if instance else directory
    return {
        **entry,
        "name": name,
        "directory": directory,
        "user": f"airflow-{directory}",
        "home": f"/var/lib/airflow/{directory}",
        "logs": f"/var/log/airflow/{directory}",
        "config": f"{CONFIG}/{stem}",
        # A worker's unit exists per colour; the module that converges it makes both from this one.
        "unit": f"{CONFIG}/{stem}/unit" if instance else f"{UNITS}/airflow-{stem}.service",
        "service": f"airflow-{stem}",
    }


def url(target: Mapping[str, Any], scheme: str, password: str, query: Mapping[str, str] | None = None) -> str:
    """A URL with every character of user and password that could end them escaped."""
    host = f"[{target['host']}]" if ":" in str(target["host"]) else target["host"]
    credentials = f"{quote(str(target['user']), safe='')}:{quote(str(password), safe='')}"
    question = "?" + urlencode(query, safe="/") if query else ""
    return f"{scheme}://{credentials}@{host}:{target['port']}/{target['name']}{question}"


def _plain(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return str(value)


def airflow_cfg(
    sections: Mapping[str, Mapping[str, Any]],
    component: Mapping[str, Any],
    readers: Mapping[str, Collection[str]] | None = None,
) -> str:
    """airflow.cfg of one component: sorted, per cent signs doubled (the file is read with interpolation).

    `readers` names the components that read a section, or of a section one key (`section.key`), where not all do.
    """
    name, known = component["name"], readers or {}
    lines = []
    for section in sorted(sections):
        if name not in known.get(section, [name]):
            continue
        lines += ["", f"[{section}]"]
        for key, value in sorted(sections[section].items()):
            if value is None or name not in known.get(f"{section}.{key}", [name]):
                continue
            text = _plain(value).replace("@DIRECTORY@", component["directory"])
            if "\n" in text.strip():
                raise ValueError(f"airflow_config[{section}][{key}] holds a line break; airflow.cfg keeps only one line")
            lines.append(f"{key} = {text.strip().replace('%', '%%')}")
    return "\n".join(lines[1:]) + "\n"


def environment_file(variables: Mapping[str, Any]) -> str:
    """systemd's EnvironmentFile format: everything in double quotes, with what stays special there escaped."""
    lines = []
    for name, value in sorted(variables.items()):
        if value is None:
            continue
        text = _plain(value)
        if not _NAME.match(str(name)):
            raise ValueError(f"{name!r} is no name for an environment variable; use letters, digits and _")
        if "\n" in text or "\0" in text:
            raise ValueError(f"environment variable {name} holds a line break, which systemd's EnvironmentFile cannot keep")
        escaped = _SPECIAL.sub(r"\\\1", text)
        lines.append(f'{name}="{escaped}"')
    return "".join(f"{line}\n" for line in lines)


def secret_environment(
    known: Mapping[str, Mapping[str, str]], allowed: Sequence[str], extra: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What a component's environment file holds of the secrets: the kinds it is allowed, and the user's own settings."""
    values = {name: value for kind in allowed for name, value in known[kind].items()}
    for section, options in extra.items():
        for key, value in options.items():
            if value is None:
                continue
            values[f"AIRFLOW__{section.upper()}__{key.upper()}"] = _plain(value)
    return values


def for_component(per_component: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The part of {component or all: {...}} that is meant for one component; its own entries win, one level deep."""
    merged: dict[str, Any] = {}
    for scope in ("all", name):
        for key, value in (per_component.get(scope) or {}).items():
            both_nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = {**merged[key], **value} if both_nested else value
    return merged


def _files(components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Files of the components, for the airflow_files action; `part_of` is the service that must notice a change.

    What the instances of a component share is there once for each, and the action writes it once.
    """
    files: list[dict[str, Any]] = []
    for component in components:
        common = {"vars": {"component": component}, "part_of": component["service"]}
        files.append({**common, "path": f"{component['config']}/airflow.cfg", "template": "airflow.cfg.j2", "mode": "0644"})
        files.append(
            {
                **common,
                "path": f"{component['config']}/environment",
                "template": "environment.j2",
                "mode": "0600",
                "secret": True,
            }
        )
        files.extend({**common, "mode": "0644", **extra} for extra in component.get("files", []))
        # Last, as it carries the hash over all of them.
        if "exec" in component:
            files.append({**common, "path": component["unit"], "template": "airflow.service.j2", "mode": "0644"})
    return files


def _directories(components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    directories: list[dict[str, Any]] = []
    for component in components:
        user = component["user"]
        directories.append({"path": component["config"], "mode": "0755"})
        directories.append({"path": component["home"], "mode": "0750", "owner": user, "group": user})
        # Set-group-ID: the log server reads what workers and triggerers write, and nothing else of theirs.
        served = component["name"] in ("worker", "triggerer")
        directories.append(
            {
                "path": component["logs"],
                "mode": "2750",
                "owner": user,
                "group": "airflow-logs" if served else user,
            }
        )
    return _once(directories, "path")


def _once(entries: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Instances share a user and its folders."""
    return list({entry[key]: entry for entry in entries}.values())


def _users(components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    users = [
        {
            "name": component["user"],
            "home": component["home"],
            "comment": component["description"],
            "groups": ["airflow"],
        }
        for component in components
    ]
    return _once(users, "name")


def _services(components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the airflow_services module must know of each component."""
    return [
        {
            "name": component["name"],
            "service": component["service"],
            "config": component["config"],
            "instance": component.get("instance", ""),
            "health": component["health"],
            "database": "database" in component.get("secrets", ()),
            "unless": component.get("unless", ""),
        }
        for component in components
        if "exec" in component
    ]


def component_layout(components: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Users, directories, files and services that these components make."""
    return {
        "users": _users(components),
        "directories": _directories(components),
        "files": _files(components),
        "services": _services(components),
    }
