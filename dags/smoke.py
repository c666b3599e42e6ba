# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The smoke DAG: it touches every part of a cluster once, in about ten seconds.

`spread` gives every worker something to do, `shell` runs a command, `pause` waits in the triggerer without
holding a worker, and `report` gathers what the others returned.
"""

from __future__ import annotations

import socket
import time
from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.time_delta import WaitSensor
from airflow.sdk import dag, task


@dag(schedule=None, is_paused_upon_creation=False, tags=["smoke"], doc_md=__doc__)
def smoke():
    @task
    def spread(number: int) -> str:
        host = socket.gethostname()
        print(f"smoke: part {number} runs on {host}")
        time.sleep(2)
        return host

    @task
    def report(hosts: list[str]) -> None:
        print(f"smoke: ran on {', '.join(sorted(set(hosts)))}")

    parts = spread.expand(number=list(range(6)))
    shell = BashOperator(task_id="shell", bash_command="echo smoke: shell on $(uname -n)")
    pause = WaitSensor(task_id="pause", time_to_wait=timedelta(seconds=3), deferrable=True)
    [shell, pause] >> report(parts)


smoke()
