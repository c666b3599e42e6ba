# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_rotation runs with a release's Python, as user airflow-cli with the environment of the airflow command.

The question comes as JSON on standard input, the answer goes as JSON to file descriptor 3. Nothing secret is in an answer.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import time
import uuid
from typing import Any
from urllib.parse import unquote, urlsplit

CA = "/etc/airflow/ca.pem"
BATCH = 500
# What Airflow encrypts: table, columns and, for each, the column that says whether it is.
ENCRYPTED = (
    ("connection", (("password", "is_encrypted"), ("extra", "is_extra_encrypted"))),
    ("variable", (("val", "is_encrypted"),)),
    ("trigger", (("kwargs", ""),)),
    ("connection_test_request", (("password", "is_encrypted"), ("extra", "is_extra_encrypted"))),
)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def webservers(question: dict[str, Any]) -> list[str]:
    scheme = "https" if question["tls"] else "http"
    return [f"{scheme}://{bracketed(one['address'])}:{one['port']}" for one in question["webservers"]]


class Accepted(Exception):
    """What should be refused is not, or what should work does not."""


def url_of(name: str) -> str:
    scheme, _separator, rest = os.environ[name].partition("://")
    return {"postgresql+psycopg2": "postgresql", "db+postgresql": "postgresql"}.get(scheme, scheme) + "://" + rest


# Fernet


def stored(cursor: Any) -> Any:
    """(table, column, id, text) of everything that is encrypted, in batches; rows may change meanwhile."""
    columns_of = "SELECT table_name, column_name FROM information_schema.columns"
    cursor.execute(f"{columns_of} WHERE table_schema = ANY (current_schemas(false))")
    present = set(cursor.fetchall())
    for table, columns in ENCRYPTED:
        for column, flag in columns:
            if (table, column) not in present:
                continue
            condition = f"coalesce({column}, '') <> ''" + (f" AND {flag}" if flag else "")
            last: list[Any] = []
            while True:
                after = " AND id > %s" if last else ""
                query = f"SELECT id, {column} FROM {table} WHERE {condition}{after} ORDER BY id LIMIT {BATCH}"  # noqa: S608
                cursor.execute(query, last)
                rows = cursor.fetchall()
                # What a task defers to is plain JSON, since a worker has no key, and Airflow tells it by this sign.
                yield from ((table, column, row[0], row[1]) for row in rows if not row[1].startswith("{"))
                if len(rows) < BATCH:
                    break
                last = [rows[-1][0]]


def _opens(key: Any, text: str) -> bool:
    from cryptography.fernet import InvalidToken

    try:
        key.decrypt(text.encode())
    except InvalidToken:
        return False
    return True


def reencrypt(question: dict[str, Any]) -> dict[str, Any]:
    """Row by row, each only if it is still what was read: nothing waits for a lock, and whatever goes meanwhile is gone.

    Airflow's own command is one transaction over all rows, which a trigger that ends meanwhile, or is not encrypted, makes fail.
    """
    import psycopg2
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet

    keys = [Fernet(key) for key in question["keys"]]
    every = MultiFernet(keys)
    changed = 0
    connection = psycopg2.connect(url_of("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"), connect_timeout=10)
    connection.autocommit = True
    with connection.cursor() as cursor:
        while True:
            old = [row for row in stored(cursor) if not _opens(keys[0], row[3])]
            for table, column, number, text in old:
                try:
                    new = every.rotate(text.encode()).decode()
                except InvalidToken:
                    name = {"connection": "conn_id", "variable": "key"}.get(table)
                    if name:
                        cursor.execute(f"SELECT {name} FROM {table} WHERE id = %s", (number,))  # noqa: S608  (one of ENCRYPTED)
                        number = (cursor.fetchone() or [number])[0]
                    cure = "save it anew, or delete it"
                    raise Accepted(f"{table} {number} ({column}) opens with none of the keys; {cure}") from None
                query = f"UPDATE {table} SET {column} = %s WHERE id = %s AND {column} = %s"  # noqa: S608  (one of ENCRYPTED)
                cursor.execute(query, (new, number, text))
                changed += cursor.rowcount
            if not old:
                return {"changed": changed}


def fernet(question: dict[str, Any]) -> list[str]:
    import psycopg2
    from cryptography.fernet import Fernet

    new, olds = Fernet(question["new"]["key"]), [Fernet(key) for key in question["old"]["keys"]]
    count = 0
    connection = psycopg2.connect(url_of("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"), connect_timeout=10)
    with connection, connection.cursor() as cursor:
        for table, column, number, text in stored(cursor):
            count += 1
            if not _opens(new, text):
                raise Accepted(f"{table} {number} ({column}) does not open with the new key alone")
            if any(_opens(old, text) for old in olds):
                raise Accepted(f"{table} {number} ({column}) still opens with an old key")
    return [f"{count} stored values (connections, variables, triggers) open with the new Fernet key alone, none with an old one"]


# Servers


def postgresql(question: dict[str, Any], name: str) -> list[str]:
    import psycopg2
    from psycopg2.extensions import parse_dsn

    old = question["old"]
    with psycopg2.connect(url_of(name), connect_timeout=10) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (old["user"],))
        found = cursor.fetchone()
        if found and found[0]:
            raise Accepted(f"role {old['user']} may still log in")
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (old["user"],))
        if sessions := cursor.fetchone()[0]:
            raise Accepted(f"role {old['user']} still has {sessions} sessions")
        own = connection.info.user
        if own == old["user"]:
            raise Accepted(f"services still log in as {own}")
    words = parse_dsn(url_of(name))
    try:
        psycopg2.connect(**{**words, "user": old["user"], "password": old["password"], "connect_timeout": 10}).close()
    except psycopg2.OperationalError as error:
        reason = " ".join(str(error).split()).rpartition("FATAL: ")[2].strip()
        if not any(text in reason for text in ("pg_hba.conf", "not permitted to log in", "authentication failed")):
            raise
    else:
        raise Accepted(f"PostgreSQL accepts the old login {old['user']}")
    return [f"PostgreSQL refuses {old['user']} with the old password ({reason}), and has no session of it; {own} is in use"]


def redis(question: dict[str, Any]) -> list[str]:
    import redis as client

    parts = urlsplit(os.environ["AIRFLOW__CELERY__BROKER_URL"])
    tls = {"ssl": True, "ssl_ca_certs": CA} if parts.scheme == "rediss" else {}
    own = unquote(parts.username or "")
    lines = []
    for user, now, before in (
        (own, question["new"]["broker"], question["old"]["broker"]),
        (question["admin"], question["new"]["admin"], question["old"]["admin"]),
    ):
        words: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "username": user, "socket_timeout": 10, **tls}
        client.Redis(password=now, **words).ping()
        try:
            client.Redis(password=before, **words).ping()
        except client.AuthenticationError as error:
            lines.append(f"Redis refuses account {user} with the old password ({error})")
        else:
            raise Accepted(f"Redis accepts the old password of account {user}")
    return lines


def tls_server(host: str, port: int, kind: str, authority: str) -> None:
    context = ssl.create_default_context(cadata=authority)
    with socket.create_connection((host, port), 10) as plain:
        if kind == "postgresql":
            plain.sendall(bytes((0, 0, 0, 8, 4, 210, 22, 47)))
            if plain.recv(1) != b"S":
                raise Accepted(f"PostgreSQL on {host} speaks no TLS")
        with context.wrap_socket(plain, server_hostname=host):
            pass


def tls(question: dict[str, Any]) -> list[str]:
    old, lines = question["old"]["certificate"], []
    with open(CA, encoding="ascii") as file:
        trusted = file.read()
    if any(part.strip() and part.strip() in trusted for part in old.split("-----END CERTIFICATE-----")):
        raise Accepted(f"{CA} still has the old authority")
    servers = [*question["servers"], *({"kind": "webserver", **one} for one in question["webservers"])]
    for server in servers:
        where = (str(server.get("address") or server["host"]), int(server["port"]), server["kind"])
        tls_server(*where, question["new"]["certificate"])
        try:
            tls_server(*where, old)
        except ssl.SSLCertVerificationError as error:
            lines.append(f"whoever trusts only the old authority refuses {where[2]} on {where[0]} ({error.verify_message})")
        else:
            raise Accepted(f"{where[2]} on {where[0]} still shows a certificate of the old authority")
    return lines


# Webservers


def ask(url: str, headers: dict[str, str], body: Any = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    place = (str(parts.hostname), parts.port)
    connection = (
        http.client.HTTPSConnection(*place, timeout=30, context=ssl.create_default_context(cafile=CA))
        if parts.scheme == "https"
        else http.client.HTTPConnection(*place, timeout=30)
    )
    data = json.dumps(body) if body is not None else None
    connection.request("POST" if data else "GET", url[len(f"{parts.scheme}://{parts.netloc}") :], data, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def log_in(url: str, user: str, password: str) -> tuple[int, str]:
    status, body = ask(f"{url}/auth/token", {"Content-Type": "application/json"}, {"username": user, "password": password})
    return status, json.loads(body)["access_token"] if status == 201 else ""


def admin(question: dict[str, Any]) -> list[str]:
    lines = []
    for url in webservers(question):
        now = log_in(url, question["user"], question["new"]["value"])[0]
        before = log_in(url, question["user"], question["old"]["value"])[0]
        if now != 201 or before != 401:
            raise Accepted(f"{url}/auth/token answers HTTP {before} to the old password and {now} to the new one")
        lines.append(f"{url} refuses user {question['user']} with the old password (HTTP 401)")
    return lines


def jwt(question: dict[str, Any]) -> list[str]:
    import jwt as tokens

    lines = []
    for url in webservers(question):
        status, token = log_in(url, question["user"], question["password"])
        if status != 201:
            raise Accepted(f"{url}/auth/token answers HTTP {status} to the admin user, so nothing can be tried")
        claims = {**tokens.decode(token, options={"verify_signature": False}), "jti": uuid.uuid4().hex}
        answers = {}
        for which in ("old", "new"):
            signed = tokens.encode(claims, question[which]["value"], "EdDSA", {"kid": question[which]["kid"]})
            answers[which] = ask(f"{url}/api/v2/dags?limit=1", {"Authorization": f"Bearer {signed}"})[0]
        if answers["old"] not in (401, 403) or answers["new"] != 200:
            raise Accepted(f"{url} answers HTTP {answers['old']} to a token of the old key, {answers['new']} to one of the new")
        lines.append(f"{url} refuses a token that is signed with the old key (HTTP {answers['old']}), not one of the new key")
    return lines


def api(question: dict[str, Any]) -> list[str]:
    import jwt as tokens

    now, lines = int(time.time()), []
    claims = {"aud": "task-instance-logs", "filename": "x", "iat": now, "nbf": now, "exp": now + 30}
    listening = [(question["addresses"][host], one) for host, ports in question["ports"].items() for one in ports]
    for found, server in [one for one in listening if one[1]["name"] in ("worker_logs", "triggerer_logs")]:
        address = bracketed(found)
        answers = {}
        for which in ("old", "new"):
            token = tokens.encode(claims, question[which]["value"], "HS512")
            answers[which] = ask(f"http://{address}:{server['port']}/log/x", {"Authorization": token})[0]
        if answers["old"] != 403 or answers["new"] != 404:
            raise Accepted(
                f"the log server {address}:{server['port']} answers HTTP {answers['old']} to a token of the old key and "
                f"{answers['new']} to one of the new"
            )
        lines.append(f"the log server {address}:{server['port']} refuses a token that is signed with the old key (HTTP 403)")
    return lines


def prove(question: dict[str, Any]) -> dict[str, Any]:
    kind = question["secret"]
    if kind == "database":
        return {"lines": postgresql(question, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")}
    if kind == "results":
        return {"lines": postgresql(question, "AIRFLOW__CELERY__RESULT_BACKEND")}
    return {"lines": {"fernet": fernet, "redis": redis, "tls": tls, "admin": admin, "jwt": jwt, "api": api}[kind](question)}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        result = {"reencrypt": reencrypt, "prove": prove}[asked["do"]](asked)
    except Accepted as error:
        result = {"refused": str(error)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
