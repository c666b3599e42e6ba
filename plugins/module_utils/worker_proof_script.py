# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_worker_proof runs with a release's Python, as the worker's or the webserver's user.

It starts nothing of Airflow's. It answers on file descriptor 3 with what is wrong; nothing of a secret is in it.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

SECONDS = 5


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body, past every proxy; OSError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310  (always http, see below)
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def api(question: dict[str, Any]) -> str:
    """A webserver, by the way that its tasks will take: through HAProxy, which verifies its certificate."""
    try:
        status, body = get(question["api"])
    except OSError as error:
        reason = getattr(error, "reason", error)
        return f"no webserver answers through HAProxy ({question['api']}: {reason}); see journalctl -u haproxy"
    if status != 200:
        return f"no webserver answers through HAProxy ({question['api']}: HTTP status {status}); see journalctl -u haproxy"
    version = json.loads(body).get("version")
    if version != question["version"]:
        return (
            f"it has Airflow {question['version']}, the webservers run {version}; run site.yml with the cluster's airflow_version"
        )
    return ""


def broker(question: dict[str, Any]) -> str:
    import redis

    url = os.environ["AIRFLOW__CELERY__BROKER_URL"]
    authority = os.environ.get("AIRFLOW__CELERY__SSL_CACERT", "")
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": authority} if url.startswith("rediss:") else {}
    try:
        client = redis.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, **verified)
        for queue in question["queues"]:
            client.llen(queue)
        client.close()
    except (redis.RedisError, OSError) as error:
        return f"Redis refuses it ({said(error)}); {question['servers']}"
    return ""


def results(question: dict[str, Any]) -> str:
    import psycopg2

    url = os.environ["AIRFLOW__CELERY__RESULT_BACKEND"].replace("db+", "", 1)
    try:
        connection = psycopg2.connect(url, connect_timeout=SECONDS)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT has_schema_privilege('public', 'USAGE') OR current_schema() IS NOT NULL")
            allowed = cursor.fetchone()[0]
        connection.close()
    except psycopg2.Error as error:
        return f"the results database refuses it ({said(error)}); {question['servers']}"
    return "" if allowed else f"the results database lets it in, but not into a schema; {question['servers']}"


def logs(question: dict[str, Any]) -> str:
    """The log folder takes a file, as a task's log would be written; a webserver then asks for it."""
    path = os.path.join(question["logs"], question["file"])
    os.umask(0o027)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(question["text"])
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{question['logs']} cannot be written ({error.strerror}); make room or mend the disk, then run site.yml"
    return ""


def read_back(question: dict[str, Any]) -> str:
    """From a webserver's host: what Airflow does to show the log of a task."""
    import jwt

    host = f"[{question['address']}]" if ":" in question["address"] else question["address"]
    now = int(time.time())
    claims = {
        "jti": uuid.uuid4().hex,
        "aud": "task-instance-logs",
        "nbf": now,
        "exp": now + 30,
        "iat": now,
        "filename": question["file"],
    }
    token = jwt.encode(claims, os.environ["AIRFLOW__API__SECRET_KEY"], algorithm="HS512")
    url = f"http://{host}:{question['port']}/log/{question['file']}"
    try:
        status, body = get(url, {"Authorization": token})
    except OSError as error:
        reason = getattr(error, "reason", error)
        return f"its task logs cannot be read from there ({url}: {reason}); see its firewall, and journalctl -u airflow-logs"
    if status == 403:
        return f"its log server refuses the webserver's token ({url}: HTTP status 403); compare clocks and airflow_api_secret_key"
    if status != 200 or body.decode(errors="replace") != question["text"]:
        return f"its log server does not give the log just written ({url}: HTTP status {status}); see journalctl -u airflow-logs"
    return ""


def said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


QUESTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "api": api,
    "broker": broker,
    "results": results,
    "logs": logs,
    "read_back": read_back,
}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    result: dict[str, Any] = {}
    try:
        result = {"problems": [found for found in [QUESTIONS[name](asked) for name in asked["ask"]] if found]}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {said(error)}"}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
