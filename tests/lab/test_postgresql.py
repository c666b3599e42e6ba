# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role postgresql alone: what it leaves behind, who gets in, and what it does not do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from inventory import Inventory
from server import Role, hosts, until


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = hosts(metafunc.config.getoption("--inventory"), "postgresql")
        metafunc.parametrize("name", names, scope="module")


class PostgreSQL(Role):
    @property
    def passwords(self) -> dict[str, str]:
        return {user["name"]: user["password"] for user in self.variables["postgresql_users"]}

    @property
    def version(self) -> str:
        return self.shell("ls /etc/postgresql")

    @property
    def unit(self) -> str:
        return f"postgresql@{self.version}-main"

    @property
    def conf(self) -> str:
        return f"/etc/postgresql/{self.version}/main/conf.d/90-ansible.conf"

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self.shell(f"exec runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {database}", stdin=statement)

    def login(self, user: str, database: str, address: str = "127.0.0.1", *, password: str = "", ssl: str = "prefer",
              host: str = "") -> str:  # fmt: skip
        """What a client sees: its name and whether the connection is encrypted, or the refusal."""
        query = "select current_user, (select ssl from pg_stat_ssl where pid = pg_backend_pid())"
        script = (
            f'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -XAt -h {address} -c "{query}" '
            f"'dbname={database} user={user} sslmode={ssl} connect_timeout=5' 2>&1"
        )
        return self.inventory.run(
            host or self.host, "sh", "-c", script, stdin=(password or self.passwords[user]) + "\n", check=False
        )

    def started(self) -> str:
        return self.sql("select pg_postmaster_start_time()")


@pytest.fixture(scope="module")
def server(inventory: Inventory, name: str) -> PostgreSQL:
    return PostgreSQL(inventory, "postgresql", name)


@pytest.fixture
def address(server: PostgreSQL) -> str:
    return str(server.inventory.get(server.host, "ansible_host"))


@pytest.fixture
def restored(server: PostgreSQL) -> Iterator[PostgreSQL]:
    yield server
    server.run()


def test_runs_and_listens_where_it_should(server: PostgreSQL, address: str) -> None:
    assert server.shell(f"systemctl is-active {server.unit}; systemctl is-enabled {server.unit}").split() == [
        "active",
        "enabled",
    ]
    listening = server.shell("ss -Hltn 'sport = :5432' | awk '{print $4}'").split()
    assert sorted(listening) == sorted(["127.0.0.1:5432", f"{address}:5432"])


def test_the_cluster_checks_its_data_and_the_databases_are_utf8(server: PostgreSQL) -> None:
    assert server.sql("show data_checksums") == "on"
    assert server.sql("show max_connections") == "150"
    assert server.sql("show password_encryption") == "scram-sha-256"
    found = server.sql(
        "select datname, pg_encoding_to_char(encoding), datcollate, pg_get_userbyid(datdba) from pg_database order by 1"
    ).splitlines()
    assert "results|UTF8|C.UTF-8|results" in found
    assert "wind|UTF8|C.UTF-8|wind" in found
    assert server.sql("select rolname from pg_roles where rolsuper") == "postgres"
    assert server.sql("select rolconnlimit from pg_roles where rolname = 'wind'") == "20"


def test_each_user_enters_its_own_database_only(server: PostgreSQL, address: str) -> None:
    assert server.login("wind", "wind") == "wind|t"
    assert server.login("wind", "wind", address) == "wind|t"
    assert server.login("results", "results") == "results|t"
    assert "password authentication failed" in server.login("wind", "wind", password="wrong")
    assert "pg_hba.conf rejects" in server.login("wind", "results")
    assert "pg_hba.conf rejects" in server.login("results", "results", address)
    assert "pg_hba.conf rejects" in server.login("postgres", "wind", password="x")
    allowed = "select has_database_privilege('results', 'wind', 'CONNECT')"
    assert server.sql(allowed) == "f"
    assert server.sql("select has_schema_privilege('results', 'public', 'CREATE')", "wind") == "f"
    assert server.sql("select has_schema_privilege('wind', 'public', 'CREATE')", "wind") == "t"


def test_another_host_is_held_to_its_lines(server: PostgreSQL, address: str) -> None:
    others = [one for one in server.inventory.members["postgresql"] if one != server.host]
    if not others:
        pytest.skip("the inventory has one PostgreSQL host only")
    assert server.login("wind", "wind", address, host=others[0], ssl="require") == "wind|t"
    assert "pg_hba.conf rejects" in server.login("wind", "wind", address, host=others[0], ssl="disable")
    assert "pg_hba.conf rejects" in server.login("results", "results", address, host=others[0])


def test_a_run_that_changes_nothing_restarts_nothing(server: PostgreSQL) -> None:
    before = server.started(), server.sql("select pg_conf_load_time()")
    run = server.run()
    assert run.changed == 0
    assert (server.started(), server.sql("select pg_conf_load_time()")) == before


def test_check_mode_predicts_a_restart_and_does_nothing(server: PostgreSQL) -> None:
    before = server.started(), server.shell(f"sha256sum {server.conf}")
    run = server.run("--check", "--diff", postgresql_max_connections=160, postgresql_config={"shared_buffers": "64MB"})
    assert run.changed == 1
    assert run.restarted
    assert "restart" in run.text
    assert "shared_buffers" in run.text
    assert not server.run("--check", postgresql_config={"log_connections": True, "work_mem": "9MB"}).restarted
    assert (server.started(), server.shell(f"sha256sum {server.conf}")) == before


def test_a_setting_that_can_be_reloaded_is(restored: PostgreSQL) -> None:
    before = restored.started()
    run = restored.run(postgresql_config={"work_mem": "9MB"})
    assert run.changed == 1
    assert not run.restarted
    assert restored.sql("show work_mem") == "9MB"
    assert restored.started() == before


def test_an_interrupted_run_is_made_good(restored: PostgreSQL) -> None:
    """The files are as wished, but the run died before the reload, or before the restart."""
    wished = restored.shell(f"cat {restored.conf}")
    restored.shell(f"sed -i s/150/151/ {restored.conf}; systemctl restart {restored.unit}")
    restored.shell(f"cat > {restored.conf}", stdin=wished + "\n")
    assert restored.sql("show max_connections") == "151"
    assert restored.run().restarted
    assert restored.sql("show max_connections") == "150"
    restored.shell(f"sed -i s/150/151/ {restored.conf}; systemctl restart {restored.unit}")
    restored.shell(f"cat > {restored.conf}; systemctl reload {restored.unit}; sleep 1", stdin=wished + "\n")
    assert restored.run().restarted
    assert restored.sql("show max_connections") == "150"
    assert restored.run().changed == 0


def test_a_stopped_server_is_started(restored: PostgreSQL) -> None:
    restored.shell(f"systemctl stop {restored.unit}")
    assert restored.run("--check").changed == 1
    assert restored.run().changed == 1
    assert restored.run().changed == 0


def test_it_comes_back_after_a_crash_of_its_main_process(server: PostgreSQL) -> None:
    before = server.started()
    server.shell(f"systemctl kill --kill-who=main -s KILL {server.unit}")
    until(lambda: server.shell("runuser -u postgres -- pg_isready -q && echo yes", check=False) == "yes", 30, "an answer")
    assert server.started() != before


def test_an_address_that_could_not_be_bound_at_the_start_is_bound_later(server: PostgreSQL, address: str) -> None:
    """PostgreSQL goes on without it, and all its settings look right."""
    taken = f"import socket, time; one = socket.create_server(('{address}', 5432)); time.sleep(60)"
    server.shell(
        f'systemctl stop {server.unit}; python3 -c "{taken}" & other=$!; sleep 1; systemctl start {server.unit}; kill $other'
    )
    bound = f"ss -Hltn 'sport = :5432 and src {address}'"
    assert server.shell(bound) == ""
    assert server.run().restarted
    assert server.shell(bound) != ""


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"postgresql_config": {"work_mem": "banana"}}, "work_mem"),
        ({"postgresql_config": {"wrok_mem": "8MB"}}, "wrok_mem"),
        ({"postgresql_config": {"port": 5433}}, "postgresql_port"),
        ({"postgresql_version": "14"}, "postgresql_version"),
        ({"postgresql_listen_addresses": ["192.0.2.7"]}, "192.0.2.7"),
        (
            {"postgresql_extra_hba_entries": [{"database": "wind", "user": "wind", "address": "nobody.invalid"}]},
            "nobody.invalid",
        ),
        ({"postgresql_extra_databases": [{"name": "extra", "owner": "nobody"}]}, "postgresql_users"),
        ({"postgresql_extra_users": [{"name": "postgres", "password": "some password"}]}, "postgres"),
    ],
)
def test_bad_input_is_refused_before_any_change(server: PostgreSQL, variables: dict[str, object], word: str) -> None:
    run = server.run(ok=False, **variables)
    assert word in run.message
    assert "actions: []" in run.text


def test_a_value_that_only_the_start_refuses_is_taken_back(restored: PostgreSQL) -> None:
    before = restored.shell(f"sha256sum {restored.conf}")
    run = restored.run(ok=False, postgresql_config={"shared_buffers": "7TB"})
    assert "postgresql_config" in run.message
    assert restored.shell(f"sha256sum {restored.conf}") == before
    assert restored.login("wind", "wind") == "wind|t"


def test_the_own_name_on_a_host_that_debians_installer_set_up(restored: PostgreSQL, address: str) -> None:
    """127.0.1.1 NAME in /etc/hosts: local clients come by that address, the others by the real one."""
    restored.shell("cp /etc/hosts /etc/hosts.before; echo 127.0.1.1 own.lab.test >> /etc/hosts")
    entry = {"database": "wind", "user": "wind", "address": "own.lab.test"}
    try:
        wish = {"postgresql_listen_addresses": ["127.0.0.1", "own.lab.test"], "postgresql_hba_entries": [entry]}
        restored.run(**wish)
        assert restored.run(**wish).changed == 0
        assert restored.login("wind", "wind", "own.lab.test") == "wind|t"
        assert restored.login("wind", "wind", address) == "wind|t"
    finally:
        restored.shell("cat /etc/hosts.before > /etc/hosts; rm /etc/hosts.before")


def test_a_name_that_cannot_be_resolved_any_more_keeps_its_addresses(restored: PostgreSQL) -> None:
    entry = {"database": "wind", "user": "wind", "address": "passing.lab.test"}
    restored.shell("cp /etc/hosts /etc/hosts.before; echo 192.0.2.9 passing.lab.test >> /etc/hosts")
    try:
        assert restored.run(postgresql_extra_hba_entries=[entry]).changed == 1
        restored.shell("cat /etc/hosts.before > /etc/hosts")
        run = restored.run(postgresql_extra_hba_entries=[entry])
        assert run.changed == 0
        assert "cannot be resolved now" in run.text
    finally:
        restored.shell("cat /etc/hosts.before > /etc/hosts; rm /etc/hosts.before")


def test_a_database_that_is_not_utf8_is_refused(restored: PostgreSQL) -> None:
    restored.sql("create database old encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
    wish = {"name": "old", "owner": "wind"}
    try:
        run = restored.run(ok=False, postgresql_extra_databases=[wish])
        assert "LATIN1" in run.message
        assert "actions: []" in run.text
        assert "postgres" in restored.sql("select pg_get_userbyid(datdba) from pg_database where datname = 'old'")
    finally:
        restored.sql("drop database old")


def test_a_cluster_whose_data_is_not_mounted_is_not_made_anew(restored: PostgreSQL) -> None:
    data = f"/var/lib/postgresql/{restored.version}/main"
    restored.shell(f"systemctl stop {restored.unit}; mv {data} {data}.away; mkdir {data}")
    try:
        run = restored.run(ok=False)
        assert data in run.message
        assert restored.shell(f"ls -A {data}") == ""
    finally:
        restored.shell(f"rmdir {data}; mv {data}.away {data}; systemctl start {restored.unit}")
    assert restored.login("wind", "wind") == "wind|t"


def test_a_password_changes_for_new_connections(restored: PostgreSQL) -> None:
    users = json.loads(json.dumps(restored.variables["postgresql_users"]))
    users[0]["password"] = "ein anderes Paßwort ½"
    run = restored.run("-vvv", "--diff", postgresql_users=users)
    assert run.changed == 1
    assert "Paßwort" not in run.text
    assert restored.login("wind", "wind", password="ein anderes Paßwort ½") == "wind|t"
    assert "password authentication failed" in restored.login("wind", "wind")


def test_roles_and_databases_follow_the_wish(restored: PostgreSQL) -> None:
    restored.sql("alter role wind createdb connection limit 3; grant connect on database wind to public")
    restored.sql("grant create on schema public to public", "wind")
    assert restored.run().changed == 1
    assert restored.sql("select rolcreatedb, rolconnlimit from pg_roles where rolname = 'wind'") == "f|20"
    assert restored.sql("select has_database_privilege('results', 'wind', 'CONNECT')") == "f"
    assert restored.sql("select has_schema_privilege('results', 'public', 'CREATE')", "wind") == "f"
    assert restored.run().changed == 0


def test_passwords_are_in_no_file_and_no_log(server: PostgreSQL) -> None:
    run = server.run("-vvv", "--diff", postgresql_users=[
        {**user, "password": user["password"] + "-1"} for user in server.variables["postgresql_users"]
    ])  # fmt: skip
    again = server.run("-vvv", "--diff")
    assert run.changed == again.changed == 1
    for password in server.passwords.values():
        assert password not in run.text + again.text
        found = server.shell(
            "IFS= read -r word; { journalctl -q; cat /var/log/postgresql/*; } | grep -cF -- \"$word\"; "
            "grep -rlF -- \"$word\" /etc /tmp /var/tmp /run 2>/dev/null; exit 0",
            stdin=password + "\n",
        )  # fmt: skip
        assert found == "0"
    assert server.shell("grep -c SCRAM-SHA-256 /var/log/postgresql/*", check=False) == "0"
