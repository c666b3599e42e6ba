# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Before a component starts: waits until the database answers and has the schema of the component's release.

Airflow itself ends at once on any other schema, to be started again and again, 5 seconds of a processor each time.
Runs with the release's Python and the component's environment: schema.py RELEASE SECONDS
"""

import json
import os
import sys
import time


def differs(wanted: dict) -> str:
    """What is not as the release needs it; empty where all is."""
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    try:
        connection = psycopg2.connect(url, connect_timeout=5)
    except psycopg2.OperationalError as error:
        return " ".join(str(error).split())
    try:
        with connection, connection.cursor() as cursor:
            for table, known in wanted.items():
                cursor.execute("SELECT to_regclass(%s)", (table,))
                if cursor.fetchone()[0] is None:
                    return f"the database has no {table} yet"
                cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608  (named by the release)
                found = sorted(row[0] for row in cursor.fetchall())
                if found != known["heads"]:
                    return f"the database has {table} {', '.join(found)}, this release needs {', '.join(known['heads'])}"
    finally:
        connection.close()
    return ""


def main() -> int:
    release, seconds = sys.argv[1:]
    with open(os.path.join(release, "release.json"), encoding="utf-8") as file:
        wanted = json.load(file)["migrations"]
    end, said = time.monotonic() + float(seconds), ""
    while True:
        wrong = differs(wanted)
        if not wrong:
            return 0
        if wrong != said:
            print(f"Waiting: {wrong}", flush=True)
            said = wrong
        if time.monotonic() > end:
            return 1
        time.sleep(2)


if __name__ == "__main__":
    sys.exit(main())
