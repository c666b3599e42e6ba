# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups are proven and private, their failures are seen, and a restore brings back what was there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh import BIN, output_of, smoke
from inventory import Inventory
from server import until

FOLDER = "/var/backups/postgresql"
KNOWN = "/etc/postgresql-backup.known_hosts"
UNIT = "postgresql-backup.service"
PASSWORD = "s3cret 'Pa%ss"
OLD = ("20200101T000000Z", "20200102T000000Z", "20200103T000000Z", "20200104T000000Z")
# What connects, runs or changes by itself while nobody does anything.
RESTLESS = {"public.job", "public.log", "public.dag_priority_parsing_request", "public.callback", "public.session"}


class Backups:
    """The database host of the cluster under test."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.host = inventory.members["postgresql"][0]
        self.database = inventory.plan["database"]["name"]

    def shell(self, script: str, *, stdin: str = "", check: bool = True) -> str:
        return self.inventory.run(self.host, "sh", "-c", script, stdin=stdin, check=check)

    def sql(self, statement: str, database: str = "postgres") -> str:
        script = f"exec runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {shlex.quote(database)}"
        return self.shell(script, stdin=statement)

    def play(self, name: str, *options: str, **variables: Any) -> tuple[int, str]:
        command = [str(BIN / "ansible-playbook"), "-i", str(Path(self.inventory.path).resolve()), f"playbooks/{name}.yml"]
        return output_of([*command, "-e", json.dumps(variables), *options], COLUMNS="500")

    def must(self, name: str, *options: str, **variables: Any) -> str:
        rc, output = self.play(name, *options, **variables)
        assert rc == 0, output[-6000:]
        return output

    def refused(self, name: str, *options: str, **variables: Any) -> str:
        """The reason, and nothing had changed before it."""
        rc, output = self.play(name, *options, **variables)
        assert rc == 2, output[-6000:]
        found = re.search(r"Task failed: (?:Module|Action) failed: (.*)", output)
        assert found, output[-6000:]
        assert not re.search(r"changed=[1-9]", output), output[-6000:]
        return found[1]

    def make(self) -> str:
        """A backup by the unit alone, which is what the timer and the playbook start."""
        self.shell(f"systemctl start {UNIT}")
        return self.ids()[-1]

    def fails(self) -> str:
        """The last line of the journal."""
        assert self.shell(f"systemctl start {UNIT} || echo failed").endswith("failed")
        said = self.shell(f"journalctl -u {UNIT} -o cat -n 20 | grep '^backup failed: '").splitlines()
        return said[-1]

    def ids(self) -> list[str]:
        return [name for name in self.shell(f"ls {FOLDER}").split() if re.match(r"^\d{8}T\d{6}Z", name)]

    def manifest(self, backup: str) -> dict[str, Any]:
        return dict(json.loads(self.shell(f"cat {FOLDER}/{backup}/manifest.json")))

    def rows(self, database: str = "") -> dict[str, int]:
        query = (
            "select format('select %L, (select count(*) from public.%I)', 'public.' || tablename, tablename) from pg_tables "
            "where schemaname = 'public' \\gexec"
        )
        lines = (line.split("|") for line in self.sql(query, database or self.database).splitlines())
        return {name: int(count) for name, count in lines if name not in RESTLESS}

    def databases(self) -> set[str]:
        return set(self.sql("select datname from pg_database").split())

    def problems(self) -> list[str]:
        output = self.must("status", airflow_status_format="json")
        report = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        return [one["problem"] for one in report["problems"] if one["host"] == self.host and "backup" in one["problem"]]


@pytest.fixture(scope="module")
def backups(inventory: Inventory) -> Iterator[Backups]:
    found = Backups(inventory)
    yield found
    for name in found.databases():
        if "_before_" in name or "_restoring" in name:
            found.sql(f'drop database "{name}" with (force)')
    found.shell(f"rm -rf {FOLDER}/forgotten-* {FOLDER}/20200*")


@pytest.fixture(scope="module")
def backup(backups: Backups) -> str:
    said = " ".join(backups.must("backup").split())
    found = re.search(r"backup (\S+) of .* is verified: .* it needs the Fernet key with fingerprint [0-9a-f]+", said)
    assert found, said
    return found[1]


def test_a_backup_is_whole_private_and_holds_no_password(backups: Backups, backup: str) -> None:
    folder = f"{FOLDER}/{backup}"
    assert backups.shell(f"cd {folder} && sha256sum --quiet -c SHA256SUMS && echo good") == "good"
    assert set(backups.shell(f"find {FOLDER} -type d -printf '%m %u\n'").splitlines()) == {"700 postgres"}
    assert set(backups.shell(f"find {folder} -type f -printf '%m %u\n'").splitlines()) == {"600 postgres"}
    assert "CREATE ROLE" in backups.shell(f"cat {folder}/roles.sql")
    assert backups.shell(f"grep -rlE 'SCRAM|PASSWORD' {folder}", check=False) == ""
    assert not [name for name in backups.databases() if name.startswith("backup_verification_")]
    assert "is verified" in backups.shell(f"journalctl -u {UNIT} -o cat -n 5")
    manifest = backups.manifest(backup)
    keys = [
        line for line in backups.sql("select shobj_description(oid, 'pg_database') from pg_database").split() if "fernet" in line
    ]
    assert f"fernet:{manifest['fernet']}" in keys
    assert set(manifest["databases"]) == {backups.database, backups.inventory.plan["results_database"]["name"]}
    assert manifest["databases"][backups.database]["revisions"]["alembic_version"]


def test_it_is_scheduled_and_confined(backups: Backups) -> None:
    assert backups.shell("systemctl is-active postgresql-backup.timer; systemctl is-enabled postgresql-backup.timer").split() == [
        "active",
        "enabled",
    ]
    score = backups.shell(f"systemd-analyze security {UNIT} | sed -n 's/.*exposure level.*: \\([0-9.]*\\) .*/\\1/p'")
    assert float(score) <= 1.4
    assert backups.problems() == []


def test_check_mode_makes_none(backups: Backups, backup: str) -> None:
    before = backups.ids()
    assert "a backup would be made" in backups.must("backup", "--check")
    assert backups.ids() == before


def test_what_pg_restore_refuses_is_no_backup(backups: Backups, backup: str) -> None:
    """pg_dump is content with this, and pg_restore is not: the function finds its table only with a search path."""
    before = backups.ids()
    backups.sql(
        "create table trap_of as select 1 as x; create function trap(int) returns bool language plpgsql as "
        "'begin return exists (select from trap_of where x = $1); end'; create table trapped (x int check (trap(x))); "
        "insert into trapped values (1)",
        backups.database,
    )
    try:
        rc, output = backups.play("backup")
        assert rc == 2
        for said in (output, backups.fails()):
            assert "backup failed: restoring" in said
            assert 'relation "trap_of" does not exist' in said
        assert backups.ids() == before
        assert backups.shell(f"ls {FOLDER} | grep partial", check=False) == ""
        assert any("the last backup" in one and "trap_of" in one for one in backups.problems())
    finally:
        backups.sql("drop table trapped; drop function trap; drop table trap_of", backups.database)


def test_too_little_space_is_refused_and_seen(backups: Backups, backup: str) -> None:
    backups.shell(f"mount -t tmpfs -o size=2m,uid=$(id -u postgres),gid=$(id -g postgres),mode=700 tmpfs {FOLDER}")
    try:
        assert f"too little disk space in {FOLDER}: the dumps may need" in backups.fails()
    finally:
        backups.shell(f"umount {FOLDER}")


def test_one_at_a_time_and_what_a_crash_leaves_is_removed(backups: Backups, backup: str) -> None:
    """A lock in the way of pg_dump holds a backup up for as long as we like."""
    backups.sql("create table held ()", backups.database)
    script = f"runuser -u postgres -- psql -Xq -d {backups.database} -c 'begin; lock held; select pg_sleep(60)'"
    backups.shell(f"systemd-run -q --unit holder sh -c {shlex.quote(script)}")
    try:
        until(lambda: "AccessExclusiveLock" in backups.sql("select mode from pg_locks where relation is not null"), 20, "a lock")
        backups.shell(f"systemctl start --no-block {UNIT}")
        until(lambda: backups.shell(f"ls {FOLDER} | grep partial", check=False) != "", 20, "a backup has begun")
        second = "runuser -u postgres -- python3 -I /usr/local/lib/postgresql-backup/postgresql_backup.py 2>&1"
        assert "another backup or restore is at work" in backups.shell(second, check=False)
        backups.shell(f"systemctl kill --kill-whom=all -s KILL {UNIT}")
        until(lambda: "failed" in backups.shell(f"systemctl is-active {UNIT}", check=False), 20, "it is dead")
    finally:
        backups.shell("systemctl stop holder")
    assert "partial" in backups.shell(f"ls {FOLDER}")
    assert backups.problems()
    # As the verification of a backup that was killed leaves it.
    backups.sql("create database backup_verification_20200101t000000z_1; drop database if exists held_nothing")
    backups.sql("drop table held", backups.database)
    again = backups.make()
    assert again in backups.ids()
    assert "partial" not in backups.shell(f"ls {FOLDER}")
    assert "backup_verification_20200101t000000z_1" not in backups.databases()
    assert backups.problems() == []


def test_old_ones_go_and_the_last_ones_and_those_to_keep_stay(backups: Backups, backup: str) -> None:
    young = backups.ids()
    for name in OLD:
        backups.shell(f"cp -a {FOLDER}/{backup} {FOLDER}/{name}")
    backups.shell(f"touch {FOLDER}/{OLD[0]}/keep")
    made = backups.make()
    left = backups.ids()
    assert set(left) >= {*young, made, OLD[0]}
    assert not set(left) & set(OLD[1:2])
    backups.shell(f"rm -r {FOLDER}/{OLD[0]}")


def test_a_copy_goes_to_another_host_and_a_failed_one_is_told(backups: Backups, playbook: Callable[..., str]) -> None:
    """The other host is this one, by its address and with an account of its own."""
    address = backups.inventory.reach(backups.host)
    backups.shell(
        "id keeper 2>/dev/null || useradd --create-home --shell /bin/sh keeper; "
        "install -d -o keeper -m 700 ~keeper/.ssh ~keeper/copies; "
        "rm -f /etc/copy_key; ssh-keygen -q -t ed25519 -N '' -f /etc/copy_key; "
        "install -o keeper -m 600 /etc/copy_key.pub ~keeper/.ssh/authorized_keys"
    )
    key = " ".join(backups.shell("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    wish = {
        "postgresql_backup_copy_to": f"keeper@{address}:/home/keeper/copies",
        "postgresql_backup_copy_key_file": "/etc/copy_key",
        "postgresql_backup_copy_host_keys": [f"{address} {key}"],
    }
    try:
        playbook("postgresql", **wish)
        made = backups.make()
        assert backups.shell("ls ~keeper/copies") == made
        assert backups.shell(f"cd ~keeper/copies/{made} && sha256sum --quiet -c SHA256SUMS && echo good") == "good"
        backups.shell("chmod 500 ~keeper/copies; chown root ~keeper/copies")
        assert "the backup is on this host only, its copy to keeper@" in backups.fails()
        assert any("on this host only" in one for one in backups.problems())
        # A host that is not the one that was named gets nothing.
        backups.shell(
            f"ssh-keygen -q -t ed25519 -N '' -f /etc/copy_key_other; echo {address} $(cat /etc/copy_key_other.pub) > {KNOWN}"
        )
        assert "Host key verification failed" in backups.fails()
    finally:
        backups.shell("rm -rf /etc/copy_key* ; userdel -rf keeper 2>/dev/null", check=False)
        playbook("postgresql")
    backups.make()
    assert backups.problems() == []


# Restore


def test_what_does_not_fit_is_refused_before_anything_stops(backups: Backups, backup: str) -> None:
    units = "systemctl show -p ActiveEnterTimestamp airflow-scheduler airflow-webserver airflow-worker@*"
    scheduler = backups.inventory.members["scheduler"][0]
    before = backups.inventory.run(scheduler, "sh", "-c", units)
    yes = {"restore_confirm": backups.host}
    assert "say so with -e restore_confirm" in backups.refused("restore", restore_from=backup)
    assert "say so with -e restore_confirm" in backups.refused("restore", restore_from=backup, restore_confirm="another")
    assert "restore_from: there is no backup" in backups.refused("restore", restore_from=OLD[0], **yes)
    bad = f"{FOLDER}/{OLD[0]}"

    def damaged(script: str) -> str:
        backups.shell(f"rm -rf {bad}; cp -a {FOLDER}/{backup} {bad}; cd {bad}; {script}")
        # Without the checks of every inventory and host, which come first.
        return backups.refused("plays/restore_stage", restore_from=bad, **yes)

    sealed = "sha256sum manifest.json *.dump roles.sql > SHA256SUMS"
    dump = f"{backups.database}.dump"
    assert "is damaged: it has another checksum" in damaged(f"printf x | dd of={dump} bs=1 seek=2000 conv=notrunc status=none")
    assert "is missing" in damaged(f"rm {dump}")
    # Somebody who mends the checksums gets no further.
    assert "reading" in damaged(f"truncate -s 1000 {dump}; {sealed}")
    assert "is of other databases (other" in damaged(
        f'sed -i \'s/"{backups.database}": {{/"other": {{/\' manifest.json; {sealed}'
    )
    assert "is encrypted with another airflow_fernet_key (fingerprint aaaa" in damaged(
        f'sed -i -E \'s/"fernet": "[0-9a-f]+/"fernet": "aaaa/\' manifest.json; {sealed}'
    )
    revision = backups.manifest(backup)["databases"][backups.database]["revisions"]["alembic_version"][0]
    assert "has a newer schema" in damaged(f"sed -i s/{revision}/ffffffffffff/ manifest.json; {sealed}")
    assert "which cannot read it" in damaged(
        f'sed -i -E \'s/"version_num": [0-9]+/"version_num": 990000/\' manifest.json; {sealed}'
    )
    backups.shell(f"rm -rf {bad}")
    assert not [name for name in backups.databases() if name.endswith("_restoring")]
    assert backups.inventory.run(scheduler, "sh", "-c", units) == before


def test_a_restore_keeps_what_it_replaces_and_says_what_was_forgotten(backups: Backups, backup: str) -> None:
    scheduler = backups.inventory.members["scheduler"][0]
    backups.inventory.run(scheduler, "airflow", "connections", "delete", "kept_secret", check=False)
    backups.inventory.run(
        scheduler, "airflow", "connections", "add", "kept_secret", "--conn-type", "http", "--conn-password", PASSWORD
    )
    made = backups.make()
    rows = backups.rows()
    smoke(Path(backups.inventory.path))
    # A queue that Celery has declared and no worker empties, with two messages of different priority.
    separator = "\x06\x16"
    backups.inventory.redis("sadd", "_kombu.binding.idle", f"idle{separator}{separator}idle")
    for key in ("idle", f"idle{separator}6"):
        backups.inventory.redis("lpush", key, "message")
    restored = " ".join(backups.must("restore", restore_from=made, restore_confirm=backups.host).split())
    assert re.search(r"smoke manual__\S+: was success, is unknown now, \d+ tasks", restored)
    assert "'idle': 2" in restored.replace("''", "'")
    assert backups.inventory.redis("exists", "idle", f"idle{separator}6") == "0"
    assert backups.inventory.redis("exists", "_kombu.binding.idle", "_kombu.binding.default") == "2"
    backups.inventory.redis("del", "_kombu.binding.idle")
    assert "-e restore_resume=true" in restored
    assert backups.rows() == rows
    assert [name for name in backups.databases() if name.startswith(f"{backups.database}_before_")]
    assert backups.shell(f"stat -c '%a %U' {FOLDER}/forgotten-{made}.tsv") == "600 postgres"
    # No scheduler yet, whatever happens: not by hand, and not at boot.
    assert (
        backups.inventory.run(
            scheduler, "sh", "-c", "systemctl start airflow-scheduler; systemctl is-active airflow-scheduler", check=False
        )
        == "inactive"
    )


def test_after_a_drop_of_the_databases_all_is_there_again(backups: Backups) -> None:
    made = backups.ids()[-1]
    counts = {name: one["tables"] for name, one in backups.manifest(made)["databases"].items()}
    for name in counts:
        backups.sql(f'drop database "{name}" with (force)')
    restored = " ".join(backups.must("restore", restore_from=made, restore_confirm=backups.host).split())
    assert "there is nothing to keep" in restored
    for name, tables in counts.items():
        expected = {table: count for table, count in tables.items() if table not in RESTLESS}
        assert backups.rows(name) == expected
    scheduler = backups.inventory.members["scheduler"][0]
    backups.must("restore", restore_resume=True)
    shown = backups.inventory.run(scheduler, "airflow", "connections", "get", "kept_secret", "-o", "json")
    assert json.loads(shown)[0]["password"] == PASSWORD
    backups.inventory.run(scheduler, "airflow", "connections", "delete", "kept_secret")
    smoke(Path(backups.inventory.path))
    assert "restored:" not in backups.sql("select shobj_description(oid, 'pg_database') from pg_database")
