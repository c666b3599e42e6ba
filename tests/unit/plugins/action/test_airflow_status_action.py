# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.utils.display import Display
from ansible_collections.windfarm.airflow.plugins.action import airflow_status, airflow_status_report

GROUPS = ["airflow", "airflow_worker", "airflow_worker_gpu", "mine", "redis"]
Answer = Callable[..., "dict[str, Any]"]


@pytest.fixture(name="read")
def _read(folder: pathlib.Path, controller: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], dict[str, Any]]:
    def run(answer: Answer) -> dict[str, Any]:
        monkeypatch.setattr(airflow_status.ActionModule, "_execute_module", lambda _self, **options: answer(**options))
        result: dict[str, Any] = controller([str(folder / "hosts.yml")]).run(airflow_status.ActionModule, group_names=GROUPS)
        return result

    return run


def test_the_groups_say_what_is_expected(read: Any) -> None:
    given: dict[str, Any] = {}

    def answer(module_args: dict[str, Any], **_options: Any) -> dict[str, Any]:
        given.update(module_args)
        return {"changed": False, "status": {"problems": [], "notes": []}}

    result = read(answer)
    assert given["servers"] == ["redis"]
    assert given["dags_folder"] == "/srv/airflow/dags"
    assert {"name": "worker", "service": "airflow-worker@default", "instance": "default"} in given["services"]
    assert {one["service"] for one in given["services"]} == {"airflow-worker@default", "airflow-logs"}
    assert result["status"] == {
        "reachable": True,
        "groups": ["airflow_worker", "airflow_worker_gpu", "redis"],
        "problems": [],
        "notes": [],
    }


def test_each_worker_instance_is_expected(folder: pathlib.Path, controller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def answer(_self: Any, module_args: dict[str, Any], **_options: Any) -> dict[str, Any]:
        given.update(module_args)
        return {"changed": False, "status": {"problems": [], "notes": []}}

    monkeypatch.setattr(airflow_status.ActionModule, "_execute_module", answer)
    variables = {"group_names": GROUPS, "airflow_worker_instances": [{"name": "io"}, {"name": "etl"}]}
    controller([str(folder / "hosts.yml")]).run(airflow_status.ActionModule, **variables)
    assert [one["service"] for one in given["services"]] == ["airflow-logs", "airflow-worker@io", "airflow-worker@etl"]


class TaskTimeoutError(BaseException):
    """As Ansible's, which has moved between versions."""


@pytest.mark.parametrize(
    ("error", "reachable", "problem"),
    [
        (TaskTimeoutError("Timed out after 8 second(s)."), False, "unreachable: Timed out after 8 second(s)."),
        (AnsibleConnectionFailure("no\nroute"), False, "unreachable: no route"),
        (AnsibleError("no python"), True, "its status cannot be read: no python"),
    ],
)
def test_a_host_that_does_not_answer_fails_nothing(read: Any, error: BaseException, reachable: bool, problem: str) -> None:
    def answer(**_options: Any) -> dict[str, Any]:
        raise error

    result = read(answer)
    assert not result.get("failed") and not result.get("unreachable")
    assert result["status"]["reachable"] is reachable
    assert result["status"]["problems"] == [problem]


def test_a_module_that_fails_fails_nothing(read: Any) -> None:
    result = read(lambda **_options: {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: a password\nis required"})
    assert not result.get("failed")
    assert result["status"]["problems"] == ["its status cannot be read: MODULE FAILURE sudo: a password is required"]


# --- the report -------------------------------------------------------------------------------------------------------
WELL = {"reachable": True, "groups": [], "problems": [], "notes": []}
ILL = {**WELL, "problems": ["airflow-logs.service is failed"]}


@pytest.fixture(name="report")
def _report(folder: pathlib.Path, controller: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    shown: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, message, *_args, **_options: shown.append(message))

    def run(status: dict[str, Any], check_mode: bool = False, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
        found = controller([str(folder / "hosts.yml")])
        found.variables.set_nonpersistent_facts("worker1", {"__airflow_status": {"status": status}})
        result = found.run(airflow_status_report.ActionModule, arguments, check_mode, ansible_play_hosts_all=["worker1"])
        return result, shown

    return run


def test_text_ends_with_the_verdict(report: Any) -> None:
    assert report(WELL)[1][-1] == "all well"
    result, shown = report(ILL)
    assert shown[-1] == "1 problem"
    assert result["problems"] == [{"host": "worker1", "problem": "airflow-logs.service is failed"}]
    assert not result.get("failed")


def test_json_is_one_line(report: Any) -> None:
    _result, (line,) = report(ILL, format="json")
    assert "\n" not in line and line.startswith("{")
    assert json.loads(line)["hosts"]["worker1"] == ILL


def test_hosts_are_in_the_order_of_the_inventory(folder: pathlib.Path, controller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Display, "display", lambda *_args, **_options: None)
    found = controller([str(folder / "hosts.yml")])
    asked = ["worker2", "worker1", "control1", "db1"]
    result = found.run(airflow_status_report.ActionModule, {"format": "json"}, ansible_play_hosts_all=asked)
    assert list(result["hosts"]) == ["db1", "control1", "worker1", "worker2"]
    # Outside of --limit: not asked, not told.
    result = found.run(airflow_status_report.ActionModule, {"format": "json"}, ansible_play_hosts_all=["worker2"])
    assert list(result["hosts"]) == ["worker2"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_page_is_written(report: Any, tmp_path: pathlib.Path, check_mode: bool) -> None:
    path = tmp_path / "status.html"
    report(ILL, check_mode, html=str(path))
    assert path.read_text().startswith("<!DOCTYPE html>") and "airflow-logs.service is failed" in path.read_text()
    with pytest.raises(AnsibleError, match=r"airflow_status_html: .*/none/status\.html cannot be written: No such file"):
        report(WELL, html=str(tmp_path / "none" / "status.html"))


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_file_holds_the_document(report: Any, tmp_path: pathlib.Path, check_mode: bool) -> None:
    path = tmp_path / "status.json"
    path.write_text("older")
    result, shown = report(WELL, check_mode, file=str(path))
    assert json.loads(path.read_text())["well"] is True
    assert shown[-1] == "all well" and result["changed"] is False


def test_a_file_that_cannot_be_written_is_named(report: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(AnsibleError, match=r"airflow_status_file: .*/none/status\.json cannot be written: No such file"):
        report(WELL, file=str(tmp_path / "none" / "status.json"))


def test_strict_fails_only_with_problems(report: Any) -> None:
    assert not report(WELL, strict=True)[0].get("failed")
    result, _shown = report(ILL, strict=True)
    assert result["failed"] and result["msg"] == "1 problem, see the list above"
