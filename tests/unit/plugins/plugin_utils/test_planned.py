# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import multiprocessing
import pathlib
import types
from collections.abc import Callable
from typing import Any

import pytest
from ansible import constants as C
from ansible_collections.windfarm.airflow.plugins.plugin_utils import planned

GROUPS = {"airflow_worker": ["worker1", "worker2"]}


class HostVars(dict[str, Any]):
    """As much of Ansible's as counts here."""

    def __init__(self, **included: Any) -> None:
        super().__init__()
        self._variable_manager = types.SimpleNamespace(
            _extra_vars={}, _vars_cache={"worker1": included}, _nonpersistent_fact_cache={"worker2": {"__airflow_files": [1]}}
        )


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[Any]:
    """The plans that were made; as in one of the processes that Ansible makes for each task of each host."""
    plans: list[Any] = []

    def plan(*arguments: Any) -> dict[str, Any]:
        plans.append(arguments)
        return {"number": len(plans)}

    monkeypatch.setattr(planned, "plan", plan)
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return plans


@pytest.fixture(name="ask")
def _ask(made: list[Any]) -> Callable[..., dict[str, Any]]:
    def ask(hostvars: Any, groups: Any = None, removed: tuple[str, ...] = ()) -> dict[str, Any]:
        # The next process.
        planned._remembered.clear()
        return planned.planned(hostvars, groups or GROUPS, removed)

    return ask


def test_processes_share_what_one_has_made(ask: Any, made: list[Any], tmp_path: pathlib.Path) -> None:
    assert ask(HostVars(a=1)) == ask(HostVars(a=1)) == {"number": 1}
    assert len(made) == 1
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_answers_of_hosts_change_nothing(ask: Any, made: list[Any]) -> None:
    hostvars = HostVars(a=1)
    ask(hostvars)
    hostvars._variable_manager._nonpersistent_fact_cache["worker1"] = {"__airflow_release": {"path": "x"}}
    ask(hostvars)
    assert len(made) == 1


def test_what_changes_a_plan_makes_another(ask: Any, made: list[Any]) -> None:
    extra = HostVars(a=1)
    extra._variable_manager._extra_vars = {"airflow_tls": False}
    fact = HostVars(a=1)
    fact._variable_manager._nonpersistent_fact_cache["worker1"] = {"airflow_address": "10.0.0.1"}
    for hostvars in (HostVars(a=1), HostVars(a=2), HostVars(b=1), HostVars(a=[1]), extra, fact):
        ask(hostvars)
    ask(HostVars(a=1), {"airflow_worker": ["worker1"]})
    ask(HostVars(a=1), removed=("worker2",))
    assert len(made) == 8
    ask(HostVars(a=1))
    assert len(made) == 8


def test_the_main_process_shares_with_nobody(
    ask: Any, made: list[Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)
    ask(HostVars())
    ask(HostVars())
    assert len(made) == 2 and not list(tmp_path.iterdir())


def test_without_what_ansible_keeps_inside_each_makes_its_own(ask: Any, made: list[Any]) -> None:
    ask({})
    ask({})
    assert len(made) == 2


def test_a_file_that_is_broken_or_cannot_be_written_is_no_obstacle(
    ask: Any, made: list[Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(HostVars())
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    assert ask(HostVars()) == {"number": 2}
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "none"))
    assert ask(HostVars()) == {"number": 3}


def test_a_plan_that_is_no_text_is_kept_to_oneself(ask: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "plan", lambda *_arguments: {"strange": object()})
    assert "strange" in ask(HostVars())
    assert not list(tmp_path.iterdir())
