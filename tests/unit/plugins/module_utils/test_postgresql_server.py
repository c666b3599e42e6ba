# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_server as pg
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError

# RFC 7677, section 3: user "user", password "pencil".
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_SERVER_KEY_PROOF = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


def entry(**values: Any) -> dict[str, Any]:
    return {"type": "host", "database": "d", "user": "u", "address": "10.0.0.1", "method": "scram-sha-256", **values}


def resolve(name: str) -> Sequence[str]:
    return {"one": ["10.0.0.5"], "two": ["10.0.0.6", "fd00::6"]}.get(name, [])


# Settings


def test_settings_hold_the_user_over_the_role() -> None:
    found = pg.settings(["127.0.0.1", "10.0.0.1"], 5433, 200, {"Max_Connections": 300, "ssl": True, "jit": False})
    assert found == {
        "listen_addresses": "127.0.0.1, 10.0.0.1",
        "port": "5433",
        "max_connections": "300",
        "password_encryption": "scram-sha-256",
        "ssl": "on",
        "jit": "off",
    }


@pytest.mark.parametrize("name", sorted(pg.RESERVED))
def test_reserved_settings_are_refused_with_the_cure(name: str) -> None:
    with pytest.raises(ServerError, match=rf"postgresql_config: '{name}' cannot be set here: .+"):
        pg.settings(["127.0.0.1"], 5432, 100, {name: "x"})


@pytest.mark.parametrize("config", [{"a b": 1}, {"a": None}, {"a": {"b": 1}}, {"a": "x\ny"}, {"a=1\nb": 2}])
def test_impossible_settings_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=r"^postgresql_config: "):
        pg.settings(["127.0.0.1"], 5432, 100, config)


def test_settings_are_quoted_and_read_back() -> None:
    values = {"a": r"it's \ 100%", "auto_explain.b": "x, y", "c": ""}
    text = pg.render_settings(values)
    assert r"a = 'it''s \\ 100%'" in text
    assert pg.read_settings(text) == values
    assert pg.read_settings(None) == {}


def test_lists_become_one_value() -> None:
    assert pg.setting_text(["pg_stat_statements", "auto_explain"]) == "pg_stat_statements, auto_explain"


# Access rules


def test_hba_ends_in_reject_and_lets_the_administrator_in_first() -> None:
    lines = pg.render_hba([], resolve).splitlines()
    assert lines[1:] == [
        "local all postgres peer",
        "local replication postgres peer",
        "local all all reject",
        "host all all all reject",
        "host replication all all reject",
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "host d u 10.0.0.1/32 scram-sha-256"),
        ({"type": "hostssl", "address": "fd00::1"}, "hostssl d u fd00::1/128 scram-sha-256"),
        ({"address": "10.1.2.3/8", "method": "reject"}, "host d u 10.0.0.0/8 reject"),
        ({"address": "samenet"}, "host d u samenet scram-sha-256"),
        ({"address": "one"}, "host d u 10.0.0.5/32 scram-sha-256 # one"),
        ({"type": "local", "address": None, "method": "peer", "options": "map=x"}, "local d u peer map=x"),
        ({"database": "a b", "user": "all"}, 'host "a b" all 10.0.0.1/32 scram-sha-256'),
        ({"user": "+group"}, 'host d "+group" 10.0.0.1/32 scram-sha-256'),
    ],
)
def test_hba_lines(values: dict[str, Any], line: str) -> None:
    assert line in pg.render_hba([entry(**values)], resolve).splitlines()


def test_hba_has_each_line_once_and_every_address_of_a_name() -> None:
    lines = pg.render_hba([entry(address="two"), entry(address="two")], resolve).splitlines()
    assert [line for line in lines if "# two" in line] == [
        "host d u 10.0.0.6/32 scram-sha-256 # two",
        "host d u fd00::6/128 scram-sha-256 # two",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"address": "unknown"},
        {"address": "10.0.0.1/99"},
        {"address": "not a name"},
        {"address": None},
        {"type": "local", "address": "10.0.0.1"},
        {"database": 'a"b'},
        {"user": "a\nhost all all all trust"},
        {"options": "x # y"},
    ],
)
def test_impossible_hba_entries_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=r"^postgresql_hba_entries: "):
        pg.render_hba([entry(**values)], resolve)


def test_the_addresses_of_names_are_read_back() -> None:
    text = pg.render_hba([entry(address="two"), entry(address="one", options="map=x"), entry()], resolve)
    assert pg.known_addresses(text) == {"two": ["10.0.0.6", "fd00::6"], "one": ["10.0.0.5"]}
    assert pg.known_addresses(None) == {}


# Passwords


def test_verifier_is_that_of_the_rfc() -> None:
    verifier = pg.scram_verifier("pencil", RFC_SALT, 4096)
    assert (
        verifier
        == f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:{RFC_SERVER_KEY_PROOF}"
    )


@pytest.mark.parametrize("password", ["plain", "p@ss:/?#[]%$\"' \\ wörd €", "x" * 300, "ﬁ²\u00a0\u00ad", "אב1", "\u0221"])
def test_a_password_matches_its_own_verifier_only(password: str) -> None:
    verifier = pg.scram_verifier(password)
    assert pg.password_matches(password, verifier)
    assert not pg.password_matches(password + "x", verifier)
    assert verifier != pg.scram_verifier(password)


@pytest.mark.parametrize("verifier", [None, "", "md5aabbcc", "SCRAM-SHA-256$4096:!$x:y"])
def test_other_verifiers_match_nothing(verifier: str | None) -> None:
    assert not pg.password_matches("x", verifier)


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        # Prohibited by the RFC; PostgreSQL takes such passwords as they are.
        ("\u0627\u0031", "\u0627\u0031"),
        ("é\u0007", "é\u0007"),
    ],
)
def test_saslprep(given: str, prepared: str) -> None:
    assert pg.saslprep(given) == prepared


# Roles and databases

USER = {"name": "u", "password": "secret", "connection_limit": -1}
DATABASE = {"name": "d", "owner": "u", "connection_limit": -1}


def role(**values: Any) -> dict[str, Any]:
    return {"login": True, "limit": -1, "powers": False, "password": pg.scram_verifier("secret"), **values}


def database(**values: Any) -> dict[str, Any]:
    return {"owner": "u", "encoding": "UTF8", "limit": -1, "public": False, **values}


def test_nothing_to_do() -> None:
    assert pg.plan_roles([USER], {"u": role()}) == []
    assert pg.plan_databases([DATABASE], {"d": database()}, ["u"]) == []


def test_a_missing_role_is_made_without_its_password_in_the_statement() -> None:
    ((what, sql),) = pg.plan_roles([USER], {})
    assert what == "create role u"
    assert sql.startswith('CREATE ROLE "u" LOGIN NOSUPERUSER ')
    assert "PASSWORD 'SCRAM-SHA-256$" in sql
    assert "secret" not in what + sql


@pytest.mark.parametrize(
    ("state", "what", "password"),
    [
        (role(limit=3), "change role u", False),
        (role(powers=True), "change role u", False),
        (role(login=False), "change role u", False),
        (role(password=pg.scram_verifier("old")), "set the password of role u", True),
        (role(password=None), "set the password of role u", True),
    ],
)
def test_a_role_follows(state: dict[str, Any], what: str, password: bool) -> None:
    ((said, sql),) = pg.plan_roles([USER], {"u": state})
    assert said == what
    assert sql.startswith("ALTER ROLE")
    assert ("PASSWORD" in sql) is password


def test_a_missing_database_is_made_in_utf8_and_closed() -> None:
    (_what, create), (_close, revoke) = pg.plan_databases([DATABASE], {}, ["u"])
    assert "TEMPLATE template0 ENCODING 'UTF8'" in create
    assert revoke == 'REVOKE ALL ON DATABASE "d" FROM PUBLIC;\n'


@pytest.mark.parametrize(
    ("state", "sql"),
    [
        (database(owner="x"), 'ALTER DATABASE "d" OWNER TO "u";\n'),
        (database(limit=5), 'ALTER DATABASE "d" CONNECTION LIMIT -1;\n'),
        (database(public=True), 'REVOKE ALL ON DATABASE "d" FROM PUBLIC;\n'),
    ],
)
def test_a_database_follows(state: dict[str, Any], sql: str) -> None:
    assert [step[1] for step in pg.plan_databases([DATABASE], {"d": state}, ["u"])] == [sql]


def test_what_cannot_be_mended_is_refused() -> None:
    with pytest.raises(ServerError, match="'d' exists with encoding SQL_ASCII"):
        pg.plan_databases([DATABASE], {"d": database(encoding="SQL_ASCII")}, ["u"])
    with pytest.raises(ServerError, match="the owner 'u' of 'd' does not exist"):
        pg.plan_databases([DATABASE], {}, [])


@pytest.mark.parametrize(
    ("databases", "users"),
    [
        ([], [{**USER, "name": "postgres"}]),
        ([], [{**USER, "name": "pg_x"}]),
        ([], [{**USER, "name": ""}]),
        ([], [{**USER, "name": "x" * 64}]),
        ([], [{**USER, "password": ""}]),
        ([], [{**USER, "password": "a\nb"}]),
        ([], [USER, USER]),
        ([DATABASE, DATABASE], []),
        ([{**DATABASE, "name": "template1"}], []),
        ([{**DATABASE, "name": "a\nb"}], []),
    ],
)
def test_impossible_wishes_are_refused(databases: list[dict[str, Any]], users: list[dict[str, Any]]) -> None:
    with pytest.raises(ServerError, match=r"^postgresql_(users|databases): "):
        pg.check_wishes(databases, users)


def test_names_are_quoted() -> None:
    assert pg.identifier('a"b') == '"a""b"'
    assert pg.literal("a'b") == "'a''b'"
    assert "'it''s'" in pg.state_query([{"name": "it's", "owner": "o"}], [], [])
    assert "IN (NULL)" in pg.state_query([], [], [])
