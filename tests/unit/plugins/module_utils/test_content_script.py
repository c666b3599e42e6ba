# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the script decides. That Airflow then stores it so is seen on the lab (tests/lab/test_content.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules
from ansible_collections.windfarm.airflow.plugins.module_utils import content_script as script
from cryptography.fernet import Fernet

USER = {"email": "e@x", "first_name": "eve", "last_name": "", "active": True, "password": "hash of pw"}
FOUND: dict[str, Any] = {
    "roles": {"Admin": {"permissions": []}, "Viewer": {"permissions": [["can_read", "DAGs"]]}, "etl": {"permissions": []}},
    "users": {
        "root": {**USER, "username": "root", "email": "r@x", "roles": ["Admin"]},
        "Eve": {**USER, "username": "Eve", "roles": ["etl"]},
    },
    "pools": {"default_pool": {"slots": 128, "description": "Default pool", "include_deferred": False},
              "old": {"slots": 1, "description": "", "include_deferred": False}},
    "variables": {"a": {"value": "x", "description": ""}, "j": {"value": '{"b":1, "a": true}', "description": ""}},
    "connections": {},
}  # fmt: skip


@pytest.fixture(autouse=True)
def hashes(monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "verified", lambda stored, password: stored == f"hash of {password}")


def asked(purge: tuple[str, ...] = (), protected: tuple[str, ...] = (), **declared: Any) -> dict[str, Any]:
    wanted = json.loads(json.dumps(content_rules.wanted(declared)))
    return {"wanted": wanted, "purge": purge, "protected": protected, "kept": []}


def changes(question: dict[str, Any]) -> list[tuple[str, str, Any]]:
    script.complete(question, FOUND)
    found = script.plan(question, FOUND)
    return [(one["what"], one["name"], one["after"] or one["before"]) for kind in script.ORDER for one in found[kind]]


def test_only_what_differs_is_changed() -> None:
    pools = [{"name": "default_pool", "slots": 128}, {"name": "new", "slots": 2}, {"name": "old", "state": "absent"}]
    assert changes(asked(pools=[*pools, {"name": "never", "state": "absent"}])) == [
        ("created", "new", {"slots": 2, "include_deferred": False}),
        ("removed", "old", {"slots": 1, "include_deferred": False}),
    ]
    assert changes(asked(pools=[{"name": "old", "slots": 2, "description": "x"}])) == [
        ("updated", "old", {"slots": 2, "description": "x"})
    ]


@pytest.mark.parametrize("value", [{"a": True, "b": 1}, '{"b":1, "a": true}'])
def test_json_is_compared_by_what_it_means(value: Any) -> None:
    assert changes(asked(variables=[{"key": "j", "value": value}])) == []


@pytest.mark.parametrize("value", [{"a": 1, "b": 1}, {"a": True}, '{"a": true, "b": 1}', True, ""])
def test_other_values_are_seen(value: Any) -> None:
    after = "" if value == "" else "(hidden, other)"
    assert changes(asked(variables=[{"key": "j", "value": value}])) == [("updated", "j", {"value": after})]


def test_capitals_do_not_tell_users_apart() -> None:
    same = {"username": "Eve", "email": "e@x", "first_name": "eve", "roles": ["etl"], "password": "pw"}
    assert changes(asked(users=[same])) == []
    assert changes(asked(users=[{**same, "username": "eve"}])) == [("updated", "Eve", {"username": "eve"})]
    assert changes(asked(users=[{**same, "password": "pw2"}])) == [("updated", "Eve", {"password": "(hidden, other)"})]
    assert changes(asked(users=[{**same, "password": None}])) == []


def test_permissions_that_airflow_gives_back_are_not_taken_away() -> None:
    read = {"action": "can_read", "resource": "DAGs"}
    assert changes(asked(roles=[{"name": "etl", "permissions": []}])) == [
        ("updated", "etl", {"permissions": [["can_read", "Website"]]})
    ]
    assert changes(asked(roles=[{"name": "Viewer", "permissions": []}, {"name": "etl"}])) == []
    more = {"action": "menu_access", "resource": "Admin"}
    assert changes(asked(roles=[{"name": "Viewer", "permissions": [more]}])) == [
        ("updated", "Viewer", {"permissions": [["can_read", "DAGs"], ["menu_access", "Admin"]]})
    ]
    assert changes(asked(roles=[{"name": "Public", "permissions": [read]}])) == [
        ("created", "Public", {"permissions": [["can_read", "DAGs"]]})
    ]


def test_permissions_that_a_dag_gives_are_not_taken_away() -> None:
    own = [["can_edit", "DAG:mine"], ["can_read", "DAG Run:mine"], ["can_read", "Website"]]
    found = {**FOUND, "roles": {**FOUND["roles"], "etl": {"permissions": [*own, ["can_read", "Pools"]]}}}
    for declared, expected in (
        ([], own),
        ([("can_read", "Pools"), ("can_read", "DAG:mine")], sorted([*own, ["can_read", "Pools"], ["can_read", "DAG:mine"]])),
    ):
        permissions = [{"action": action, "resource": resource} for action, resource in declared]
        question = asked(roles=[{"name": "etl", "permissions": permissions}])
        script.complete(question, found)
        (one,) = script.plan(question, found)["roles"]
        assert one["after"]["permissions"] == expected


def test_a_purge_spares_what_is_built_in_or_protected() -> None:
    everything = ("roles", "users", "pools", "variables", "connections")
    found = [(what, name) for what, name, _fields in changes(asked(purge=everything, protected=("ROOT",)))]
    assert found == [("removed", name) for name in ("etl", "Eve", "old", "a", "j")]


def test_the_last_admin_stays() -> None:
    question = asked(purge=("users",))
    found = script.plan(question, FOUND)
    assert script.keep_an_admin(found, FOUND) == ["user root is not declared and stays, as the last with role Admin"]
    assert [one["name"] for one in found["users"]] == ["Eve"]
    root = {"username": "root", "email": "r@x", "roles": ["Admin"]}
    for change in ({"roles": ["Viewer"]}, {"active": False}, {"state": "absent"}):
        found = script.plan(asked(users=[{**root, **change}]), FOUND)
        with pytest.raises(script.Refused, match=r"users\[0\] root — was the last active user with role Admin"):
            script.keep_an_admin(found, FOUND)
    second = {"username": "Eve", "email": "e@x", "roles": ["Admin"]}
    found = script.plan(asked(users=[{**root, "state": "absent"}, second]), FOUND)
    assert script.keep_an_admin(found, FOUND) == []


def test_what_only_the_database_knows() -> None:
    def refused(**declared: Any) -> str:
        question = asked(**declared)
        with pytest.raises(script.Refused) as raised:
            script.check(question, script.plan(question, FOUND), FOUND)
        return str(raised.value)

    new = {"username": "new", "email": "n@x", "roles": ["etl"], "password": "pw"}
    question = asked(users=[new])
    script.check(question, script.plan(question, FOUND), FOUND)
    assert refused(users=[{**new, "password": None}]) == "users[0] new — is new and has no password — write one"
    assert refused(users=[{**new, "email": "R@x"}]) == "users[0] new — has the email of user root — write another one"
    assert "has the unknown role lost — known are" in refused(users=[{**new, "roles": ["lost"]}])
    assert "has the unknown role etl" in refused(users=[new], purge=("roles",))


def test_a_resource_that_nobody_knows_is_told() -> None:
    permissions = [{"action": "can_read", "resource": name} for name in ("Conections", "DAG:mine", "Pools")]
    question = asked(roles=[{"name": "etl", "permissions": permissions}])
    found = script.unknown_resources(question, script.plan(question, FOUND), {"Connections", "Pools"})
    assert found == ["roles[0] etl: Airflow knows no resource Conections yet; did you mean Connections?"]


@pytest.mark.parametrize(
    ("uri", "fields"),
    [
        ("postgresql://u%40:p%2F@h:5432/db", {"conn_type": "postgres", "login": "u@", "password": "p/", "host": "h",
                                              "port": 5432, "schema": "db"}),
        ("google-cloud-platform://", {"conn_type": "google_cloud_platform"}),
        ("http://https://h:8443/?a=1&b=x", {"conn_type": "http", "host": "https://h", "port": 8443,
                                            "extra": '{"a": 1, "b": "x"}'}),
        ("x://?__extra__=%7B%22a%22%3A%201%7D", {"conn_type": "x", "extra": '{"a": 1}'}),
        ("x://h:port", None),
    ],
)  # fmt: skip
def test_uris(uri: str, fields: dict[str, Any] | None) -> None:
    nothing = {**dict.fromkeys(("conn_type", "host", "login", "password", "schema", "extra"), ""), "port": None}
    assert script.parts_of(uri) == (None if fields is None else {**nothing, **fields})


def test_a_connection_is_the_same_by_uri_and_by_fields() -> None:
    stored = {**script.parts_of("pg://u:p@h:1/s?a=1&b=%7B%22c%22%3A2%7D"), "description": ""}  # type: ignore[dict-item]
    fields = {"conn_type": "pg", "login": "u", "password": "p", "host": "h", "port": 1, "schema": "s"}
    wanted = content_rules.wanted({"connections": [{"conn_id": "c", **fields, "extra": '{"b": {"c": 2}, "a": 1}'}]})
    assert script.other_fields("connections", wanted["connections"][0]["fields"], stored, "") == {}
    wanted = content_rules.wanted({"connections": [{"conn_id": "c", **fields, "extra": {"a": 2, "d": 1}, "password": ""}]})
    assert script.other_fields("connections", wanted["connections"][0]["fields"], stored, "") == {
        "password": ["(hidden)", ""],
        "extra": ["(hidden)", "(hidden, other: a, b, d)"],
    }


def test_what_is_encrypted_is_read_with_every_key(monkeypatch: Any) -> None:
    other = Fernet(Fernet.generate_key())
    keys = [Fernet.generate_key().decode() for _number in range(2)]
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", ",".join(keys))
    decrypt = script.decrypter()
    assert decrypt is not None
    assert [script.plain(Fernet(key).encrypt(b"x").decode(), True, decrypt) for key in keys] == ["x", "x"]
    assert script.plain(other.encrypt(b"x").decode(), True, decrypt) is script.UNREADABLE
    assert script.plain("", True, decrypt) == "" and script.plain(None, False, decrypt) == ""
    # Stored before there was a key.
    assert script.plain("x", False, decrypt) is script.UNREADABLE
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    assert script.decrypter() is None and script.plain("x", False, None) == "x"


def test_a_statements_parameters_are_in_no_message() -> None:
    class Statement(Exception):
        orig = ValueError("duplicate key\nDETAIL: secret")

    assert script.first_line(Statement("(psycopg2) duplicate key [parameters: secret]")) == "Statement: duplicate key"
    # Cryptography's InvalidToken says nothing.
    assert script.first_line(KeyError()) == "KeyError"


def test_a_stored_value_that_cannot_be_read_is_written_again() -> None:
    stored = {"conn_type": "pg", "host": "", "login": "", "schema": "", "port": None, "description": ""}
    unreadable = {**stored, "password": script.UNREADABLE, "extra": script.UNREADABLE}
    found = {**FOUND, "connections": {"c": unreadable}}
    (one,) = script.plan(asked(connections=[{"conn_id": "c", "conn_type": "pg", "password": "pw"}]), found)["connections"]
    assert one["what"] == "updated" and one["after"] == {"password": "(hidden, other)", "extra": ""}
    (one,) = script.plan(asked(connections=[{"conn_id": "c", "state": "absent"}]), found)["connections"]
    assert one["what"] == "removed"
