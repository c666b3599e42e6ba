# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup back into its databases: beside the live ones first, then in their place. Runs on the database host.

How far a restore has come stands in the server itself. `NAME_restoring` is not whole until its comment says `restored:ID`;
that comment goes with it when it takes its place, and what it replaced says `replaced:ID`.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.postgresql_backup import (
    ID,
    BackupError,
    Server,
    Watch,
    check_files,
    compare_counts,
    conninfo,
    identifier,
    literal,
    read_manifest,
    require_space,
)

STAGED, KEPT = "_restoring", "_before_"
# Of PostgreSQL: longer names are cut.
LONGEST = 63
LISTS = ("search_path", "session_preload_libraries", "local_preload_libraries", "temp_tablespaces")
_MARK = re.compile(r" ?\b(?:restoring|restored|replaced):(\S+)")


def beside(name: str, suffix: str) -> str:
    """A name for a database that belongs to this one."""
    return name.encode()[: LONGEST - len(suffix)].decode(errors="ignore") + suffix


def mark(comment: str, word: str, name: str) -> str:
    """The comment with one mark of ours, or, without a word, with none."""
    plain = _MARK.sub("", comment).strip()
    return f"{plain} {word}:{name}".strip() if word else plain


def marked(found: Mapping[str, Any] | None, word: str) -> str:
    """The backup that the database's comment names with this word; empty when it does not."""
    match = re.search(rf"\b{word}:(\S+)", found["comment"] if found else "")
    return match[1] if match else ""


def locate(source: str, directory: str) -> str:
    """The folder of the backup that is asked for."""
    if not source:
        raise BackupError(f"restore_from is missing: the id of a backup in {directory} or the path of one on this host")
    path = source.rstrip("/") if source.startswith("/") else os.path.join(directory, source)
    if not source.startswith("/") and not ID.match(source):
        raise BackupError(
            f"restore_from: '{source}' is neither the id of a backup, such as 20261122T051500Z, nor an absolute path"
        )
    if not os.path.isdir(path):
        known = (
            ", ".join(sorted(name for name in os.listdir(directory) if ID.match(name))[-5:]) if os.path.isdir(directory) else ""
        )
        raise BackupError(f"restore_from: there is no backup {path} on this host; the last ones are: {known or 'none'}")
    return path


def judge(
    manifest: Mapping[str, Any],
    databases: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    fingerprints: Sequence[str],
    migrations: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Whether a migration follows; BackupError where the backup does not fit this cluster."""
    names = [one["name"] for one in databases]
    missing = [name for name in names if name not in manifest["databases"]]
    if missing:
        raise BackupError(
            f"backup {manifest['id']} is of other databases ({', '.join(manifest['databases'])}), not of {', '.join(names)}; "
            "it belongs to another cluster"
        )
    theirs, ours = manifest["server"]["version_num"] // 10000, facts["version_num"] // 10000
    if theirs > ours:
        raise BackupError(
            f"backup {manifest['id']} is of PostgreSQL {theirs} and this server is {ours}, which cannot read it; "
            f"restore it on a host with PostgreSQL {theirs} or newer"
        )
    key = manifest["fernet"]
    if key and fingerprints and key not in fingerprints:
        raise BackupError(
            f"backup {manifest['id']} is encrypted with another airflow_fernet_key (fingerprint {key}) than the inventory's "
            f"({', '.join(fingerprints)}); put the key of that time into airflow_fernet_key, behind the present one and a comma"
        )
    for one in databases:
        if one["owner"] not in facts["roles"]:
            raise BackupError(f"the role {one['owner']} does not exist on this server; run playbooks/postgresql.yml first")
    pending = False
    for name in names:
        for table, present in manifest["databases"][name]["revisions"].items():
            known = migrations.get(table)
            if known is None:
                continue
            strange = sorted(set(present) - set(known["revisions"]))
            if strange:
                raise BackupError(
                    f"backup {manifest['id']} has a newer schema ({table} {', '.join(strange)}) than the installed release; "
                    "upgrade to the release that wrote it first"
                )
            pending |= present != known["heads"]
    return pending


class Restore:
    def __init__(self, server: Server, path: str, databases: Sequence[Mapping[str, Any]], whole: bool = True) -> None:
        self.server = server
        self.path = path
        self.databases = databases
        # Reading all of it again would make the stop longer.
        self.manifest: dict[str, Any] = check_files(path) if whole else read_manifest(path)
        self.facts = server.facts()

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    def found(self, name: str) -> dict[str, Any] | None:
        return self.facts["databases"].get(name)

    def check_archives(self) -> None:
        """A dump that pg_restore cannot read, or the server's user cannot, is known before anything is touched."""
        for one in self.databases:
            file = os.path.join(self.path, self.manifest["databases"][one["name"]]["file"])
            try:
                self.server.run(f"reading {file}", "pg_restore", "--list", file)
            except BackupError as error:
                cure = f"; run `chown -R postgres: {self.path}`" if "Permission denied" in str(error) else "; take another backup"
                raise BackupError(f"{error}{cure}") from None

    # How far it has come

    def staged(self) -> list[str]:
        """Databases that wait beside the live ones, whole."""
        names = [one["name"] for one in self.databases]
        return [name for name in names if marked(self.found(beside(name, STAGED)), "restored") == self.id]

    def phase(self, paused: str) -> str:
        """`new`, `staged`, or, while the schedulers are paused for this very backup, `swapped`."""
        names = [one["name"] for one in self.databases]
        if len(self.staged()) == len(names):
            return "staged"
        there = all(marked(self.found(name), "restored") == self.id for name in names)
        waiting = any(self.found(beside(name, STAGED)) for name in names)
        return "swapped" if there and not waiting and self.id in paused.split() else "new"

    def absent(self) -> list[str]:
        return [one["name"] for one in self.databases if not self.found(one["name"])]

    def require_space(self) -> None:
        whole = self.staged()
        sizes = [self.manifest["databases"][one["name"]]["database_bytes"] for one in self.databases if one["name"] not in whole]
        needed = int(sum(sizes) * 1.1) + min(sum(sizes), self.facts["wal"])
        # What an interrupted restore has left is dropped first.
        stale = [self.found(beside(one["name"], STAGED)) for one in self.databases if one["name"] not in whole]
        needed -= sum(one["bytes"] for one in stale if one)
        require_space([(self.facts["data_directory"], max(0, needed), "the restored databases beside the live ones")])

    # Steps

    def lost_roles(self) -> list[str]:
        """Roles that were granted something and are not on this server."""
        wanted = {role for one in self.databases for role in self._described(one)["roles"]}
        wanted |= {grant["role"] for one in self.databases for grant in self._described(one)["grants"]}
        return sorted(wanted - set(self.facts["roles"]))

    def _described(self, database: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.manifest["databases"][database["name"]])

    def stage(self) -> list[str]:
        """Every database that is not whole yet, anew; what was done."""
        done = []
        whole = self.staged()
        with Watch(self.facts["data_directory"]) as watch:
            for one in self.databases:
                if one["name"] not in whole:
                    try:
                        self._stage(one, watch)
                    except BackupError as error:
                        self._give_up(beside(one["name"], STAGED))
                        raise BackupError(f"{error}; nothing was stopped or changed") from None
                    done.append(f"restore {one['name']} into {beside(one['name'], STAGED)}")
        return done

    def _stage(self, database: Mapping[str, Any], watch: Watch) -> None:
        name, target = database["name"], beside(database["name"], STAGED)
        described, present = self._described(database), self.found(target)
        if present:
            if not _MARK.search(present["comment"]):
                raise BackupError(f"the database {target} exists and was not made by a restore; rename it, or drop it")
            self.server.drop(target)
        live = self.found(name) or described
        self._psql(
            f"making {target}",
            f"CREATE DATABASE {identifier(target)} OWNER {identifier(database['owner'])} TEMPLATE template0 ENCODING 'UTF8' "
            f"LC_COLLATE {literal(live['collate'])} LC_CTYPE {literal(live['ctype'])};\n"
            f"COMMENT ON DATABASE {identifier(target)} IS {literal(mark('', 'restoring', self.id))};\n"
            f"REVOKE ALL ON DATABASE {identifier(target)} FROM PUBLIC;\n",
        )
        self.server.run(
            f"restoring {name}", "pg_restore", "--exit-on-error", "--no-owner", f"--role={database['owner']}",
            *(["--no-privileges"] if self.lost_roles() else []), f"--jobs={min(8, os.cpu_count() or 1)}",
            f"--dbname={conninfo(target)}", os.path.join(self.path, described["file"]), watch=watch,
        )  # fmt: skip
        compare_counts(described["tables"], self.server.counts(target), name)
        # Without statistics the first queries of a scheduler would read whole tables.
        self._psql(f"analyzing {target}", "ANALYZE;\n", target)
        settings = "".join(
            # What is a list is stored as it is written.
            f"ALTER DATABASE {identifier(target)} SET {key} = {value if key in LISTS else literal(value)};\n"
            for key, value in (one.split("=", 1) for one in described["settings"])
        )
        grants = "".join(
            f"GRANT {grant['privilege']} ON DATABASE {identifier(target)} TO {identifier(grant['role'])};\n"
            for grant in described["grants"]
            if grant["role"] in self.facts["roles"]
        )
        comment = mark(described["comment"], "restored", self.id)
        self._psql(f"finishing {target}", f"{settings}{grants}COMMENT ON DATABASE {identifier(target)} IS {literal(comment)};\n")

    def _give_up(self, target: str) -> None:
        """What has failed half-way must not keep the disk full."""
        self.facts = self.server.facts()
        present = self.found(target)
        if present and marked(present, "restoring"):
            self.server.drop(target)

    def swap(self) -> list[str]:
        """All of them at once, or none: each restored database takes the name, and what had it is kept under another."""
        names = [one["name"] for one in self.databases]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        there = [name for name in names if self.found(name)]
        barred = [*there, *(beside(name, STAGED) for name in names)]
        try:
            self._bar(barred)
            self._psql("swapping the databases", self._renames(names, there, stamp))
        except BaseException:
            # Whoever worked with them works on.
            self._psql("admitting connections again", _connections(there, True))
            raise
        return [f"keep {name} as {beside(name, KEPT + stamp)}" for name in there] + [
            f"{name} is backup {self.id}" for name in names
        ]

    def _renames(self, names: Sequence[str], there: Sequence[str], stamp: str) -> str:
        lines = ["BEGIN;"]
        for name in there:
            kept = beside(name, KEPT + stamp)
            comment = mark((self.found(name) or {"comment": ""})["comment"], "replaced", self.id)
            lines += [
                f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(kept)};",
                f"COMMENT ON DATABASE {identifier(kept)} IS {literal(comment)};",
                # For superusers, who read what was forgotten, and for nobody else.
                f"ALTER DATABASE {identifier(kept)} CONNECTION LIMIT 0;",
                _connections([kept], True),
            ]
        for name in names:
            lines += [
                f"ALTER DATABASE {identifier(beside(name, STAGED))} RENAME TO {identifier(name)};",
                _connections([name], True),
            ]
        return "\n".join([*lines, "COMMIT;\n"])

    def _bar(self, names: Sequence[str]) -> None:
        self._psql("barring connections", _connections(names, False))
        listed = ", ".join(literal(name) for name in names)
        query = f"""SELECT to_json(count(pg_terminate_backend(pid))) FROM pg_stat_activity
            WHERE datname IN ({listed}) AND pid <> pg_backend_pid();"""  # noqa: S608 (names go through literal())
        deadline = time.monotonic() + 30
        while self.server.sql(query)[0]:
            if time.monotonic() > deadline:
                raise BackupError("sessions in the live databases do not end within 30 s; see pg_stat_activity, and run again")
            time.sleep(0.2)

    def _psql(self, what: str, statement: str, database: str = "postgres") -> None:
        self.server.run(what, "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database), stdin=statement)


def _connections(names: Sequence[str], allowed: bool) -> str:
    return "".join(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS {str(allowed).lower()};\n" for name in names)


def kept(facts: Mapping[str, Any], name: str, backup: str) -> str:
    """The database that the backup has replaced last; empty when there was none."""
    stem = re.compile(re.escape(beside(name, KEPT + "20261122T000000Z")[: -len("20261122T000000Z")]) + r"\d{8}T\d{6}Z$")
    found = [one for one, state in facts["databases"].items() if stem.match(one) and marked(state, "replaced") == backup]
    return max(found, default="")


def unfinished(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    """Why the schedulers must not run yet; empty when nothing is in the way."""
    for name in names:
        waiting, live = facts["databases"].get(beside(name, STAGED)), facts["databases"].get(name)
        if waiting:
            backup = marked(waiting, "restored") or marked(waiting, "restoring")
            return (
                f"the restore of {backup or 'a backup'} has not taken its place yet: {beside(name, STAGED)} waits beside {name}; "
                f"run restore.yml with the same restore_from again, or drop the databases named *{STAGED} to give it up"
            )
        if not live:
            return f"the database {name} does not exist; run restore.yml with restore_from first"
        if not live["connections"]:
            return f"the database {name} admits nobody, as in a restore that was interrupted; run it again"
    return ""


# What was forgotten ----------------------------------------------------------------------------------------------------

# Columns that every Airflow since 2.3 has. Sorted by bytes, so that two streams can be compared line by line.
RUNS = """COPY (SELECT dag_id, run_id, coalesce(state, '')
FROM dag_run ORDER BY dag_id COLLATE "C", run_id COLLATE "C") TO STDOUT;"""
TASKS = """COPY (SELECT dag_id, run_id, task_id, map_index, try_number, coalesce(state, '')
FROM task_instance ORDER BY dag_id COLLATE "C", run_id COLLATE "C", task_id COLLATE "C", map_index) TO STDOUT;"""
HAS = "SELECT to_json(to_regclass('public.dag_run') IS NOT NULL AND to_regclass('public.task_instance') IS NOT NULL);"


def rows(server: Server, database: str, query: str) -> Iterator[list[str]]:
    process = server.popen(
        "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        if not (process.stdin and process.stdout and process.stderr):
            raise AssertionError("psql was started without pipes")
        process.stdin.write(query)
        process.stdin.close()
        for line in process.stdout:
            yield line.rstrip("\n").split("\t")
        error = process.stderr.read()
    if process.returncode:
        raise BackupError(f"reading {database} failed: {error.strip()}")


def differing(
    before: Iterator[list[str]], now: Iterator[list[str]], key: int, numeric: int = 0
) -> Iterator[tuple[list[str], list[str] | None]]:
    """Rows of `before` that are not in `now`, with None, or are otherwise there, with how; both sorted by their first columns."""

    def order(row: list[str]) -> list[Any]:
        # The last columns of the key may be numbers.
        return [*(part.encode() for part in row[: key - numeric]), *(int(part) for part in row[key - numeric : key])]

    other = next(now, None)
    for row in before:
        while other is not None and order(other) < order(row):
            other = next(now, None)
        if other is None or order(other) != order(row):
            yield row, None
        elif other != row:
            yield row, other


def forgotten(server: Server, before: str, now: str) -> tuple[list[list[str]], list[list[str]]]:
    """(runs, tasks) of the replaced database that the restored one does not know, or knows in another state."""
    if not all(server.sql(HAS, one)[0] for one in (before, now)):
        return [], []
    runs = [
        ["run", row[0], row[1], "", "", row[2], other[2] if other else "unknown"]
        for row, other in differing(rows(server, before, RUNS), rows(server, now, RUNS), 2)
        if other is None or other[2] != row[2]
    ]
    tasks = [
        ["task", *row[:4], attempt(row), attempt(other)]
        for row, other in differing(rows(server, before, TASKS), rows(server, now, TASKS), 4, 1)
    ]
    return runs, tasks


def attempt(row: Sequence[str] | None) -> str:
    return f"{row[5] or 'none'} try {row[4]}" if row else "unknown"


def report(runs: Sequence[Sequence[str]], tasks: Sequence[Sequence[str]], most: int = 50) -> list[str]:
    """For people: the runs, each with how many of its tasks differ, then what is left out."""
    count: dict[tuple[str, str], int] = {}
    for one in tasks:
        count[one[1], one[2]] = count.get((one[1], one[2]), 0) + 1
    lines = []
    known = set()
    for one in runs:
        known.add((one[1], one[2]))
        number = count.get((one[1], one[2]), 0)
        with_tasks = f", {number} task{'' if number == 1 else 's'}" if number else ""
        lines.append(f"{one[1]} {one[2]}: was {one[5] or 'none'}, is {one[6] or 'none'} now{with_tasks}")
    for (dag, run), number in count.items():
        if (dag, run) not in known:
            lines.append(f"{dag} {run}: {number} task{'' if number == 1 else 's'} went on since the backup")
    left = len(lines) - most
    return lines[:most] + ([f"… and {left} more runs"] if left > 0 else [])
