# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.windfarm.airflow.plugins.modules import airflow_info

KNOWN = {
    "alembic_version": {"heads": ["b"], "revisions": ["a", "b"]},
    "alembic_version_fab": {"heads": ["f"], "revisions": ["f"]},
}


@pytest.mark.parametrize(
    ("revisions", "state", "pending"),
    [
        ({}, "empty", ["alembic_version", "alembic_version_fab"]),
        ({"alembic_version": ["b"], "alembic_version_fab": ["f"]}, "current", []),
        ({"alembic_version": ["a"], "alembic_version_fab": ["f"]}, "pending", ["alembic_version"]),
        ({"alembic_version": ["b"]}, "pending", ["alembic_version_fab"]),
        ({"alembic_version": ["c"], "alembic_version_fab": ["f"]}, "ahead", []),
    ],
)
def test_how_the_schema_stands(revisions: dict[str, list[str]], state: str, pending: list[str]) -> None:
    assert airflow_info.state_of(revisions, KNOWN) == {"state": state, "pending": pending, "revisions": revisions}


def test_health_is_judged_by_the_clusters_own_thresholds(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "airflow.cfg"
    config.write_text("[triggerer]\ntriggerer_health_check_threshold = 45\n[other]\nformat = %(x)s\n")
    environment = {"AIRFLOW_CONFIG": str(config), "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60"}
    assert airflow_info.thresholds(environment) == {"scheduler": 60, "triggerer": 45, "dag_processor": 30}
