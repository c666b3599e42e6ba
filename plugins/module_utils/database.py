# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metadata database, from the host whose release manages it. Runs on the host."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils import database_script
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest
from ansible_collections.windfarm.airflow.plugins.module_utils.services import read_environment

ENVIRONMENT = "/etc/airflow/cli/environment"
USER = "airflow-cli"


class DatabaseError(Exception):
    """What could not be done, in one line that ends with the cure."""


def shortages(minimum: Mapping[str, int], directory: str) -> list[str]:
    """What this host has less of than it should."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) // 1024
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    disk = os.statvfs(directory)
    found = {
        "memory_mb": memory,
        "processors": len(os.sched_getaffinity(0)),
        "disk_mb": disk.f_bavail * disk.f_frsize // 1048576,
    }
    return [f"{name} {found[name]}, at least {least}" for name, least in minimum.items() if found[name] < int(least)]


def judge(revisions: Mapping[str, list[str]], migrations: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Tables whose schema is behind the release; DatabaseError when it is ahead of it."""
    behind = []
    for table, known in migrations.items():
        present = revisions.get(table, [])
        strange = set(present) - set(known["revisions"])
        if strange:
            raise DatabaseError(
                f"the database's schema ({table} {', '.join(sorted(strange))}) is newer than this release; "
                "set airflow_version to the release that wrote it, or newer"
            )
        if present != known["heads"]:
            behind.append(table)
    return behind


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
        """Runs the script with the release's Python, unprivileged; nothing of the question stands in argv or a file."""
        account = pwd.getpwnam(USER)
        source = database_script.__loader__.get_source(database_script.__name__)  # type: ignore[union-attr]
        reading, writing = os.pipe()

        def become() -> None:
            os.dup2(writing, 3, inheritable=True)
            os.initgroups(USER, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)

        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [os.path.join(self.release, "bin", "python"), "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=account.pw_dir,
            env={
                "PATH": f"{self.release}/bin:/usr/bin:/bin",
                "HOME": account.pw_dir,
                "PYTHONSAFEPATH": "1",
                **self.environment,
            },
            preexec_fn=become,
            close_fds=False,
            pass_fds=(),
        )
        os.close(writing)
        output, _unused = process.communicate(json.dumps(question))
        with os.fdopen(reading) as answers:
            text = answers.read()
        answer = json.loads(text) if text else {"error": f"exit status {process.returncode}"}
        if "error" in answer:
            tail = "\n".join(output.strip().splitlines()[-15:])
            raise DatabaseError(f"{question['do']} failed: {answer['error']}\n{tail}")
        return answer

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


_FERNET = re.compile(r"\bfernet:([0-9a-f]+)")


def fernet_comment(found: Mapping[str, Any], fingerprints: Sequence[str]) -> str:
    """The database's comment with the fingerprint of the key that it is encrypted with; empty where it is right already.

    DatabaseError for another key: with it, nobody could read the stored connections.
    """
    recorded = _FERNET.search(found["comment"])
    if not fingerprints or (recorded and recorded[1] == fingerprints[0]):
        return ""
    if recorded and recorded[1] not in fingerprints:
        raise DatabaseError(
            f"the database {found['name']} is encrypted with another airflow_fernet_key (fingerprint {recorded[1]}) than the "
            f"inventory's ({', '.join(fingerprints)}); restore the secrets that belong to it"
        )
    # Not ours to write on: then only the hosts' own records protect it.
    if not found["owner"]:
        return ""
    mark = f"fernet:{fingerprints[0]}"
    return _FERNET.sub(mark, found["comment"]) if recorded else " ".join(filter(None, (found["comment"], mark)))


def admin_wrong(found: Mapping[str, bool] | None) -> list[str]:
    """What of the admin user is not as declared."""
    if not found or not found["exists"]:
        return ["user"]
    return [name for name in ("role", "password", "active") if not found[name]]
