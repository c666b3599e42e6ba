# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_content runs with a release's Python, as user airflow-cli with the environment of the airflow command.

It reads by SQL, and imports Airflow only when something is to be written, once for all of it. The question comes as JSON on
standard input, the answer goes as JSON to file descriptor 3. No secret is in an answer.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ORDER = ("roles", "users", "pools", "variables", "connections")
TABLES = {"roles": "ab_role", "users": "ab_user", "pools": "slot_pool", "variables": "variable", "connections": "connection"}
SECRETS = {"password", "value", "json", "extra"}
BUILT_IN_ROLES = ("Admin", "Op", "User", "Viewer", "Public")
# Airflow fills these up whenever a webserver starts.
FILLED = ("Op", "User", "Viewer")
EVERYBODY = ["can_read", "Website"]
OF_A_DAG = ("DAG:", "DAG Run:")
BUILT_IN_POOL = "default_pool"
HIDDEN, OTHER = "(hidden)", "(hidden, other)"
# A variable that Airflow cannot decrypt is not as declared, whatever that is.
UNREADABLE = object()

Fields = dict[str, Any]
# By kind and name; what is to be done, by kind.
Found = dict[str, dict[str, Fields]]
Changes = dict[str, list[Fields]]


class Refused(Exception):
    """What must not be done, in one line a problem."""


# Reading


def decrypter() -> Callable[[str], Any] | None:
    keys = [key.strip() for key in os.environ.get("AIRFLOW__CORE__FERNET_KEY", "").split(",") if key.strip()]
    if not keys:
        return None
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet

    fernet = MultiFernet([Fernet(key) for key in keys])

    def decrypt(token: str) -> Any:
        try:
            return fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            return UNREADABLE

    return decrypt


def read(cursor: Any, kinds: set[str]) -> Found:
    """Every object of these kinds, by kind and name; a table that is not there yet has none."""
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = ANY (current_schemas(false))")
    tables = {row[0] for row in cursor.fetchall()}
    decrypt = decrypter()
    return {kind: READERS[kind](cursor, decrypt) if TABLES[kind] in tables else {} for kind in kinds}


def read_roles(cursor: Any, _decrypt: Any) -> dict[str, Fields]:
    cursor.execute(
        "SELECT r.name, p.name, v.name FROM ab_role r LEFT JOIN ab_permission_view_role x ON x.role_id = r.id"
        " LEFT JOIN ab_permission_view pv ON pv.id = x.permission_view_id"
        " LEFT JOIN ab_permission p ON p.id = pv.permission_id LEFT JOIN ab_view_menu v ON v.id = pv.view_menu_id"
    )
    found: dict[str, Fields] = {}
    for role, action, resource in cursor.fetchall():
        permissions = found.setdefault(role, {"permissions": []})["permissions"]
        if action and resource:
            permissions.append([action, resource])
    for role in found.values():
        role["permissions"].sort()
    return found


def read_resources(cursor: Any) -> set[str]:
    cursor.execute("SELECT name FROM ab_view_menu")
    return {row[0] for row in cursor.fetchall()}


def read_users(cursor: Any, _decrypt: Any) -> dict[str, Fields]:
    cursor.execute(
        "SELECT u.username, u.email, u.first_name, u.last_name, u.active, u.password, array_remove(array_agg(r.name), NULL)"
        " FROM ab_user u LEFT JOIN ab_user_role x ON x.user_id = u.id LEFT JOIN ab_role r ON r.id = x.role_id GROUP BY u.id"
    )
    names = ("username", "email", "first_name", "last_name", "active", "password", "roles")
    found = (dict(zip(names, row)) for row in cursor.fetchall())
    return {user["username"]: {**user, "active": bool(user["active"]), "roles": sorted(user["roles"])} for user in found}


def read_pools(cursor: Any, _decrypt: Any) -> dict[str, Fields]:
    cursor.execute("SELECT pool, slots, description, include_deferred FROM slot_pool")
    return {row[0]: {"slots": row[1], "description": row[2] or "", "include_deferred": row[3]} for row in cursor.fetchall()}


def plain(text: str | None, encrypted: bool, decrypt: Any) -> Any:
    if not text:
        return text or ""
    # Stored before there was a key: it is written again, so that it is encrypted.
    if not encrypted:
        return UNREADABLE if decrypt else text
    return decrypt(text) if decrypt else UNREADABLE


def read_variables(cursor: Any, decrypt: Any) -> dict[str, Fields]:
    cursor.execute("SELECT key, val, is_encrypted, description FROM variable")
    return {row[0]: {"value": plain(row[1], row[2], decrypt), "description": row[3] or ""} for row in cursor.fetchall()}


def read_connections(cursor: Any, decrypt: Any) -> dict[str, Fields]:
    cursor.execute(
        "SELECT conn_id, conn_type, host, login, password, is_encrypted, schema, port, extra, is_extra_encrypted, description"
        " FROM connection"
    )
    return {
        row[0]: {
            "conn_type": row[1] or "",
            "host": row[2] or "",
            "login": row[3] or "",
            "password": plain(row[4], row[5], decrypt),
            "schema": row[6] or "",
            "port": row[7],
            "extra": plain(row[8], row[9], decrypt),
            "description": row[10] or "",
        }
        for row in cursor.fetchall()
    }


READERS = {
    "roles": read_roles,
    "users": read_users,
    "pools": read_pools,
    "variables": read_variables,
    "connections": read_connections,
}


# Comparing


def canonical(text: Any) -> Any:
    """JSON in one spelling; UNREADABLE for what is none."""
    if text is UNREADABLE:
        return UNREADABLE
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return UNREADABLE


def same_extra(one: Any, other: Any) -> bool:
    if one is UNREADABLE or other is UNREADABLE:
        return False
    empty = ("", "{}")
    if one in empty or other in empty:
        return one in empty and other in empty
    return one == other or (canonical(one) == canonical(other) and canonical(one) is not UNREADABLE)


def parts_of(uri: str) -> Fields | None:
    """What Airflow makes of a connection's URI. Only to see without Airflow that nothing is to be done; it writes its own."""
    scheme, rest = uri.split("://", 1)
    protocol = ""
    if "://" in rest:
        protocol, rest = rest.split("://", 1)
        protocol += "://"
    try:
        found = urlsplit("//" + rest)
        host, port = unquote(found.hostname or ""), found.port
    except ValueError:
        return None
    query, extra = dict(parse_qsl(found.query, keep_blank_values=True)), ""
    if "__extra__" in query:
        extra = query["__extra__"]
    elif query:
        extra = json.dumps({key: loaded(value) for key, value in query.items()})
    return {
        "conn_type": "postgres" if scheme == "postgresql" else scheme.lower().replace("-", "_"),
        "host": protocol + host if host else "",
        "login": unquote(found.username or ""),
        "password": unquote(found.password or ""),
        "schema": unquote(found.path[1:]),
        "port": port,
        "extra": extra,
    }


def from_uri(uri: str, where: str) -> Any:
    from airflow.models.connection import Connection

    try:
        return Connection(uri=uri)
    except Exception:
        # What Airflow says of it holds a piece of the password.
        raise Refused(f"{where} — has a uri that Airflow does not accept — quote each of its parts") from None


def fields_of(connection: Any) -> Fields:
    """An object of Airflow's as the fields that are compared."""
    names = ("conn_type", "host", "login", "password", "schema", "extra")
    return {**{name: getattr(connection, name) or "" for name in names}, "port": connection.port}


def loaded(text: str) -> Any:
    try:
        return json.loads(text) if text else text
    except ValueError:
        return text


def other_fields(kind: str, wanted: Fields, found: Fields, where: str) -> dict[str, list[Any]]:
    """The names of the fields that are not as wanted, each with what its diff says before and after."""
    if kind == "connections" and "uri" in wanted:
        parts = parts_of(wanted["uri"])
        if parts and not other_fields(kind, {**parts, "description": wanted["description"]}, found, where):
            return {}
        wanted = {**fields_of(from_uri(wanted["uri"], where)), "description": wanted["description"]}
    differing = {}
    for field, value in wanted.items():
        stored = found.get("value" if field == "json" else field)
        if field == "json":
            equal = canonical(stored) == value
        elif kind == "users" and field == "password":
            equal = verified(stored, value)
        elif field == "extra":
            equal = same_extra(stored, value)
        else:
            equal = stored == value
        if not equal:
            differing["value" if field == "json" else field] = [shown(field, stored, None), shown(field, value, stored)]
    return differing


def verified(stored: str | None, password: str) -> bool:
    from werkzeug.security import check_password_hash

    return bool(stored) and check_password_hash(stored, password)


def shown(field: str, value: Any, before: Any) -> Any:
    """What a diff may say of a field's value."""
    if field not in SECRETS:
        return value
    if value == "":
        return ""
    if before is None:
        return HIDDEN
    if field == "extra":
        old, new = (loaded(text) or {} if isinstance(text, str) else {} for text in (before, value))
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            return f"(hidden, other: {', '.join(keys)})"
    return OTHER


def all_fields(kind: str, wanted: Fields) -> Fields:
    """What the diff of a new object says."""
    if kind == "connections" and "uri" in wanted:
        wanted = {**(parts_of(wanted["uri"]) or {}), "description": wanted["description"]}
    named = {"value" if field == "json" else field: value for field, value in wanted.items()}
    return {field: HIDDEN if field in SECRETS and value else value for field, value in named.items() if value not in ("", None)}


def plan(question: Fields, found: Found) -> Changes:
    """What is to be done, by kind: a list of changes, each with what it was made of."""
    changes: Changes = {kind: [] for kind in ORDER}
    for kind in ORDER:
        present = found.get(kind, {})
        # Of users, capitals do not tell one from the other.
        fold: Callable[[str], str] = str.casefold if kind == "users" else str
        stored = {fold(name): name for name in present}
        for entry in question["wanted"].get(kind, []):
            name, there = entry["name"], stored.get(fold(entry["name"]))
            if not entry["present"]:
                if there is not None:
                    changes[kind].append(change("removed", there, entry, before=all_fields(kind, visible(present[there]))))
            elif there is None:
                changes[kind].append(change("created", name, entry, after=all_fields(kind, entry["fields"])))
            else:
                fields = other_fields(kind, entry["fields"], present[there], entry["where"])
                if fields:
                    before = {field: values[0] for field, values in fields.items()}
                    after = {field: values[1] for field, values in fields.items()}
                    changes[kind].append(change("updated", there, entry, before, after))
        if kind in question["purge"]:
            changes[kind] += purged(question, kind, present, fold)
    return changes


def visible(fields: Fields) -> Fields:
    return {field: "" if value is UNREADABLE else value for field, value in fields.items()}


def change(what: str, name: str, entry: Any, before: Fields | None = None, after: Fields | None = None) -> Fields:
    return {"what": what, "name": name, "entry": entry, "before": before or {}, "after": after or {}}


def purged(question: Fields, kind: str, present: dict[str, Fields], fold: Callable[[str], str]) -> list[Fields]:
    declared = {fold(entry["name"]) for entry in question["wanted"].get(kind, [])}
    spared = {"roles": BUILT_IN_ROLES, "pools": (BUILT_IN_POOL,), "users": question["protected"], "connections": question["kept"]}
    kept = {fold(name) for name in spared.get(kind, ())}
    return [
        change("removed", name, None, before=all_fields(kind, visible(fields)))
        for name, fields in sorted(present.items())
        if fold(name) not in declared and fold(name) not in kept
    ]


def admins(users: dict[str, Fields]) -> set[str]:
    return {name for name, user in users.items() if user["active"] and "Admin" in user["roles"]}


def keep_an_admin(changes: Changes, found: Found) -> list[str]:
    """Nobody could log in to mend it. What is only purged stays; what is declared so is refused."""
    before = found.get("users", {})
    after = {name: dict(user) for name, user in before.items()}
    for one in changes["users"]:
        if one["what"] == "removed":
            after.pop(one["name"])
        else:
            after[one["name"]] = {**after.get(one["name"], {}), **one["entry"]["fields"]}
    if admins(after) or not admins(before):
        return []
    lost = sorted(admins(before))
    spared = [one for one in changes["users"] if one["name"] in lost and one["entry"] is None]
    changes["users"] = [one for one in changes["users"] if one not in spared]
    if spared:
        return [f"user {one['name']} is not declared and stays, as the last with role Admin" for one in spared]
    guilty = next(one for one in changes["users"] if one["name"] in lost)
    where = guilty["entry"]["where"]
    raise Refused(f"{where} — was the last active user with role Admin — declare another one")


def unknown_resources(question: Fields, changes: Changes, known: set[str]) -> list[str]:
    """A resource that Airflow has not named yet may be a plugin's that no webserver has loaded, or misspelt."""
    fresh = {one["name"] for one in changes["roles"] if one["what"] != "removed"}
    warnings = []
    for entry in question["wanted"].get("roles", []):
        for _action, resource in entry["fields"].get("permissions") or []:
            if known and entry["name"] in fresh and resource not in known and not resource.startswith(OF_A_DAG):
                near = difflib.get_close_matches(resource, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                warnings.append(f"{entry['where']}: Airflow knows no resource {resource} yet{hint}")
    return warnings


def check(question: Fields, changes: Changes, found: Found) -> None:
    """What only the database knows to be wrong."""
    wrong = []
    roles = {*BUILT_IN_ROLES, *found.get("roles", {})} | {one["name"] for one in changes["roles"] if one["what"] == "created"}
    roles -= {one["name"] for one in changes["roles"] if one["what"] == "removed"}
    leaving = {one["name"] for one in changes["users"] if one["what"] == "removed"}
    declared = {entry["name"].casefold() for entry in question["wanted"].get("users", [])}
    emails = {
        user["email"].casefold(): name
        for name, user in found.get("users", {}).items()
        if name not in leaving and name.casefold() not in declared
    }
    for entry in question["wanted"].get("users", []):
        if not entry["present"]:
            continue
        where, fields = entry["where"], entry["fields"]
        unknown = [role for role in fields["roles"] if role not in roles]
        wrong += [f"{where} — has the unknown role {role} — known are {', '.join(sorted(roles))}" for role in unknown]
        if fields["email"].casefold() in emails:
            wrong.append(f"{where} — has the email of user {emails[fields['email'].casefold()]} — write another one")
    for one in changes["users"]:
        if one["what"] == "created" and "password" not in one["entry"]["fields"]:
            wrong.append(f"{one['entry']['where']} — is new and has no password — write one")
    if wrong:
        raise Refused("\n".join(wrong))


def complete(question: Fields, found: Found) -> None:
    """Permissions that Airflow gives by itself, so that none is taken away only to come back."""
    for entry in question["wanted"].get("roles", []):
        permissions = entry["fields"].get("permissions")
        if permissions is None:
            continue
        given = [EVERYBODY] if entry["name"] not in BUILT_IN_ROLES else []
        stored = found.get("roles", {}).get(entry["name"], {}).get("permissions", [])
        # A DAG gives them by its access_control whenever it is parsed.
        given = given + [pair for pair in stored if pair[1].startswith(OF_A_DAG)]
        if entry["name"] in FILLED:
            # Which these are, Airflow alone knows: they are there, and only more can be declared.
            given = stored
        entry["fields"]["permissions"] = sorted(list(pair) for pair in {*map(tuple, permissions), *map(tuple, given)})


# Writing


def objects_of(session: Any, model: Any, column: str, names: list[str]) -> dict[str, Any]:
    from sqlalchemy import select

    return {getattr(one, column): one for one in session.scalars(select(model).where(getattr(model, column).in_(names))).unique()}


def write_roles(session: Any, changes: list[Fields]) -> None:
    from airflow.providers.fab.auth_manager.models import (
        Action,
        Permission,
        Resource,
        Role,
        assoc_group_role,
        assoc_permission_role,
        assoc_user_role,
    )
    from sqlalchemy import delete

    pairs = {tuple(pair) for one in changes if one["entry"] for pair in one["entry"]["fields"].get("permissions") or []}
    actions = objects_of(session, Action, "name", [action for action, _resource in pairs])
    resources = objects_of(session, Resource, "name", [resource for _action, resource in pairs])
    permissions: dict[tuple[str, str], Any] = {}
    for action, resource in sorted(pairs):
        if action not in actions:
            actions[action] = Action(name=action)
        if resource not in resources:
            resources[resource] = Resource(name=resource)
        session.add_all([actions[action], resources[resource]])
        session.flush()
        found = session.query(Permission).filter_by(action_id=actions[action].id, resource_id=resources[resource].id).first()
        permissions[action, resource] = found or Permission(action=actions[action], resource=resources[resource])
    stored = objects_of(session, Role, "name", [one["name"] for one in changes])
    for one in changes:
        role = stored.get(one["name"])
        if one["what"] == "removed":
            if role:
                for table in (assoc_permission_role, assoc_user_role, assoc_group_role):
                    session.execute(delete(table).where(table.c.role_id == role.id))
                session.execute(delete(Role).where(Role.id == role.id))
            continue
        if role is None:
            role = Role(name=one["name"])
            session.add(role)
        if "permissions" in one["entry"]["fields"]:
            given = role.permissions if one["name"] in FILLED else []
            role.permissions = list({*given, *(permissions[tuple(pair)] for pair in one["entry"]["fields"]["permissions"])})


def write_users(session: Any, changes: list[Fields]) -> None:
    from airflow.providers.fab.auth_manager.models import Role, User, assoc_user_group, assoc_user_role
    from flask import current_app
    from sqlalchemy import delete, update
    from werkzeug.security import generate_password_hash

    roles = {role.name: role for role in session.query(Role)}
    stored = objects_of(session, User, "username", [one["name"] for one in changes])
    for one in changes:
        user = stored.get(one["name"])
        if one["what"] == "removed":
            if user:
                for column in (User.created_by_fk, User.changed_by_fk):
                    session.execute(update(User).where(column == user.id).values({column.key: None}))
                for table in (assoc_user_role, assoc_user_group):
                    session.execute(delete(table).where(table.c.user_id == user.id))
                session.execute(delete(User).where(User.id == user.id))
            continue
        fields = one["entry"]["fields"]
        if user is None:
            user = User()
            session.add(user)
        for field in ("username", "email", "first_name", "last_name", "active"):
            setattr(user, field, fields[field])
        user.roles = [roles[name] for name in fields["roles"]]
        if one["what"] == "created" or "password" in one["after"]:
            method = current_app.config.get("FAB_PASSWORD_HASH_METHOD", "scrypt")
            user.password = generate_password_hash(fields["password"], method=method)


def write_pools(session: Any, changes: list[Fields]) -> None:
    from airflow.models.pool import Pool

    stored = objects_of(session, Pool, "pool", [one["name"] for one in changes])
    for one in changes:
        pool = stored.get(one["name"])
        if one["what"] == "removed":
            if pool:
                session.delete(pool)
            continue
        if pool is None:
            pool = Pool(pool=one["name"])
            session.add(pool)
        for field, value in one["entry"]["fields"].items():
            setattr(pool, field, value)


def write_variables(session: Any, changes: list[Fields]) -> None:
    from airflow.models.variable import Variable

    stored = objects_of(session, Variable, "key", [one["name"] for one in changes])
    for one in changes:
        variable = stored.get(one["name"])
        if one["what"] == "removed":
            if variable:
                session.delete(variable)
            continue
        fields = one["entry"]["fields"]
        text = fields["value"] if "value" in fields else fields["json"]
        if variable is None:
            session.add(Variable(key=one["name"], val=text, description=fields["description"] or None))
        else:
            if "value" in one["after"]:
                variable.val = text
            variable.description = fields["description"] or None


def write_connections(session: Any, changes: list[Fields]) -> None:
    from airflow.models.connection import Connection
    from sqlalchemy import delete, insert, update

    # Loaded as an object, one whose password cannot be decrypted would be an error, and could never be mended.
    table: Any = Connection.__table__
    for one in changes:
        stored = table.c.conn_id == one["name"]
        if one["what"] == "removed":
            session.execute(delete(table).where(stored))
            continue
        fields = one["entry"]["fields"]
        source = from_uri(fields["uri"], one["entry"]["where"]) if "uri" in fields else Connection(**given(fields))
        values = {field: getattr(source, field) for field in ("conn_type", "host", "login", "schema", "port")}
        values = {field: None if value == "" else value for field, value in values.items()}
        values.update(
            password=source._password or None,
            extra=source._extra or None,
            is_encrypted=bool(source._password and source.is_encrypted),
            is_extra_encrypted=bool(source._extra and source.is_extra_encrypted),
            description=fields["description"] or None,
        )
        new = insert(table).values(conn_id=one["name"], **values)
        session.execute(new if one["what"] == "created" else update(table).where(stored).values(**values))


def given(fields: Fields) -> Fields:
    return {field: value for field, value in fields.items() if value not in ("", None) and field != "description"}


WRITERS = {
    "roles": write_roles,
    "users": write_users,
    "pools": write_pools,
    "variables": write_variables,
    "connections": write_connections,
}


def security_manager(changes: Changes, found: Found) -> Any:
    """FAB's, which takes a second to make: it hashes passwords, ends sessions, and makes the built-in roles of a new database."""
    hashes = any(one["what"] == "created" or "password" in one["after"] for one in changes["users"])
    if not hashes and (found.get("roles") or not (changes["roles"] or changes["users"])):
        return contextlib.nullcontext()
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    return get_application_builder()


def write(changes: Changes, found: Found) -> None:
    """One transaction a kind: either all of it is there afterwards, or nothing."""
    from airflow.utils.session import create_session

    done: list[str] = []
    with security_manager(changes, found) as builder:
        for kind in ORDER:
            if not changes[kind]:
                continue
            try:
                if kind == "users":
                    # Before too: killed between the two, the next run would find the password right and end none.
                    end_sessions(changes[kind], builder)
                with create_session() as session:
                    WRITERS[kind](session, changes[kind])
            except Exception as error:
                before = f"{', '.join(done)} had been written before" if done else "nothing had been written before"
                what = str(error) if isinstance(error, Refused) else first_line(error)
                raise Refused(f"{kind} could not be written, and none of them was: {what}; {before}") from None
            done.append(kind)
            if kind == "users":
                end_sessions(changes[kind], builder)


def end_sessions(changes: list[Fields], builder: Any) -> None:
    """Whoever knew the old password is logged out."""
    for one in changes:
        if one["what"] == "updated" and "password" in one["after"]:
            builder.sm.reset_user_sessions(builder.sm.find_user(username=one["entry"]["fields"]["username"]))


def first_line(error: Exception) -> str:
    # SQLAlchemy's message goes on with the statement's parameters, in which secrets stand.
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def default_connections(present: set[str]) -> list[Fields]:
    """Upstream's, of which what exists is left as it is."""
    if default_names() <= present:
        return []
    from airflow.utils.db import get_default_connections

    return [
        {
            "name": one.conn_id,
            "where": f"default connection {one.conn_id}",
            "present": True,
            "fields": {**fields_of(one), "description": one.description or ""},
        }
        for one in get_default_connections()
        if one.conn_id not in present
    ]


def default_names() -> set[str]:
    """Their names as they stand in Airflow's source, which is not started for it."""
    path = os.path.join(sysconfig.get_paths()["purelib"], "airflow", "utils", "db.py")
    with open(path, encoding="utf-8") as file:
        return set(re.findall(r'conn_id="([^"]+)"', file.read()))


# Asked for


def connect() -> Any:
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    return psycopg2.connect(url, connect_timeout=5)


def converge(question: Fields) -> Fields:
    kinds = {kind for kind in ORDER if question["wanted"].get(kind) or kind in question["purge"]}
    # Users are judged by the roles there are, and roles by who has them.
    kinds |= {"roles", "users"} if kinds & {"roles", "users"} else set()
    kinds |= {"connections"} if question["default_connections"] else set()
    with contextlib.closing(connect()) as connection, connection.cursor() as cursor:
        found = read(cursor, kinds)
        resources = read_resources(cursor) if found.get("roles") else set()
        connection.rollback()
        if question["default_connections"]:
            question["kept"] = default_names()
            declared = {entry["name"] for entry in question["wanted"]["connections"]}
            question["wanted"]["connections"] += default_connections({*found["connections"], *declared})
        complete(question, found)
        changes = plan(question, found)
        warnings = keep_an_admin(changes, found) + unknown_resources(question, changes, resources)
        check(question, changes, found)
        if any(changes.values()) and not question["check"]:
            write(changes, found)
            verify(question, changes, read(cursor, kinds))
    return {"changes": [told(kind, one) for kind in ORDER for one in changes[kind]], "warnings": warnings}


def verify(question: Fields, changes: Changes, found: Found) -> None:
    """Read again: whatever Airflow has made of it is what the next run will find."""
    complete(question, found)
    left = plan(question, found)
    names = {(kind, one["name"]) for kind in ORDER for one in changes[kind]}
    wrong = [
        f"{kind} {one['name']} ({', '.join(one['after']) or one['what']})"
        for kind in ORDER
        for one in left[kind]
        if (kind, one["name"]) in names
    ]
    if wrong:
        raise Refused(f"Airflow has stored otherwise than declared: {'; '.join(wrong)}")


def told(kind: str, one: Fields) -> Fields:
    return {"kind": kind, "name": one["name"], "what": one["what"], "before": one["before"], "after": one["after"]}


def main() -> None:
    question = json.load(sys.stdin)
    try:
        result = converge(question)
    except Refused as error:
        result = {"refused": str(error).splitlines()}
    except Exception as error:
        result = {"error": first_line(error)}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers, default=str)


if __name__ == "__main__":
    main()
