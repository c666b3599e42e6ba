# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_canary runs on a scheduler's host with a release's Python, as user airflow-cli.

It brings the canary's DAG to the metadata database, triggers it, waits for its task and removes all of it. The question comes as
JSON on standard input, the answer goes as JSON to file descriptor 3.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

# Kombu's: what stands between a queue's name and a priority, and the priorities that have a list of their own.
SEPARATOR = "\x06\x16"
PRIORITIES = ("3", "6", "9")
ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")
# The scheduler's own next look at a run whose only task has ended.
RUN_ENDS_SECONDS = 15


def forget(name: str, prefix: str) -> None:
    """Nothing of a canary is left, also of one whose run was killed in the middle."""
    import redis
    from airflow.api.common.delete_dag import delete_dag
    from airflow.exceptions import DagNotFound
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.pool import Pool
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import delete, update

    with create_session() as session:
        # What still runs is told to stop when it next asks.
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == name).values(state="failed"))
    with contextlib.suppress(DagNotFound):
        delete_dag(name)
    with create_session() as session:
        session.execute(delete(Pool).where(Pool.pool == name))
        session.execute(delete(DagBundleModel).where(DagBundleModel.name == name))
    url = os.environ["AIRFLOW__CELERY__BROKER_URL"]
    authority = os.environ.get("AIRFLOW__CELERY__SSL_CACERT", "")
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": authority} if url.startswith("rediss:") else {}
    client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, **verified)
    lists = [f"{prefix}{name}{SEPARATOR}{priority}" for priority in PRIORITIES]
    client.delete(f"{prefix}{name}", *lists, f"{prefix}_kombu.binding.{name}")
    client.close()


def bring(name: str, folder: str) -> str:
    """Its DAG to the database, as a dag processor would; what kept it out, such as a cluster policy."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    bag = DagBag(folder, safe_mode=False, bundle_path=Path(folder), bundle_name=name)
    if bag.import_errors:
        return "; ".join(bag.import_errors.values())
    if list(bag.dags) != [name]:
        return f"{folder} gives {', '.join(bag.dags) or 'no DAG'}"
    with create_session() as session:
        session.add(DagBundleModel(name=name))
        session.add(Pool(pool=name, slots=1, description="The trial of a worker's host", include_deferred=False))
    with create_session() as session:
        sync_bag_to_db(bag, name, None, session=session)
    return ""


def state(name: str) -> tuple[str, str]:
    """Of the task and of its run."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        task = session.scalar(select(TaskInstance.state).where(TaskInstance.dag_id == name))
        run = session.scalar(select(DagRun.state).where(DagRun.dag_id == name))
    return str(task or "none"), str(run or "none")


def sing(name: str, seconds: float) -> str:
    """What became of it: empty for success."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.utils.types import DagRunTriggeredByType

    trigger_dag(name, triggered_by=DagRunTriggeredByType.CLI)
    deadline = time.monotonic() + seconds
    while (found := state(name))[0] not in ENDED:
        if time.monotonic() > deadline:
            return {
                "none": "no scheduler has scheduled it; see status.yml",
                "scheduled": "no scheduler has queued it; see whether all slots of [core] parallelism are taken",
                "queued": "the host's worker has not taken it",
                "running": "it has begun and not ended",
            }.get(found[0], f"it is {found[0]}")
        time.sleep(0.5)
    deadline = time.monotonic() + RUN_ENDS_SECONDS
    # A scheduler that finds its run gone in the middle of a look says so as an error.
    while state(name)[1] in ("running", "queued") and time.monotonic() < deadline:
        time.sleep(0.5)
    return "" if found[0] == "success" else f"it has {found[0]}"


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    name = os.environ["AIRFLOW_CANARY"]
    result: dict[str, Any]
    try:
        forget(name, asked["prefix"])
        try:
            result = {"problem": bring(name, asked["folder"]) or sing(name, asked["seconds"])}
        finally:
            forget(name, asked["prefix"])
    except Exception as error:
        result = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
