# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every Airflow version that has a lock, other than the default, which all other tests deploy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import available_locks
from fresh import Fresh, changed
from inventory import ROOT

DEFAULT = yaml.safe_load((ROOT / "roles/airflow/defaults/main.yml").read_text())["airflow_version"]
OTHERS = sorted(set(available_locks(str(ROOT / "roles/airflow/files/locks"))) - {DEFAULT})


def test_there_are_others() -> None:
    assert "3.2.2" in OTHERS


@pytest.mark.parametrize("version", OTHERS)
def test_a_version_deploys_and_runs_a_dag(version: str, tmp_path: Path) -> None:
    with Fresh(tmp_path / "inventory", "lt-version", "10.89.77.162", airflow_version=version) as host:
        host.must("playbooks/secrets.yml")
        host.must("playbooks/site.yml")
        host.smoke()
        assert host.run("airflow", "version").splitlines()[-1] == version
        assert host.api().get("version")["version"] == version
        assert [name.split("-")[0] for name in host.releases()] == [version]
        assert changed(host.must("playbooks/site.yml")) == {host.name: 0}
