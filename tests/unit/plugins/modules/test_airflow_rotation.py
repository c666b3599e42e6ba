# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import rotation_script
from ansible_collections.windfarm.airflow.plugins.module_utils.database import DatabaseError
from ansible_collections.windfarm.airflow.plugins.modules import airflow_rotation
from cryptography.fernet import Fernet


def test_secrets_and_nothing_else_are_hidden() -> None:
    question = {
        "secret": "redis",
        "old": {"broker": "b-old", "user": "airflow", "keys": ["k-old"]},
        "new": {"admin": "a-new", "kid": "kid"},
        "password": "pw",
        "user": "admin",
        "ports": {"w1": [{"port": 8793}]},
    }
    assert airflow_rotation.secrets_in({"question": question, "keys": ["k1"]}) == {"b-old", "k-old", "a-new", "pw", "k1"}
    assert airflow_rotation.secrets_in({"question": {}, "keys": []}) == set()


def test_tasks_that_began_with_the_old_secret_are_waited_for(monkeypatch: Any) -> None:
    answers = iter([{"airflow-worker@default-a.service": ["t1"]}, {}])
    monkeypatch.setattr(airflow_rotation, "draining", lambda: next(answers))
    monkeypatch.setattr(airflow_rotation.time, "sleep", lambda _seconds: None)
    airflow_rotation.wait_drained(60)
    monkeypatch.setattr(airflow_rotation, "draining", lambda: {"airflow-worker@default-a.service": ["t1", "t2"]})
    with pytest.raises(DatabaseError, match=r"still finishes 2 tasks that began with the old secret: t1, t2. Old and new are"):
        airflow_rotation.wait_drained(-1)


class Rows:
    """A database of two tables whose rows can be changed and go, as psycopg2's cursor shows it."""

    def __init__(self, tables: dict[str, dict[int, str]]) -> None:
        self.tables = tables
        self.found: list[Any] = []
        self.rowcount = 0
        self.vanishing: tuple[str, int] | None = None

    def execute(self, query: str, values: Any = ()) -> None:
        words = query.split()
        if "information_schema" in query:
            self.found = [("variable", "val"), ("trigger", "kwargs")]
        elif words[0] == "SELECT":
            rows = self.tables[query.partition(" FROM ")[2].split()[0]]
            self.found = [row for row in sorted(rows.items()) if not values or row[0] > values[0]][: rotation_script.BATCH]
        else:
            table, (new, number, old) = words[1], values
            if self.vanishing == (table, number):
                del self.tables[table][number]
            self.rowcount = int(self.tables[table].get(number) == old)
            if self.rowcount:
                self.tables[table][number] = new

    def fetchall(self) -> list[Any]:
        return self.found

    def fetchone(self) -> Any:
        return self.found[0] if self.found else None

    # The connection that it belongs to.
    autocommit = False

    def cursor(self) -> Rows:
        return self

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


@pytest.fixture(name="rows")
def _rows(monkeypatch: Any) -> Any:
    import sys
    import types

    def make(tables: dict[str, dict[int, str]]) -> Rows:
        found = Rows(tables)
        monkeypatch.setitem(sys.modules, "psycopg2", types.SimpleNamespace(connect=lambda *_a, **_k: found))
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://x")
        monkeypatch.setattr(rotation_script, "BATCH", 2)
        return found

    return make


def test_every_row_is_encrypted_with_the_new_key(rows: Any) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    text = {number: Fernet(old).encrypt(b"%d" % number).decode() for number in range(5)}
    database = rows({"variable": dict(text), "trigger": {1: text[1], 2: text[2], 3: '{"moment": 1}'}})
    # Ends while it is looked at.
    database.vanishing = ("trigger", 2)
    assert rotation_script.reencrypt({"keys": [new, old]}) == {"changed": 6}
    assert {number: Fernet(new).decrypt(value.encode()) for number, value in database.tables["variable"].items()} == {
        number: b"%d" % number for number in range(5)
    }
    assert rotation_script.reencrypt({"keys": [new, old]}) == {"changed": 0}
    question = {"new": {"key": new}, "old": {"keys": [old]}}
    assert rotation_script.fernet(question)[0].startswith("6 stored values")
    database.tables["variable"][3] = text[3]
    with pytest.raises(rotation_script.Accepted, match=r"variable 3 \(val\) does not open with the new key alone"):
        rotation_script.fernet(question)


def test_what_no_key_opens_stops_it(rows: Any) -> None:
    lost, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    rows({"variable": {7: Fernet(lost).encrypt(b"x").decode()}, "trigger": {}})
    with pytest.raises(rotation_script.Accepted, match="opens with none of the keys; save it anew, or delete it"):
        rotation_script.reencrypt({"keys": [new]})
