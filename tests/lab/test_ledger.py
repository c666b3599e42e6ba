# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger itself: it finds nothing where nothing was done, and finds each thing that is done to it. A judge that stays
green here is broken."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from api import Airflow, wait
from inventory import Inventory
from ledger import Ledger, Report, Row, Task, assert_clean

AWAY_SECONDS = 15
# A bound for what takes a few seconds on a machine with nothing else to do.
SLOW_SECONDS = 300


@pytest.fixture(scope="module")
def ledger(inventory: Inventory) -> Iterator[Ledger]:
    with Ledger(inventory) as found:
        yield found


def test_a_load_alone_is_clean(ledger: Ledger) -> None:
    with ledger.load("nothing is done", long_seconds=20):
        time.sleep(10)
    report = ledger.settle()
    print(f"{report.table()}\n{report.remarks()}")
    assert_clean(report)
    assert report.tasks >= 30, "of every kind some"


@pytest.fixture(scope="module")
def controls(ledger: Ledger, inventory: Inventory, airflow: Airflow) -> Iterator[tuple[Task, Report]]:
    """A run in which everything happens that must not, while scheduler and webservers are away for a time."""
    run: Task | None = None
    try:
        with ledger.load("negative controls", long_seconds=20):
            run = ledger.trigger("ledger_controls", {"seconds": 120})
            misuse(run, ledger, inventory)
        left = [f"{run}", f"{run}/stuck"]
        wait("everything else has ended", SLOW_SECONDS, lambda: ledger.unended() == left, interval=2)
        report = ledger.settle(timeout=0)
        print(f"{report.table()}\n{report.remarks()}")
        yield run, report
    finally:
        if run:
            airflow.end(run.dag_id, run.run, "failed")
        inventory.redis("DEL", "ledger-nobody")


def misuse(run: Task, ledger: Ledger, inventory: Inventory) -> None:
    task = f"where run_id = '{run.run}' and task_id = 'lost'"
    queued = f"select 1 from task_instance {task} and state = 'queued'"
    wait("the task for nobody is queued", SLOW_SECONDS, lambda: inventory.sql(queued), interval=1)
    inventory.sql(f"update task_instance set state = 'success', end_date = now() {task}")
    for name in ("failed", "retried"):
        row = wait(
            f"task {name} runs", SLOW_SECONDS, lambda name=name: started(ledger, Task(run.dag_id, run.run, name)), interval=1
        )
        inventory.run(row.host, "kill", "-9", str(row.pid))
    # Stopped in their tracks, so that they are back at once whatever the machine is busy with.
    paused = [(host, f"airflow-{name}") for name in ("scheduler", "webserver") for host in inventory.members[name]]
    for host, unit in paused:
        inventory.run(host, "systemctl", "kill", "--signal=STOP", unit)
    time.sleep(AWAY_SECONDS)
    for host, unit in paused:
        inventory.run(host, "systemctl", "kill", "--signal=CONT", unit)


def started(ledger: Ledger, task: Task) -> Row | None:
    return next((row for row in ledger.starts() if row.task == task), None)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("lost", "lost"), ("duplicated", "twice"), ("failed", "failed"), ("retried", "retried"), ("stuck", "stuck")],
)
def test_what_is_done_to_a_task_is_found_and_nothing_else(kind: str, name: str, controls: tuple[Task, Report]) -> None:
    run, report = controls
    assert getattr(report, kind) == [f"{run}/{name}"]


def test_seconds_without_api_and_without_scheduling_are_counted(controls: tuple[Task, Report]) -> None:
    _run, report = controls
    assert report.api_seconds >= AWAY_SECONDS - 3
    assert min(report.webservers.values()) >= AWAY_SECONDS - 3
    assert report.scheduling_seconds >= AWAY_SECONDS - 5 - 3
