# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What module airflow_database runs with a release's Python, as user airflow-cli with the environment of the airflow command.

The question comes as JSON on standard input, the answer goes as JSON to file descriptor 3: standard output is Airflow's.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TABLES = ("alembic_version", "alembic_version_fab")


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Schema revisions and the admin user as they are, by SQL alone."""
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    try:
        connection = psycopg2.connect(url, connect_timeout=5)
    except psycopg2.OperationalError as error:
        return {"reachable": False, "detail": " ".join(str(error).split())}
    answer: dict[str, Any] = {"reachable": True, "revisions": {}, "admin": None}
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), ''), pg_has_role(datdba, 'USAGE'), datname"
            " FROM pg_database WHERE datname = current_database()"
        )
        answer["comment"], answer["owner"], answer["name"] = cursor.fetchone()
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = ANY (current_schemas(false))")
        tables = {row[0] for row in cursor.fetchall()}
        for table in TABLES:
            if table in tables:
                cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608  (one of TABLES)
                answer["revisions"][table] = sorted(row[0] for row in cursor.fetchall())
        if question.get("admin") and "ab_user" in tables:
            answer["admin"] = admin(cursor, question["admin"])
    return answer


def admin(cursor: Any, wanted: dict[str, str]) -> dict[str, bool]:
    from werkzeug.security import check_password_hash

    # As FAB does, for whom capitals do not tell one name from another.
    cursor.execute("SELECT id, password, active, email FROM ab_user WHERE lower(username) = lower(%s)", (wanted["username"],))
    found = cursor.fetchone()
    if not found:
        return {"exists": False}
    cursor.execute(
        "SELECT 1 FROM ab_user_role JOIN ab_role ON ab_role.id = role_id WHERE user_id = %s AND ab_role.name = 'Admin'",
        (found[0],),
    )
    return {
        "exists": True,
        "role": cursor.fetchone() is not None,
        "password": check_password_hash(found[1], wanted["password"]),
        "active": bool(found[2]),
        "email": found[3] == wanted["email"],
    }


def apply(question: dict[str, Any]) -> dict[str, Any]:
    """One start of Airflow for all that is to be done."""
    if question["migrate"]:
        from airflow.cli import cli_parser

        arguments = cli_parser.get_parser().parse_args(["db", "migrate"])
        arguments.func(arguments)
    if question.get("admin"):
        set_admin(question["admin"])
    if question.get("comment"):
        set_comment(question["comment"])
    return {}


def downgrade(question: dict[str, Any]) -> dict[str, Any]:
    """FAB's tables first: they were made on top of Airflow's."""
    from airflow.cli import cli_parser

    parser = cli_parser.get_parser()
    for table, command in (("alembic_version_fab", "fab-db"), ("alembic_version", "db")):
        if table in question["targets"]:
            arguments = parser.parse_args([command, "downgrade", "--to-revision", question["targets"][table], "--yes"])
            arguments.func(arguments)
    return {}


def set_comment(text: str) -> None:
    import psycopg2
    from psycopg2 import sql

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:", 1)
    with psycopg2.connect(url, connect_timeout=5) as connection, connection.cursor() as cursor:
        name = sql.Identifier(connection.info.dbname)
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(text)))


def set_admin(wanted: dict[str, str]) -> None:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    name, taken = wanted["username"], f"is {wanted['email']} (airflow_admin_email) another user's address?"
    with get_application_builder() as builder:
        manager = builder.sm
        role = manager.find_role("Admin")
        user = manager.find_user(username=wanted["username"])
        if not user:
            if not manager.add_user(name, name, "Airflow", wanted["email"], role, wanted["password"]):
                raise RuntimeError(f"user {name} cannot be created; {taken}")
            return
        user.roles = user.roles if role in user.roles else [*user.roles, role]
        user.active, user.email = True, wanted["email"]
        # FAB only logs what went wrong.
        if not manager.update_user(user):
            raise RuntimeError(f"user {name} cannot be written; {taken}")
        # Written although it is right, it would end the user's sessions.
        if not check_password_hash(user.password, wanted["password"]) and not manager.reset_password(user.id, wanted["password"]):
            raise RuntimeError(f"the password of user {name} cannot be written")


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        result = {"look": look, "apply": apply, "downgrade": downgrade}[asked["do"]](asked)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(3, "w") as answers:
        json.dump(result, answers)
