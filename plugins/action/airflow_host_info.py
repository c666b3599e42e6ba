# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the module of the same name for the documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        asked = time.time()
        result: dict[str, Any] = self._execute_module(module_name="windfarm.airflow.airflow_host_info", task_vars=task_vars)
        if isinstance(result.get("host"), dict):
            # The host read its clock between these two.
            result["host"].update(asked=asked, answered=time.time())
        return result
