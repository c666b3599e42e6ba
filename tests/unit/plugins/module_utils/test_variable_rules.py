# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import variable_rules
from ansible_collections.windfarm.airflow.plugins.module_utils.variable_rules import (
    check_variables,
    file_problem,
    is_folder,
    is_host,
    known_variables,
    name_problem,
    number_problem,
    text_problem,
    type_problem,
    value_problems,
)

COLLECTION = pathlib.Path(__file__).resolve().parents[4]
KNOWN = known_variables(str(COLLECTION))


def lines(**variables: Any) -> list[str]:
    hosts = {"one": variables, "two": {}}
    problems, _unusable = check_variables(hosts, {host: list(names) for host, names in hosts.items()}, str(COLLECTION))
    return [str(problem) for problem in problems]


def test_known_are_the_variables_of_roles_and_playbooks() -> None:
    assert {"airflow_version", "redis_maxmemory", "airflow_adopt", "rotate", "postgresql_extra_users"} <= set(KNOWN)


def test_what_a_name_may_be() -> None:
    for name in ("airflow_version", "rotate", "my_redis_port", "ansible_host", "vault_password"):
        assert name_problem(name, KNOWN, []) is None
    assert name_problem("airflow_verison", KNOWN, []) is not None
    assert name_problem("airflow_team_size", KNOWN, ["airflow_team_*"]) is None


def test_a_renamed_variable_tells_its_new_name() -> None:
    wrong = name_problem("airflow_celery_slots", KNOWN, ["*"], {"airflow_celery_slots": "airflow_worker_concurrency"})
    assert wrong == ("has another name now", "rename it to airflow_worker_concurrency")
    assert set(variable_rules.RENAMED.values()) <= set(KNOWN)
    assert not set(variable_rules.RENAMED) & set(KNOWN)


def given_by_plays() -> set[str]:
    found = set()
    for path in sorted((COLLECTION / "playbooks").rglob("*.yml")):
        for play in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
            for role in play.get("roles") or [] if isinstance(play, dict) else []:
                found |= set(role.get("vars") or {})
    return found


def test_what_the_plays_give_the_roles_is_refused() -> None:
    # To these it adds what the inventory says.
    own = given_by_plays() - {"redis_previous_passwords", "postgresql_max_connections", "__postgresql_extra_hba_entries"}
    assert own == set(variable_rules.GIVEN_BY_PLAYS)


def test_every_variable_of_the_playbooks_is_specified() -> None:
    """Whoever sets one that is not would be refused."""
    named = re.compile(r"(?<![\w.])(?:airflow|postgresql|redis|haproxy|firewall|keepalived)_[a-z0-9_]+(?=\s*\|\s*default)")
    used = {
        name for path in (COLLECTION / "playbooks").rglob("*.yml") for name in named.findall(path.read_text(encoding="utf-8"))
    }
    used |= {
        name for path in COLLECTION.glob("roles/*/defaults/main.yml") for name in named.findall(path.read_text(encoding="utf-8"))
    }
    assert used - set(KNOWN) == set()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, "bool", None),
        ("yes", "bool", "write true or false without quotes"),
        ("maybe", "bool", "write a boolean"),
        (0, "bool", "write a boolean"),
        (7, "int", None),
        ("7", "int", "write it without quotes"),
        ("seven", "int", "write a number"),
        (True, "int", "write a number"),
        (7.5, "int", "write a number"),
        ("a", "str", None),
        (15, "str", None),
        (1.5, "str", "write it in quotes"),
        (False, "str", "write it in quotes"),
        ([], "str", "write a text"),
        (["a"], "list", None),
        ("a", "list", "write a list such as [a]"),
        ({}, "dict", None),
        ([], "dict", "write a dictionary"),
        (None, "int", "write a number, or remove the line"),
        ({"x": 1}, "raw", None),
    ],
)
def test_types(value: object, kind: str, expected: str | None) -> None:
    wrong = type_problem(value, {"type": kind})
    assert (wrong is None) == (expected is None)
    assert wrong is None or wrong.cure.startswith(str(expected))


def test_the_command_line_gives_texts_to_playbooks() -> None:
    for value, kind in (("true", "bool"), ("60", "int"), ("redis,postgresql", "list")):
        assert type_problem(value, {"type": kind, "converted": True}) is None
    assert type_problem("soon", {"type": "int", "converted": True}) is not None
    assert lines(airflow_adopt="redis, mysql") == ["airflow_adopt — is 'mysql' — write one of postgresql, redis, airflow"]


def test_no_secret_is_shown() -> None:
    for value in ("sekret", ["sekret"], {"sekret": 1}, 12.5):
        spec = {"type": "int", "no_log": True}
        for _where, wrong in value_problems("x", value, spec):
            assert "sekret" not in str(wrong) and "12.5" not in str(wrong)
    for line in lines(airflow_proxy="se kret", airflow_index_url="sekret\nx"):
        assert "kret" not in line


def test_inner_options() -> None:
    assert lines(postgresql_extra_databases=[{"name": "a", "owner": "b", "connection_limit": "5"}]) == [
        "postgresql_extra_databases — number 1 connection_limit is a text ('5'), not a number — "
        "write it without quotes; with -e write it as JSON, in a template add `| int`"
    ]
    assert lines(postgresql_extra_hba_entries=[{"database": "all", "user": "me", "method": "trust", "address": "192.0.2.1"}]) == [
        "postgresql_extra_hba_entries — number 1 method is 'trust' — write one of scram-sha-256, cert, peer, reject"
    ]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("airflow_webserver_port", 443, True),
        ("airflow_webserver_port", 0, False),
        ("airflow_db_retention_days", 0, True),
        ("airflow_db_retention_days", -1, False),
        ("airflow_worker_concurrency", 0, True),
        ("airflow_dags_keep_seconds", 0, True),
        ("airflow_dags_refresh_seconds", 0, False),
        ("airflow_tls", True, True),
        # Its default says that there is none.
        ("airflow_entry_http_port", 0, True),
    ],
)
def test_numbers(name: str, value: object, right: bool) -> None:
    assert (number_problem(name, value, KNOWN[name]) is None) == right


@pytest.mark.parametrize("text", ["/srv/airflow/dags", "/srv/a-b_c.d+e@f/", "/x"])
def test_folders(text: str) -> None:
    assert is_folder(text)


@pytest.mark.parametrize("text", ["srv", "/", "/a b", "/a%i", "/a/../b", "/a/..", "/$x", '/"x"', "/a\n", "/ä", ""])
def test_what_is_no_folder(text: str) -> None:
    assert not is_folder(text)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "worker1", "worker-1.example.org", "w_1", "10.example.org"])
def test_hosts(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize(
    "text",
    ["192.0.2.300", "192.0.2", "::", "a b", "http://a", "a:80", "-a", "a..b", "224.0.0.1"],
)
def test_what_is_no_host(text: str) -> None:
    assert not is_host(text)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("airflow_base_url", ["https://a.example.org", "http://192.0.2.1:8080/x", "https://[2001:db8::1]/"], ["a", "ftp://a"]),
        ("airflow_base_url", [], ["https://a b", "https://a:99999", "https://me:word@a", "https://a%20b"]),
        ("airflow_execution_api_url", ["http://127.0.0.1:8079/execution/", "http://a/execution"], ["http://127.0.0.1:8079"]),
        ("airflow_index_url", ["https://me:pass%40word@a/simple", "file:///srv/index"], ["a/simple", "https://"]),
        ("airflow_proxy", ["http://proxy:3128", "proxy:3128", "socks5h://proxy"], ["gopher://proxy"]),
        ("airflow_database_host", ["db1", "192.0.2.1", "2001:db8::1", "db1,db2:5433", "192.0.2.1:5432, 192.0.2.2"],
         ["db1:5433", "db1,", ",db1", "db1,db2:", "db1,db2:x", "db1,db2:0", "db1,db2:70000", "db1;db2", "db1,d b"]),
        ("airflow_database_host", ["2001:db8::1,[2001:db8::2]:5433"], ["[::1],[db2]:5433", "db1,[2001:db8::1]:", "a,b:1:2"]),
        ("airflow_database_name", ["airflow", "Airflow_2-x"], ["a/b", "pg_x", "postgres", "x" * 57, "1a", "a b"]),
        ("airflow_admin_group", ["airflow-admin", "_x"], ["Air", "a b", "%x"]),
        ("airflow_worker_writable_paths", ["/srv/a", "-/srv/a"], ["~/a"]),
        ("postgresql_backup_copy_to", ["backup@nas:/srv/x", "b.c@192.0.2.1:/"], ["nas:/x", "a@b:x", "a@b:/x y"]),
        ("postgresql_version", ["15", "17"], ["15.2", "x"]),
        ("redis_maxmemory", ["0", "512mb", "2GB", "25%"], ["half", "1.5gb", "0%", "100%"]),
        ("airflow_python", ["python3", "/usr/bin/python3.12"], ["python3 -X", "a;b"]),
        ("airflow_ca_certificate", ["-----BEGIN\nx"], []),
        ("airflow_db_clean_schedule", ["*-*-* 04:00:00"], ["a\nb", "a\rb", "a\0b"]),
    ],
)  # fmt: skip
def test_shapes(name: str, right: list[str], wrong: list[str]) -> None:
    spec = KNOWN[name]
    assert [text for text in right if text_problem(name, text, spec)] == []
    assert [text for text in wrong if not text_problem(name, text, spec)] == []
    # Empty is what the default is.
    assert text_problem(name, "", spec) is None


def test_every_shape_is_of_a_variable() -> None:
    assert set(variable_rules.SHAPES) | set(variable_rules.FILES) <= set(KNOWN)


def test_files_on_this_machine(tmp_path: pathlib.Path) -> None:
    assert file_problem("airflow_dags_source", str(tmp_path)) is None
    assert file_problem("airflow_dags_source", "") is None
    assert "no folder" in str(file_problem("airflow_dags_source", str(tmp_path / "x")))
    assert "no file" in str(file_problem("airflow_uv", str(tmp_path)))


def test_defaults_are_right() -> None:
    """What the roles and playbooks take by themselves has no problem."""
    for path in [*COLLECTION.glob("roles/*/defaults/main.yml")]:
        literal = {
            name: value for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items() if "{{" not in str(value)
        }
        assert lines(**{name: value for name, value in literal.items() if name not in variable_rules.GIVEN_BY_PLAYS}) == []
    specified = {name: spec["default"] for name, spec in KNOWN.items() if spec.get("converted") and "default" in spec}
    assert lines(**specified) == []
