# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The first deployment is killed again and again, anywhere; the next run goes on from what it finds."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh import Fresh, changed
from inventory import ROOT
from processes import kill

KILLS = 10
# A run that finds everything done takes about 5 s, the first one a minute.
SECONDS = (1.0, 15.0)
POWER_LOSS = 0.3


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("interruption"), "lt-killed", "10.89.77.161") as fresh:
        fresh.must("playbooks/secrets.yml")
        yield fresh


def run_and_kill(host: Fresh, seconds: float, log: Path) -> str:
    """The task that was under way, or nothing where the run had ended before."""
    with log.open("w") as output:
        process = subprocess.Popen(
            host.command("playbooks/site.yml"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            rc = process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            tasks = [line for line in log.read_text().splitlines() if line.startswith("TASK")]
            return tasks[-1].strip("* ") if tasks else "start"
    assert rc == 0, f"a run after a kill failed: {log.read_text()[-6000:]}"
    return ""


def test_ten_kills_at_random_points(host: Fresh, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    kills = bare = 0
    while kills < KILLS:
        seconds = chance.uniform(*SECONDS)
        where = run_and_kill(host, seconds, tmp_path / "log")
        if where:
            kills += 1
            # What Ansible started on the host goes on without it; not so where the host dies too.
            power = chance.random() < POWER_LOSS
            print(f"kill {kills} after {seconds:.1f} s in {where}{', and the host' if power else ''}")
            if power:
                host.lose_power()
        else:
            bare += 1
            print("converged, so the next one starts on a bare host")
            host.__enter__()
    host.must("playbooks/site.yml")
    assert changed(host.must("playbooks/site.yml")) == {host.name: 0}
    host.smoke()
    assert not host.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    assert len(host.releases()) == 1
