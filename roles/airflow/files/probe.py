# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks the database or the broker about one component, without starting Airflow: one SQL or one Celery ping.

Runs with the release's Python and the component's environment; the question comes as JSON on standard input, the answer
goes as JSON to standard output: {"ok": bool, "detail": str}, of kind jobs with their heartbeats.
"""

import json
import os
import ssl
import sys

# [scheduler] scheduler_health_check_threshold and its like.
HEARTBEAT_SECONDS = 30


def job(question: dict) -> dict:
    """Whether this host's job (or, with others, one of another host) has a fresh heartbeat and began after `since`."""
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    with psycopg2.connect(url, connect_timeout=5) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM job WHERE job_type = %s AND state = 'running' AND (hostname <> %s) = %s"
            " AND latest_heartbeat > now() - make_interval(secs => %s) AND start_date >= to_timestamp(%s)",
            (
                question["job_type"],
                os.environ["AIRFLOW_ADDRESS"],
                bool(question.get("others")),
                HEARTBEAT_SECONDS,
                question.get("since", 0),
            ),
        )
        count = cursor.fetchone()[0]
    return {"ok": count > 0, "detail": f"{count} {question['job_type']} with a heartbeat in the last {HEARTBEAT_SECONDS} s"}


def jobs(_question: dict) -> dict:
    """Last heartbeats of this host's jobs, by type, in one call for all of them."""
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    with psycopg2.connect(url, connect_timeout=5) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_type, extract(epoch FROM max(latest_heartbeat))::float FROM job"
            " WHERE state = 'running' AND hostname = %s GROUP BY job_type",
            (os.environ["AIRFLOW_ADDRESS"],),
        )
        return {"ok": True, "detail": "", "jobs": dict(cursor.fetchall())}


def celery(question: dict) -> dict:
    """Whether the worker of this name (or, with others, one of another host) answers a ping."""
    from kombu import Connection
    from kombu.pidbox import Mailbox

    options = {
        # Every connection restores what it thinks is overdue: a shorter time than the workers' would deliver tasks twice.
        "visibility_timeout": 604800,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
    }
    if not question.get("others"):
        import psycopg2

        # A worker that takes tasks but cannot store results is none.
        psycopg2.connect(os.environ["AIRFLOW__CELERY__RESULT_BACKEND"].replace("db+", "", 1), connect_timeout=5).close()
    name = question["name"]
    host = name.partition("@")[2]
    url = os.environ["AIRFLOW__CELERY__BROKER_URL"]
    authority = os.environ.get("AIRFLOW__CELERY__SSL_CACERT", "")
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": authority} if url.startswith("rediss:") else None
    with Connection(url, transport_options=options, ssl=verified) as connection:
        mailbox = Mailbox("celery", type="fanout", accept=["json"])(connection)
        wanted = (
            {"destination": None, "limit": None, "timeout": 2}
            if question.get("others")
            else {"destination": [name], "limit": 1, "timeout": 5}
        )
        replies = mailbox._broadcast("ping", reply=True, **wanted) or []
    names = sorted(answering for reply in replies for answering in reply)
    if question.get("others"):
        names = [answering for answering in names if answering.partition("@")[2] != host]
    return {"ok": bool(names), "detail": f"answering: {', '.join(names) or 'none'}"}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        answer = {"job": job, "jobs": jobs, "celery": celery}[asked["kind"]](asked)
    except Exception as error:
        answer = {"ok": False, "detail": f"{type(error).__name__}: {error}".splitlines()[0]}
    json.dump(answer, sys.stdout)
