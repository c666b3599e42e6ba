# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of PostgreSQL databases, made, verified and read. Standard library only.

postgresql-backup.service runs this very file, as PostgreSQL's user; the modules for backup and restore import it.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

CONFIG = "/etc/postgresql-backup.json"
STATE = "/var/lib/postgresql-backup/last.json"
KNOWN_HOSTS = "/etc/postgresql-backup.known_hosts"
MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
ROLES = "roles.sql"
# Beside the manifest, made by hand: this backup is not deleted.
KEEP = "keep"
# Being made, being copied or being deleted: nobody takes it for a backup.
PARTIAL = ".partial"
SCRATCH = "backup_verification_"
FORMAT = 1
ID = re.compile(r"^\d{8}T\d{6}Z(-\d+)?$")
# Left free on every file system, for PostgreSQL must not stop because of its backup.
RESERVE = 1 << 30
# Airflow's and its auth manager's, in the order in which they are told.
REVISION_TABLES = ("alembic_version", "alembic_version_fab")
_FERNET = re.compile(r"\bfernet:([0-9a-f]+)")
_PLAIN = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")

# One JSON object: what is needed to make the database anew, besides its dump.
DATABASE = """
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'collate', datcollate, 'ctype', datctype, 'encoding', pg_encoding_to_char(encoding),
  'comment', coalesce(shobj_description(d.oid, 'pg_database'), ''),
  'database_bytes', pg_database_size(d.oid),
  'settings', (SELECT coalesce(json_agg(one), '[]') FROM pg_db_role_setting, unnest(setconfig) AS one
               WHERE setdatabase = d.oid AND setrole = 0),
  'grants', (SELECT coalesce(json_agg(json_build_object('role', pg_get_userbyid(a.grantee), 'privilege', a.privilege_type)), '[]')
             FROM aclexplode(datacl) a WHERE a.grantee <> 0 AND a.grantee <> datdba),
  'roles', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(refobjid)), '[]') FROM pg_shdepend
            WHERE dbid = d.oid AND refclassid = 'pg_authid'::regclass AND deptype <> 'o'))
FROM pg_database d WHERE datname = current_database();
"""
# What an extension brings along is not in a dump; rows of partitions are counted where they are.
TABLES = """
SELECT format('SELECT json_build_array(%L, (SELECT count(*) FROM ONLY %I.%I));',
              n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1 \\gexec
"""


class BackupError(Exception):
    """What is wrong, in one line, with the cure."""


class Stopped(BaseException):
    """A signal asked for the end; what was begun is removed on the way out."""


# The backups of a folder ---------------------------------------------------------------------------------------------


def utc(seconds: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of(text: str) -> float:
    """Of a backup's id, or of a time in ISO 8601."""
    digits = re.sub(r"[^0-9]", "", text)[:14]
    return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S")))


def size_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def ids(directory: str) -> list[str]:
    """Of complete, verified backups, the oldest first: only these have a name without a suffix."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ID.match(name) and os.path.isfile(os.path.join(directory, name, MANIFEST)))


def read_manifest(path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
    except FileNotFoundError:
        raise BackupError(f"{path} is no backup: it has no {MANIFEST}") from None
    except ValueError:
        raise BackupError(f"{path}: its {MANIFEST} is damaged; take another backup") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BackupError(f"{path}: its {MANIFEST} is of another kind; use the version of the collection that made it")
    return manifest


def last_good(directory: str) -> dict[str, Any] | None:
    """The newest one's manifest."""
    for name in reversed(ids(directory)):
        with contextlib.suppress(BackupError):
            return read_manifest(os.path.join(directory, name))
    return None


def expired(found: Sequence[str], days: int, least: int, now: float) -> list[str]:
    """Which of these ids are older than the days; the newest are always kept, one at the very least."""
    kept = max(1, least)
    return [name for name in sorted(found)[:-kept] if seconds_of(name) < now - days * 86400]


def remove(path: str) -> None:
    """Under another name first, so that an interrupted removal leaves nothing that looks like a backup."""
    doomed = path if path.endswith(PARTIAL) else path + PARTIAL
    if doomed != path:
        os.rename(path, doomed)
        fsync(os.path.dirname(path))
    shutil.rmtree(doomed)


def fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checksums(path: str) -> dict[str, str]:
    """File name -> digest, as `sha256sum` writes them."""
    try:
        with open(os.path.join(path, CHECKSUMS), encoding="utf-8") as file:
            lines = [line.rstrip("\n").split("  ", 1) for line in file]
    except FileNotFoundError:
        raise BackupError(f"{path} has no {CHECKSUMS}; take another backup") from None
    if not all(len(words) == 2 and re.match(r"^[0-9a-f]{64}$", words[0]) and "/" not in words[1] for words in lines):
        raise BackupError(f"{path}/{CHECKSUMS} is damaged; take another backup")
    return {name: digest for digest, name in lines}


def check_files(path: str) -> dict[str, Any]:
    """The manifest of a backup whose files are all there and are what they were; BackupError otherwise."""
    wanted = checksums(path)
    if MANIFEST not in wanted:
        raise BackupError(f"{path}/{CHECKSUMS} is damaged; take another backup")
    for name, digest in wanted.items():
        try:
            found = checksum(os.path.join(path, name))
        except FileNotFoundError:
            raise BackupError(f"{path}/{name} is missing; take another backup") from None
        if found != digest:
            raise BackupError(f"{path}/{name} is damaged: it has another checksum than {CHECKSUMS} says; take another backup")
    manifest = read_manifest(path)
    missing = sorted({one["file"] for one in manifest["databases"].values()} - set(wanted))
    if missing:
        raise BackupError(f"{path}/{missing[0]} has no checksum; take another backup")
    return manifest


@contextlib.contextmanager
def lock(folder: str = os.path.dirname(STATE)) -> Iterator[None]:
    """One backup or restore at a time. The folder itself is locked: a file in it could lead root, who restores, elsewhere."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("another backup or restore is at work on this host; wait for its end") from None
        yield
    finally:
        os.close(descriptor)


# Space ---------------------------------------------------------------------------------------------------------------


def free(path: str) -> tuple[int, int]:
    """What may be used there without touching the reserve, and which file system it is."""
    state = os.statvfs(path)
    total = state.f_blocks * state.f_frsize
    return state.f_bavail * state.f_frsize - min(RESERVE, total // 20), os.stat(path).st_dev


def require_space(needs: Sequence[tuple[str, int, str]]) -> None:
    """(folder, bytes, for what); what lies on one file system is added up."""
    for folder, _bytes, _what in needs:
        usable, device = free(folder)
        together = [one for one in needs if os.stat(one[0]).st_dev == device]
        needed = sum(one[1] for one in together)
        if needed > usable:
            what = " and ".join(one[2] for one in together)
            raise BackupError(
                f"too little disk space in {folder}: {what} may need {size_text(needed)}, of which {size_text(max(0, usable))} "
                "can be used; free some, or give it a larger file system"
            )


class Watch:
    """Ends the processes that it is given before they fill a disk."""

    def __init__(self, *folders: str) -> None:
        self.full = ""
        self._folders = folders
        self._process: subprocess.Popen[Any] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def over(self, process: subprocess.Popen[Any]) -> None:
        self._process = process

    def _look(self) -> None:
        while not self._ended.wait(0.3):
            for folder in self._folders:
                if free(folder)[0] < 0 and self._process is not None and self._process.poll() is None:
                    self.full = folder
                    self._process.terminate()


# The server ----------------------------------------------------------------------------------------------------------


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # psql and pg_restore say what was wrong and then where or what follows from it.
    telling = [line for line in lines if re.search(r"(ERROR|FATAL|error): ", line)]
    return (telling or lines or ["no message"])[0 if telling else -1]


class Server:
    """PostgreSQL of this host, reached by its own user over the socket; from root too."""

    def __init__(self, version: str, port: int) -> None:
        self.bin = f"/usr/lib/postgresql/{version}/bin"
        self.port = port

    def popen(self, program: str, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        as_postgres: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            [os.path.join(self.bin, program), *arguments],
            cwd="/",
            env={
                "PATH": "/usr/bin:/bin",
                "LC_ALL": "C.UTF-8",
                "PGHOST": "/var/run/postgresql",
                "PGPORT": str(self.port),
                "PGCLIENTENCODING": "UTF8",
                "PGCONNECT_TIMEOUT": "10",
                "PGAPPNAME": "postgresql-backup",
                "PGOPTIONS": "-c lc_messages=C -c client_min_messages=warning -c statement_timeout=0 -c lock_timeout=0 "
                "-c idle_in_transaction_session_timeout=0",
            },
            **as_postgres,
            **options,
        )

    def run(self, what: str, program: str, *arguments: str, stdin: str = "", watch: Watch | None = None, **options: Any) -> str:
        process = self.popen(
            program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        if watch:
            watch.over(process)
        try:
            out, err = process.communicate(stdin)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if watch and watch.full:
            raise BackupError(f"{what} was ended before it filled the disk of {watch.full}; free space, or give it a larger one")
        if process.returncode:
            raise BackupError(f"{what} failed: {last_line(err)}")
        return str(out)

    def sql(self, statement: str, database: str = "postgres", what: str = "asking PostgreSQL") -> list[Any]:
        """Rows of JSON."""
        out = self.run(what, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database), stdin=statement)
        return [json.loads(line) for line in out.splitlines() if line.strip()]

    def facts(self) -> dict[str, Any]:
        query = """SELECT json_build_object(
            'version', current_setting('server_version'), 'version_num', current_setting('server_version_num')::int,
            'identifier', (SELECT system_identifier::text FROM pg_control_system()),
            'data_directory', current_setting('data_directory'), 'wal', pg_size_bytes(current_setting('max_wal_size')),
            'databases', (SELECT json_object_agg(datname, json_build_object('oid', oid::int, 'bytes', pg_database_size(oid),
                            'comment', coalesce(shobj_description(oid, 'pg_database'), ''), 'connections', datallowconn,
                            'collate', datcollate, 'ctype', datctype))
                          FROM pg_database),
            'roles', (SELECT json_agg(rolname) FROM pg_roles));"""
        return dict(self.sql(query)[0])

    def counts(self, database: str) -> dict[str, int]:
        return dict(self.sql(TABLES, database, f"counting the rows of {database}"))

    def drop(self, database: str) -> None:
        self.run(f"dropping {database}", "dropdb", "--force", "--if-exists", "--maintenance-db=postgres", database)

    def sweep(self) -> list[str]:
        """Remove what a crashed verification has left."""
        found = [name for name in self.facts()["databases"] if name.startswith(SCRATCH)]
        for name in found:
            self.drop(name)
        return found


def conninfo(database: str) -> str:
    """A name with an equals sign would be taken for a connection string."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}'"


class Snapshot:
    """A session that holds one moment of a database, for pg_dump and for counting."""

    def __init__(self, server: Server, database: str) -> None:
        self.database = database
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = server.popen(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1,
        )  # fmt: skip
        self.name = self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT to_json(pg_export_snapshot());")[0]
        self.time = utc()

    def ask(self, statement: str) -> list[Any]:
        pipe, answers = self._process.stdin, self._process.stdout
        if pipe is None or answers is None:
            raise AssertionError("psql was started without pipes")
        rows: list[Any] = []
        with contextlib.suppress(BrokenPipeError):
            pipe.write(f"{statement}\n\\echo -- end\n")
            pipe.flush()
        for line in answers:
            if line == "-- end\n":
                return rows
            rows.append(json.loads(line))
        self._errors.seek(0)
        raise BackupError(f"reading the database {self.database} failed: {last_line(self._errors.read())}")

    def close(self) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()


# Making one ----------------------------------------------------------------------------------------------------------


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """What the manifest says of a database, in the moment of its dump."""
    found = dict(snapshot.ask(DATABASE)[0])
    found["time"] = snapshot.time
    found["tables"] = dict(snapshot.ask(TABLES))
    found["revisions"] = {
        table: [row[0] for row in snapshot.ask(f"SELECT json_build_array(version_num) FROM {table} ORDER BY version_num;")]  # noqa: S608
        for table in REVISION_TABLES
        if f"public.{table}" in found["tables"]
    }
    return found


def fernet_of(databases: Mapping[str, Mapping[str, Any]]) -> str:
    """The fingerprint of the key that the stored connections are encrypted with, as recorded in a database's comment."""
    found = [match[1] for one in databases.values() if (match := _FERNET.search(one["comment"]))]
    return found[0] if found else ""


def compare_counts(wanted: Mapping[str, int], found: Mapping[str, int], database: str) -> None:
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise BackupError(
            f"{database}: table {name} has {found.get(name, 'no')} rows in the restored database and {wanted.get(name, 'no')} in "
            f"the backup ({len(wrong)} such tables)"
        )


class Maker:
    """Makes one backup, as the configuration says."""

    def __init__(self, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.config = config
        self.directory: str = config["directory"]
        self.server = Server(config["version"], config["port"])
        self.say = say

    def make(self) -> dict[str, Any]:
        os.umask(0o077)
        with lock():
            self._clean()
            name = self._new_id()
            partial = os.path.join(self.directory, name + PARTIAL)
            os.mkdir(partial, 0o700)
            try:
                manifest = self._dump(name, partial)
                self._verify(manifest, partial)
                self._seal(manifest, partial)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            os.rename(partial, os.path.join(self.directory, name))
            fsync(self.directory)
            self._prune()
            if self.config.get("copy"):
                Copy(self.config, self.say).send(name)
            return manifest

    def _clean(self) -> None:
        for name in self.server.sweep():
            self.say(f"removed the database {name}, which an interrupted verification had left")
        for name in os.listdir(self.directory):
            if name.endswith(PARTIAL) and ID.match(name.removesuffix(PARTIAL)):
                remove(os.path.join(self.directory, name))
                self.say(f"removed {name}, which was interrupted")

    def _new_id(self) -> str:
        base = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        number, name = 1, base
        while os.path.lexists(os.path.join(self.directory, name)):
            number, name = number + 1, f"{base}-{number}"
        return name

    def _dump(self, name: str, partial: str) -> dict[str, Any]:
        started = time.monotonic()
        facts = self.server.facts()
        wanted = self.config["databases"]
        missing = [one for one in wanted if one not in facts["databases"]]
        if missing:
            raise BackupError(f"the database {missing[0]} does not exist; run playbooks/postgresql.yml, or restore it")
        sizes = {one: facts["databases"][one]["bytes"] for one in wanted}
        largest = max(sizes.values())
        require_space(
            [
                (self.directory, int(sum(sizes.values()) * self._ratio()), "the dumps"),
                (facts["data_directory"], int(largest * 1.1) + min(largest, facts["wal"]), "their verification"),
            ]
        )
        databases: dict[str, Any] = {}
        with contextlib.ExitStack() as stack, Watch(self.directory) as watch:
            # All of them first, within milliseconds: as near to one moment as PostgreSQL allows across databases.
            snapshots = []
            for one in wanted:
                snapshots.append(Snapshot(self.server, one))
                stack.callback(snapshots[-1].close)
            for number, snapshot in enumerate(snapshots, 1):
                one = snapshot.database
                file = f"{one}.dump" if _PLAIN.match(one) and one != "roles" else f"database-{number}.dump"
                self.server.run(
                    f"pg_dump of {one}", "pg_dump", "--format=custom", f"--compress={self._compression(facts)}",
                    "--lock-wait-timeout=300s", f"--snapshot={snapshot.name}", f"--file={os.path.join(partial, file)}",
                    f"--dbname={conninfo(one)}", watch=watch,
                )  # fmt: skip
                databases[one] = {"file": file, **describe(snapshot)}
            arguments = ("--roles-only", "--no-role-passwords", f"--file={os.path.join(partial, ROLES)}")
            self.server.run("pg_dumpall of the roles", "pg_dumpall", *arguments, watch=watch)
        for found in databases.values():
            path = os.path.join(partial, found["file"])
            found.update({"bytes": os.path.getsize(path), "sha256": checksum(path)})
        return {
            "format": FORMAT,
            "id": name,
            "time": databases[wanted[0]]["time"],
            "dump_seconds": round(time.monotonic() - started, 1),
            "host": socket.gethostname(),
            "server": {key: facts[key] for key in ("version", "version_num", "identifier")},
            "fernet": fernet_of(databases),
            "bytes": sum(found["bytes"] for found in databases.values()),
            "database_bytes": sum(found["database_bytes"] for found in databases.values()),
            "databases": databases,
        }

    def _ratio(self) -> float:
        """How large a dump may become, as a share of its database: what the last one was, and a half more."""
        last = last_good(self.directory)
        if not last or not last["database_bytes"]:
            return 0.5
        # An empty database has 7 MB of its own, of which nothing is dumped: its share says little.
        return min(1.0, max(0.1, 1.5 * last["bytes"] / last["database_bytes"]))

    @staticmethod
    def _compression(facts: Mapping[str, Any]) -> str:
        return "zstd:3" if facts["version_num"] >= 160000 else "2"

    def _verify(self, manifest: dict[str, Any], partial: str) -> None:
        """What was written can be restored, and then has the rows that the database had."""
        started = time.monotonic()
        with Watch(self.server.facts()["data_directory"]) as watch:
            for number, (name, found) in enumerate(manifest["databases"].items(), 1):
                scratch = f"{SCRATCH}{manifest['id'].lower().replace('-', '_')}_{number}"
                try:
                    self._scratch(scratch, found)
                    self.server.run(
                        f"restoring {name} for verification", "pg_restore", "--exit-on-error", "--no-owner", "--no-privileges",
                        f"--dbname={scratch}", os.path.join(partial, found["file"]), watch=watch,
                    )  # fmt: skip
                    compare_counts(found["tables"], self.server.counts(scratch), name)
                finally:
                    self.server.drop(scratch)
        manifest["verified"] = utc()
        manifest["verify_seconds"] = round(time.monotonic() - started, 1)

    def _scratch(self, scratch: str, found: Mapping[str, Any]) -> None:
        self.server.run(
            "making the database for verification", "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "postgres",
            stdin=f"CREATE DATABASE {identifier(scratch)} TEMPLATE template0 ENCODING {literal(found['encoding'])} "
            f"LC_COLLATE {literal(found['collate'])} LC_CTYPE {literal(found['ctype'])};\n"
            f"REVOKE ALL ON DATABASE {identifier(scratch)} FROM PUBLIC;\n",
        )  # fmt: skip

    @staticmethod
    def _seal(manifest: dict[str, Any], partial: str) -> None:
        """All of it is on the disk before it gets its name."""
        with open(os.path.join(partial, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, sort_keys=True)
            file.write("\n")
        digests = {one["file"]: one["sha256"] for one in manifest["databases"].values()}
        names = [*digests, ROLES, MANIFEST]
        lines = [f"{digests.get(name) or checksum(os.path.join(partial, name))}  {name}\n" for name in names]
        with open(os.path.join(partial, CHECKSUMS), "w", encoding="utf-8") as file:
            file.write("".join(lines))
        for name in [*names, CHECKSUMS]:
            os.chmod(os.path.join(partial, name), 0o600)
            fsync(os.path.join(partial, name))
        fsync(partial)

    def _prune(self) -> None:
        for name in expired(ids(self.directory), self.config["retention_days"], self.config["retention_least"], time.time()):
            path = os.path.join(self.directory, name)
            if not os.path.exists(os.path.join(path, KEEP)):
                remove(path)
                self.say(f"removed {name}, older than {self.config['retention_days']} days")


# On another host: builds under another name, checks what has arrived, and then gives it its name. $1 folder, $2 id.
RECEIVE = """set -eu; umask 077; cd "$1"; rm -rf "./$2.partial"; mkdir "./$2.partial"; cd "./$2.partial"; tar -xf -
sha256sum --quiet -c SHA256SUMS >&2; sync; cd ..; rm -rf "./$2"; mv "./$2.partial" "./$2"; ls -1"""
FORGET = """set -eu; cd "$1"; shift
for one in "$@"; do [ -e "./$one/keep" ] || { mv "./$one" "./$one.partial"; rm -rf "./$one.partial"; }; done"""


class Copy:
    """A second copy, on a host that is reached by ssh."""

    def __init__(self, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.config = config
        self.say = say
        self.target: str = config["copy"]["target"]
        self.account, _colon, self.folder = self.target.partition(":")

    def send(self, name: str) -> None:
        """BackupError where it does not arrive whole: a backup that should be in two places and is in one has failed."""
        tar = subprocess.Popen(  # pylint: disable=ansible-bad-function
            ["tar", "-C", os.path.join(self.config["directory"], name), "-cf", "-", "."], stdout=subprocess.PIPE
        )
        try:
            listed = self._ssh(RECEIVE, [self.folder, name], tar.stdout)
        finally:
            if tar.stdout:
                tar.stdout.close()
            tar.wait()
        if tar.returncode:
            raise BackupError(f"backup {name} is here, but could not be read for its copy to {self.target}")
        there = [one for one in listed.split() if ID.match(one)]
        doomed = expired(there, self.config["retention_days"], self.config["retention_least"], time.time())
        if doomed:
            self._ssh(FORGET, [self.folder, *doomed], subprocess.DEVNULL)
        self.say(f"copied to {self.target}")

    def _ssh(self, script: str, words: Sequence[str], stdin: Any) -> str:
        copy = self.config["copy"]
        key = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), "ssh_key")
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": KNOWN_HOSTS,
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
        }
        command = ["ssh", "-F", "none", "-i", key, "-p", str(copy["port"])]
        command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        # The other host's shell splits what it gets, so it gets it quoted.
        command += ["--", self.account, shlex.join(["sh", "-c", script, "sh", *words])]
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, stdin=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise BackupError(
                f"the backup is on this host only, its copy to {self.target} failed: {said[-1] if said else 'no message'}; "
                "see postgresql_backup_copy_*"
            )
        return done.stdout


# The service ---------------------------------------------------------------------------------------------------------


def read_config(path: str = CONFIG) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return dict(json.load(file))


def remember(state: Mapping[str, Any], path: str = STATE) -> None:
    """How the last run ended, for status and for who has asked for it. A full disk must not hide why it failed."""
    with contextlib.suppress(OSError):
        temporary = f"{path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(temporary, path)


def summary(manifest: Mapping[str, Any]) -> str:
    key = f"needs the Fernet key with fingerprint {manifest['fernet']}" if manifest["fernet"] else "records no Fernet key"
    seconds = manifest["dump_seconds"] + manifest["verify_seconds"]
    return (
        f"backup {manifest['id']} of {', '.join(manifest['databases'])} is verified: {size_text(manifest['bytes'])} "
        f"in {seconds:.1f} s; it {key}"
    )


def stop(_number: int, _frame: Any) -> NoReturn:
    raise Stopped


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    state: dict[str, Any] = {"started": utc(), "invocation": os.environ.get("INVOCATION_ID", "")}
    failure = ""
    try:
        # This is a program of its own, whose output is the unit's journal.
        manifest = Maker(read_config(), lambda text: print(text, flush=True)).make()  # pylint: disable=ansible-bad-function
        state |= {"id": manifest["id"]}
        said = summary(manifest)
    except (BackupError, OSError, ValueError, KeyError) as error:
        failure = " ".join(str(error).split()) if isinstance(error, (BackupError, OSError)) else repr(error)
    except Stopped:
        failure = "it was stopped"
    remember({**state, "ended": utc(), "failure": failure})
    out = sys.stderr if failure else sys.stdout
    print(f"backup failed: {failure}" if failure else said, file=out, flush=True)  # pylint: disable=ansible-bad-function
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())  # pylint: disable=ansible-bad-function
