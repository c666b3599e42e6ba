# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_info runs with a release's Python: SQL alone, no Airflow."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag_processor": "DagProcessorJob"}
# Each is counted where its table is; FAB's come with its own migrations.
COUNTS = {
    "roles": ("ab_role", ""),
    "users": ("ab_user", ""),
    "pools": ("slot_pool", ""),
    "variables": ("variable", ""),
    "connections": ("connection", ""),
    "dags": ("dag", "NOT is_stale"),
    "dags_paused": ("dag", "NOT is_stale AND is_paused"),
    "import_errors": ("import_error", ""),
    "dag_runs_running": ("dag_run", "state = 'running'"),
    "dag_runs_queued": ("dag_run", "state = 'queued'"),
    "tasks_running": ("task_instance", "state = 'running'"),
    "tasks_queued": ("task_instance", "state = 'queued'"),
}


def look(question: dict[str, Any]) -> dict[str, Any]:
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    connection = psycopg2.connect(url, connect_timeout=5)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = ANY (current_schemas(false))")
        tables = {row[0] for row in cursor.fetchall()}
        counts = {}
        for name, (table, where) in COUNTS.items():
            if table in tables:
                cursor.execute(f"SELECT count(*) FROM {table} WHERE {where or 'true'}")  # noqa: S608  (both are of COUNTS)
                counts[name] = cursor.fetchone()[0]
        health: dict[str, dict[str, str | None]] = {}
        for name, kind in JOBS.items():
            health[name] = {"status": None, "latest_heartbeat": None}
            if "job" not in tables:
                continue
            # As Airflow judges: of the newest, and a running one is newer than any other.
            cursor.execute(
                "SELECT state = 'running' AND latest_heartbeat > now() - %s * interval '1 second', latest_heartbeat FROM job"
                " WHERE job_type = %s ORDER BY state = 'running' DESC NULLS LAST, latest_heartbeat DESC NULLS LAST LIMIT 1",
                (question["thresholds"][name], kind),
            )
            row = cursor.fetchone()
            if row:
                status = "healthy" if row[0] else "unhealthy"
                health[name] = {"status": status, "latest_heartbeat": row[1].isoformat() if row[1] else None}
        cursor.execute("SELECT current_database(), current_setting('server_version')")
        name, version = cursor.fetchone()
    connection.close()
    return {"counts": counts, "health": health, "database": {"name": name, "postgresql": version}}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        result = look(asked)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {str(error).strip()}"}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
