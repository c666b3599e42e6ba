# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What declared roles, users, pools, variables and connections must be like, and what Airflow is asked for them.

Read on the controller, before any host is changed, and by the module. No text that it makes holds a secret.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem

KINDS = ("roles", "users", "pools", "variables", "connections")
NAMES = {"roles": "name", "users": "username", "pools": "name", "variables": "key", "connections": "conn_id"}
# Columns of Airflow's tables.
LONGEST = {"roles": 64, "users": 512, "pools": 256, "variables": 250, "connections": 250}
FIELDS: dict[str, tuple[str, ...]] = {
    "roles": ("permissions",),
    "users": ("email", "first_name", "last_name", "roles", "password", "active"),
    "pools": ("slots", "description", "include_deferred"),
    "variables": ("value", "description"),
    "connections": ("conn_type", "host", "login", "password", "port", "schema", "extra", "uri", "description"),
}
SECRETS = {"users": ("password",), "variables": ("value",), "connections": ("password", "extra", "uri")}
# What a connection's URI holds.
PARTS = ("conn_type", "host", "login", "password", "port", "schema", "extra")

BUILT_IN_ROLES = ("Admin", "Op", "User", "Viewer", "Public")
BUILT_IN_POOL = "default_pool"
ACTIONS = ("can_create", "can_read", "can_edit", "can_delete", "menu_access")
# What Airflow accepts; with any other it would store no name at all, and say nothing.
_CONN_ID = re.compile(r"[\w#!()\-.:/\\]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")


class Entry(NamedTuple):
    """One declared object."""

    kind: str
    where: str
    """The variable with the position in its list, and the object's name."""
    name: str
    values: Mapping[str, Any]

    @property
    def present(self) -> bool:
        return self.values.get("state", "present") != "absent"

    def problem(self, what: str, cure: str) -> Problem:
        return Problem(self.where, what, cure)


def nearest(name: object, known: Sequence[str]) -> str:
    """The cure for a word that is none of the known ones."""
    found = difflib.get_close_matches(str(name).lower(), [word.lower() for word in known], n=1, cutoff=0.6)
    meant = next((word for word in known if found and word.lower() == found[0]), None)
    return f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"


def kind_of(value: object) -> str:
    if value is None:
        return "empty"
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", Mapping: "a dictionary", list: "a list"}
    # Ansible's own types are made from these: what has been written as a date is a `_AnsibleTaggedDate`.
    plain = next(kind for kind in type(value).__mro__ if kind.__module__ in ("builtins", "datetime"))
    return next((word for kind, word in names.items() if isinstance(value, kind)), f"a {plain.__name__}")


def not_json(value: object, path: str = "") -> str:
    """What of the value JSON cannot hold, and where in it; empty where it can."""
    if value is None or isinstance(value, (str, bool, int)):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path or 'the value'} is {value}"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                return f"{path or 'the value'} has {kind_of(key)} as a key"
        return next(filter(None, (not_json(item, f"{path}.{key}".lstrip(".")) for key, item in value.items())), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, (not_json(item, f"{path}[{number}]") for number, item in enumerate(value))), "")
    return f"{path or 'the value'} is {kind_of(value)}"


def canonical(value: object) -> str:
    """One text for all that is the same as JSON."""
    # Twice: keys that are numbers become texts, by which they are then sorted.
    return json.dumps(json.loads(json.dumps(value)), sort_keys=True, ensure_ascii=False)


# Fields


def text_problem(value: object) -> str:
    return "" if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)) else kind_of(value)


def whole_number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value) else None


_YES, _NO = ("yes", "true", "on", "1", "y"), ("no", "false", "off", "0", "n")


def truth(value: object) -> bool | None:
    word = str(value).lower()
    return True if word in _YES else False if word in _NO else None


def extra_of(value: object) -> tuple[dict[str, Any] | None, str]:
    """A connection's extra as a dictionary, and what is wrong with it."""
    if value is None or value == "" or value == {}:
        return None, ""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None, "is a text that is no JSON"
    if not isinstance(value, Mapping):
        return None, f"is {kind_of(value)}, no dictionary"
    wrong = not_json(value, "extra")
    return (None, f"cannot be written as JSON: {wrong}") if wrong else (dict(value), "")


def uri_problem(uri: object) -> str:
    """What keeps Airflow from reading a connection's URI. Whatever Python says of it would hold a piece of the password."""
    if not (isinstance(uri, str) and _SCHEME.match(uri)) or uri.count("://") > 2:
        return "that is none"
    rest = uri.split("://", 1)[1]
    protocol, second, behind = rest.partition("://")
    if second and re.search("[@:]", protocol):
        return "whose parts are not quoted"
    try:
        parts = urlsplit("//" + (behind if second else rest))
        _port = parts.port
        extra = dict(parse_qsl(parts.query, keep_blank_values=True)).get("__extra__")
    except ValueError:
        return "whose parts are not quoted"
    return "whose __extra__ is no JSON of a dictionary" if extra and extra_of(extra)[1] else ""


def _texts(entry: Entry, fields: Sequence[str]) -> Iterator[Problem]:
    for field in fields:
        wrong = text_problem(entry.values.get(field))
        if wrong:
            yield entry.problem(f"{field} is {wrong}, no text", "write a text")


def _password(entry: Entry) -> Iterator[Problem]:
    value = entry.values.get("password")
    if value is not None and not isinstance(value, str):
        yield entry.problem(f"password is {kind_of(value)}, no text", "put it in quotes")


def _flag(entry: Entry, field: str) -> Iterator[Problem]:
    value = entry.values.get(field)
    if value is not None and truth(value) is None:
        yield entry.problem(f"{field} is {kind_of(value)}, neither true nor false", "write true or false")


# Kinds


def _role(entry: Entry) -> Iterator[Problem]:
    if entry.name == "Admin":
        yield entry.problem("is the role to which Airflow itself gives every permission", "remove the entry")
        return
    permissions = entry.values.get("permissions")
    shape = "write a list of {action: …, resource: …}"
    if permissions is None:
        return
    if not isinstance(permissions, list):
        yield entry.problem(f"permissions is {kind_of(permissions)}, no list", shape)
        return
    for number, permission in enumerate(permissions):
        name = f"permissions[{number}]"
        if not isinstance(permission, Mapping):
            yield entry.problem(f"{name} is {kind_of(permission)}, no dictionary", shape)
            continue
        for key in permission:
            if key not in ("action", "resource"):
                yield entry.problem(f"{name} has the unknown key {key}", nearest(key, ("action", "resource")))
        action, resource = permission.get("action"), permission.get("resource")
        if action not in ACTIONS:
            what = f"{name} has the action {action}" if action else f"{name} has no action"
            yield entry.problem(what, nearest(action, ACTIONS))
        if not (isinstance(resource, str) and resource):
            yield entry.problem(f"{name} has no resource", "write the name of one, such as DAGs, Connections or DAG:NAME")


def _user(entry: Entry) -> Iterator[Problem]:
    yield from _texts(entry, ("first_name", "last_name"))
    yield from _password(entry)
    yield from _flag(entry, "active")
    if entry.values.get("password") == "":
        yield entry.problem("password is empty", "write one, or leave the key out to keep the password that the user has")
    email = entry.values.get("email")
    if not (isinstance(email, str) and email):
        yield entry.problem("has no email", "write an address, unique among the users")
    roles = entry.values.get("roles")
    if not isinstance(roles, list) or not roles or not all(isinstance(role, str) for role in roles):
        yield entry.problem(f"roles is {kind_of(roles)}" if roles else "has no roles", "write a list such as [Viewer]")


def _pool(entry: Entry) -> Iterator[Problem]:
    yield from _texts(entry, ("description",))
    yield from _flag(entry, "include_deferred")
    given, slots = entry.values.get("slots"), whole_number(entry.values.get("slots"))
    cure = "write 0 or more, or -1 for no limit"
    if given is None:
        yield entry.problem("has no slots", cure)
    elif slots is None:
        yield entry.problem(f"slots is {kind_of(given)}, no whole number", cure)
    elif slots < -1:
        yield entry.problem(f"slots is {slots}", cure)


def _variable(entry: Entry) -> Iterator[Problem]:
    yield from _texts(entry, ("description",))
    value = entry.values.get("value")
    if value is None:
        yield entry.problem("has no value", "write one; '' is an empty text")
    wrong = not_json(value, "value")
    if wrong:
        yield entry.problem(f"cannot be stored: {wrong}, which JSON does not have", "write it as a text, in quotes")


def _connection(entry: Entry) -> Iterator[Problem]:
    values = entry.values
    if not _CONN_ID.fullmatch(entry.name):
        yield entry.problem("has a name that Airflow does not accept", "use letters, digits and _ - . : / \\ # ! ( )")
    yield from _texts(entry, ("conn_type", "host", "login", "schema", "description"))
    yield from _password(entry)
    fields = [field for field in PARTS if values.get(field) not in (None, "")]
    uri = values.get("uri")
    if uri is not None and uri != "":
        if fields:
            yield entry.problem(f"has a uri and {', '.join(fields)}", "write either the uri or the fields")
        wrong = uri_problem(uri)
        if wrong:
            yield entry.problem(f"has a uri {wrong}", "write TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE, each part quoted")
        return
    if not values.get("conn_type"):
        yield entry.problem("has neither conn_type nor uri", "write one of them")
    port = values.get("port")
    if port is not None and not 0 < (whole_number(port) or 0) < 65536:
        what = f"port is {port}" if whole_number(port) is not None else f"port is {kind_of(port)}, no whole number"
        yield entry.problem(what, "write a number from 1 to 65535")
    wrong = extra_of(values.get("extra"))[1]
    if wrong:
        yield entry.problem(f"extra {wrong}", "write a dictionary, or a text that is JSON of one")


RULES: dict[str, Callable[[Entry], Iterator[Problem]]] = {
    "roles": _role,
    "users": _user,
    "pools": _pool,
    "variables": _variable,
    "connections": _connection,
}
# What is never removed.
_KEPT = {"roles": BUILT_IN_ROLES, "pools": (BUILT_IN_POOL,)}


def entries(kind: str, declared: object, prefix: str = "") -> tuple[list[Entry], list[Problem]]:
    """The objects of a list, and what keeps some of its items from being any."""
    variable, key = f"{prefix}{kind}", NAMES[kind]
    if declared is None or declared == "":
        return [], []
    if not isinstance(declared, (list, tuple)):
        return [], [Problem(variable, f"is {kind_of(declared)}, no list", f"write a list of {{{key}: …}}")]
    found, problems = [], []
    for number, values in enumerate(declared):
        where = f"{variable}[{number}]"
        if not isinstance(values, Mapping):
            problems.append(Problem(where, f"is {kind_of(values)}, no dictionary", f"write {{{key}: …}}"))
            continue
        name = values.get(key)
        if text_problem(name) or name is None or name == "":
            unknown = [word for word in values if word not in (key, "state", *FIELDS[kind])]
            hint = next((word for word in unknown if nearest(word, (key,)).startswith("did")), None)
            cure = f"did you mean {key} by {hint}?" if hint else f"write {key}: …"
            problems.append(Problem(where, f"has no {key}", cure))
            continue
        found.append(Entry(kind, f"{where} {name}", str(name), values))
    return found, problems


def _common(entry: Entry) -> Iterator[Problem]:
    known = (NAMES[entry.kind], *FIELDS[entry.kind], "state")
    for key in entry.values:
        if key not in known:
            yield entry.problem(f"has the unknown key {key}", nearest(key, known))
    state = entry.values.get("state", "present")
    if state not in ("present", "absent"):
        yield entry.problem(f"state is {state}", "write present or absent")
    if len(entry.name) > LONGEST[entry.kind]:
        yield entry.problem(f"has a name of {len(entry.name)} characters", f"use {LONGEST[entry.kind]} at most")
    if not entry.present and entry.name in _KEPT.get(entry.kind, ()):
        yield entry.problem("is built into Airflow and cannot be absent", "remove the entry")


def _twice(found: Sequence[Entry], same: Callable[[Entry], str], what: str, cure: str) -> Iterator[Problem]:
    first: dict[str, Entry] = {}
    for entry in found:
        earlier = first.setdefault(same(entry), entry)
        if same(entry) and earlier is not entry:
            yield entry.problem(what.format(earlier.where.split(" ")[0]), cure)


def _named(entry: Entry) -> str:
    return entry.name


def _folded(entry: Entry) -> str:
    return entry.name.casefold()


def _email(entry: Entry) -> str:
    return str(entry.values.get("email") or "").casefold()


def _between(found: Mapping[str, Sequence[Entry]], admin: str, admin_email: str, known_roles: bool) -> Iterator[Problem]:
    """What no entry alone can have wrong."""
    for kind in KINDS:
        # Airflow tells no two users apart by capitals.
        yield from _twice(
            found[kind], _folded if kind == "users" else _named, "is declared twice, first as {}", "remove one of the two"
        )
    present = [entry for entry in found["users"] if entry.present]
    yield from _twice(present, _email, "has the same email as {}", "write another one")
    declared = {entry.name: entry.present for entry in found["roles"]}
    names = [*BUILT_IN_ROLES, *(name for name, there in declared.items() if there and name not in BUILT_IN_ROLES)]
    for entry in present:
        roles = entry.values.get("roles")
        for role in roles if isinstance(roles, list) else []:
            gone = declared.get(role) is False
            if isinstance(role, str) and (gone or (known_roles and role not in names)):
                what = f"has the role {role}, which is declared absent" if gone else f"has the unknown role {role}"
                cure = nearest(role, names)
                yield entry.problem(what, cure if gone or cure.startswith("did") else f"{cure}; declare it in the list of roles")
    for entry in found["users"]:
        if admin and entry.name.casefold() == admin.casefold():
            yield entry.problem("is the admin user, whom airflow_admin_user, _email and _password describe", "remove the entry")
        elif admin_email and entry.present and str(entry.values.get("email")).casefold() == admin_email.casefold():
            yield entry.problem("has the email of the admin user (airflow_admin_email)", "write another one")


def purge_problems(purge: object, where: str = "purge") -> list[Problem]:
    if purge is None or purge == "":
        return []
    if not isinstance(purge, (list, tuple)):
        return [Problem(where, f"is {kind_of(purge)}, no list", f"write a list of some of {', '.join(KINDS)}")]
    unknown = [(number, kind) for number, kind in enumerate(purge) if kind not in KINDS]
    return [Problem(f"{where}[{number}]", f"is {kind}", nearest(kind, KINDS)) for number, kind in unknown]


def problems(
    declared: Mapping[str, object], prefix: str = "", admin: str = "", admin_email: str = "", known_roles: bool = True
) -> list[Problem]:
    """All that is wrong with lists by kind. `known_roles`: whether all roles that a user can have are declared or built in."""
    found: dict[str, list[Entry]] = {}
    wrong: list[Problem] = []
    for kind in KINDS:
        found[kind], broken = entries(kind, declared.get(kind), prefix)
        wrong += broken
        for entry in found[kind]:
            wrong += _common(entry)
            wrong += RULES[kind](entry) if entry.present else ()
    wrong += _between(found, admin, admin_email, known_roles)
    return wrong + purge_problems(declared.get("purge"), f"{prefix}purge")


# What the script is asked for


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _wanted_role(values: Mapping[str, Any]) -> dict[str, Any]:
    permissions = values.get("permissions")
    if permissions is None:
        return {}
    return {"permissions": sorted({(str(one["action"]), str(one["resource"])) for one in permissions})}


def _wanted_user(values: Mapping[str, Any]) -> dict[str, Any]:
    active, password = values.get("active"), values.get("password")
    first = values.get("first_name")
    wanted = {
        "username": str(values["username"]),
        "email": str(values["email"]),
        "first_name": str(values["username"] if first is None else first),
        "last_name": _text(values.get("last_name")),
        "roles": sorted({str(role) for role in values["roles"]}),
        "active": True if active is None else truth(active),
    }
    return wanted if password is None else {**wanted, "password": str(password)}


def _wanted_pool(values: Mapping[str, Any]) -> dict[str, Any]:
    description = values.get("description")
    built_in = "Default pool" if values["name"] == BUILT_IN_POOL else ""
    return {
        "slots": whole_number(values["slots"]),
        "description": built_in if description is None else str(description),
        "include_deferred": bool(truth(values.get("include_deferred") or False)),
    }


def _wanted_variable(values: Mapping[str, Any]) -> dict[str, Any]:
    value = values["value"]
    # Airflow stores texts. What is none is stored, and compared, as JSON.
    stored = {"value": str(value)} if isinstance(value, str) else {"json": canonical(value)}
    return {**stored, "description": _text(values.get("description"))}


def _wanted_connection(values: Mapping[str, Any]) -> dict[str, Any]:
    description = {"description": _text(values.get("description"))}
    if values.get("uri"):
        return {"uri": str(values["uri"]), **description}
    extra = extra_of(values.get("extra"))[0]
    fields: dict[str, Any] = {field: _text(values.get(field)) for field in ("conn_type", "host", "login", "password", "schema")}
    fields["port"] = whole_number(values.get("port"))
    # As it was written where that is a text already.
    given = values.get("extra")
    fields["extra"] = "" if extra is None else str(given) if isinstance(given, str) else json.dumps(extra, ensure_ascii=False)
    return {**fields, **description}


_WANTED: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "roles": _wanted_role,
    "users": _wanted_user,
    "pools": _wanted_pool,
    "variables": _wanted_variable,
    "connections": _wanted_connection,
}


def wanted(declared: Mapping[str, object], prefix: str = "") -> dict[str, list[dict[str, Any]]]:
    """The declared objects, complete: what is not named has Airflow's default. For lists without problems."""
    return {
        kind: [
            {
                "name": entry.name,
                "where": entry.where,
                "present": entry.present,
                "fields": _WANTED[kind](entry.values) if entry.present else {},
            }
            for entry in entries(kind, declared.get(kind), prefix)[0]
        ]
        for kind in KINDS
    }


def auth_type(text: str) -> str:
    """How a webserver_config.py has users authenticated, in FAB's words; AUTH_DB where it does not say."""
    found = "AUTH_DB"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not node.value:
            continue
        value, targets = node.value, node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(one, ast.Name) and one.id == "AUTH_TYPE" for one in targets):
            found = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else "unknown"
    return found


def secrets_of(declared: Mapping[str, object]) -> set[str]:
    """Texts that no message may hold. Short ones are left out: they would be found in every word."""
    found: set[str] = set()
    for kind, fields in SECRETS.items():
        for entry in entries(kind, declared.get(kind))[0]:
            for field in fields:
                found.update(_leaves(entry.values.get(field)))
    # A password within a URI is no text of its own.
    for text in [text for text in found if _SCHEME.match(text)]:
        with contextlib.suppress(ValueError):
            found.add(unquote(urlsplit(text).password or ""))
    return {text for text in found if len(text) > 5}


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
