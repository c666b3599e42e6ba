# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A secret is replaced while tasks run, and the old one is refused; tests/long/test_rotations.py has all kinds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import output_of
from inventory import ROOT, Inventory
from ledger import Ledger, assert_clean
from processes import kill

PLAYBOOK = "playbooks/rotate_secrets.yml"
PROOF = re.compile(r"^Proof: .*refuse", re.MULTILINE)


def command(inventory: str, kind: str, *arguments: str) -> list[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return [program, "-i", str(Path(inventory).resolve()), PLAYBOOK, "-e", f"rotate={kind}", *arguments]


def secrets_of(inventory: str) -> Path:
    path = Path(inventory).resolve()
    return (path if path.is_dir() else path.parent) / "group_vars" / "all" / "vault.yml"


def values(inventory: str) -> dict[str, Any]:
    return yaml.safe_load(secrets_of(inventory).read_text())


def rotate_killed(inventory: str, kind: str, log: Path, now: Callable[[], bool]) -> str:
    """Kills the rotation when it is time. The task that was under way then, or nothing where it had ended before."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command(inventory, kind),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        while process.poll() is None:
            if now():
                kill(process)
                tasks = [line for line in log.read_text().splitlines() if line.startswith("TASK")]
                return tasks[-1].strip("* ") if tasks else "start"
            time.sleep(0.1)
    assert process.returncode == 0, log.read_text()[-6000:]
    return ""


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("", (), "rotate — is not set — choose one: -e rotate=fernet|jwt|database|results|redis|tls|api|admin"),
        ("all", (), "rotate — is 'all' — choose one: -e rotate=fernet|jwt|"),
        (
            "api",
            ("-e", "airflow_api_secret_key=given-on-the-command-line-of-this-run"),
            "airflow_api_secret_key — is given with -e",
        ),
        ("redis", ("--limit", "airflow_webserver"), "rotate=redis — would pass over "),
    ],
)
def test_refusals(inventory: Inventory, kind: str, arguments: tuple[str, ...], message: str) -> None:
    if "--limit" in arguments and len(inventory.plan["addresses"]) == 1:
        pytest.skip("one host cannot be hidden by --limit")
    before = secrets_of(inventory.path).read_bytes()
    rc, output = output_of(command(inventory.path, kind, *arguments))
    assert rc == 2 and message in " ".join(output.split()), output[-3000:]
    assert secrets_of(inventory.path).read_bytes() == before


def test_check_mode_says_what_it_would_do(inventory: Inventory) -> None:
    before = secrets_of(inventory.path).read_bytes()
    rc, output = output_of(command(inventory.path, "tls", "--check"))
    assert rc == 0 and output.count("Would ") == 3, output[-3000:]
    assert secrets_of(inventory.path).read_bytes() == before


def test_a_login_of_the_database_is_replaced_under_load_and_after_a_kill(inventory: Inventory, tmp_path: Path) -> None:
    before = values(inventory.path)
    shown = before["airflow_database_password"]
    log = tmp_path / "killed"
    with Ledger(inventory) as ledger:
        with ledger.load("rotation of database, killed once"):
            # As soon as the file says that there are two logins, and nothing else knows.
            assert rotate_killed(inventory.path, "database", log, lambda: "airflow_rotation" in values(inventory.path))
            rc, output = output_of(command(inventory.path, "redis"))
            assert rc == 2 and "a rotation of database is unfinished" in " ".join(output.split())
            rc, output = output_of(command(inventory.path, "database"))
        report = ledger.settle()
    print(report.table())
    assert rc == 0 and PROOF.search(output), output[-6000:]
    assert_clean(report)
    assert shown not in output and shown not in log.read_text()
    after = values(inventory.path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"airflow_database_password", "airflow_database_login"}
    roles = dict(inventory.sql("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname ~ '^airflow(_2)?$'"))
    assert sorted(roles.values()) == ["f", "t"] and roles[after["airflow_database_login"]] == "t"
