# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the example pipeline once, from the files to growth, and print what each DAG did; the exit code is 0 when all succeeded."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.parse
from datetime import datetime
from typing import Any, NamedTuple

from api import Airflow, ApiError, TimedOut, wait
from inventory import DEFAULT, Inventory

DAGS = (
    "ingest_listings",
    "reference_metrics",
    "model_metrics",
    "parent_model_metrics",
    "brand_metrics",
    "market_composition",
    "volatility",
    "growth",
)


class Step(NamedTuple):
    """A run of one of the DAGs."""

    dag_id: str
    run: dict[str, Any]
    causes: list[dict[str, Any]]
    """The asset events that started it."""
    tasks: list[dict[str, Any]]

    def seconds(self) -> float:
        return (moment(self.run["end_date"]) - moment(self.run["start_date"])).total_seconds()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def begin(airflow: Airflow, seconds: float) -> None:
    """Let the DAGs run: they are paused to begin with, as not every cluster has their database."""
    for dag_id in DAGS:
        if airflow.wait_for_dag(dag_id, seconds)["is_paused"]:
            airflow.request("PATCH", f"dags/{dag_id}", {"is_paused": False})


def follow(airflow: Airflow, conf: dict[str, Any], seconds: float) -> list[Step]:
    """Trigger the first DAG, and wait for the runs that follow from it; ends with the first that does not succeed."""
    end = time.monotonic() + seconds
    run_id, steps = airflow.trigger(DAGS[0], conf), []
    for number, dag_id in enumerate(DAGS):
        if number:
            cause = run_id
            what = f"{dag_id} is started by {DAGS[number - 1]}"
            run_id = str(wait(what, end - time.monotonic(), lambda: caused(airflow, dag_id, cause)))  # noqa: B023
        airflow.wait_for_run(dag_id, run_id, end - time.monotonic())
        run = airflow.run(dag_id, run_id)
        steps.append(Step(dag_id, run, causes(airflow, dag_id, run_id) if number else [], airflow.tasks(dag_id, run_id)))
        if run["state"] != "success":
            break
    return steps


def causes(airflow: Airflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/upstreamAssetEvents"
    found: list[dict[str, Any]] = airflow.get(path)["asset_events"]
    return found


def caused(airflow: Airflow, dag_id: str, cause: str) -> str:
    """The run that was started by a run of the DAG before it."""
    for run in airflow.get(f"dags/{dag_id}/dagRuns?order_by=-run_after&limit=5")["dag_runs"]:
        if any(event["source_run_id"] == cause for event in causes(airflow, dag_id, run["dag_run_id"])):
            return str(run["dag_run_id"])
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the whole pipeline (default: %(default)s)")
    options = parser.parse_args()
    inventory = Inventory(options.inventory)
    airflow = inventory.airflow()
    start = time.monotonic()
    try:
        begin(airflow, options.timeout / 4)
        steps = follow(airflow, {}, options.timeout)
    except (ApiError, TimedOut) as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1
    print(f"{'DAG':22}{'STATE':10}{'TASKS':>5}{'SECONDS':>9}  HOSTS")
    for step in steps:
        hosts = ", ".join(sorted({str(task["hostname"]) for task in step.tasks if task["hostname"]}))
        print(f"{step.dag_id:22}{step.run['state']:10}{len(step.tasks):5}{step.seconds():9.1f}  {hosts}")
    last = steps[-1]
    print(f"pipeline: {last.run['state']} after {time.monotonic() - start:.1f} s")
    for task in [task for task in last.tasks if task["state"] == "failed"][:3]:
        print(f"--- log of {last.dag_id} {task['task_id']}\n{airflow.log(task)[-2000:]}", file=sys.stderr)
    return 0 if last.run["state"] == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
