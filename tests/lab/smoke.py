# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the smoke DAG once and print which host ran what; the exit code is 0 when all of it succeeded."""

from __future__ import annotations

import argparse
import sys
import time

from api import ApiError, TimedOut
from inventory import DEFAULT, Inventory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--dag", default="smoke", help="DAG to run (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for the whole run (default: %(default)s)")
    options = parser.parse_args()

    inventory = Inventory(options.inventory)
    airflow = inventory.airflow()
    begin = time.monotonic()
    try:
        dag = airflow.wait_for_dag(options.dag, options.timeout / 2)
        if dag["is_paused"]:
            return fail(f"DAG {options.dag} is paused: unpause it on {inventory.url}/dags/{options.dag}")
        run_id = airflow.trigger(options.dag)
        state = airflow.wait_for_run(options.dag, run_id, options.timeout - (time.monotonic() - begin))
    except (ApiError, TimedOut) as error:
        return fail(str(error))
    tasks = airflow.tasks(options.dag, run_id)
    rows = [("TASK", "HOST", "STATE", "SECONDS")]
    for task in tasks:
        name = task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"
        seconds = "" if task["duration"] is None else f"{task['duration']:.1f}"
        rows.append((name, task["hostname"] or "", task["state"] or "", seconds))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"{options.dag}: {state} after {time.monotonic() - begin:.1f} s")
    if state != "success":
        bad = [task for task in tasks if task["state"] in ("failed", "upstream_failed")]
        for task in bad[:3]:
            print(f"--- log of {task['task_id']}\n{airflow.log(task)[-2000:]}", file=sys.stderr)
        return fail(f"run {run_id} ended as {state}")
    return 0


def fail(reason: str) -> int:
    print(f"smoke: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
