# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deletes rows that are older than a number of days: `airflow db clean`, its archive tables, and Celery's results.

Run by airflow-db-clean.service with a release's Python, as user airflow-cli with the environment of the airflow command.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import time
from typing import Any

# While it is there, somebody changes the database's schema or all of its rows.
UPGRADING = "/etc/airflow/upgrading"
# Rows of one transaction, and of one archive table.
BATCH = "20000"
# Of this script alone, among the advisory locks of a database.
LOCK = 7243392021
ARCHIVE = re.compile(r"^_airflow_deleted__.+__(\d{14})(?:__b\d+)?$")
# 3.2 does not spare the versions of DAGs that task instances still refer to: the database refuses, and the rest is not cleaned.
TABLES = """
import json
from airflow.utils import db_cleanup
spares = "skip_if_referenced" in db_cleanup._TableConfig.__dataclass_fields__
print(json.dumps([] if spares else sorted(set(db_cleanup.config_dict) - {"dag", "dag_version"})))
"""
# Airflow never reads what is older than its task; without Celery's own beat nobody deletes it.
RESULTS = ("celery_taskmeta", "celery_tasksetmeta")


def connect(variable: str) -> Any:
    import psycopg2

    url = re.sub(r"^(db\+)?postgresql(\+psycopg2)?:", "postgresql:", os.environ[variable])
    connection = psycopg2.connect(url, connect_timeout=10)
    # Each statement by itself: an open transaction would be ended by the server while `airflow db clean` works.
    connection.autocommit = True
    return connection


def alone(connection: Any) -> bool:
    """Whether no other host is at it. The lock ends with the connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
        return bool(cursor.fetchone()[0])


def clean(before: datetime.datetime) -> int:
    """`airflow db clean`; ended early when an upgrade begins. But for the option, a table that failed would be a success."""
    python = sys.executable
    tables = json.loads(subprocess.run([python, "-I", "-c", TABLES], capture_output=True, check=True).stdout.splitlines()[-1])
    options = ["--clean-before-timestamp", before.isoformat(), "--batch-size", BATCH, "--error-on-cleanup-failure", "--yes"]
    command = [os.path.join(os.path.dirname(python), "airflow"), "db", "clean", *options]
    process = subprocess.Popen([*command, *(["--tables", ",".join(tables)] if tables else [])])
    while process.poll() is None:
        if os.path.exists(UPGRADING):
            print(f"{UPGRADING} has appeared: stopped, the next run goes on", flush=True)
            process.terminate()
            process.wait()
            return 0
        time.sleep(0.5)
    return process.returncode


def drop_archives(connection: Any, before: datetime.datetime) -> None:
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = ANY (current_schemas(false))")
        found = sorted(match[0] for (name,) in cursor.fetchall() if (match := ARCHIVE.match(name)))
        for name in found:
            archived = datetime.datetime.strptime(ARCHIVE.match(name)[1], "%Y%m%d%H%M%S")  # type: ignore[index]
            if archived.replace(tzinfo=datetime.timezone.utc) < before:
                cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                print(f"Dropped the archive table {name}", flush=True)


def clean_results(connection: Any, before: datetime.datetime) -> None:
    from psycopg2 import sql

    # Celery writes UTC without saying so.
    naive = before.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    delete = sql.SQL("DELETE FROM {0} WHERE id IN (SELECT id FROM {0} WHERE date_done < %s LIMIT %s)")
    with connection.cursor() as cursor:
        for table in RESULTS:
            cursor.execute("SELECT to_regclass(%s)", (table,))
            if cursor.fetchone()[0] is None:
                continue
            count = 0
            while not os.path.exists(UPGRADING):
                cursor.execute(delete.format(sql.Identifier(table)), (naive, int(BATCH)))
                count += cursor.rowcount
                if cursor.rowcount < int(BATCH):
                    break
            print(f"Deleted {count} rows of {table}", flush=True)


def main() -> int:
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=int(sys.argv[1]))
    database = connect("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    if not alone(database):
        print("Another host is at it")
        return 0
    code = clean(before)
    if not os.path.exists(UPGRADING):
        drop_archives(database, before)
        clean_results(connect("AIRFLOW__CELERY__RESULT_BACKEND"), before)
    return code


if __name__ == "__main__":
    sys.exit(main())
