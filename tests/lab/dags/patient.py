# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tasks that run until their host has the file that ends them, but for as long as they are asked to at least."""

from __future__ import annotations

import os
import sys
import time

from airflow.sdk import dag, get_current_context, task

GO = "/run/patient-may-end"
PATIENCE_SECONDS = 3000


@dag(schedule=None, is_paused_upon_creation=False, max_active_runs=50)
def patient() -> None:
    @task(retries=0)
    def wait() -> None:
        begin = time.monotonic()
        least = get_current_context()["dag_run"].conf.get("seconds", 150)
        print(f"began with {sys.prefix}")
        while time.monotonic() - begin < least or not os.path.exists(GO):
            if time.monotonic() - begin > PATIENCE_SECONDS:
                raise TimeoutError(f"nobody wrote {GO}")
            time.sleep(1)

    wait()


patient()
