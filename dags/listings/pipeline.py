# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the DAGs of this pipeline share. All but the first do the same: when the one before has published, they compute a chunk
per brand in parallel, check each, and publish from which week on there is something new.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset, task, task_group

CONNECTION = "listings"
LOAD_POOL, METRICS_POOL = "listings_load", "listings_metrics"
KEYS = ["brand", "parent_model", "model", "reference"]


class Check(SQLCheckOperator):
    """Its parameters may come from another task, which upstream's does not resolve."""

    template_fields = (*SQLCheckOperator.template_fields, "parameters")


def common(doc: str) -> dict:
    """Arguments of every DAG: a week that is computed twice at once would be there twice."""
    return {
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": True,
        "tags": ["listings"],
        "doc_md": doc,
        "template_searchpath": [str(Path(__file__).parent / "sql")],
        "default_args": {"conn_id": CONNECTION, "retry_delay": timedelta(seconds=5)},
    }


def step(table: str, after: str, doc: str, by: list[str], sql: str, below: str = "") -> DAG:
    """The DAG that computes a table when the one before it has published; by: what a row is of, besides its week."""
    macros = {"table": table, "by": by, "below": below}
    with DAG(table, schedule=[Asset(f"listings/{after}")], user_defined_macros=macros, **common(doc)) as dag:

        @task
        def brands(triggering_asset_events=None) -> list[dict[str, str]]:
            """One chunk per brand; what several ingestions have published meanwhile is done at once, and all by a run by hand."""
            from airflow.providers.postgres.hooks.postgres import PostgresHook

            since = [event.extra["since"] for events in (triggering_asset_events or {}).values() for event in events]
            found = PostgresHook(CONNECTION).get_records("select distinct brand from listings order by brand")
            return [{"brand": brand, "since": min(since, default="0001-01-01")} for (brand,) in found]

        @task_group
        def chunk(part):
            options = {"sql": sql, "split_statements": True, "handler": None, "pool": METRICS_POOL}
            compute = SQLExecuteQueryOperator(task_id="compute", parameters=part, **options)
            compute >> Check(task_id="check", sql="check.sql", parameters=part, pool=METRICS_POOL)

        @task(outlets=[Asset(f"listings/{table}")])
        def publish(parts, *, outlet_events) -> None:
            outlet_events[Asset(f"listings/{table}")].extra = {"since": min(part["since"] for part in parts)}

        parts = brands()
        # Airflow gives publish its events.
        chunk.expand(part=parts) >> publish(parts)  # pylint: disable=missing-kwoa
    return dag
