# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles, users, pools, variables and connections on a real cluster: what is declared is what Airflow has.

All kinds go together through each step: a run is an ansible-playbook of its own. The steps go on from each other, and those that
are not `long` do so without the others (-m "not long")."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from api import Airflow, ApiError, wait
from content_play import Content
from cryptography.fernet import Fernet
from inventory import ROOT, Inventory
from upgrading import SITE, stream

SECRET = "hush-7f3a-%d {x} '\"ü"
BASE: dict[str, Any] = {
    "roles": {"name": "t", "permissions": [{"action": "can_read", "resource": "DAGs"}]},
    "users": {"first_name": "F", "last_name": "L", "roles": ["Viewer"], "password": SECRET, "active": True},
    "pools": {"slots": 3, "description": "d", "include_deferred": False},
    "variables": {"value": SECRET, "description": "d"},
    "connections": {
        "conn_type": "postgres", "host": "h", "login": "l", "password": SECRET, "port": 5432, "schema": "s",
        "extra": {"a": SECRET}, "description": "d",
    },
}  # fmt: skip
# A field of each kind, and its other value.
OTHER: dict[str, dict[str, Any]] = {
    "roles": {"permissions": [{"action": "can_edit", "resource": "DAGs"}, {"action": "menu_access", "resource": "Browse"}]},
    "users": {"email": "other@example.com", "first_name": "G", "last_name": "", "roles": ["Op", "User"],
              "password": f"{SECRET}2", "active": False},
    "pools": {"slots": -1, "description": "", "include_deferred": True},
    "variables": {"value": {"of": [SECRET]}, "description": ""},
    "connections": {"conn_type": "mysql", "host": "", "login": "m", "password": "", "port": 1, "schema": "",
                    "extra": {"a": "b"}, "description": "e"},
}  # fmt: skip
NAMES = {"roles": "name", "users": "username", "pools": "name", "variables": "key", "connections": "conn_id"}
TABLES = {"roles": "ab_role", "users": "ab_user", "pools": "slot_pool", "variables": "variable", "connections": "connection"}


@pytest.fixture(scope="module")
def content(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Content:
    found = Content(inventory, tmp_path_factory.mktemp("content"))
    # What an earlier run of these tests has left.
    found.must({"purge": list(TABLES), "protected_users": [inventory.common("airflow_admin_user", "admin")]})
    return found


def declared(change: bool = False, **common: Any) -> dict[str, Any]:
    """An object for each field of each kind, all alike but for their names; each with its own field changed."""
    found: dict[str, Any] = {}
    for kind, fields in OTHER.items():
        entries = []
        for field, value in fields.items():
            values = {**BASE[kind], **({field: value} if change else {}), **common, NAMES[kind]: f"t_{field}"}
            if kind == "users" and not (change and field == "email"):
                values["email"] = f"t_{field}@example.com"
            entries.append(values)
        found[kind] = entries
    return found


def everything(what: str, fields: bool = False) -> dict[tuple[str, str], Any]:
    return {(kind, f"t_{field}"): (what, [field]) if fields else what for kind, known in OTHER.items() for field in known}


def absent() -> dict[str, Any]:
    return {kind: [{NAMES[kind]: f"t_{field}", "state": "absent"} for field in known] for kind, known in OTHER.items()}


def counts(content: Content) -> dict[str, int]:
    return {kind: content.count(table) for kind, table in TABLES.items()}


def hidden(output: str) -> None:
    """No value of a secret field is in what Ansible prints, however it is quoted."""
    for word in ("hush-7f3a", "7f3a"):
        assert word not in output, output[output.index(word) - 300 :][:600]


# ------------------------------------------------------------------------------------------- the matrix, all kinds at once
def test_create(content: Content) -> None:
    before = counts(content)
    foreseen = content.must(declared(), check=True)
    assert counts(content) == before
    done = content.must(declared(), verbose=True, look=True)
    hidden(done.output)
    assert {name: what for name, (what, _fields) in done.changes.items()} == everything("created")
    assert foreseen.changes == done.changes
    assert counts(content) == {kind: before[kind] + len(OTHER[kind]) for kind in OTHER}
    assert done.info["counts"]["pools"] == before["pools"] + len(OTHER["pools"])


def test_nothing_to_do(content: Content) -> None:
    done = content.must(declared())
    assert done.changes == {} and not done.content["changed"]


def test_each_field(content: Content) -> None:
    foreseen = content.must(declared(change=True), check=True)
    hidden(foreseen.output)
    done = content.must(declared(change=True), verbose=True)
    hidden(done.output)
    assert done.changes == foreseen.changes == everything("updated", fields=True)
    assert "slots: 3" in done.output and "slots: -1" in done.output
    assert "extra: (hidden, other: a)" in done.output and "may menu_access on Browse" in done.output
    assert content.must(declared(change=True)).changes == {}


@pytest.mark.long
def test_logins_follow(content: Content, inventory: Inventory) -> None:
    def logs_in(user: str, password: str) -> bool:
        try:
            Airflow(inventory.url, user, password, inventory.ca).get("version")
        except ApiError as error:
            assert error.status == 401, error
            return False
        return True

    assert logs_in("t_password", f"{SECRET}2") and not logs_in("t_password", SECRET)
    assert not logs_in("t_active", SECRET)


def test_absent(content: Content) -> None:
    before = counts(content)
    foreseen = content.must(absent(), check=True)
    assert counts(content) == before
    done = content.must(absent())
    assert {name: what for name, (what, _fields) in done.changes.items()} == everything("removed")
    assert foreseen.changes == done.changes
    assert content.must(absent()).changes == {}


@pytest.mark.long
def test_purge(content: Content, inventory: Inventory) -> None:
    content.must(declared())
    kept = {kind: entries[:1] for kind, entries in declared().items()}
    kept["users"][0]["roles"] = ["Viewer", kept["roles"][0]["name"]]
    admin = inventory.common("airflow_admin_user", "admin")
    asked = {**kept, "purge": list(TABLES), "protected_users": [admin]}
    foreseen = content.must(asked, check=True)
    done = content.must(asked)
    assert foreseen.changes == done.changes
    removed = {name for name, (what, _fields) in done.changes.items() if what == "removed"}
    assert removed == set(everything("removed")) - {(kind, entries[0][NAMES[kind]]) for kind, entries in kept.items()}
    assert counts(content) == {"roles": 6, "users": 2, "pools": 2, "variables": 1, "connections": 1}
    assert content.must(asked).changes == {}
    # The last admin is spared where nobody names him either. A release that is only to come cannot be asked; the one here can.
    done = content.must({**asked, "protected_users": [], "release": "/opt/airflow/releases/to-come"}, check=True)
    assert done.changes == {}
    assert f"user {admin} is not declared and stays, as the last with role Admin" in done.said
    content.must(absent())


# --------------------------------------------------------------------------------------------------------------- values
VALUES: list[Any] = [
    "", " ", "plain", "100%", "%(x)s {x} ${x} $x `x`", 'quo"te\'s', "line\nline\r\n\ttab\n", "ünïcödé 漢字 🦉", "back\\slash",
    "null", "5", '{"z": 1,  "a": 2}', 5, 1.5, True, [], {}, {"b": {"ü": [1, None, "\n"]}, "a": ""}, "x" * 100_000,
]  # fmt: skip


@pytest.mark.long
def test_values_of_variables(content: Content, inventory: Inventory) -> None:
    entries = [{"key": f"v{number}", "value": value} for number, value in enumerate(VALUES)]
    assert len(content.must({"variables": entries}).changes) == len(VALUES)
    assert content.must({"variables": entries}).changes == {}
    # Airflow's export reads as JSON what is JSON.
    found = content.export("variables")
    for number, value in enumerate(VALUES):
        expected = value
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                expected = json.loads(value)
        assert found[f"v{number}"] == expected, number
    assert inventory.sql("SELECT count(*) FROM variable WHERE NOT is_encrypted OR val = 'plain'") == [["0"]]
    content.must({"purge": ["variables"]})


@pytest.mark.long
def test_values_of_connections(content: Content) -> None:
    login, password = "us:er@", "p@ss:/?#%25 'ü\""
    fields = {
        "conn_type": "postgres",
        "host": "db.example.com",
        "login": login,
        "password": password,
        "port": 5433,
        "schema": "d/b",
    }
    extra = {"sslmode": "require", "nested": {"a": [1, "\n", None]}, "empty": "", "ü": "%"}
    uri = "postgresql://us%3Aer%40:p%40ss%3A%2F%3F%23%2525%20%27%C3%BC%22@db.example.com:5433/d%2Fb"
    entries: list[dict[str, Any]] = [
        {"conn_id": "fields", **fields, "extra": extra},
        {"conn_id": "text", **fields, "extra": json.dumps(extra, indent=2)},
        {"conn_id": "uri", "uri": f"{uri}?sslmode=require&n=5"},
        {"conn_id": "socket", "uri": "postgres://u:p@%2FTmp%2FSock/db"},
        {"conn_id": "web", "uri": "http://https://example.com:8443/?a=b"},
        {"conn_id": "extra", "uri": "google-cloud-platform://?__extra__=%7B%22k%22%3A+%7B%22x%22%3A+1%7D%7D"},
        {"conn_id": "bare", "conn_type": "fs"},
    ]
    assert len(content.must({"connections": entries}).changes) == len(entries)
    # Once more, and by the other spelling: nothing of it means anything else.
    entries[1]["extra"] = extra
    entries[0]["extra"] = json.dumps(extra)
    entries[2] = {"conn_id": "uri", **fields, "extra": {"n": 5, "sslmode": "require"}}
    entries[6].update({"host": "", "extra": {}, "password": "", "description": ""})
    assert content.must({"connections": entries}).changes == {}
    found = content.export("connections")
    assert {name: found["fields"][name] for name in ("login", "password", "port", "schema")} == {
        name: fields[name] for name in ("login", "password", "port", "schema")
    }
    assert json.loads(found["fields"]["extra"]) == json.loads(found["text"]["extra"]) == extra
    assert found["uri"]["password"] == password and found["socket"]["host"] == "/Tmp/Sock"
    assert found["web"]["host"] == "https://example.com" and json.loads(found["extra"]["extra"]) == {"k": {"x": 1}}
    # A password that is declared no more is gone.
    del entries[0]["password"]
    assert content.must({"connections": entries}).changes == {("connections", "fields"): ("updated", ["password"])}
    assert not content.export("connections")["fields"]["password"]
    content.must({"purge": ["connections"]})


# ------------------------------------------------------------------------------------------------------------- refusals
def test_bad_input_is_refused_before_airflow_is_asked(content: Content) -> None:
    user = {"username": "t_new", "email": "t_new@example.com", "roles": ["Viewer"]}
    bad: dict[str, Any] = {
        "pools": [{"name": "p", "slots": 1}, {"name": "q", "slots": -3}],
        "users": [user],
        "variable_prefix": "airflow_",
    }
    done = content.run(bad)
    assert done.rc == 2 and "airflow_pools[1] q — slots is -3 — write 0 or more, or -1 for no limit" in done.said
    # What only the database knows, and still nothing is written: not the pool, which is right.
    bad["pools"][1]["slots"] = 3
    done = content.run(bad)
    assert done.rc == 2 and "airflow_users[0] t_new — is new and has no password — write one" in done.said
    bad["users"] = [{**user, "password": SECRET, "roles": ["nobody"]}]
    done = content.run(bad)
    hidden(done.output)
    assert done.rc == 2 and "airflow_users[0] t_new — has the unknown role nobody" in done.said
    assert content.inventory.sql("SELECT pool FROM slot_pool WHERE pool IN ('p', 'q')") == []


# --------------------------------------------------------------------------------------------------------------- faults
def test_a_kind_is_written_whole_or_not_at_all(content: Content, inventory: Inventory) -> None:
    inventory.sql(
        "CREATE FUNCTION t_boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.key = 'w7' THEN RAISE EXCEPTION 'boom'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER t_boom BEFORE INSERT ON variable FOR EACH ROW EXECUTE FUNCTION t_boom()"
    )
    variables = [{"key": f"w{number}", "value": SECRET} for number in range(20)]
    asked = {
        "pools": [{"name": "before", "slots": 1}],
        "variables": variables,
        "connections": [{"conn_id": "z", "conn_type": "fs"}],
    }
    try:
        done = content.run(asked)
        hidden(done.output)
        assert done.rc == 2 and "variables could not be written, and none of them was: InternalError: boom" in done.said
        assert "pools had been written before" in done.said
    finally:
        inventory.sql("DROP TRIGGER t_boom ON variable; DROP FUNCTION t_boom()")
    assert content.count("variable") == 0 and content.count("connection") == 0
    # The next run goes on from there.
    done = content.must(asked)
    assert {kind for kind, _name in done.changes} == {"variables", "connections"} and len(done.changes) == 21
    content.must({"purge": ["pools", "variables", "connections"]})


@pytest.mark.long
def test_interrupted_while_it_writes_and_run_again(content: Content, inventory: Inventory) -> None:
    asked = {
        "variables": [{"key": f"k{number}", "value": "x" * 2000} for number in range(200)],
        "pools": [{"name": "k", "slots": 1}],
    }

    def writing() -> bool:
        return bool(inventory.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))

    inventory.sql(
        "CREATE FUNCTION t_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.key = 'k100' THEN PERFORM pg_sleep(8); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER t_slow BEFORE INSERT ON variable FOR EACH ROW EXECUTE FUNCTION t_slow()"
    )
    try:
        process = subprocess.Popen(content.command(asked), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait("it writes", 60, writing)
        inventory.run(content.host, "pkill", "-KILL", "-u", "airflow-cli")
        assert process.wait() != 0
        wait("PostgreSQL has given it up", 30, lambda: not writing())
    finally:
        inventory.sql("DROP TRIGGER t_slow ON variable; DROP FUNCTION t_slow()")
    # One kind was written whole, the other not at all.
    assert content.count("slot_pool") == 2 and content.count("variable") == 0
    done = content.must(asked)
    assert done.changes.keys() == {("variables", f"k{number}") for number in range(200)} and content.count("variable") == 200
    assert content.must(asked).changes == {}
    content.must({"purge": ["pools", "variables"]})


@pytest.mark.long
def test_what_cannot_be_decrypted_is_mended(content: Content, inventory: Inventory) -> None:
    """After a Fernet key was lost, say. Airflow itself can neither show nor delete such a connection."""
    connections = [{"conn_id": f"u{n}", "conn_type": "http", "password": SECRET, "extra": {"a": SECRET}} for n in range(3)]
    variables = [{"key": "u", "value": SECRET}, {"key": "v", "value": SECRET}]
    content.must({"connections": connections, "variables": variables})
    token = Fernet(Fernet.generate_key()).encrypt(b"of another key").decode()
    inventory.sql(f"UPDATE connection SET password = '{token}', extra = '{token}'; UPDATE variable SET val = '{token}'")
    asked = {
        "connections": [connections[0], {"conn_id": "u1", "state": "absent"}],
        "variables": variables[:1],
        "purge": ["connections", "variables"],
    }
    foreseen = content.must(asked, check=True)
    done = content.must(asked)
    hidden(done.output)
    assert foreseen.changes == done.changes
    assert {name: what for name, (what, _fields) in done.changes.items()} == {
        ("variables", "u"): "updated", ("variables", "v"): "removed",
        ("connections", "u0"): "updated", ("connections", "u1"): "removed", ("connections", "u2"): "removed",
    }  # fmt: skip
    assert content.must(asked).changes == {}
    assert content.export("connections")["u0"]["password"] == content.export("variables")["u"] == SECRET
    content.must({"purge": ["connections", "variables"]})


@pytest.mark.long
def test_upstreams_default_connections(content: Content) -> None:
    asked: dict[str, Any] = {"default_connections": True}
    foreseen = content.must(asked, check=True)
    assert content.count("connection") == 0
    done = content.must(asked)
    assert done.changes[("connections", "postgres_default")][0] == "created" and len(done.changes) > 20
    assert foreseen.changes == done.changes and content.count("connection") == len(done.changes)
    assert content.must(asked).changes == {}
    # They are not declared, but wanted all the same; others are not.
    other = [{"conn_id": "other", "conn_type": "fs"}]
    content.must({"connections": other})
    gone = {("connections", "other"): "removed"}
    done = content.must({**asked, "purge": ["connections"]})
    assert {name: what for name, (what, _fields) in done.changes.items()} == gone
    # No longer wanted, they stay until they are purged.
    before = content.count("connection")
    assert content.must({"default_connections": False, "connections": [{**other[0], "state": "absent"}]}).changes == {}
    assert content.count("connection") == before
    content.must({"purge": ["connections"]})
    assert content.count("connection") == 0


@pytest.mark.long
def test_a_call_per_object_would_take(content: Content, inventory: Inventory) -> None:
    """The figure that docs/content.md compares with; three calls for each kind."""
    calls = {
        "roles": ("roles", "create", "cli{}"),
        "users": ("users", "create", "-u", "cli{}", "-e", "cli{}@example.com", "-f", "F", "-l", "L", "-r", "Viewer",
                  "--use-random-password"),
        "pools": ("pools", "set", "cli{}", "3", "d"),
        "variables": ("variables", "set", "cli{}", '{"number": 1}'),
        "connections": ("connections", "add", "cli{}", "--conn-type", "http", "--conn-host", "h"),
    }  # fmt: skip
    objects = {"roles": 3, "users": 5, "pools": 20, "variables": 200, "connections": 50}
    each = {}
    for kind, words in calls.items():
        began = time.monotonic()
        for number in range(3):
            inventory.run(content.host, "airflow", *(word.replace("{}", str(number)) for word in words))
        each[kind] = (time.monotonic() - began) / 3
    whole = sum(objects[kind] * seconds for kind, seconds in each.items())
    shown = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in each.items())
    print(f"\na call each: {shown}; for {sum(objects.values())} objects {whole:.0f} s")
    content.must({"purge": list(TABLES), "protected_users": [inventory.common("airflow_admin_user", "admin")]})


@pytest.mark.long
def test_without_postgresql(content: Content, inventory: Inventory) -> None:
    host = inventory.members["postgresql"][0]
    inventory.run(host, "systemctl", "stop", "postgresql")
    try:
        done = content.run({"pools": [{"name": "p", "slots": 1}], "wait": 3})
        assert done.rc == 2 and "PostgreSQL gave no answer for 3 s (airflow_database_wait)" in done.said
    finally:
        inventory.run(host, "systemctl", "start", "postgresql")
    done = content.must({"pools": [{"name": "p", "slots": 1}]}, look=True)
    assert done.info["migrations"]["state"] == "current" and done.info["health"]["metadatabase"]["status"] == "healthy"
    content.must({"purge": ["pools"]})


# --------------------------------------------------------------------------------------------------------------- by site.yml
def copy_of(inventory: Inventory, folder: Path, **variables: Any) -> Path:
    """An inventory that may be edited."""
    shutil.copytree(inventory.path, folder)
    dags = str(Path(inventory.path).resolve().joinpath(inventory.common("airflow_dags_source", "") or str(ROOT / "dags")))
    folder.joinpath("group_vars/all/zz_content.yml").write_text(json.dumps({"airflow_dags_source": dags, **variables}))
    return folder


@pytest.fixture(scope="module")
def copy(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With 278 objects."""
    permissions = [{"action": "can_read", "resource": name} for name in ("DAGs", "DAG Runs", "Task Logs")]
    many = {
        "airflow_roles": [{"name": f"r{number}", "permissions": permissions} for number in range(3)],
        "airflow_users": [
            {
                "username": f"u{n}",
                "email": f"u{n}@example.com",
                "roles": [f"r{n % 3}"],
                "password": f"{SECRET}{n}".replace("{x}", "x"),
            }
            for n in range(5)
        ],
        "airflow_pools": [{"name": f"p{number}", "slots": number} for number in range(20)],
        "airflow_variables": [{"key": f"v{number}", "value": {"number": number}} for number in range(200)],
        "airflow_connections": [
            {"conn_id": f"c{n}", "conn_type": "http", "host": f"h{n}", "password": f"hush-7f3a-{n}", "extra": {"n": n}}
            for n in range(50)
        ],
    }
    return copy_of(inventory, tmp_path_factory.mktemp("many") / "inventory", **many)


@pytest.fixture(scope="module")
def plain(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With nothing declared."""
    return copy_of(inventory, tmp_path_factory.mktemp("plain") / "inventory")


def site(copy: Path, *words: str) -> Any:
    ansible = str(Path(shutil.which("ansible-playbook") or "ansible-playbook"))
    run = stream([ansible, "-i", str(copy), SITE, *words], copy.parent / "site.log")
    hidden(run.output)
    return run


TASK = "Bring roles, users, pools, variables and connections to what is declared"


def by_host(run: Any) -> list[str]:
    """The hosts on which the task ran."""
    part = run.output.split(TASK)[1].split("\nTASK [")[0].split("\nPLAY [")[0]
    return re.findall(r"^(?:ok|changed): \[(\S+?)\]", part, re.M)


@pytest.mark.long
def test_many_objects_by_one_host_of_two(copy: Path, content: Content, inventory: Inventory) -> None:
    # With everything that Ansible can tell: the values are in none of it.
    first = site(copy, "-vvv", "--diff")
    assert first.rc == 0, first.output[-6000:]
    assert first.changed == 1 and by_host(first) == [inventory.members["scheduler"][0]]
    assert counts(content) == {"roles": 8, "users": 6, "pools": 21, "variables": 200, "connections": 50}
    second = site(copy)
    assert second.rc == 0 and second.changed == 0, second.output[-6000:]
    print(f"\nsite.yml with 278 objects: first {first.seconds:.1f} s, second {second.seconds:.1f} s")
    print(f"of it their task: first {task_seconds(first):.1f} s, second {task_seconds(second):.1f} s")
    assert task_seconds(second) < 10


def task_seconds(run: Any) -> float:
    """From the content's task to the next one or play."""
    at = next(number for number, (_when, line) in enumerate(run.lines) if TASK in line)
    end = next(when for when, line in run.lines[at + 1 :] if line.startswith(("TASK [", "PLAY [")))
    return float(end - run.lines[at][0])


@pytest.mark.long
def test_the_other_scheduler_does_it_too(copy: Path, inventory: Inventory) -> None:
    if len(inventory.members["scheduler"]) < 2:
        pytest.skip("one scheduler's host only")
    second = inventory.members["scheduler"][1]
    run = site(copy, "--limit", second)
    assert run.rc == 0 and run.changed == 0 and by_host(run) == [second], run.output[-4000:]
    # A webserver that starts anew gives roles what is its own; that is no change to ours, as the next test sees.
    inventory.run(inventory.members["webserver"][0], "systemctl", "restart", "airflow-webserver")
    wait("the webserver is back", 120, lambda: reachable(inventory))


def reachable(inventory: Inventory) -> bool:
    try:
        # Without a login: of these, only so many are allowed in a minute.
        return bool(inventory.airflow()._send("GET", "/api/v2/version"))
    except ApiError:
        return False


@pytest.mark.long
def test_a_lost_first_host_is_named(copy: Path, inventory: Inventory) -> None:
    first = inventory.members["scheduler"][0]
    away = copy / "host_vars" / f"{first}.yml"
    away.parent.mkdir()
    # An address of the lab at which nobody is.
    away.write_text(json.dumps({"ansible_host": "10.89.77.254"}))
    run = site(copy)
    shutil.rmtree(away.parent)
    assert run.rc != 0 and run.changed == 0
    assert f"host {first} — is unreachable and belongs to" in run.said, run.output[-4000:]


def test_a_new_password_and_address_of_the_admin(plain: Path, inventory: Inventory) -> None:
    admin, old, new = (
        inventory.common("airflow_admin_user", "admin"),
        str(inventory.common("airflow_admin_password")),
        "new-Kx9-qq17-Zt55",
    )
    stored = f"SELECT username, email FROM ab_user WHERE lower(username) = lower('{admin}')"
    (found,) = inventory.sql(stored)

    def logs_in(password: str) -> bool:
        try:
            Airflow(inventory.url, admin, password, inventory.ca).get("version")
        except ApiError as error:
            assert error.status == 401
            return False
        return True

    def running() -> list[str]:
        """Of each service its process; what a timer starts for a moment is never `running`."""
        names = ("-p", "Id", "-p", "MainPID", "-p", "SubState")
        shown = [inventory.run(host, "systemctl", "show", *names, "airflow-*.service") for host in inventory.groups["airflow"]]
        return sorted(unit for unit in "\n\n".join(shown).split("\n\n") if "SubState=running" in unit)

    before = running()
    assert len(before) > 4
    overlay = plain / "group_vars/all/zzz_admin.yml"
    overlay.write_text(json.dumps({"airflow_admin_password": new, "airflow_admin_email": "other@example.com"}))
    run = site(plain)
    assert run.rc == 0 and run.changed == 1, run.output[-6000:]
    assert new not in run.output
    assert logs_in(new) and not logs_in(old)
    assert inventory.sql(stored) == [[found[0], "other@example.com"]]
    assert running() == before
    # By a name that FAB does not tell from it.
    overlay.write_text(json.dumps({"airflow_admin_user": admin.upper()}))
    assert site(plain).changed == 1 and logs_in(old)
    assert inventory.sql(stored) == [found]
    assert running() == before


@pytest.mark.long
def test_a_component_waits_for_its_schema(inventory: Inventory) -> None:
    """On another schema Airflow ends at once: the unit waits, and does not start it again and again."""
    host, unit = inventory.members["triggerer"][0], "airflow-triggerer.service"
    (found,) = inventory.sql("SELECT version_num FROM alembic_version")[0]

    def show(name: str) -> str:
        return inventory.run(host, "systemctl", "show", "-P", name, unit)

    inventory.sql("UPDATE alembic_version SET version_num = 'older'")
    try:
        inventory.run(host, "systemctl", "restart", "--no-block", unit)
        wait("it waits", 60, lambda: show("SubState") == "start-pre")
        restarts = show("NRestarts")
        time.sleep(15)
        assert (show("ActiveState"), show("NRestarts")) == ("activating", restarts)
        assert "the database has alembic_version older, this release needs" in inventory.run(
            host, "journalctl", "-u", unit, "-n", "20"
        )
    finally:
        inventory.sql(f"UPDATE alembic_version SET version_num = '{found}'")
    wait("it starts by itself", 30, lambda: show("SubState") == "running")
