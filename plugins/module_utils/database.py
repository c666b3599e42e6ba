# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metadata database, from the host whose release manages it. Runs on the host."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import database_script
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import read_environment

ENVIRONMENT = "/etc/airflow/cli/environment"
USER = "airflow-cli"


class DatabaseError(Exception):
    """What could not be done, in one line that ends with the cure."""


def ahead(revisions: Mapping[str, list[str]], migrations: Mapping[str, Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """Revisions of the database that the release does not know, by table."""
    strange = {table: sorted(set(revisions.get(table, [])) - set(known["revisions"])) for table, known in migrations.items()}
    return {table: found for table, found in strange.items() if found}


def behind(revisions: Mapping[str, list[str]], migrations: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Tables whose schema is not the release's."""
    return [table for table, known in migrations.items() if revisions.get(table, []) != known["heads"]]


def judge(
    revisions: Mapping[str, list[str]], migrations: Mapping[str, Mapping[str, list[str]]], upgrade: bool = True
) -> list[str]:
    """Tables whose schema is behind the release; DatabaseError when it is ahead of it, or would be changed unasked."""
    for table, strange in ahead(revisions, migrations).items():
        raise DatabaseError(
            f"the database's schema ({table} {', '.join(strange)}) is newer than this release; "
            "set airflow_version to the release that wrote it, or newer"
        )
    pending = behind(revisions, migrations)
    written = [f"{table} {', '.join(revisions[table])}" for table in pending if revisions.get(table)]
    if written and not upgrade:
        raise DatabaseError(
            f"the database has the schema of an older release ({'; '.join(written)}), and other components still run with it; "
            "run playbooks/upgrade.yml, which backs it up first"
        )
    return pending


def newer_release(directory: str, revisions: Mapping[str, list[str]]) -> str:
    """A release on this host whose schema the database has; DatabaseError where there is none."""
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        manifest = read_manifest(os.path.join(directory, name))
        if manifest and not behind(revisions, manifest["migrations"]):
            return os.path.join(directory, name)
    raise DatabaseError(
        f"no release in {directory} has the database's schema, and only the one that migrated it can take that back; "
        "set airflow_version to it, run upgrade.yml, and then roll back"
    )


class Database:
    def __init__(self, release: str | None, run: Callable[..., dict[str, Any]] | None = None) -> None:
        self.environment = read_environment(ENVIRONMENT)
        # Without one: the release that the airflow command of this host uses, good enough to read with.
        self.release = release or self.environment.get("AIRFLOW_RELEASE", "")
        self._run = run or self._with_release

    def prepared(self) -> bool:
        return read_manifest(self.release) is not None and bool(self.environment)

    def migrations(self) -> dict[str, Any]:
        manifest = read_manifest(self.release)
        if not manifest:
            raise DatabaseError("role airflow has not prepared this host yet; include it in the run (--limit)")
        return manifest["migrations"]

    def _with_release(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return run_script(self.release, USER, self.environment, database_script, question)
        except ScriptError as error:
            raise DatabaseError(f"{question['do']} failed: {error}") from None

    def wait(self, admin: Mapping[str, str] | None, seconds: float) -> dict[str, Any]:
        """What the database holds, once it answers."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self._run({"do": "look", "admin": admin})
            if answer["reachable"]:
                return answer
            detail = answer["detail"]
            if "certificate verify failed" in detail or "does not match host name" in detail:
                raise DatabaseError(
                    f"PostgreSQL shows a certificate that this host does not trust: {detail}. Run playbooks/postgresql.yml with "
                    "the same airflow_ca_certificate, or add the name to airflow_certificate_names of its host"
                )
            if "authentication failed" in detail or "no pg_hba.conf entry" in detail or "does not exist" in detail:
                raise DatabaseError(
                    f"PostgreSQL refuses this host: {detail}. Run playbooks/postgresql.yml, or correct airflow_database_* "
                    "and airflow_database_password"
                )
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"PostgreSQL gave no answer for {seconds:.0f} s (airflow_database_wait): {detail}. "
                    "See that it runs and that airflow_database_host is right"
                )
            time.sleep(2)

    def apply(self, migrate: bool, admin: Mapping[str, str] | None, comment: str) -> None:
        self._run({"do": "apply", "migrate": migrate, "admin": admin, "comment": comment})

    def downgrade(self, revisions: Mapping[str, list[str]], migrations: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Back to the heads of a release, with the release that has made the schema: only that one knows the way."""
        targets = {table: migrations[table]["heads"][0] for table in ahead(revisions, migrations)}
        newer = Database(newer_release(os.path.dirname(self.release), revisions), None)
        newer._run({"do": "downgrade", "targets": targets})


_FERNET = re.compile(r"\bfernet:([0-9a-f]+)")


def fernet_comment(found: Mapping[str, Any], fingerprints: Sequence[str], reencrypted: bool = False) -> str:
    """The database's comment with the fingerprint of the key that it is encrypted with; empty where it is right already.

    `fingerprints`: of the keys, the one that is encrypted with first. Only who has `reencrypted` what is stored moves the mark.

    DatabaseError for another key: with it, nobody could read the stored connections.
    """
    recorded = _FERNET.search(found["comment"])
    if not fingerprints or (recorded and recorded[1] == fingerprints[0]):
        return ""
    if recorded and recorded[1] in fingerprints:
        return _FERNET.sub(f"fernet:{fingerprints[0]}", found["comment"]) if reencrypted else ""
    if recorded:
        raise DatabaseError(
            f"the database {found['name']} is encrypted with another airflow_fernet_key (fingerprint {recorded[1]}) than the "
            f"inventory's ({', '.join(fingerprints)}); restore the secrets that belong to it"
        )
    # Not ours to write on: then only the hosts' own records protect it.
    if not found["owner"]:
        return ""
    return " ".join(filter(None, (found["comment"], f"fernet:{fingerprints[0]}")))


def admin_wrong(found: Mapping[str, bool] | None) -> list[str]:
    """What of the admin user is not as declared."""
    if not found or not found["exists"]:
        return ["user"]
    return [name for name in ("role", "password", "active", "email") if not found[name]]
