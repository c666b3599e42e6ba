# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
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
    found = pg.settings(["127.0.0.1", "10.0.0.1"], 5433, 200, {"Max_Connections": 300, "fsync": True, "jit": False})
    assert found == {
        "listen_addresses": "127.0.0.1, 10.0.0.1",
        "port": "5433",
        "max_connections": "300",
        "password_encryption": "scram-sha-256",
        "idle_in_transaction_session_timeout": "5min",
        "fsync": "on",
        "jit": "off",
    }


def test_settings_with_tls_take_both_parts_from_one_file() -> None:
    found = pg.settings(["127.0.0.1"], 5432, 100, {"ssl_min_protocol_version": "TLSv1.3"}, "/x.pem")
    assert {name: value for name, value in found.items() if name.startswith("ssl")} == {
        "ssl": "on",
        "ssl_cert_file": "/x.pem",
        "ssl_key_file": "/x.pem",
        "ssl_min_protocol_version": "TLSv1.3",
    }
    assert not any(name.startswith("ssl") for name in pg.settings(["127.0.0.1"], 5432, 100, {}))


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


# The unit


def test_the_sandbox_is_in_the_unit_unless_it_is_not_wanted() -> None:
    assert "CapabilityBoundingSet=\n" in pg.drop_in(True, "/var/lib/postgresql/15/main")
    assert "ProtectHome=yes" in pg.drop_in(True, "/var/lib/postgresql/15/main")
    assert pg.drop_in(False, "/data") == pg.UNIT
    assert "Restart=on-failure" in pg.UNIT


def test_a_data_directory_in_home_stays_in_sight(tmp_path: Path) -> None:
    assert "ProtectHome=no" in pg.drop_in(True, "/home/pg/data")
    (tmp_path / "link").symlink_to("/home/pg")
    assert "ProtectHome=no" in pg.drop_in(True, str(tmp_path / "link" / "data"))


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("CapBnd:\t0000000000000000\n", True),
        ("CapBnd:\t000001ffffffffff\n", False),
        ("CapBnd:\t0000000000000001\n", False),
        (None, False),
    ],
)
def test_a_process_tells_whether_it_is_confined(status: str | None, found: bool) -> None:
    assert pg.confined(status) is found


# TLS


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("pair"))


def make_pair(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "one.pem", folder / "one.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def test_a_pair_is_used_and_anything_else_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = (str(one) for one in pair)
    pg.check_pair(certificate, key)
    _other, other_key = make_pair(tmp_path)
    with pytest.raises(ServerError, match=f"postgresql_tls_key: {other_key} is not the key of {certificate}"):
        pg.check_pair(certificate, str(other_key))
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:long enough", "-out", str(locked)],
        check=True,
        capture_output=True,
    )
    (tmp_path / "empty").write_text("")
    for bad_certificate, bad_key in (
        (certificate, locked),
        (tmp_path / "empty", key),
        (certificate, tmp_path / "empty"),
        (key, key),
    ):
        with pytest.raises(
            ServerError, match=r"^postgresql_tls_certificate, postgresql_tls_key: .* the key without a passphrase$"
        ):
            pg.check_pair(str(bad_certificate), str(bad_key))


def test_one_file_holds_the_pair(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = (one.read_text() for one in pair)
    both = tmp_path / "both.pem"
    both.write_text(pg.bundle(certificate + "\n\n", key))
    pg.check_pair(str(both), str(both))
    assert pg.fingerprint(both.read_text()) == pg.fingerprint(certificate) != ""
    assert both.read_text().startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
def test_no_certificate_has_no_fingerprint(text: str | None) -> None:
    assert pg.fingerprint(text) == ""


def listen(answer: bytes, pair: tuple[Path, Path] | None = None) -> int:
    """A server for one client that asks for TLS as PostgreSQL's do."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            assert client.recv(8) == bytes([0, 0, 0, 8, 4, 210, 22, 47])
            client.sendall(answer)
            if pair:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*pair)
                context.wrap_socket(client, server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_what_a_server_shows(pair: tuple[Path, Path]) -> None:
    assert pg.served("127.0.0.1", listen(b"S", pair)) == pg.fingerprint(pair[0].read_text())
    assert pg.served("127.0.0.1", listen(b"N")) == ""
    assert pg.served("127.0.0.1", listen(b"")) == ""
    assert pg.served("127.0.0.1", listen(b"S")) == ""
    assert pg.served("127.0.0.1", 1) == ""


# Roles and databases

USER = {"name": "u", "password": "secret", "connection_limit": -1, "login": True, "member_of": None, "act_as": ""}
OWNER = {"name": "o", "password": None, "connection_limit": -1, "login": False, "member_of": None, "act_as": ""}
ACTOR = {**USER, "member_of": ["o"], "act_as": "o"}
DATABASE = {"name": "d", "owner": "u", "connection_limit": -1}


def role(**values: Any) -> dict[str, Any]:
    password = pg.scram_verifier("secret")
    standard = {
        "login": True,
        "limit": -1,
        "powers": False,
        "inherit": True,
        "password": password,
        "act_as": None,
        "member_of": [],
    }
    return {**standard, **values}


def member(**values: Any) -> dict[str, Any]:
    return {"role": "o", "full": True, "admin": False, "grantor": None, **values}


def database(**values: Any) -> dict[str, Any]:
    return {"owner": "u", "encoding": "UTF8", "limit": -1, "public": False, "owners": [], **values}


def test_nothing_to_do() -> None:
    state = {
        "roles": {"u": role(member_of=[member()], act_as="o"), "o": role(login=False, password=None)},
        "databases": {"d": database(owner="o", owners=["o"])},
    }
    assert pg.plan_objects([{**DATABASE, "owner": "o"}], [ACTOR, OWNER], state, 15) == []


def test_the_order_keeps_sessions_working() -> None:
    """A login that acts as the owner before it is handed what it owns could not use it; a grant needs both roles."""
    state = {"roles": {"u": role()}, "databases": {"d": database(owners=["u"])}}
    steps = pg.plan_objects([{**DATABASE, "owner": "o"}], [ACTOR, OWNER], state, 17)
    assert [what for what, _sql in steps] == [
        "create role o",
        "make u a member of o",
        "give database d and what is in it to o",
        "let u act as o",
    ]
    assert (
        pg.plan_objects([{**DATABASE, "owner": "o"}], [ACTOR, OWNER], {"roles": {}, "databases": {}}, 17)[-1][0]
        == "let u act as o"
    )


def test_a_missing_role_is_made_without_its_password_in_the_statement() -> None:
    ((what, sql),) = pg.plan_roles([USER], {})
    assert what == "create role u"
    assert sql.startswith('CREATE ROLE "u" LOGIN INHERIT NOSUPERUSER ')
    assert "PASSWORD 'SCRAM-SHA-256$" in sql
    assert "secret" not in what + sql


def test_a_role_that_nobody_logs_in_as_has_no_password() -> None:
    ((_what, sql),) = pg.plan_roles([OWNER], {})
    assert sql.startswith('CREATE ROLE "o" NOLOGIN ')
    assert "PASSWORD" not in sql
    ((what, sql),) = pg.plan_roles([OWNER], {"o": role()})
    assert what == "change role o"
    assert sql.startswith('ALTER ROLE "o" NOLOGIN ')
    assert sql.endswith(" PASSWORD NULL;\n")


@pytest.mark.parametrize(
    ("state", "what", "password"),
    [
        (role(limit=3), "change role u", False),
        (role(powers=True), "change role u", False),
        (role(login=False), "change role u", False),
        (role(inherit=False), "change role u", False),
        (role(password=pg.scram_verifier("old")), "set the password of role u", True),
        (role(password=None), "set the password of role u", True),
    ],
)
def test_a_role_follows(state: dict[str, Any], what: str, password: bool) -> None:
    ((said, sql),) = pg.plan_roles([USER], {"u": state})
    assert said == what
    assert sql.startswith("ALTER ROLE")
    assert ("PASSWORD" in sql) is password


@pytest.mark.parametrize(
    ("version", "present", "statements"),
    [
        (15, [], ['GRANT "o" TO "u";\n']),
        (16, [], ['GRANT "o" TO "u" WITH INHERIT TRUE, SET TRUE;\n']),
        (17, [member(full=False, grantor="x")], ['GRANT "o" TO "u" WITH INHERIT TRUE, SET TRUE;\n']),
        (17, [member(full=False, grantor="x"), member(grantor="postgres")], []),
        (15, [member(), member(role="p")], ['REVOKE "p" FROM "u" CASCADE;\n']),
        (17, [member(), member(role="p", grantor="x")], ['REVOKE "p" FROM "u" GRANTED BY "x" CASCADE;\n']),
        (15, [member(admin=True)], ['REVOKE ADMIN OPTION FOR "o" FROM "u" CASCADE;\n']),
    ],
)
def test_memberships_follow(version: int, present: list[dict[str, Any]], statements: list[str]) -> None:
    assert [sql for _what, sql in pg.plan_memberships([ACTOR], {"u": role(member_of=present)}, {"u", "o"}, version)] == statements


def test_memberships_that_nobody_gave_are_left_alone() -> None:
    assert pg.plan_memberships([USER], {"u": role(member_of=[member()])}, {"u", "o"}, 15) == []


@pytest.mark.parametrize(
    ("user", "present", "statements"),
    [
        (ACTOR, None, ["ALTER ROLE \"u\" SET role = 'o';\n"]),
        (ACTOR, "x", ["ALTER ROLE \"u\" SET role = 'o';\n"]),
        (ACTOR, "o", []),
        (USER, "o", ['ALTER ROLE "u" RESET role;\n']),
        (USER, None, []),
    ],
)
def test_sessions_follow(user: dict[str, Any], present: str | None, statements: list[str]) -> None:
    assert [sql for _what, sql in pg.plan_sessions([user], {"u": role(act_as=present)})] == statements


def test_a_missing_database_is_made_in_utf8_and_closed() -> None:
    (_what, create), (_close, revoke) = pg.plan_databases([DATABASE], {}, ["u"], [USER])
    assert "TEMPLATE template0 ENCODING 'UTF8'" in create
    assert revoke == 'REVOKE ALL ON DATABASE "d" FROM PUBLIC;\n'


@pytest.mark.parametrize(
    ("state", "sql"),
    [
        (database(limit=5), 'ALTER DATABASE "d" CONNECTION LIMIT -1;\n'),
        (database(public=True), 'REVOKE ALL ON DATABASE "d" FROM PUBLIC;\n'),
        (database(owner="x"), pg.hand_over("d", "u", ["x"])),
        (database(owner="x", owners=["x", "y", "u"]), pg.hand_over("d", "u", ["x"])),
        # What others than the owner's logins made is theirs.
        (database(owners=["x"]), None),
    ],
)
def test_a_database_follows(state: dict[str, Any], sql: str | None) -> None:
    found = [step[1] for step in pg.plan_databases([DATABASE], {"d": state}, ["u"], [USER])]
    assert found == ([sql] if sql else [])


def test_what_a_login_owns_goes_to_the_role_that_it_acts_as() -> None:
    wish = {**DATABASE, "owner": "o"}
    ((what, sql),) = pg.plan_databases([wish], {"d": database(owner="o", owners=["u", "o"])}, ["o"], [ACTOR])
    assert (what, sql) == ("give what is in database d to o", pg.hand_over("d", "o", ["u"]))
    ((_what, sql),) = pg.plan_databases([wish], {"d": database(owner="x", owners=["u", "x"])}, ["o"], [ACTOR])
    assert sql == pg.hand_over("d", "o", ["u", "x"])


def test_handing_over_happens_inside_the_database_with_quoted_names() -> None:
    sql = pg.hand_over('d"x', "o'wner", ["it's"])
    assert sql.startswith('\\connect "d""x"\nSET lock_timeout')
    # The body is one literal, so quotes inside of it are doubled once more.
    for name in ("it's", "o'wner"):
        assert pg.literal(pg.literal(name))[1:-1] in sql


def test_what_cannot_be_mended_is_refused() -> None:
    with pytest.raises(ServerError, match="'d' exists with encoding SQL_ASCII"):
        pg.plan_databases([DATABASE], {"d": database(encoding="SQL_ASCII")}, ["u"], [])
    with pytest.raises(ServerError, match="the owner 'u' of 'd' does not exist"):
        pg.plan_databases([DATABASE], {}, [], [])
    with pytest.raises(ServerError, match="'u' is to be a member of 'o', which does not exist; add it too"):
        pg.plan_objects([], [ACTOR], {"roles": {}, "databases": {}}, 15)


@pytest.mark.parametrize(
    ("databases", "users"),
    [
        ([], [{**USER, "name": "postgres"}]),
        ([], [{**USER, "name": "pg_x"}]),
        ([], [{**USER, "name": ""}]),
        ([], [{**USER, "name": "x" * 64}]),
        ([], [{**USER, "password": ""}]),
        ([], [{**USER, "password": None}]),
        ([], [{**USER, "password": "a\nb"}]),
        ([], [{**OWNER, "password": "secret"}]),
        ([], [{**OWNER, "member_of": ["x"], "act_as": "x"}]),
        ([], [{**USER, "act_as": "o"}]),
        ([], [{**USER, "member_of": ["x"], "act_as": "o"}]),
        ([], [{**USER, "member_of": ["u"]}]),
        ([], [{**USER, "member_of": ["postgres"]}]),
        ([], [{**USER, "member_of": ["a\nb"]}]),
        ([], [USER, USER]),
        ([DATABASE, DATABASE], []),
        ([{**DATABASE, "name": "template1"}], []),
        ([{**DATABASE, "name": "a\nb"}], []),
    ],
)
def test_impossible_wishes_are_refused(databases: list[dict[str, Any]], users: list[dict[str, Any]]) -> None:
    with pytest.raises(ServerError, match=r"^postgresql_(users|databases): "):
        pg.check_wishes(databases, users)


def test_possible_wishes_pass() -> None:
    pg.check_wishes([DATABASE], [ACTOR, OWNER])


def test_names_are_quoted() -> None:
    assert pg.identifier('a"b') == '"a""b"'
    assert pg.literal("a'b") == "'a''b'"
    assert "'it''s'" in pg.state_query([{"name": "it's", "owner": "o"}], [], [])
    assert "IN (NULL)" in pg.state_query([], [], [])
