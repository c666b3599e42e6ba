# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Task logs travel in slices, by way of this run's own temporary folder on the controller."""

from __future__ import annotations

import os
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils.task_logs import summary


class ActionModule(ActionBase):
    """See the module of the same name for the documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        state = self._task.args.get("state")
        if state == "fetched":
            return self._fetch()
        if state == "kept":
            return self._keep(list(self._task.args.get("hosts") or []), list(self._task.args.get("others") or []))
        return self._call(**self._task.args)

    def _call(self, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="windfarm.airflow.airflow_task_logs", module_args=arguments, task_vars=self._vars
        )
        result.pop("invocation", None)
        return result

    @staticmethod
    def _folder(host: str) -> str:
        """Ansible removes it when the playbook ends, whichever way."""
        return os.path.join(C.DEFAULT_LOCAL_TMP, "task_logs", host)

    def _fetch(self) -> dict[str, Any]:
        folder = self._folder(self._vars["inventory_hostname"])
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files = 0
        if self._task.check_mode:
            return {**self._call(state="measured"), "changed": False}
        there = self._connection._shell.join_path(self._make_tmp_path(), "logs.tar.gz")
        try:
            while True:
                answer = self._call(state="fetched", path=there, start=files)
                if answer.get("failed") or not answer["files"]:
                    return {**answer, "changed": False, "files": files}
                self._connection.fetch_file(there, os.path.join(folder, f"{files:09}.tar.gz"))
                files += answer["files"]
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _keep(self, hosts: list[str], others: list[str]) -> dict[str, Any]:
        done: list[dict[str, int]] = []
        for host in hosts:
            folder = self._folder(host)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                tmp = self._make_tmp_path()
                try:
                    there = self._transfer_file(os.path.join(folder, name), self._connection._shell.join_path(tmp, "logs.tar.gz"))
                    answer = self._call(state="kept", others=others, host=host, path=there)
                finally:
                    self._remove_tmp_path(tmp)
                if answer.get("failed"):
                    return answer
                done.append(answer)
        counts = summary(done)
        return {"changed": bool(counts["added"]), **counts}
