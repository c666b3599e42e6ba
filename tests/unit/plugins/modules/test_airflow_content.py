# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules, content_script
from ansible_collections.windfarm.airflow.plugins.modules import airflow_content


def run(
    monkeypatch: Any, answer: dict[str, Any] | None = None, prepared: tuple[str, ...] = ("/new", "/old"), **parameters: Any
) -> dict[str, Any]:
    """The module's answer, where the database is there and the script has answered so. Without a name, the release is /old."""

    class Database:
        def __init__(self, release: str | None) -> None:
            self.release, self.environment = release or "/old", {"A": "b"}

        def prepared(self) -> bool:
            return self.release in prepared

        def migrations(self) -> dict[str, Any]:
            return {"alembic_version": {"heads": ["h"], "revisions": ["g", "h"]}}

        def wait(self, _admin: None, _seconds: float) -> dict[str, Any]:
            return {"revisions": {"alembic_version": [parameters.get("_revision", "h")]}}

    asked: dict[str, Any] = {}

    def script(release: str, _user: str, _environment: Any, _script: Any, question: dict[str, Any]) -> dict[str, Any]:
        asked.update(question, release=release, starts=asked.get("starts", 0) + 1)
        return answer or {"changes": [], "warnings": []}

    monkeypatch.setattr(airflow_content, "Database", Database)
    monkeypatch.setattr(airflow_content, "run_script", script)
    warned: list[str] = []
    monkeypatch.setattr(airflow_content.AnsibleModule, "warn", lambda _self, text: warned.append(text))
    monkeypatch.setattr(airflow_content.host_lock, "hold", lambda _module: None)
    arguments = {name: value for name, value in parameters.items() if name != "_revision"}
    out = io.StringIO()
    with patch_module_args(arguments), contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        airflow_content.main()
    return {**json.loads(out.getvalue()), "asked": asked, "warned": warned}


CHANGES = [
    {"kind": "roles", "name": "r", "what": "updated", "before": {"permissions": [["can_read", "A"], ["can_read", "B"]]},
     "after": {"permissions": [["can_read", "B"], ["can_edit", "C"]]}},
    {"kind": "pools", "name": "p", "what": "created", "before": {}, "after": {"slots": 3, "description": "ü"}},
    {"kind": "variables", "name": "v", "what": "removed", "before": {"value": "(hidden)"}, "after": {}},
]  # fmt: skip


def test_changes_and_their_diff(monkeypatch: Any) -> None:
    answer = {"changes": CHANGES, "warnings": ["look out"]}
    result = run(monkeypatch, answer, purge=["pools"], protected_users=["admin"])
    assert result["changed"] and [one["fields"] for one in result["changes"]] == [
        ["permissions"],
        ["description", "slots"],
        ["value"],
    ]
    assert [(one["before_header"], one["before"], one["after"]) for one in result["diff"]] == [
        ("roles", "r:\n  may can_read on A\n", "r:\n  may can_edit on C\n"),
        ("pools", "", 'p:\n  slots: 3\n  description: "ü"\n'),
        ("variables", "v:\n  value: (hidden)\n", ""),
    ]
    # However many kinds there are.
    assert result["warned"] == ["look out"] and result["asked"]["starts"] == 1
    assert result["asked"]["purge"] == ["pools"] and result["asked"]["protected"] == ["admin"]


def test_values_are_in_no_output(monkeypatch: Any) -> None:
    result = run(
        monkeypatch,
        {"refused": ["no: s3cret-of-eve"]},
        users=[{"username": "eve", "email": "e@x", "roles": ["Op"], "password": "s3cret-of-eve"}],
        variables=[{"key": "short", "value": "xyz"}, {"key": "number", "value": 8172635}],
    )
    assert result["failed"] and result["asked"].pop("wanted")
    text = json.dumps(result)
    assert "s3cret" not in text and "********" in text and "xyz" not in text and "8172635" not in text and "short" not in text


def test_nothing_declared_asks_nobody(monkeypatch: Any) -> None:
    result = run(monkeypatch, prepared=())
    assert not result["changed"] and result["asked"] == {}


def test_check_mode_where_nothing_is_installed(monkeypatch: Any) -> None:
    declared: dict[str, Any] = {"pools": [{"name": "p", "slots": 1}, {"name": "q", "state": "absent"}]}
    result = run(monkeypatch, prepared=(), _ansible_check_mode=True, **declared)
    assert result["changes"] == [{"kind": "pools", "name": "p", "what": "created", "fields": ["include_deferred", "slots"]}]
    result = run(monkeypatch, prepared=(), _ansible_check_mode=True, default_connections=True)
    assert result["changes"] == [{"kind": "connections", "name": "upstream's defaults", "what": "created", "fields": []}]


def test_check_mode_before_a_new_release_is_there(monkeypatch: Any) -> None:
    declared: dict[str, Any] = {"pools": [{"name": "p", "slots": 1}], "release": "/new"}
    answer: dict[str, Any] = {"changes": [], "warnings": []}
    result = run(monkeypatch, answer, prepared=("/old",), _ansible_check_mode=True, **declared)
    assert not result["changed"] and result["asked"]["release"] == "/old"
    # Whatever schema the database has: it is only read.
    result = run(monkeypatch, answer, prepared=("/old",), _ansible_check_mode=True, _revision="later", **declared)
    assert not result["changed"] and result["asked"]["release"] == "/old"
    assert run(monkeypatch, answer, _ansible_check_mode=True, **declared)["asked"]["release"] == "/new"


def test_a_secret_that_is_a_common_word_garbles_nothing(monkeypatch: Any) -> None:
    result = run(monkeypatch, {"changes": CHANGES, "warnings": []}, variables=[{"key": "k", "value": "updated permissions"}])
    assert result["changes"][0]["what"] == "updated" and "may can_edit on C" in result["diff"][0]["after"]
    # Older ones than ansible-core 2.20 tell the arguments.
    assert "updated permissions" not in json.dumps(result.get("invocation", {}))
    result = run(monkeypatch, {"changes": CHANGES, "warnings": ["an updated one"]}, variables=[{"key": "k", "value": "updated"}])
    assert result["changes"][0]["what"] == "updated" and result["warned"] == ["an ******** one"]


def test_users_of_a_directory_are_left_out(monkeypatch: Any) -> None:
    user = {"username": "eve", "email": "e@x", "roles": ["Op"]}
    result = run(monkeypatch, users=[user], purge=["users", "pools"], users_managed=False, variable_prefix="airflow_")
    assert result["asked"]["wanted"]["users"] == [] and result["asked"]["purge"] == ["pools"]
    assert result["warned"][0].startswith("airflow_users is left out: webserver_config.py has users of another place")
    assert run(monkeypatch, users_managed=False)["warned"] == []
    (told,) = run(monkeypatch, users_managed=False, variable_prefix="airflow_")["warned"]
    assert told.startswith("neither users nor the admin user are kept: webserver_config.py has users of another place")


def test_another_schema_is_refused_and_only_predicted_on(monkeypatch: Any) -> None:
    declared: dict[str, Any] = {"pools": [{"name": "p", "slots": 1}], "_revision": "g"}
    assert "does not have the schema of this release" in run(monkeypatch, **declared)["msg"]
    assert not run(monkeypatch, _ansible_check_mode=True, **declared).get("failed")


def test_mistakes_end_it_before_anybody_is_asked(monkeypatch: Any) -> None:
    result = run(monkeypatch, pools=[{"name": "p", "slots": -2}], variable_prefix="airflow_")
    assert result["msg"] == "airflow_pools[0] p — slots is -2 — write 0 or more, or -1 for no limit"
    assert result["asked"] == {}


def test_options_are_those_that_the_rules_know() -> None:
    documented = yaml.safe_load(airflow_content.DOCUMENTATION)["options"]
    for kind in content_rules.KINDS:
        known = {content_rules.NAMES[kind], *content_rules.FIELDS[kind], "state"}
        assert set(airflow_content.OPTIONS[kind]) == set(documented[kind]["suboptions"]) == known
    # The script runs alone and so has these itself.
    assert content_script.ORDER == content_rules.KINDS
    assert content_script.BUILT_IN_ROLES == content_rules.BUILT_IN_ROLES
    assert content_script.BUILT_IN_POOL == content_rules.BUILT_IN_POOL
