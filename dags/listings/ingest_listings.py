# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads the files of the market's weeks, cleans them, converts prices to dollars, leaves out outliers and loads the rest.

Run it with {"weeks": ["2025-W07"]} for these weeks, without for all that there are. A week that is loaded again replaces itself.
"""

from __future__ import annotations

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset, Param, task, task_group
from listings import reading
from listings.pipeline import CONNECTION, KEYS, LOAD_POOL, Check, common

CHUNKS = 6
COLUMNS = ["listing", "week", "listed", *KEYS, "price"]
LOAD = (reading.FOLDER.parent / "sql" / "load.sql").read_text()
PARAMS = {"weeks": Param([], type="array", items={"type": "string"}, description="Weeks to load, all by default")}

with DAG("ingest_listings", schedule=None, params=PARAMS, **common(__doc__)) as dag:

    @task
    def split(params=None) -> list[dict]:
        """Weeks that follow each other, in a chunk each."""
        weeks = sorted(params["weeks"]) or reading.weeks()
        size = -(-len(weeks) // CHUNKS)
        return [{"weeks": weeks[start : start + size]} for start in range(0, len(weeks), size)]

    @task(pool=LOAD_POOL)
    def load(part: dict) -> None:
        from airflow.providers.postgres.hooks.postgres import PostgresHook
        from psycopg import ClientCursor

        dollars = reading.rates()
        # One transaction: whoever looks sees the old weeks or the new ones. This cursor takes several statements at a time.
        with PostgresHook(CONNECTION).get_conn() as link, ClientCursor(link) as cursor:
            cursor.execute("create temporary table incoming (like listings) on commit drop")
            for week in part["weeks"]:
                rows, told = reading.read(week, dollars)
                cursor.execute("truncate incoming")
                with cursor.copy(f"copy incoming ({', '.join(COLUMNS)}) from stdin") as copy:
                    for row in rows:
                        copy.write_row([row[name] for name in COLUMNS])
                counts = {name: told[name] for name in ("lines", "unreadable", "without_rate", "repeated")}
                cursor.execute(LOAD, {**counts, "week": reading.monday(week)})

    @task_group
    def chunk(part):
        load(part) >> Check(task_id="check", sql="loaded.sql", parameters=part, pool=LOAD_POOL)

    @task(outlets=[Asset("listings/listings")])
    def publish(parts, *, outlet_events) -> None:
        first = min(reading.monday(week) for part in parts for week in part["weeks"])
        outlet_events[Asset("listings/listings")].extra = {"since": str(first)}

    tables = SQLExecuteQueryOperator(task_id="tables", sql="tables.sql", handler=None)
    parts = split()
    # Airflow gives publish its events.
    tables >> chunk.expand(part=parts) >> publish(parts)  # pylint: disable=missing-kwoa
