# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judges what is declared where its types are still the ones that were written: a date would reach the host as a text."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        prefix = str(self._task.args.get("variable_prefix") or "")
        wrong = content_rules.problems(self._task.args, prefix, known_roles=False)
        if wrong:
            return {"failed": True, "changed": False, "msg": "\n".join(map(str, wrong))}
        name = "windfarm.airflow.airflow_content"
        return self._execute_module(module_name=name, module_args=self._task.args, task_vars=task_vars)
