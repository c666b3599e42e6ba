# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DAGs that the tests ship and watch. MARKER and WORKERS are filled in when the file is shipped."""

from __future__ import annotations

import socket
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task

MARKER = "unset"
WORKERS: list[str] = []


class LeaveAndReturn(BaseOperator):
    """Waits in the triggerer and then goes on in a worker."""

    def execute(self, context: Any) -> None:
        print(f"{MARKER}: left {socket.gethostname()}")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=6)), method_name="back")

    def back(self, context: Any, event: Any = None) -> None:
        print(f"{MARKER}: back on {socket.gethostname()} at {event}")


@dag(schedule=None, is_paused_upon_creation=False)
def life_cycle() -> None:
    @task
    def slow() -> None:
        print(f"{MARKER}: read {__file__}")
        time.sleep(get_current_context()["dag_run"].conf.get("seconds", 8))

    slow()
    LeaveAndReturn(task_id="leave_and_return")


@dag(schedule=None, is_paused_upon_creation=False)
def life_cycle_queues() -> None:
    """One task for each worker, in a queue that no worker serves until a test tells it to."""
    for name in WORKERS:

        @task(task_id=f"on_{name}", queue=f"test-{name}")
        def on_worker() -> None:
            print(f"{MARKER}: on {socket.gethostname()}")

        on_worker()


@dag(
    schedule="* * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=False,
)
def life_cycle_due() -> None:
    EmptyOperator(task_id="nothing")


life_cycle()
life_cycle_queues()
life_cycle_due()
