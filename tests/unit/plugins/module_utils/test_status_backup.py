# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a host's backups are a problem."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_backup as pb
from ansible_collections.windfarm.airflow.plugins.module_utils import status
from ansible_collections.windfarm.airflow.plugins.plugin_utils import status_report

CALENDAR = """  Original form: Mon..Fri *-*-* 02:30
Normalized form: Mon..Fri *-*-* 02:30:00
    Next elapse: Thu 2026-11-26 02:30:00 CET
       (in UTC): Thu 2026-11-26 01:30:00 UTC
       From now: 20h left
   Iteration #2: Fri 2026-11-27 02:30:00 CET
       (in UTC): Fri 2026-11-27 01:30:00 UTC
       From now: 1 day 20h left
   Iteration #3: Mon 2026-11-30 02:30:00 CET
       (in UTC): Mon 2026-11-30 01:30:00 UTC
"""
HOUR = 3600


def test_the_longest_pause_of_a_schedule_counts() -> None:
    assert status.allowed_age(CALENDAR) == 1.25 * 72 * HOUR + 1800
    # One single date: nothing can be overdue after it.
    assert status.allowed_age(CALENDAR.partition("Iteration")[0]) == float("inf")


def judge(
    monkeypatch: pytest.MonkeyPatch, hours: float | None, schedule: str = "hourly", failure: str = ""
) -> tuple[list[str], list[str]]:
    lines = "\n".join(f"   Iteration #{hour}: Thu 2026-11-26 0{hour}:00:00 UTC" for hour in range(1, 5))
    monkeypatch.setattr(status, "_output", lambda _command: lines)
    monkeypatch.setattr(status.os.path, "exists", lambda _path: False)
    problems: list[str] = []
    notes: list[str] = []
    made = pb.utc(time.time() - hours * HOUR) if hours is not None else ""
    shown: dict[str, Any] = {"id": "x" if made else "", "time": made, "schedule": schedule}
    question = status.Question([], [], "", 30, problems.append, notes.append)
    status.judge_backup(question, shown, failure, {"started": "T"})
    return problems, notes


def test_a_fresh_one_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(monkeypatch, 1.0) == ([], [])


def test_an_old_one_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, _notes = judge(monkeypatch, 2.0)
    assert "a backup is overdue: the last good one is of" in problems[0]


def test_none_yet_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, notes = judge(monkeypatch, None)
    assert problems == []
    assert "there is no backup yet" in notes[0]


def test_a_failure_is_a_problem_however_fresh_the_last_good_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, _notes = judge(monkeypatch, 0.1, failure="disk")
    assert problems == ["the last backup of T failed: disk; see journalctl -u postgresql-backup"]


def test_by_hand_only_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, notes = judge(monkeypatch, 500, schedule="")
    assert problems == []
    assert "only by hand; the last is of" in notes[0]


def test_how_it_looks() -> None:
    shown = {
        "id": "20261122T051500Z", "bytes": 2 * 10**6, "age": 7300, "fernet": "aaaa",
        "count": 3, "copied_to": "k@h:/x", "host": "db",
    }  # fmt: skip
    (line,) = status_report.backup(shown)
    assert line == "20261122T051500Z, 2 h ago, 2.0 MB, of Fernet key aaaa; 3 backups kept on db, copied to k@h:/x"
    assert status_report.backup({}) == []
