# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Load the new table, come back over a new connection, and only then keep it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase

# Longer than a host needs to go back, so that the last attempt is made when it has.
GRACE = 15


class ActionModule(ActionBase):
    """See the module of the same name for the documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if "phase" in args:
            raise AnsibleActionFail("airflow_firewall: phase is set by the action itself; remove it")
        seconds = int(args.get("rollback_seconds") or 30)
        first: dict[str, Any] = {"changed": True, "actions": [], "diff": []}
        lost: AnsibleConnectionFailure | None = None
        try:
            first = self._phase("apply", args, task_vars)
            if first.get("failed") or not first.get("pending"):
                return first
        except AnsibleConnectionFailure as error:
            lost = error
        try:
            second = self._confirm(args, task_vars, time.monotonic() + seconds + GRACE)
        except AnsibleConnectionFailure as error:
            # Where the first answer was lost too, the host may have been away before anything was done.
            raise lost or error from None
        both = {key: [*first.get(key, []), *second.get(key, [])] for key in ("actions", "warnings", "diff")}
        return {**second, **both, "changed": not second.get("failed", False)}

    def _confirm(self, args: dict[str, Any], task_vars: dict[str, Any] | None, deadline: float) -> dict[str, Any]:
        while True:
            self._disconnect()
            try:
                return self._phase("confirm", args, task_vars)
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def _disconnect(self) -> None:
        """An open connection proves nothing: what matters is whether the next run can make one."""
        if type(self._connection).reset is not ConnectionBase.reset:
            self._connection.reset()

    def _phase(self, phase: str, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="windfarm.airflow.airflow_firewall", module_args={**args, "phase": phase}, task_vars=task_vars
        )
        if result.get("unreachable"):
            raise AnsibleConnectionFailure(str(result.get("msg", "")))
        return result
