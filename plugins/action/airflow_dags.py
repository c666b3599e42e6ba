# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""List and pack the DAG files on the controller; send only what a host does not hold yet."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_dags import (
    DIFF_FILE_BYTES,
    DIFF_FILES,
    DagsError,
    Files,
    pack,
    revision,
    scan,
)

# A folder up to this size travels inside the module's own arguments: one trip to the host instead of three.
INLINE_BYTES = 128 * 1024


class ActionModule(ActionBase):
    """See the module of the same name for the documentation."""

    # It makes its own folder, and only when there is something to send.
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            return self._ship(dict(self._task.args), task_vars or {})
        except DagsError as error:
            raise AnsibleActionFail(str(error)) from error

    def _ship(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        source = os.path.expanduser(str(args.get("source") or ""))
        if not os.path.isabs(source):
            raise DagsError(
                f"airflow_dags_source: {source!r} is not absolute: write {{{{ inventory_dir }}}}/dags or a path from /"
            )
        files = scan(source, args.get("exclude"))
        if not files and args.get("allow_empty") in (None, False):
            raise DagsError(
                f"airflow_dags_source: {source} holds no file, so every DAG would be removed: correct the path, or set "
                "airflow_dags_allow_empty"
            )
        args.update(source=source, revision=revision(files))
        contents = [path for path, entry in files.items() if "link" not in entry]
        if sum(files[path]["size"] for path in contents) <= INLINE_BYTES:
            with io.BytesIO() as archive:
                pack(source, files, contents, archive)
                args["payload"] = base64.b64encode(archive.getvalue()).decode()
            return self._call(args, task_vars)

        result = self._call(args, task_vars)
        if "known" not in result:
            return result
        missing = [path for path in contents if result["known"].get(path) != files[path]["sha256"]]
        return self._send(args, task_vars, source, files, missing)

    def _send(
        self, args: dict[str, Any], task_vars: dict[str, Any], source: str, files: Files, missing: list[str]
    ) -> dict[str, Any]:
        if self._task.check_mode:
            # A prediction needs only what a diff can show.
            small = [path for path in missing if files[path]["size"] <= DIFF_FILE_BYTES]
            missing = small[:DIFF_FILES] if self._task.diff else []
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP, suffix=".tar.gz") as archive:
            pack(source, files, missing, archive)
            archive.flush()
            folder = self._make_tmp_path()
            try:
                args["payload_path"] = self._transfer_file(archive.name, self._connection._shell.join_path(folder, "dags.tar.gz"))
                return self._call(args, task_vars)
            finally:
                self._remove_tmp_path(folder)

    def _call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="windfarm.airflow.airflow_dags", module_args=args, task_vars=task_vars
        )
        return result
