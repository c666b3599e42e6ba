# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules as rules

EVE = {"username": "eve", "email": "eve@example.com", "roles": ["Viewer"], "password": "pw"}
NOT_JSON = "which JSON does not have — write it as a text, in quotes"
PG = {"conn_id": "pg", "conn_type": "postgres"}


def lines(known_roles: bool = True, **declared: Any) -> list[str]:
    found = rules.problems(declared, "airflow_", "admin", "admin@localhost", known_roles)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        ("pools", {"name": "x"}, "airflow_pools — is a dictionary, no list — write a list of {name: …}"),
        ("pools", ["etl"], "airflow_pools[0] — is a text, no dictionary — write {name: …}"),
        ("pools", [{"slots": 3}], "airflow_pools[0] — has no name — write name: …"),
        ("variables", [{"kay": "a", "value": 1}], "airflow_variables[0] — has no key — did you mean key by kay?"),
        ("pools", [{"name": "x", "slots": 1}, {"name": "x", "slots": 2}],
         "airflow_pools[1] x — is declared twice, first as airflow_pools[0] — remove one of the two"),
        ("pools", [{"name": "x", "slot": 1, "slots": 1}], "airflow_pools[0] x — has the unknown key slot — did you mean slots?"),
        ("pools", [{"name": "x", "zzz": 1, "slots": 1}],
         "airflow_pools[0] x — has the unknown key zzz — known are name, slots, description, include_deferred, state"),
        ("pools", [{"name": "x", "slots": -5}], "airflow_pools[0] x — slots is -5 — write 0 or more, or -1 for no limit"),
        ("pools", [{"name": "x"}], "airflow_pools[0] x — has no slots — write 0 or more, or -1 for no limit"),
        ("pools", [{"name": "x", "slots": 1.5}],
         "airflow_pools[0] x — slots is a number, no whole number — write 0 or more, or -1 for no limit"),
        ("pools", [{"name": "x", "slots": True}],
         "airflow_pools[0] x — slots is a boolean, no whole number — write 0 or more, or -1 for no limit"),
        ("pools", [{"name": "x", "slots": 1, "include_deferred": "perhaps"}],
         "airflow_pools[0] x — include_deferred is a text, neither true nor false — write true or false"),
        ("pools", [{"name": "x", "slots": 1, "state": "gone"}], "airflow_pools[0] x — state is gone — write present or absent"),
        ("pools", [{"name": "default_pool", "state": "absent"}],
         "airflow_pools[0] default_pool — is built into Airflow and cannot be absent — remove the entry"),
        ("pools", [{"name": "x" * 257, "slots": 1}],
         f"airflow_pools[0] {'x' * 257} — has a name of 257 characters — use 256 at most"),
        ("users", [{**EVE, "roles": ["Vewer"]}], "airflow_users[0] eve — has the unknown role Vewer — did you mean Viewer?"),
        ("users", [{**EVE, "roles": ["zz"]}],
         "airflow_users[0] eve — has the unknown role zz — known are Admin, Op, User, Viewer, Public; "
         "declare it in the list of roles"),
        ("users", [{**EVE, "roles": []}], "airflow_users[0] eve — has no roles — write a list such as [Viewer]"),
        ("users", [{**EVE, "roles": "Viewer"}], "airflow_users[0] eve — roles is a text — write a list such as [Viewer]"),
        ("users", [{**EVE, "email": ""}], "airflow_users[0] eve — has no email — write an address, unique among the users"),
        ("users", [{**EVE, "password": 1234}], "airflow_users[0] eve — password is a number, no text — put it in quotes"),
        ("users", [{**EVE, "password": ""}],
         "airflow_users[0] eve — password is empty — write one, or leave the key out to keep the password that the user has"),
        ("users", [EVE, {**EVE, "username": "EVE", "email": "e2@example.com"}],
         "airflow_users[1] EVE — is declared twice, first as airflow_users[0] — remove one of the two"),
        ("users", [EVE, {**EVE, "username": "adam", "email": "Eve@example.com"}],
         "airflow_users[1] adam — has the same email as airflow_users[0] — write another one"),
        ("users", [{**EVE, "username": "Admin"}],
         "airflow_users[0] Admin — is the admin user, whom airflow_admin_user, _email and _password describe — remove the entry"),
        ("users", [{"username": "admin", "state": "absent"}],
         "airflow_users[0] admin — is the admin user, whom airflow_admin_user, _email and _password describe — remove the entry"),
        ("users", [{**EVE, "email": "Admin@localhost"}],
         "airflow_users[0] eve — has the email of the admin user (airflow_admin_email) — write another one"),
        ("roles", [{"name": "Admin"}],
         "airflow_roles[0] Admin — is the role to which Airflow itself gives every permission — remove the entry"),
        ("roles", [{"name": "Viewer", "state": "absent"}],
         "airflow_roles[0] Viewer — is built into Airflow and cannot be absent — remove the entry"),
        ("roles", [{"name": "r", "permissions": {"action": "can_read"}}],
         "airflow_roles[0] r — permissions is a dictionary, no list — write a list of {action: …, resource: …}"),
        ("roles", [{"name": "r", "permissions": [{"action": "can_red", "resource": "DAGs"}]}],
         "airflow_roles[0] r — permissions[0] has the action can_red — did you mean can_read?"),
        ("roles", [{"name": "r", "permissions": [{"action": "can_read"}]}],
         "airflow_roles[0] r — permissions[0] has no resource — write the name of one, such as DAGs, Connections or DAG:NAME"),
        ("roles", [{"name": "r", "permissions": [{"action": "can_read", "ressource": "DAGs", "resource": "DAGs"}]}],
         "airflow_roles[0] r — permissions[0] has the unknown key ressource — did you mean resource?"),
        ("variables", [{"key": "v"}], "airflow_variables[0] v — has no value — write one; '' is an empty text"),
        ("variables", [{"key": "v", "value": datetime.date(2026, 1, 2)}],
         f"airflow_variables[0] v — cannot be stored: value is a date, {NOT_JSON}"),
        ("variables", [{"key": "v", "value": {"a": [1, {2, 3}]}}],
         f"airflow_variables[0] v — cannot be stored: value.a[1] is a set, {NOT_JSON}"),
        ("variables", [{"key": "v", "value": float("nan")}],
         f"airflow_variables[0] v — cannot be stored: value is nan, {NOT_JSON}"),
        ("connections", [{**PG, "uri": "postgres://h", "host": "h"}],
         "airflow_connections[0] pg — has a uri and conn_type, host — write either the uri or the fields"),
        ("connections", [{"conn_id": "pg"}], "airflow_connections[0] pg — has neither conn_type nor uri — write one of them"),
        ("connections", [{**PG, "conn_id": "a b"}],
         "airflow_connections[0] a b — has a name that Airflow does not accept — use letters, digits and _ - . : / \\ # ! ( )"),
        ("connections", [{**PG, "port": 70000}], "airflow_connections[0] pg — port is 70000 — write a number from 1 to 65535"),
        ("connections", [{**PG, "port": "http"}],
         "airflow_connections[0] pg — port is a text, no whole number — write a number from 1 to 65535"),
        ("connections", [{**PG, "extra": "{secret"}],
         "airflow_connections[0] pg — extra is a text that is no JSON — write a dictionary, or a text that is JSON of one"),
        ("connections", [{**PG, "extra": [1]}],
         "airflow_connections[0] pg — extra is a list, no dictionary — write a dictionary, or a text that is JSON of one"),
        ("connections", [{"conn_id": "pg", "uri": "nonsense"}],
         "airflow_connections[0] pg — has a uri that is none — write TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE, "
         "each part quoted"),
        *(
            ("connections", [{"conn_id": "a", "conn_type": "fs"}, {"conn_id": "pg", "uri": uri}],
             f"airflow_connections[1] pg — has a uri {what} — write TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE, "
             "each part quoted")
            for uri, what in (
                ("postgres://login:S3cret/abc@host/db", "whose parts are not quoted"),
                ("postgres://user:pa[ss@host", "whose parts are not quoted"),
                ("postgres://h:70000/db", "whose parts are not quoted"),
                ("http://a:b@https://host", "whose parts are not quoted"),
                ("x://?__extra__=%7Bsecret", "whose __extra__ is no JSON of a dictionary"),
                ("a://b://c://d", "that is none"),
            )
        ),
        ("purge", ["pool"], "airflow_purge[0] — is pool — did you mean pools?"),
        ("purge", "pools",
         "airflow_purge — is a text, no list — write a list of some of roles, users, pools, variables, connections"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_its_place(kind: str, value: Any, line: str) -> None:
    assert lines(**{kind: value}) == [line]


def test_ansibles_own_types_have_plain_names() -> None:
    class Tagged(datetime.date):
        pass

    assert lines(variables=[{"key": "v", "value": {"since": Tagged(2026, 1, 2)}}]) == [
        f"airflow_variables[0] v — cannot be stored: value.since is a date, {NOT_JSON}"
    ]


def test_what_is_sound_is_not_told_of() -> None:
    assert lines() == []
    assert lines(
        roles=[{"name": "etl", "permissions": [{"action": "can_read", "resource": "DAGs"}]}, {"name": "Viewer"}],
        users=[{**EVE, "roles": ["etl", "Op"]}, {"username": "old", "state": "absent"}],
        pools=[{"name": "a", "slots": 0}, {"name": "b", "slots": -1}, {"name": "c", "slots": "7"}],
        variables=[{"key": "v", "value": []}, {"key": "w", "value": ""}, {"key": "x", "state": "absent"}],
        connections=[
            PG, {"conn_id": "u", "uri": "http://https://example.com:1/?__extra__=%7B%7D"}, {"conn_id": "old", "state": "absent"}
        ],
        purge=["pools", "users"],
    ) == []  # fmt: skip


def test_a_role_that_goes_is_nobodys() -> None:
    line = "airflow_users[0] eve — has the role etl, which is declared absent"
    found = lines(roles=[{"name": "etl", "state": "absent"}], users=[{**EVE, "roles": ["etl"]}], known_roles=False)
    assert len(found) == 1 and found[0].startswith(line)
    # Where the database may have more of them, it is asked.
    assert lines(users=[{**EVE, "roles": ["theirs"]}], known_roles=False) == []


def test_no_message_holds_a_secret() -> None:
    secret = "hush-hush-hush"
    found = lines(
        users=[{**EVE, "password": [secret]}],
        variables=[{"key": "v", "value": {"a": {secret}}}],
        connections=[{**PG, "password": {"x": secret}, "extra": secret}, {"conn_id": "u", "uri": secret}],
    )
    assert len(found) == 5 and secret not in "\n".join(found)


def test_an_entry_is_the_whole_of_its_object() -> None:
    found = rules.wanted(
        {
            "roles": [{"name": "kept"}, {"name": "r", "permissions": [{"action": "can_read", "resource": "B"}] * 2}],
            "users": [{"username": "eve", "email": "e@x", "roles": ["Op", "Op"]}],
            "pools": [{"name": "default_pool", "slots": "5"}, {"name": "x", "slots": 1, "state": "absent"}],
            "variables": [{"key": "a", "value": "5"}, {"key": "b", "value": {2: True, "1": None}}],
            "connections": [{**PG, "port": 1, "extra": {"ü": 1}, "host": ""}, {"conn_id": "u", "uri": "http://x", "host": ""}],
        },
        "airflow_",
    )
    assert [entry["fields"] for entry in found["roles"]] == [{}, {"permissions": [("can_read", "B")]}]
    user = {"username": "eve", "email": "e@x", "first_name": "eve", "last_name": "", "roles": ["Op"], "active": True}
    assert found["users"] == [{"name": "eve", "where": "airflow_users[0] eve", "present": True, "fields": user}]
    assert found["pools"][0]["fields"] == {"slots": 5, "description": "Default pool", "include_deferred": False}
    assert found["pools"][1] == {"name": "x", "where": "airflow_pools[1] x", "present": False, "fields": {}}
    assert [entry["fields"] for entry in found["variables"]] == [
        {"value": "5", "description": ""},
        {"json": '{"1": null, "2": true}', "description": ""},
    ]
    nothing = {"host": "", "login": "", "password": "", "schema": "", "description": ""}
    assert found["connections"][0]["fields"] == {"conn_type": "postgres", **nothing, "port": 1, "extra": '{"ü": 1}'}
    assert found["connections"][1]["fields"] == {"uri": "http://x", "description": ""}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AUTH_TYPE = AUTH_LDAP", "AUTH_LDAP"),
        ("from flask_appbuilder import const\nAUTH_TYPE = const.AUTH_OAUTH\n", "AUTH_OAUTH"),
        ("AUTH_TYPE = 2", "unknown"),
        ("AUTH_TYPE: int = AUTH_LDAP", "AUTH_LDAP"),
        ("AUTH_TYPE: int", "AUTH_DB"),
        ("# AUTH_TYPE = AUTH_LDAP\nX = 1", "AUTH_DB"),
    ],
)
def test_how_users_are_authenticated(text: str, kind: str) -> None:
    assert rules.auth_type(text) == kind


def test_secrets_that_no_output_may_hold() -> None:
    declared = {
        "users": [EVE, {**EVE, "password": "long-enough"}],
        "variables": [{"key": "public-name", "value": {"a": ["in-a-list", 123456789]}}],
        "connections": [
            {"conn_id": "u", "uri": "http://l:p%2Fass-word@h"},
            {**PG, "extra": {"token": "to-ken"}, "login": "not-this"},
        ],
    }
    wanted = {"long-enough", "in-a-list", "http://l:p%2Fass-word@h", "p/ass-word", "to-ken"}
    assert rules.secrets_of(declared) == wanted
