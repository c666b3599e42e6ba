# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.settings_rules import check_settings

COMPONENTS = ("scheduler", "webserver", "worker", "cli")
MANAGED = {"core": {"executor": "CeleryExecutor"}}


def lines(**variables: Any) -> list[str]:
    return [str(problem) for problem in check_settings({"one": variables, "two": variables}, COMPONENTS, MANAGED)]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"airflow_config": None, "airflow_environment": "", "airflow_secret_config": {}},
        {"airflow_config": {"core": {"parallelism": 4, "x": "a%b$c\"d'e", "json": {"a": "b\nc"}}, "a.b-c": None}},
        {"airflow_config": {"core": {"x": "value at the end of a block\n"}}},
        {"airflow_environment": {"all": {"A_1": "x$y", "AIRFLOW__CORE__PARALLELISM": 4}, "worker": None}},
        {"airflow_secret_config": {"worker": {"smtp": {"smtp_password": "x"}}}},
    ],
)
def test_right(variables: dict[str, Any]) -> None:
    assert lines(**variables) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"airflow_config": {"core": {"x": "a\nb"}}}, "airflow_config.core.x — holds a line break"),
        ({"airflow_config": {"core]\n[x": {"x": 1}}}, "is no name of a section"),
        ({"airflow_config": {"core": {"x=y": 1}}}, "airflow_config.core.x=y — is no name of a setting"),
        (
            {"airflow_secret_config": {"worker": {"smtp": {"x": "a\0b"}}}},
            "airflow_secret_config.worker.smtp.x — holds a zero byte",
        ),
        ({"airflow_secret_config": {"Worker": {}}}, "airflow_secret_config.Worker — is no component — did you mean worker?"),
        ({"airflow_environment": {"node": {}}}, "known are all, scheduler, webserver, worker, cli"),
        ({"airflow_environment": {"all": ["A=b"]}}, "airflow_environment.all — is a list, no dictionary"),
        ({"airflow_environment": {"all": {"1A": 1}}}, "is no name for an environment variable"),
        ({"airflow_environment": {"all": {"airflow__core__executor": 1}}}, "is managed by the role"),
        ({"airflow_environment": {"all": {"AIRFLOW__CORE__FERNET_KEY": "x"}}}, "set airflow_fernet_key instead"),
    ],
)
def test_wrong(variables: dict[str, Any], expected: str) -> None:
    (found,) = lines(**variables)
    assert expected in found
