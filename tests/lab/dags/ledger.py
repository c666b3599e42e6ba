# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Load of the ledger: tasks of every kind, each of which notes its start and its end outside of the cluster.

No task fails by itself, so whatever fails was failed by the cluster. MARKER is filled in when the file is shipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task
from airflow.timetables.trigger import DeltaTriggerTimetable
from ledger_store import mark

MARKER = "unset"
STORE = str(Path(__file__).with_name("ledger_store.py"))
NOBODY = "ledger-nobody"
# What waits for an hour holds nobody up, and no limit but that of the workers decides what runs.
OPEN: dict[str, Any] = {"schedule": None, "tags": ["test"], "max_active_runs": 1000, "max_active_tasks": 1000, "catchup": False}
ONCE: dict[str, Any] = {"retries": 0}
AGAIN: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=5)}


def note(phase: str, context: Any = None) -> None:
    ti = (context or get_current_context())["ti"]
    mark(phase, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number, os.getpid())


def work(seconds: float) -> None:
    note("start")
    time.sleep(seconds)
    note("end")


def asked(default: float) -> float:
    return float(get_current_context()["dag_run"].conf.get("seconds", default))


def bash(task_id: str, seconds: str) -> BashOperator:
    call = (
        f"python -I {STORE} %s '{{{{ ti.dag_id }}}}' '{{{{ run_id }}}}' '{{{{ ti.task_id }}}}' "
        "'{{ ti.map_index }}' '{{ ti.try_number }}' $$"
    )
    return BashOperator(task_id=task_id, bash_command=f"set -e\n{call % 'start'}\nsleep {seconds}\n{call % 'end'}\n", **ONCE)


class Wait(BaseOperator):
    """Waits in the triggerer: a short stay on a worker, none for a while, and a short one again."""

    def __init__(self, *, seconds: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seconds = seconds

    def execute(self, context: Any) -> None:
        note("start", context)
        seconds = float(context["dag_run"].conf.get("seconds", self.seconds))
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name="back")

    def back(self, context: Any, event: Any = None) -> None:
        note("end", context)


@dag(is_paused_upon_creation=False, **OPEN)
def ledger() -> None:
    @task(**AGAIN)
    def short(number: int) -> None:
        work(1 + number % 3)

    @task(**ONCE)
    def gather() -> None:
        work(0)

    short.expand(number=list(range(12))) >> gather()
    for number in range(3):
        task(work, task_id=f"once_{number}", **ONCE)(2 + number)
        task(work, task_id=f"again_{number}", **AGAIN)(2 + number)
        bash(f"bash_{number}", str(2 + number))
        Wait(task_id=f"wait_{number}", seconds=5 * (1 + number), **(ONCE if number else AGAIN))


@dag(is_paused_upon_creation=False, **OPEN)
def ledger_long() -> None:
    """Tasks that outlast what is done to the cluster; one of them a shell's, one without a worker."""

    @task(**ONCE)
    def long() -> None:
        work(asked(150))

    long()
    bash("bash", "{{ dag_run.conf.get('seconds', 150) }}")
    Wait(task_id="wait", seconds=150, **ONCE)


@dag(
    **{**OPEN, "schedule": DeltaTriggerTimetable(timedelta(seconds=5)), "max_active_runs": 10},
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=True,
)
def ledger_pulse() -> None:
    """Due every five seconds without anybody's asking, so that a gap between starts is a gap in scheduling."""

    @task(**ONCE)
    def pulse() -> None:
        work(0)

    pulse()


@dag(is_paused_upon_creation=False, **OPEN)
def ledger_controls() -> None:
    """What the ledger must find: negative controls."""

    # Nobody serves that queue: one is left there, the other is declared a success by hand.
    @task(queue=NOBODY, **ONCE)
    def stuck() -> None:
        work(0)

    @task(queue=NOBODY, **ONCE)
    def lost() -> None:
        work(0)

    @task(**ONCE)
    def twice() -> None:
        """The same try runs in a second process as well, as if its message had been delivered twice."""
        ti = get_current_context()["ti"]
        row = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number]
        again = [[sys.executable, "-I", STORE, phase, *map(str, row), "0"] for phase in ("start", "end")]
        work(0)
        for command in again:
            subprocess.run(command, check=True)

    # Their processes are killed: one may run again, the other may not.
    @task(**ONCE)
    def failed() -> None:
        work(asked(60))

    @task(**AGAIN)
    def retried() -> None:
        work(asked(60) if get_current_context()["ti"].try_number == 1 else 0)

    for control in (stuck, lost, twice, failed, retried):
        control()


ledger()
ledger_long()
ledger_pulse()
ledger_controls()
