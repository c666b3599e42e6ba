# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuses a release that was given with -e only, then asks the host."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.windfarm.airflow.plugins.plugin_utils.role_variables import RoleVariables

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OF_THE_RELEASE = ("airflow_version", "airflow_python", "airflow_requirements", "airflow_lock_file")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task.args.get("state", "same") != "same":
            self._refuse_extra(variables)
        arguments = {"host": variables["inventory_hostname"], **self._task.args}
        name = "windfarm.airflow.airflow_upgrade"
        return {**result, **self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)}

    def _refuse_extra(self, variables: dict[str, Any]) -> None:
        given = {name: value for name, value in load_extra_vars(self._loader).items() if name in OF_THE_RELEASE}
        if not given:
            return
        # Inventory and group_vars alone: what the next run without -e will see.
        manager = variables["hostvars"]._variable_manager
        hidden = manager._extra_vars
        manager._extra_vars = {name: value for name, value in hidden.items() if name not in OF_THE_RELEASE}
        try:
            host = variables["inventory_hostname"]
            written = manager.get_vars(host=variables["hostvars"]._inventory.get_host(host), include_hostvars=False)
        finally:
            manager._extra_vars = hidden
        defaults = RoleVariables(self._loader, self._templar, COLLECTION, variables).defaults
        for name, value in given.items():
            if str(written.get(name, defaults.get(name))) != str(value):
                raise AnsibleActionFail(
                    f"{name} is given with -e, but the inventory says {written.get(name, defaults.get(name))!r}: the next run "
                    f"without -e would undo the change; write it into the inventory (group_vars) and run without -e {name}"
                )
