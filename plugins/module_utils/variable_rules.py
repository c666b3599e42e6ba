# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory's variables may be called and hold. Runs on the controller.

Names, types and choices are those of the argument_specs of roles and playbooks, where they are written once. Here stands
only what argument_specs cannot say: shapes of texts, ranges of numbers, names that have changed.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import glob
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem

PREFIXES = ("airflow_", "postgresql_", "redis_", "haproxy_", "firewall_", "keepalived_")
OWN = "airflow_own_variables"

# Old name -> new name. A release that renames a variable writes it here, for as long as inventories may still have it.
RENAMED: dict[str, str] = {}

# What the playbooks give the roles, so that a value of the inventory would be passed over -> what to set instead.
GIVEN_BY_PLAYS = {
    "postgresql_users": "set postgresql_extra_users",
    "postgresql_databases": "set postgresql_extra_databases",
    "postgresql_hba_entries": "set postgresql_extra_hba_entries",
    "postgresql_port": "set airflow_database_port",
    "postgresql_listen_addresses": "remove it; the addresses follow from the groups",
    "postgresql_tls_certificate": "remove it; airflow_certificate_file brings one of your own",
    "postgresql_tls_key": "remove it; airflow_certificate_key_file brings one of your own",
    "redis_users": "remove it; airflow_broker_user is the account of the cluster",
    "redis_password": "set airflow_broker_admin_password",
    "redis_port": "set airflow_broker_port",
    "redis_listen_addresses": "remove it; the addresses follow from the groups",
    "redis_tls_certificate": "remove it; airflow_certificate_file brings one of your own",
    "redis_tls_key": "remove it; airflow_certificate_key_file brings one of your own",
    "haproxy_listeners": "remove it; the servers follow from the groups",
    "haproxy_keep_while": "remove it; the playbooks know when a listener is still needed",
    "keepalived_virtual_address": "set airflow_entry_virtual_address",
    "keepalived_router_id": "set airflow_entry_virtual_router_id",
    "keepalived_interface": "set airflow_entry_interface",
    "keepalived_address": "remove it; the addresses follow from the groups",
    "keepalived_peers": "remove it; the addresses follow from the groups",
    "keepalived_priority": "remove it; the first host of group haproxy comes first",
    "keepalived_port": "set airflow_entry_port",
    "firewall_ports": "remove it; the ports follow from the groups",
    "firewall_rules": "set airflow_firewall_rules",
    "firewall_enabled": "set airflow_firewall",
}

Spec = Mapping[str, Any]


_ALIAS = re.compile(r"\{\{ (\w+)( \| default\(.*\))? \}\}")


class Wrong(NamedTuple):
    what: str
    cure: str


@functools.cache
def known_variables(collection: str) -> dict[str, Spec]:
    """Every variable of a role or a playbook that an inventory may set, with its specification."""
    found: dict[str, Spec] = {}
    for path in [*sorted(glob.glob(f"{collection}/roles/*/meta/argument_specs.yml")), playbook_specs(collection)]:
        for entry in _load(path)["argument_specs"].values():
            for name, spec in (entry.get("options") or {}).items():
                # Playbooks convert what comes from the command line; roles do not.
                found.setdefault(name, {**spec, "converted": path == playbook_specs(collection)})
    # A role's own name for what inventories call otherwise: the other one has the same specification.
    for path in sorted(glob.glob(f"{collection}/roles/*/defaults/main.yml")):
        for name, value in (_load(path) or {}).items():
            alias = _ALIAS.fullmatch(str(value))
            if alias and name in found:
                found.setdefault(alias[1], {key: part for key, part in found[name].items() if key != "required"})
    return found


def playbook_specs(collection: str) -> str:
    return os.path.join(collection, "playbooks", "meta", "argument_specs.yml")


def _load(path: str) -> dict[str, Any]:
    import yaml  # PyYAML is on every controller; target hosts may lack it and never come here

    with open(path, encoding="utf-8") as file:
        # The one in C is ten times as fast, where it is there.
        loaded: dict[str, Any] = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return loaded


def nearest(name: str, known: Collection[str], cutoff: float = 0.8) -> str | None:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


# Names


def name_problem(name: str, known: Collection[str], own: Sequence[str], renamed: Mapping[str, str] | None = None) -> Wrong | None:
    """Whatever begins like a variable of this collection is one, or is said to be the user's own."""
    new = (RENAMED if renamed is None else renamed).get(name)
    if new:
        return Wrong("has another name now", f"rename it to {new}")
    if name in GIVEN_BY_PLAYS:
        return Wrong("is set by the playbooks, so this value would be passed over", GIVEN_BY_PLAYS[name])
    if name in known or not name.startswith(PREFIXES) or any(fnmatch.fnmatchcase(name, str(pattern)) for pattern in own):
        return None
    near = nearest(name, known)
    cure = f"did you mean {near}? " if near else "remove it. "
    return Wrong("is no variable of this collection", f"{cure}If it is your own, list it in {OWN}")


# Types

_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "bool": ("a boolean", (bool,)),
    "int": ("a number", (int,)),
    "float": ("a number", (int, float)),
    "str": ("a text", (str,)),
    "path": ("a text", (str,)),
    "list": ("a list", (list, tuple)),
    "dict": ("a dictionary", (Mapping,)),
}
_TRUE_FALSE = ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0")


def kind(value: object) -> str:
    names: Sequence[tuple[type, str]] = (
        (bool, "a boolean"),
        (str, "a text"),
        (int, "a number"),
        (float, "a number"),
        (Mapping, "a dictionary"),
        (list, "a list"),
        (tuple, "a list"),
    )
    return next((word for found, word in names if isinstance(value, found)), f"a {type(value).__name__}")


def shown(value: object, secret: bool) -> str:
    """The value in the text of a problem."""
    text = repr(str(value)) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f" ({text})" if not secret and len(text) <= 60 else ""


def type_problem(value: object, spec: Spec) -> Wrong | None:
    """What is wrong with the type of a value. Nothing is converted on its way to the roles' templates, so nothing is here."""
    secret = bool(spec.get("no_log"))
    wanted = str(spec.get("type", "str"))
    word, types = _TYPES.get(wanted, ("", ()))
    if value is None:
        return Wrong("has no value", f"write {word}, or remove the line")
    if not types or (isinstance(value, types) and not (isinstance(value, bool) and wanted != "bool")):
        return None
    what = f"is {kind(value)}{shown(value, secret)}, not {word}"
    if isinstance(value, str) and spec.get("converted") and _converts(value, wanted):
        return None
    if isinstance(value, str) and wanted == "bool" and value.strip().lower() in _TRUE_FALSE:
        return Wrong(what, "write true or false without quotes (in an INI file True or False); with -e write it as JSON")
    if isinstance(value, str) and wanted in ("int", "float") and _converts(value, wanted):
        return Wrong(what, "write it without quotes; with -e write it as JSON, in a template add `| int`")
    if wanted in ("str", "path") and isinstance(value, int) and not isinstance(value, bool) and not secret:
        # A version or a size: Ansible makes the same text of it as the user.
        return None
    if wanted in ("str", "path") and isinstance(value, (bool, int, float)):
        return Wrong(what, "write it in quotes")
    if wanted == "list" and isinstance(value, str):
        return Wrong(what, f"write a list such as [{value if not secret and _plain(value) else 'a, b'}]")
    return Wrong(what, f"write {word}")


def _converts(text: str, wanted: str) -> bool:
    if wanted == "bool":
        return text.strip().lower() in _TRUE_FALSE
    return wanted == "list" or (wanted in ("int", "float") and re.fullmatch(r"\s*-?[0-9]+(\.[0-9]+)?\s*", text) is not None)


def listed_in(value: object) -> list[Any]:
    """The items of a list, also of one that came from the command line."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return list(value) if isinstance(value, (list, tuple)) else []


def _plain(text: str) -> bool:
    return re.fullmatch(r"[\w./, :@*+-]{1,60}", text) is not None


def value_problems(name: str, value: object, spec: Spec) -> Iterator[tuple[str, Wrong]]:
    """Where in the variable something is wrong, and what."""
    wrong = type_problem(value, spec)
    if wrong:
        yield name, wrong
        return
    secret = bool(spec.get("no_log"))
    choices = spec.get("choices")
    elements = listed_in(value) if spec.get("type") == "list" else []
    for one in elements if spec.get("type") == "list" else [value]:
        if choices and one not in choices and not (one == "" and spec.get("default") == ""):
            allowed = ", ".join(str(choice) for choice in choices if choice != "")
            near = nearest(str(one), [str(choice) for choice in choices], 0.7)
            yield (
                name,
                Wrong(f"is {'' if secret else str(one)!r}", f"did you mean {near}?" if near else f"write one of {allowed}"),
            )
    element = {**spec, "type": spec.get("elements", "raw"), "choices": None, "elements": None}
    for number, one in enumerate(elements, 1):
        yield from ((name, Wrong(f"number {number} {wrong.what}", wrong.cure)) for _where, wrong in _element(name, one, element))
    if isinstance(value, Mapping) and spec.get("options"):
        yield from _suboptions(name, value, spec["options"])


def _element(name: str, value: object, spec: Spec) -> Iterator[tuple[str, Wrong]]:
    wrong = None if spec["type"] == "raw" else type_problem(value, {**spec, "default": None})
    if wrong:
        yield name, wrong
    elif isinstance(value, Mapping) and spec.get("options"):
        yield from _suboptions(name, value, spec["options"])


def _suboptions(name: str, value: Mapping[str, Any], options: Mapping[str, Spec]) -> Iterator[tuple[str, Wrong]]:
    for key, found in value.items():
        if key not in options:
            near = nearest(str(key), options, 0.6)
            yield (
                name,
                Wrong(
                    f"has the key {key}, which means nothing",
                    f"did you mean {near}?" if near else f"known are {', '.join(options)}",
                ),
            )
            continue
        for _where, wrong in value_problems(name, found, options[key]):
            yield name, Wrong(f"{key} {wrong.what}", wrong.cure)
    for key, spec in options.items():
        if spec.get("required") and key not in value:
            yield name, Wrong(f"lacks {key}", f"add it: {spec.get('description')}")


# Numbers


def number_problem(name: str, value: object, spec: Spec) -> Wrong | None:
    if isinstance(value, bool) or not isinstance(value, int) or value == spec.get("default"):
        return None
    if name.endswith("_port"):
        return None if 1 <= value <= 65535 else Wrong(f"is {value}", "ports go from 1 to 65535")
    least = 1 if name.endswith(("_concurrency", "_timeout", "_seconds", "_certificate_days", "_least")) else 0
    if name == "airflow_dags_keep_seconds":
        least = 0
    return Wrong(f"is {value}", f"write {least} or more") if value < least else None


# Texts

# Keys and certificates in PEM; settings, whose values have a rule of their own.
_MANY_LINES = re.compile(r".*(_key|_keys|_certificate|_retired)$|airflow_(secret_)?config$|airflow_environment$")
_FOLDER = Wrong("", "write an absolute path of letters, digits and . _ - + @ only: systemd and shells read it too")
_WORD = Wrong("", "use letters, digits, dashes and underscores, beginning with a letter")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,55}")
_RESERVED = ("all", "postgres", "public", "replication", "sameuser", "samerole", "template0", "template1", "none")


def is_folder(text: str) -> bool:
    return re.fullmatch(r"(/[A-Za-z0-9._+@-]+)+/?", text) is not None and "/../" not in f"{text}/"


def is_host(text: str) -> bool:
    """An address or a name, without port and scheme."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # Digits and dots alone are an address that went wrong.
        name = re.fullmatch(
            r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?", text
        )
        return name is not None and not re.fullmatch(r"[0-9.]+", text)
    return not address.is_unspecified and not address.is_multicast


def are_hosts(text: str) -> bool:
    """Hosts separated by commas, each with or without a port."""
    for one in text.split(","):
        host, port = one.strip(), ""
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", host)
        if bracketed:
            host, port = bracketed[1], bracketed[2] or ""
            if ":" not in host or one.strip().endswith("]:"):
                return False
        elif host.count(":") == 1:
            host, port = host.split(":")
            if not port:
                return False
        if not is_host(host) or (port and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536)):
            return False
    return True


def is_url(text: str, schemes: Collection[str]) -> bool:
    if re.search(r"[\s\"'<>\\^`{|}$]", text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and (bool(parts.hostname) or parts.scheme == "file") and (parts.port or 1) > 0
    except ValueError:
        return False


def _is_web(text: str) -> bool:
    return is_url(text, ("http", "https")) and "%" not in text and "@" not in text


def _is_index(text: str) -> bool:
    return is_url(text, ("http", "https", "file"))


def _is_proxy(text: str) -> bool:
    return is_url(text if "://" in text else f"http://{text}", ("http", "https", "socks5", "socks5h"))


def _is_database(text: str) -> bool:
    return _DATABASE.fullmatch(text) is not None and text.lower() not in _RESERVED and not text.lower().startswith("pg_")


def _is_copy(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.-]*@[\w.-]+:/[\w./@+-]*", text) is not None


def _is_memory(text: str) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]*(k|kb|m|mb|g|gb)?|([1-9]|[1-9][0-9])%", text.lower()) is not None


class Shape(NamedTuple):
    fits: Callable[[str], bool]
    cure: str


_NAMES = Shape(_is_database, "use letters, digits, dashes and underscores, at most 56, and no name that PostgreSQL uses itself")
_HOST = Shape(is_host, "write an address or a name alone, without port, scheme or spaces")
_URL = Shape(_is_web, "write it as https://HOST:PORT/, without spaces, quotes, % and passwords")
_PATH = Shape(is_folder, _FOLDER.cure)
_GROUP = Shape(lambda text: _ACCOUNT.fullmatch(text) is not None, "use small letters, digits, dashes and underscores")
SHAPES: dict[str, Shape] = {
    "airflow_address": _HOST,
    "airflow_database_host": Shape(
        # The port of one alone is airflow_database_port.
        lambda text: are_hosts(text) if "," in text else is_host(text),
        f"{_HOST.cure}; of a server with standbys, HOST or HOST:PORT of each, separated by commas",
    ),
    "airflow_broker_host": _HOST,
    "airflow_webserver_host": Shape(lambda text: text in ("0.0.0.0", "::") or is_host(text), _HOST.cure),  # noqa: S104
    "airflow_base_url": _URL,
    "airflow_execution_api_url": Shape(
        lambda text: _is_web(text) and text.rstrip("/").endswith("/execution"), "write it as http://HOST:PORT/execution/"
    ),
    "airflow_index_url": Shape(_is_index, "write it as https://HOST/simple"),
    "airflow_extra_index_url": Shape(_is_index, "write it as https://HOST/simple"),
    "airflow_proxy": Shape(_is_proxy, "write it as http://HOST:PORT"),
    "airflow_database_name": _NAMES,
    "airflow_database_user": _NAMES,
    "airflow_results_database_name": _NAMES,
    "airflow_results_database_user": _NAMES,
    "airflow_broker_user": Shape(
        lambda text: re.fullmatch(r"[A-Za-z0-9._-]+", text) is not None, "use letters, digits, dots, dashes and underscores"
    ),
    "redis_admin_user": Shape(
        lambda text: re.fullmatch(r"[A-Za-z0-9._-]+", text) is not None, "use letters, digits, dots, dashes and underscores"
    ),
    "airflow_admin_group": _GROUP,
    "airflow_dags_group": _GROUP,
    "airflow_dags_folder": _PATH,
    "airflow_plugins_folder": _PATH,
    "airflow_releases_directory": Shape(
        # uv and its cache lie beside it.
        lambda text: is_folder(text) and text.strip("/").count("/") >= 1,
        f"{_FOLDER.cure}, not directly under /",
    ),
    "airflow_ca_bundle": _PATH,
    "airflow_worker_writable_paths": Shape(lambda text: is_folder(text.removeprefix("-")), _FOLDER.cure),
    "postgresql_backup_directory": _PATH,
    "postgresql_backup_copy_to": Shape(_is_copy, "write it as USER@HOST:/FOLDER"),
    "postgresql_version": Shape(
        lambda text: re.fullmatch(r"[1-9][0-9]", text) is not None, "write the major version alone, such as 15"
    ),
    "redis_maxmemory": Shape(_is_memory, "write a size such as 512mb, a share such as 25%, or 0"),
    "airflow_python": Shape(
        lambda text: re.fullmatch(r"[A-Za-z0-9._/+-]+", text) is not None, "write a program's name or its absolute path"
    ),
}


def text_problem(name: str, value: object, spec: Spec) -> Wrong | None:
    """What a text holds that would break a file, a unit or a command line."""
    secret = bool(spec.get("no_log"))
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(text, int) and not isinstance(text, bool):
            text = str(text)
        if not isinstance(text, str) or not text:
            continue
        if not _MANY_LINES.fullmatch(name):
            found = next(
                (
                    word
                    for character, word in (("\n", "a line break"), ("\r", "a carriage return"), ("\0", "a zero byte"))
                    if character in text
                ),
                "",
            )
            if found:
                return Wrong(f"holds {found}", "write it on one line; in YAML use `>-` or quotes")
        shape = SHAPES.get(name)
        if shape and not shape.fits(text):
            return Wrong(f"is {'not what it should be' if secret else repr(str(text))}", shape.cure)
    return None


# Files on the controller

FILES: dict[str, tuple[Callable[[str], bool], str]] = {
    "airflow_dags_source": (os.path.isdir, "folder"),
    "airflow_lock_file": (os.path.isfile, "file"),
    "airflow_wheel_directory": (os.path.isdir, "folder"),
    "airflow_uv": (os.path.isfile, "file"),
}


def file_problem(name: str, value: object) -> Wrong | None:
    if name not in FILES or not isinstance(value, str) or not value:
        return None
    path = os.path.expanduser(value)
    if name == "airflow_dags_source" and not os.path.isabs(path):
        return Wrong(f"is {value!r}, no absolute path", "begin it with {{ inventory_dir }}/ or /")
    exists, word = FILES[name]
    return None if exists(path) else Wrong(f"{path} is no {word} on this machine", "correct the path")


# All of it


def check_variables(
    hosts: Mapping[str, Mapping[str, Any]],
    defined: Mapping[str, Collection[str]],
    collection: str,
    told: Collection[str] = (),
) -> tuple[list[Problem], set[str]]:
    """Problems of the variables that these hosts define themselves, and the names whose values other rules cannot use.

    `told` are the variables that have a rule of their own for their type.
    """
    known = known_variables(collection)
    found: dict[tuple[str, Wrong], list[str]] = {}
    unusable: set[str] = set()
    definers: dict[str, int] = {}
    for host, names in defined.items():
        # Passwords of the user's own that secrets.yml has been told to make are known, too.
        patterns = [*listed_in(hosts[host].get(OWN)), *listed_in(hosts[host].get("airflow_extra_secrets"))]
        for name in sorted(names):
            definers[name] = definers.get(name, 0) + 1
            wrong = name_problem(name, known, patterns)
            if wrong:
                found.setdefault((name, wrong), []).append(host)
            if name not in known or name not in hosts[host] or name in told:
                continue
            value, spec = hosts[host][name], known[name]
            problems = list(value_problems(name, value, spec))
            if problems:
                unusable.add(name)
            else:
                checks = (number_problem(name, value, spec), text_problem(name, value, spec), file_problem(name, value))
                problems = [(name, wrong) for wrong in checks if wrong][:1]
            for where, one in problems:
                found.setdefault((where, one), []).append(host)
    lines = []
    for (where, wrong), places in found.items():
        # Where every host that has the variable has it wrong, it stands in one place.
        of = "" if len(places) == definers.get(where, 0) else f" of {', '.join(places[:5])}" + (" …" if len(places) > 5 else "")
        lines.append(Problem(f"{where}{of}", wrong.what, wrong.cure))
    return lines, unusable
