# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A restore that is killed again and again goes on where it was. Against a cluster of one's own with LAB_INVENTORY=…"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh import BIN, Fresh, smoke
from inventory import ROOT, Inventory
from test_backup import Backups

# (task, seconds after its beginning) in the order of the plan; each run comes further than the one before.
POINTS = (
    ("Restore it beside the live databases", 0.7),
    ("Keep schedulers, and the timers that use the database, from starting", 0.0),
    ("Stop the workers, after their tasks or at once", 1.0),
    ("Empty them", 0.0),
    # Its module goes on for a moment on the host, or does not even begin.
    ("Swap", 0.9),
    ("Migrate", 1.0),
    ("Start the rest", 1.0),
)


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    if given := os.environ.get("LAB_INVENTORY"):
        yield Backups(Inventory(given))
        return
    with Fresh(tmp_path_factory.mktemp("interrupted"), "stop1", "10.89.77.118", "trixie") as host:
        host.must("playbooks/secrets.yml")
        host.must("playbooks/site.yml")
        yield Backups(host.inventory)


def killed(backups: Backups, task: str, delay: float, **variables: str) -> None:
    """Ansible and all that it started here are gone in the middle of the task; what it began on the host is left to itself."""
    command = [str(BIN / "ansible-playbook"), "-i", str(Path(backups.inventory.path).resolve()), "playbooks/restore.yml"]
    with subprocess.Popen(
        [*command, "-e", json.dumps(variables)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        seen = []
        for line in process.stdout:
            seen.append(line)
            if re.match(rf"TASK \[{re.escape(task)}\]", line):
                time.sleep(delay)
                os.killpg(process.pid, signal.SIGKILL)
                return
        raise AssertionError(f"{task} did not come: {''.join(seen)[-3000:]}")


def test_it_goes_on_where_it_was(backups: Backups) -> None:
    made = backups.make()
    smoke(Path(backups.inventory.path))
    before = backups.databases()
    yes = {"restore_from": made, "restore_confirm": backups.host}
    for task, delay in POINTS:
        killed(backups, task, delay, **yes)
        # Too early for the second command, as long as not everything has its place.
        if task == "Empty them":
            assert "has not taken its place yet" in backups.refused("restore", restore_resume=True)
    said = " ".join(backups.must("restore", **yes).split())
    assert "forgotten: 1 DAG runs and" in said
    for name, found in backups.manifest(made)["databases"].items():
        assert {table: found["tables"][table] for table in backups.rows(name)} == backups.rows(name)
    # Swapped once: one pair was kept, and it has the run that was forgotten.
    kept = backups.databases() - before
    assert len(kept) == 2, kept
    backups.must("restore", restore_resume=True)
    smoke(Path(backups.inventory.path))
    for name in kept:
        backups.sql(f'drop database "{name}"')
