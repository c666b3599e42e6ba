# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the action makes of a connection that is lost; that the host goes back is tested on the lab's hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase
from ansible_collections.windfarm.airflow.plugins.action import airflow_firewall as action

PENDING = {"changed": True, "pending": True, "actions": ["load"], "diff": [{"after": "x"}]}
KEPT = {"changed": True, "pending": False, "actions": ["write"], "diff": []}
TAKEN_BACK = {"failed": True, "msg": "taken back", "actions": []}
LOST = AnsibleConnectionFailure("lost")
AWAY = AnsibleConnectionFailure("away")


class Connection(ConnectionBase):
    transport = "test"

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def reset(self) -> None:
        self.calls.append("reset")

    def _connect(self) -> None: ...
    def exec_command(self, *args: Any, **options: Any) -> None: ...
    def put_file(self, *args: Any) -> None: ...
    def fetch_file(self, *args: Any) -> None: ...
    def close(self) -> None: ...


class Action(action.ActionModule):
    def __init__(self, answers: list[Any], **args: Any) -> None:
        self.answers = answers
        self.calls: list[str] = []
        self._connection = Connection(self.calls)
        self._task = type("Task", (), {"args": args})()

    def _execute_module(self, **options: Any) -> Any:
        self.calls.append(options["module_args"]["phase"])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def go(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        clock = [0.0]
        monkeypatch.setattr(action.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(action.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + 10 * seconds))
        monkeypatch.setattr(action.ActionBase, "run", lambda *args, **options: {})
        return dict(self.run(None, {}))


def test_without_a_change_there_is_no_second_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Action([{"changed": False, "pending": False, "actions": []}])
    assert run.go(monkeypatch)["changed"] is False
    assert run.calls == ["apply"]


def test_a_new_connection_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Action([PENDING, KEPT])
    result = run.go(monkeypatch)
    assert run.calls == ["apply", "reset", "confirm"]
    assert (result["changed"], result["pending"], result["actions"]) == (True, False, ["load", "write"])
    assert result["diff"] == [{"after": "x"}]


def test_a_failure_of_the_first_step_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Action([{"failed": True, "msg": "no"}]).go(monkeypatch)["msg"] == "no"


@pytest.mark.parametrize("first", [PENDING, LOST])
def test_it_asks_until_the_host_has_gone_back(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    run = Action([first, AWAY, AWAY, {"unreachable": True, "msg": "away"}, TAKEN_BACK], rollback_seconds=30)
    result = run.go(monkeypatch)
    assert (result["failed"], result["msg"]) == (True, "taken back")
    assert run.calls == ["apply", *["reset", "confirm"] * 4]


def test_rules_that_end_the_open_connection_only_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    result = Action([LOST, KEPT]).go(monkeypatch)
    assert (result["changed"], result.get("failed")) == (True, None)


@pytest.mark.parametrize(("first", "message"), [(LOST, "lost"), (PENDING, "away")])
def test_a_host_that_stays_away_is_unreachable(monkeypatch: pytest.MonkeyPatch, first: Any, message: str) -> None:
    with pytest.raises(AnsibleConnectionFailure, match=message):
        Action([first, *[AWAY] * 9], rollback_seconds=30).go(monkeypatch)


def test_the_phase_is_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="phase is set by the action itself"):
        Action([], phase="confirm").go(monkeypatch)
