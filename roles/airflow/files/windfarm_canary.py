# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DAG with which a worker's host is tried before it takes tasks (airflow_canary).

It lies in no DAG folder: only its name is brought to the database, for as long as the trial takes.
"""

import os

from airflow.sdk import DAG, task

# Of the host's own: DAG, pool and queue. Nothing else waits there or takes from there.
NAME = os.environ["AIRFLOW_CANARY"]

with DAG(NAME, schedule=None, is_paused_upon_creation=False, tags=["windfarm.airflow"], doc_md=__doc__):

    @task(queue=NAME, pool=NAME, retries=0, priority_weight=1_000_000, weight_rule="absolute")
    def sing() -> str:
        """What it returns goes by the API to the database, like the result of any task."""
        print(f"{os.environ['AIRFLOW_ADDRESS']} can run tasks.")
        return os.environ["AIRFLOW_ADDRESS"]

    sing()
