# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module_utils/queues.py runs with a release's Python, as user airflow-cli: a few statements of SQL, one round to Redis.

It starts nothing of Airflow's. The question comes as JSON on standard input, the answer goes as JSON to file descriptor 3.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import zlib
from collections.abc import Iterable
from typing import Any

# Kombu's: between a queue's name and a priority, and the priorities that have a list of their own.
SEPARATOR = "\x06\x16"
PRIORITIES = ("", "3", "6", "9")
# What the scheduler ends by itself, without a worker; see DagRun.schedule_tis.
NEEDS_WORKER = ("has_on_execute_callback", "has_on_success_callback", "inlets", "outlets")

# Of each DAG that is still there the newest version; a task without a queue has the default of whoever serialised it.
LATEST = """
WITH latest AS (
  SELECT d.dag_id, d.is_paused, s.data::jsonb AS data, s.data_compressed
  FROM dag d CROSS JOIN LATERAL (
    SELECT s.data, s.data_compressed FROM serialized_dag s JOIN dag_version v ON v.id = s.dag_version_id
    WHERE s.dag_id = d.dag_id ORDER BY v.version_number DESC LIMIT 1
  ) s WHERE NOT d.is_stale
)
"""
DAGS = (
    LATEST
    + """
SELECT dag_id, is_paused, coalesce(
    task #>> '{__var,queue}', task #>> '{__var,partial_kwargs,queue}', data #>> '{client_defaults,tasks,queue}', 'default'
  ) AS queue
FROM latest CROSS JOIN LATERAL jsonb_array_elements(data #> '{dag,tasks}') task
WHERE task #>> '{__var,_is_empty}' IS DISTINCT FROM 'true' OR (task -> '__var') ?| %s
GROUP BY 1, 2, 3
"""
)
COMPRESSED = f"{LATEST} SELECT dag_id, is_paused, data_compressed FROM latest WHERE data_compressed IS NOT NULL"  # noqa: S608  (LATEST is ours)
# Also those of a DAG's older versions: a run goes on with the queues that it began with.
TASKS = """
SELECT ti.queue, coalesce(ti.state, 'none') AS state, count(*)
FROM task_instance ti JOIN dag_run r ON r.dag_id = ti.dag_id AND r.run_id = ti.run_id
WHERE r.state IN ('running', 'queued') AND ti.queue IS NOT NULL AND (ti.state IS NULL OR ti.state NOT IN
  ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))
GROUP BY 1, 2
"""
# What runs, so that it can be told by name.
RUNNING = """
SELECT id::text, dag_id, task_id, map_index, run_id, extract(epoch FROM now() - start_date)::bigint
FROM task_instance WHERE state = 'running' ORDER BY start_date LIMIT 2000
"""


def queues_of(data: dict[str, Any]) -> set[str]:
    """The queues of a serialised DAG's tasks: what DAGS does in PostgreSQL, for DAGs that are stored compressed."""
    default = ((data.get("client_defaults") or {}).get("tasks") or {}).get("queue") or "default"
    tasks = (task["__var"] for task in data["dag"]["tasks"])
    return {
        task.get("queue") or (task.get("partial_kwargs") or {}).get("queue") or default
        for task in tasks
        if not task.get("_is_empty") or any(key in task for key in NEEDS_WORKER)
    }


def database(names: bool) -> dict[str, Any]:
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    connection = psycopg2.connect(url, connect_timeout=5, options="-c statement_timeout=20000")
    connection.set_session(readonly=True)
    with connection, connection.cursor() as cursor:
        # Not yet before the first migration, which check mode does not make.
        cursor.execute("SELECT to_regclass('dag_version')")
        if cursor.fetchone()[0] is None:
            return {"dags": [], "tasks": [], "running": []}
        cursor.execute(DAGS, (list(NEEDS_WORKER),))
        dags = [list(row) for row in cursor.fetchall()]
        cursor.execute(COMPRESSED)
        for dag, paused, packed in cursor.fetchall():
            dags += [[dag, paused, queue] for queue in queues_of(json.loads(zlib.decompress(packed)))]
        cursor.execute(TASKS)
        tasks = [list(row) for row in cursor.fetchall()]
        cursor.execute(RUNNING if names else "SELECT 1 WHERE false")
        running = [list(row) for row in cursor.fetchall()]
    connection.close()
    return {"dags": dags, "tasks": tasks, "running": running}


def broker(names: Iterable[str], prefix: str) -> dict[str, Any]:
    """How many messages wait in each queue, and how many were taken and not acknowledged, as their task has not ended."""
    import redis

    url = os.environ["AIRFLOW__CELERY__BROKER_URL"]
    authority = os.environ.get("AIRFLOW__CELERY__SSL_CACERT", "")
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": authority} if url.startswith("rediss:") else {}
    client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, **verified)
    ordered = sorted(names)
    with client.pipeline(transaction=False) as round_trip:
        for name in ordered:
            for priority in PRIORITIES:
                round_trip.llen(f"{prefix}{name}{SEPARATOR}{priority}" if priority else f"{prefix}{name}")
        round_trip.hlen(f"{prefix}unacked")
        *lengths, taken = round_trip.execute()
    client.close()
    each = len(PRIORITIES)
    return {
        "lengths": {name: sum(lengths[at * each : (at + 1) * each]) for at, name in enumerate(ordered)},
        "taken": taken,
    }


def read(question: dict[str, Any]) -> dict[str, Any]:
    answer = database(question["names"])
    names = {row[2] for row in answer["dags"]} | {row[0] for row in answer["tasks"]} | set(question["queues"])
    if question["broker"]:
        try:
            answer["broker"] = broker(names, question["prefix"])
        except Exception as error:
            # What the database knows is of use without it.
            answer["broker"] = {"detail": f"{type(error).__name__}: {error}".splitlines()[0]}
    return answer


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        result = read(asked)
    except Exception as error:
        result = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
