# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a component waits for before it starts; on a real cluster in tests/lab/test_content.py."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
import types
from typing import Any

import pytest

FILE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "airflow" / "files" / "schema.py"
WANTED = {"alembic_version": {"heads": ["b"]}, "alembic_version_fab": {"heads": ["f"]}}


class Database:
    """psycopg2 as the script uses it."""

    def __init__(self, tables: dict[str, list[str]] | None) -> None:
        self.tables = tables
        self.rows: list[Any] = []

    def connect(self, url: str, **_options: Any) -> Any:
        assert url.startswith("postgresql://")
        if self.tables is None:
            raise self.OperationalError("no\nanswer")
        return self

    class OperationalError(Exception):
        pass

    def cursor(self) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def close(self) -> None:
        pass

    def execute(self, query: str, values: Any = ()) -> None:
        tables = self.tables or {}
        if values:
            self.rows = [(values[0] if values[0] in tables else None,)]
        else:
            self.rows = [(version,) for version in tables[query.split()[-1]]]

    def fetchone(self) -> Any:
        return self.rows[0]

    def fetchall(self) -> Any:
        return self.rows


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://u:p@h/n")
    spec = importlib.util.spec_from_file_location("schema", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("tables", "wrong"),
    [
        ({"alembic_version": ["b"], "alembic_version_fab": ["f"]}, ""),
        (None, "no answer"),
        ({}, "the database has no alembic_version yet"),
        ({"alembic_version": ["b"]}, "the database has no alembic_version_fab yet"),
        ({"alembic_version": ["a"], "alembic_version_fab": ["f"]}, "the database has alembic_version a, this release needs b"),
    ],
)
def test_what_keeps_it_waiting(script: Any, monkeypatch: pytest.MonkeyPatch, tables: Any, wrong: str) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", Database(tables))
    assert script.differs(WANTED) == wrong


def test_it_waits_says_why_once_and_gives_up(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "release.json").write_text(json.dumps({"migrations": WANTED}))
    monkeypatch.setattr(
        script, "time", types.SimpleNamespace(monotonic=iter([0.0, 2.0, 4.0]).__next__, sleep=lambda _seconds: None)
    )
    answers = iter(["no answer", "no answer"])
    monkeypatch.setattr(script, "differs", lambda _wanted: next(answers))
    monkeypatch.setattr(sys, "argv", ["schema.py", str(tmp_path), "3"])
    assert script.main() == 1
    assert capsys.readouterr().out == "Waiting: no answer\n"
    monkeypatch.setattr(script, "differs", lambda _wanted: "")
    monkeypatch.setattr(script, "time", types.SimpleNamespace(monotonic=lambda: 0.0))
    assert script.main() == 0
