# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module_utils/task_logs.py runs with a release's Python, as the webserver's user: one statement of SQL."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# An attempt that ended on one of the other hosts is shown from there. One that has not ended may go on, and end, on another.
ELSEWHERE = """
WITH asked AS (
  SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::int[]) WITH ORDINALITY
    AS a (dag_id, run_id, task_id, map_index, try_number, number)
), found AS (
  SELECT number, hostname, state FROM asked JOIN task_instance USING (dag_id, run_id, task_id, map_index, try_number)
  UNION ALL
  SELECT number, hostname, state FROM asked JOIN task_instance_history USING (dag_id, run_id, task_id, map_index, try_number)
)
SELECT number FROM found GROUP BY number HAVING NOT bool_or(
  hostname <> ALL (%s::text[])
  AND coalesce(state, '') NOT IN ('running', 'deferred', 'queued', 'scheduled', 'restarting', 'up_for_reschedule'))
"""

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    result: dict[str, Any] = {}
    try:
        import psycopg2

        url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
        connection = psycopg2.connect(url, connect_timeout=5)
        with connection, connection.cursor() as cursor:
            cursor.execute(ELSEWHERE, (*(list(column) for column in zip(*asked["keys"])), asked["others"]))
            result = {"elsewhere": [row[0] - 1 for row in cursor.fetchall()]}
        connection.close()
    except Exception as error:
        result = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
