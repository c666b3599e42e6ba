# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A running cluster, reached as its inventory says: pytest tests/lab --inventory inventories/lab"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Molecule asks for colours, which the tests would have to read around.
os.environ.pop("ANSIBLE_FORCE_COLOR", None)
os.environ["ANSIBLE_NOCOLOR"] = "1"
# What they read is Ansible's own output, not the checkout's.
os.environ["ANSIBLE_STDOUT_CALLBACK"] = "default"

import testinfra
from api import Airflow
from inventory import DEFAULT, ROOT, Inventory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inventory", default=DEFAULT, help=f"inventory of the cluster under test (default: {DEFAULT})")


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> Inventory:
    return Inventory(request.config.getoption("--inventory"))


@pytest.fixture(scope="session")
def airflow(inventory: Inventory) -> Airflow:
    return inventory.airflow()


@pytest.fixture(scope="session")
def host(inventory: Inventory) -> Callable[[str], Any]:
    """testinfra's view of a host, as root."""

    def connect(name: str) -> Any:
        user = inventory.get(name, "ansible_user", "root")
        return testinfra.get_host(
            f"ssh://{user}@{inventory.reach(name)}",
            ssh_identity_file=inventory.get(name, "ansible_ssh_private_key_file"),
            ssh_extra_args=inventory.get(name, "ansible_ssh_common_args", ""),
            sudo=user != "root",
        )

    return connect


@pytest.fixture(scope="session")
def playbook(inventory: Inventory) -> Callable[..., str]:
    """Run one of the collection's playbooks on the cluster under test."""

    def run(name: str, **variables: Any) -> str:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i", str(Path(inventory.path).resolve()),
            f"playbooks/{name}.yml",
            "-e", json.dumps(variables),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}: rc {done.returncode}\n{done.stdout[-3000:]}{done.stderr}"
        return done.stdout

    return run


class Shipment:
    """A folder of DAG files of our own on the cluster; `ship` puts a marker into it and says when it had arrived."""

    def __init__(self, folder: Path, inventory: Inventory, playbook: Callable[..., str]) -> None:
        self.folder = folder
        self.marker = ""
        self._workers = inventory.members["worker"]
        self._playbook = playbook
        shutil.copytree(ROOT / "dags", folder)

    def ship(self, marker: str) -> float:
        self.marker = f"{marker}-{time.time_ns():x}"
        text = (ROOT / "tests" / "lab" / "dags" / "life_cycle.py").read_text()
        text = text.replace('MARKER = "unset"', f'MARKER = "{self.marker}"')
        text = text.replace("WORKERS: list[str] = []", f"WORKERS: list[str] = {json.dumps(self._workers)}")
        (self.folder / "life_cycle.py").write_text(text)
        self._playbook("dags", airflow_dags_source=str(self.folder))
        return time.monotonic()


@pytest.fixture(scope="session")
def shipment(tmp_path_factory: pytest.TempPathFactory, inventory: Inventory, playbook: Callable[..., str]) -> Iterator[Shipment]:
    yield Shipment(tmp_path_factory.mktemp("dags") / "dags", inventory, playbook)
    playbook("dags", airflow_dags_source=inventory.common("airflow_dags_source", "") or str(ROOT / "dags"))
