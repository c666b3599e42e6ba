# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs actions over inventory files with Ansible's own loader, inventory and variables, in this process."""

from __future__ import annotations

import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecret
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

CLUSTER = """\
all:
  children:
    postgresql: {hosts: {db1: {ansible_host: 192.0.2.1}}}
    redis: {hosts: {db1: }}
    airflow:
      children:
        airflow_scheduler: {hosts: {control1: {ansible_host: 192.0.2.2}}}
        airflow_webserver: {hosts: {control1: }}
        airflow_triggerer: {hosts: {control1: }}
        airflow_dag_processor: {hosts: {control1: }}
        airflow_worker: {hosts: {worker1: {ansible_host: 192.0.2.3}, worker2: {ansible_host: 192.0.2.4}}}
"""


def write_files(folder: pathlib.Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Controller:
    """What ansible-playbook builds before it runs a task."""

    def __init__(self, sources: Sequence[str], vault: Mapping[str, str] | None = None) -> None:
        self.loader = DataLoader()
        self.loader.set_vault_secrets([(name, VaultSecret(text.encode())) for name, text in (vault or {}).items()])
        self.inventory = InventoryManager(loader=self.loader, sources=list(sources))
        self.variables = VariableManager(loader=self.loader, inventory=self.inventory)

    def run(
        self,
        action: type[ActionBase],
        arguments: Mapping[str, Any] | None = None,
        check_mode: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        task = Task()
        task.args = dict(arguments or {})
        task.check_mode = check_mode
        task_vars = {
            "hostvars": HostVars(self.inventory, self.variables, self.loader),
            "groups": self.inventory.get_groups_dict(),
            **more,
        }
        templar = Templar(loader=self.loader, variables=task_vars)
        # These actions use no connection; Ansible only asks it whether there is a temporary folder.
        connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir="/nonexistent"))
        module = action(task, connection, PlayContext(), self.loader, templar, None)
        return module.run(task_vars=task_vars)


@pytest.fixture(name="folder")
def _folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """An inventory of four hosts without secrets."""
    write_files(tmp_path, {"hosts.yml": CLUSTER})
    return tmp_path


@pytest.fixture(name="controller")
def _controller() -> type[Controller]:
    return Controller


@pytest.fixture(name="write")
def _write() -> Callable[[pathlib.Path, Mapping[str, str]], None]:
    return write_files
