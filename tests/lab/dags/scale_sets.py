# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tasks for each queue that the cluster's workers serve. QUEUES and MARKER are filled in when the file is shipped."""

from __future__ import annotations

import importlib.util
import os
import time

from airflow.sdk import dag, get_current_context, task

MARKER = "unset"
QUEUES: list[str] = []
# In each queue.
TASKS = 3


@dag(schedule=None, is_paused_upon_creation=False)
def scale_sets() -> None:
    for queue in QUEUES:

        @task(task_id=f"in_{queue}", queue=queue)
        def where(number: int) -> None:
            # /etc/airflow/worker@INSTANCE-COLOUR/airflow.cfg
            folder = os.path.basename(os.path.dirname(os.environ["AIRFLOW_CONFIG"]))
            instance = folder.partition("@")[2].rpartition("-")[0]
            print(f"{MARKER}: {number} ran in {instance} on {os.environ['AIRFLOW_ADDRESS']}")
            conf = get_current_context()["dag_run"].conf
            if conf.get("module"):
                print(f"{MARKER}: {conf['module']} is {'there' if importlib.util.find_spec(conf['module']) else 'not there'}")
            time.sleep(conf.get("seconds", 0))

        where.expand(number=list(range(TASKS)))


scale_sets()
