# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Note one row in the store. STORE is filled in when the file is shipped. As a script: mark()'s arguments."""

from __future__ import annotations

import socket
import sys
import time
import uuid

# host, port, dbname, user, password.
STORE: dict[str, str] = {}
PATIENCE_SECONDS = 300


def mark(phase: str, dag_id: str, run: str, task: str, map_index: int, number: int, pid: int) -> None:
    """The store is not under test: it is asked again until it answers, and a row that it took unheard is not taken twice."""
    import psycopg2

    # When that was, the store says by its own clock: those of the workers are under test.
    row = (str(uuid.uuid4()), dag_id, run, task, map_index, number, phase, socket.gethostname(), pid)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            link = psycopg2.connect(connect_timeout=5, **STORE)
            try:
                with link, link.cursor() as cursor:
                    cursor.execute("insert into ledger values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing", row)
            finally:
                link.close()
            return
        except psycopg2.Error:
            if time.monotonic() > give_up:
                raise
            time.sleep(1)


if __name__ == "__main__":
    words, numbers = sys.argv[1:5], sys.argv[5:8]
    mark(words[0], words[1], words[2], words[3], int(numbers[0]), int(numbers[1]), int(numbers[2]))
