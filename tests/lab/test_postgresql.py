# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role postgresql alone: what it leaves behind, who gets in, and what it does not do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from inventory import Inventory
from server import Role, hosts, until


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = hosts(metafunc.config.getoption("--inventory"), "postgresql")
        metafunc.parametrize("name", names, scope="module")


# The owner, as which the session acts, may not look up the connection of its login.
WHO = "set role none; select session_user, (select ssl from pg_stat_ssl where pid = pg_backend_pid())"


class PostgreSQL(Role):
    @property
    def passwords(self) -> dict[str, str]:
        return {user["name"]: user["password"] for user in self.variables["postgresql_users"] if "password" in user}

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
              host: str = "", options: str = "", query: str = WHO) -> str:  # fmt: skip
        """What a client sees: its name and whether the connection is encrypted, or the refusal."""
        script = (
            f"IFS= read -r PGPASSWORD; export PGPASSWORD; psql -XAtq -h {address} -c {shlex.quote(query)} "
            f"'dbname={database} user={user} sslmode={ssl} connect_timeout=5 {options}' 2>&1"
        )
        return self.inventory.run(
            host or self.host, "sh", "-c", script, stdin=(password or self.passwords[user]) + "\n", check=False
        )

    def confined(self) -> bool:
        # After a crash systemd knows the main process only once the start is over.
        status = self.shell(f"cat /proc/$(head -n1 /var/lib/postgresql/{self.version}/main/postmaster.pid)/status")
        return "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "CapBnd:\t0000000000000000" in status

    def shown(self) -> str:
        """The certificate that a client gets."""
        return self.shell(
            "openssl s_client -starttls postgres -connect 127.0.0.1:5432 </dev/null 2>/dev/null | "
            "openssl x509 -noout -fingerprint -sha256"
        )

    def certified(self, path: str = "/etc/server.pem") -> str:
        return self.shell(f"openssl x509 -noout -fingerprint -sha256 -in {path}")

    def make_pair(self, name: str, days: int = 9) -> None:
        address = self.inventory.get(self.host, "ansible_host")
        self.shell(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=again "
            f"-days {days} -addext subjectAltName=IP:127.0.0.1,IP:{address} -keyout /etc/{name}.key -out /etc/{name}.pem"
        )

    def owners(self, database: str) -> set[str]:
        """Who owns anything in the database, PostgreSQL itself aside."""
        return set(
            self.sql(
                "select distinct pg_get_userbyid(refobjid) from pg_shdepend where deptype = 'o' "
                "and dbid = (select oid from pg_database where datname = current_database())",
                database,
            ).splitlines()
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
    assert "wind|UTF8|C.UTF-8|wind_owner" in found
    assert server.sql("select rolname from pg_roles where rolsuper") == "postgres"
    assert server.sql("select rolconnlimit from pg_roles where rolname = 'wind'") == "20"
    assert server.sql("show idle_in_transaction_session_timeout") == "5min"
    assert server.sql("select rolcanlogin, rolpassword is null from pg_authid where rolname = 'wind_owner'") == "f|t"


def test_each_user_enters_its_own_database_only(server: PostgreSQL, address: str) -> None:
    assert server.login("wind", "wind") == "wind|t"
    assert server.login("wind", "wind", address) == "wind|t"
    assert server.login("results", "results") == "results|t"
    assert "password authentication failed" in server.login("wind", "wind", password="wrong")
    assert "pg_hba.conf rejects" in server.login("wind", "results")
    assert "pg_hba.conf rejects" in server.login("results", "results", address)
    assert "pg_hba.conf rejects" in server.login("postgres", "wind", password="x")
    assert "pg_hba.conf rejects" in server.login("wind_owner", "wind", password="x")
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


def test_only_tls_that_can_be_checked(server: PostgreSQL, address: str) -> None:
    checked = "sslrootcert=/etc/server.pem channel_binding=require"
    assert server.login("wind", "wind", ssl="verify-full", options=checked) == "wind|t"
    assert server.login("wind", "wind", address, ssl="verify-full", options=checked) == "wind|t"
    assert "certificate verify failed" in server.login(
        "wind", "wind", ssl="verify-full", options="sslrootcert=/etc/ssl/certs/ca-certificates.crt"
    )
    for user, database in (("wind", "wind"), ("results", "results")):
        assert "pg_hba.conf rejects" in server.login(user, database, ssl="disable")
    client = "openssl s_client -starttls postgres -connect 127.0.0.1:5432 -cipher ALL:@SECLEVEL=0"
    for version, answer in (("tls1", "0"), ("tls1_1", "0"), ("tls1_2", "1"), ("tls1_3", "1")):
        found = server.shell(f"{client} -{version} </dev/null 2>&1 | grep -c 'Cipher is [^(]'", check=False)
        assert found == answer, version
    where = f"/etc/postgresql/{server.version}/main/90-ansible.pem"
    assert server.shell(f"stat -c '%a %U %G' {where}") == "600 postgres postgres"


def test_a_renewed_certificate_is_reloaded(restored: PostgreSQL) -> None:
    before = restored.started()
    restored.make_pair("server")
    assert restored.run("--check", "--diff").changed == 1
    assert restored.shown() != restored.certified()
    run = restored.run("--diff")
    assert run.changed == 1
    assert not run.restarted
    assert "PRIVATE" not in run.text
    assert restored.shown() == restored.certified()
    assert restored.run().changed == 0
    assert restored.started() == before


def test_a_certificate_that_was_written_but_not_loaded_is_loaded(restored: PostgreSQL) -> None:
    restored.make_pair("server")
    where = f"/etc/postgresql/{restored.version}/main/90-ansible.pem"
    # As the module writes it, an hour ago, and no reload after it.
    restored.shell(f"cat /etc/server.pem /etc/server.key > {where}; touch -d '-1 hour' {where}")
    assert restored.shown() != restored.certified()
    assert restored.run().changed == 1
    assert restored.shown() == restored.certified()


def test_certificates_that_cannot_work_are_refused_before_any_change(server: PostgreSQL) -> None:
    server.make_pair("other")
    server.shell("cd /etc; openssl x509 -in other.pem -signkey other.key -days 0 -out old.pem; sleep 1")
    try:
        for certificate, key, words in (
            ("/etc/other.pem", "/etc/server.key", "/etc/server.key is not the key of /etc/other.pem"),
            ("/etc/old.pem", "/etc/other.key", "/etc/old.pem has expired"),
        ):
            run = server.run(ok=False, postgresql_tls_certificate=certificate, postgresql_tls_key=key)
            assert words in run.message
            assert "actions: []" in run.text
    finally:
        server.shell("cd /etc; rm other.pem other.key old.pem")


def test_without_tls_the_key_is_gone(restored: PostgreSQL) -> None:
    off = {"postgresql_tls_certificate": "", "postgresql_tls_key": ""}
    run = restored.run(**off)
    assert not run.restarted
    assert restored.shell(f"ls /etc/postgresql/{restored.version}/main | grep -c pem", check=False) == "0"
    assert restored.shown() == restored.certified("/etc/ssl/certs/ssl-cert-snakeoil.pem")
    assert restored.run(**off).changed == 0


# Who owns what

THINGS = """
create schema s; create table s.t (id serial primary key, x text); insert into s.t (x) select g from generate_series(1, 500) g;
create table big (id bigint generated always as identity, at date) partition by range (at);
create table big_1 partition of big for values from ('2026-01-01') to ('2027-01-01');
create view v as select * from s.t; create materialized view m as select * from s.t; create sequence q; select nextval('q');
create type e as enum ('a', 'b'); create domain d as text; create function f() returns int language sql as 'select 1';
select lo_create(7);
"""
NO_THINGS = """
drop materialized view m; drop view v; drop schema s cascade; drop table big; drop sequence q; drop type e; drop domain d;
drop function f(); select lo_unlink(7);
"""


def test_what_a_login_owned_goes_to_the_new_owner(restored: PostgreSQL) -> None:
    """As version 0.1.0 left it: the login owns the database and all that is in it."""
    restored.sql("create database other owner wind; alter database wind owner to wind; alter role wind reset role;"
                 "revoke wind_owner from wind; alter role wind_owner login password 'x'")  # fmt: skip
    try:
        restored.sql("set role wind;" + THINGS, "wind")
        restored.sql("set role wind; create table mine (x int)", "other")
        assert restored.owners("wind") == {"wind"}
        before = restored.started()
        assert restored.run("--check").changed == 1
        assert restored.owners("wind") == {"wind"}
        run = restored.run()
        assert run.changed == 1
        assert not run.restarted
        assert restored.started() == before
        assert restored.owners("wind") == {"wind_owner"}
        assert restored.sql(
            "select pg_get_userbyid(datdba) from pg_database where datname in ('other', 'wind') order by datname"
        ) == ("wind\nwind_owner")
        assert restored.owners("other") == {"wind"}
        query = "insert into s.t (x) values ('new'); alter table big add y int; select current_user, count(*), max(id) from s.t"
        assert restored.login("wind", "wind", query=query) == "wind_owner|501|501"
        assert restored.sql("select nextval('q')", "wind") == "2"
        assert restored.run().changed == 0
    finally:
        restored.sql("drop database other")
        restored.sql(NO_THINGS, "wind")


def test_what_an_old_session_still_makes_is_handed_over(restored: PostgreSQL) -> None:
    """Also what an interrupted run looks like that had changed the database's owner only."""
    restored.login("wind", "wind", query="set role none; create schema late; create table late.t as select 1 as x")
    assert restored.owners("wind") >= {"wind"}
    assert restored.run().changed == 1
    assert "wind" not in restored.owners("wind")
    assert restored.login("wind", "wind", query="select x from late.t; drop table late.t; drop schema late") == "1"
    assert restored.run().changed == 0


def test_a_second_login_takes_over(restored: PostgreSQL) -> None:
    wish = {
        "postgresql_extra_users": [
            {"name": "wind_b", "password": "second", "member_of": ["wind_owner"], "act_as": "wind_owner", "connection_limit": 5}
        ],
        "postgresql_extra_hba_entries": [{"type": "hostssl", "database": "wind", "user": "wind_b", "address": "127.0.0.1"}],
    }
    try:
        assert not restored.run(**wish).restarted
        assert restored.run(**wish).changed == 0
        assert (
            restored.login("wind", "wind", query="create table shared (id serial primary key); insert into shared default values")
            == ""
        )
        query = (
            "insert into shared default values; alter table shared add x int; create table by_b (); select count(*) from shared"
        )
        assert restored.login("wind_b", "wind", password="second", query=query) == "2"
        assert (
            restored.login("wind", "wind", query="drop table shared, by_b; select session_user, current_user")
            == "wind|wind_owner"
        )
        wish["postgresql_extra_users"] = [{"name": "wind_b", "login": False, "member_of": []}]
        assert restored.run(**wish).changed == 1
        assert "password authentication failed" in restored.login("wind_b", "wind", password="second")
        assert restored.sql("select rolpassword is null from pg_authid where rolname = 'wind_b'") == "t"
        assert restored.run(**wish).changed == 0
    finally:
        restored.sql("drop role if exists wind_b")


def test_memberships_follow_the_wish(restored: PostgreSQL) -> None:
    weaker = "grant wind_owner to wind with set false;" if restored.version >= "16" else ""
    for broken in (
        "alter role wind reset role; revoke wind_owner from wind",
        f"alter role wind set role = 'results'; grant wind_owner to wind with admin option; grant pg_monitor to wind; {weaker}",
    ):
        restored.sql(broken)
        assert restored.run().changed == 1
        assert restored.login("wind", "wind", query="select session_user, current_user") == "wind|wind_owner"
    assert restored.sql("select count(*) from pg_auth_members where member = 'wind'::regrole and not admin_option") == "1"
    # The role whose memberships nobody gave keeps its own.
    restored.sql("grant pg_monitor to results")
    assert restored.run().changed == 0
    restored.sql("revoke pg_monitor from results")


# The sandbox


def test_the_sandbox_is_as_tight_as_measured(server: PostgreSQL) -> None:
    score = server.shell(f"systemd-analyze security {server.unit} | sed -n 's/.*exposure level.*: \\([0-9.]*\\) .*/\\1/p'")
    assert float(score) <= 1.4
    assert server.confined()


def test_what_the_server_can_and_cannot_do_in_its_sandbox(server: PostgreSQL) -> None:
    backup = "d=$(mktemp -d -p /var/backups); chown postgres: $d; cd $d; runuser -u postgres -- "
    for command in (
        "pg_dump -Fc -f wind.dump wind && runuser -u postgres -- pg_restore -l wind.dump >/dev/null",
        "pg_basebackup -D base && test -s base/PG_VERSION",
        # By the server's own process, as archiving WAL does it.
        "psql -XAtq -c \"copy (select 1) to '$d/x'\" -c \"copy (select 1) to program 'cp -p $d/x $d/y'\"; test -s y",
    ):
        server.shell(f"set -e; {backup}{command}; rm -r $d")
    server.sql("checkpoint; alter system set work_mem = '9MB'; alter system reset work_mem")
    jit = "set jit_above_cost = 0; set jit_inline_above_cost = 0; set jit_optimize_above_cost = 0; "
    assert server.sql(jit + "select sum(1) > 0 from pg_class a, pg_class b") == "t"
    for command, refusal in (
        (f"touch /etc/postgresql/{server.version}/main/x", "Read-only"),
        ("ls /home/*", "."),
        ("cat /proc/1/status", "No such file"),
        ("unshare -U true", "not permitted"),
        ("ls /dev/kmsg", "No such file"),
    ):
        run = f"copy (select 1) to program '{command} >/var/lib/postgresql/said 2>&1 || exit 9'"
        assert "exit code 9" in server.shell(f'runuser -u postgres -- psql -XAtq -c "{run}" 2>&1', check=False), command
        said = server.shell("cat /var/lib/postgresql/said; rm /var/lib/postgresql/said")
        assert refusal in said or refusal == ".", said


@pytest.mark.long
def test_the_sandbox_can_be_left(restored: PostgreSQL) -> None:
    assert restored.run("--check", postgresql_sandbox=False).restarted
    assert restored.confined()
    assert restored.run(postgresql_sandbox=False).restarted
    assert not restored.confined()
    assert restored.run(postgresql_sandbox=False).changed == 0
    assert restored.run().restarted
    assert restored.confined()


def test_a_server_that_cannot_start_in_the_sandbox_runs_without(restored: PostgreSQL) -> None:
    own = f"/etc/systemd/system/{restored.unit}.service.d/own.conf"
    restored.run(postgresql_sandbox=False)
    restored.shell(f"printf '[Service]\\nExecStartPre=test -w /etc\\n' > {own}; systemctl daemon-reload")
    try:
        run = restored.run(ok=False)
        assert "postgresql_sandbox: the server does not start in its sandbox" in run.message
        assert restored.login("wind", "wind") == "wind|t"
    finally:
        restored.shell(f"rm {own}; systemctl daemon-reload")


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
    server.sql("create table kept as select generate_series(1, 20000) as x", "wind")
    before = server.started()
    server.shell(f"systemctl kill --kill-who=main -s KILL {server.unit}")
    until(lambda: server.shell("runuser -u postgres -- pg_isready -q && echo yes", check=False) == "yes", 30, "an answer")
    assert server.started() != before
    assert server.confined()
    assert server.sql("select count(*) from kept; drop table kept", "wind") == "20000"


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
    assert users[0]["name"] == "wind"
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
        {**user, "password": user["password"] + "-1"} if "password" in user else user
        for user in server.variables["postgresql_users"]
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
