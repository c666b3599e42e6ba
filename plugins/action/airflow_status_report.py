# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import controller_file
from ansible_collections.windfarm.airflow.plugins.plugin_utils import status_page, status_report
from ansible_collections.windfarm.airflow.plugins.plugin_utils.planned import planned


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                "register": {"type": "str", "default": "__airflow_status"},
                "format": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "file": {"type": "path"},
                "html": {"type": "path"},
                "strict": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        asked = set(variables["ansible_play_hosts_all"])
        # A play's pattern gives them in another order than the inventory.
        hosts = [host for host in variables["groups"].get("all", []) if host in asked]
        answers = {host: variables["hostvars"][host].get(arguments["register"]) for host in hosts}
        report = status_report.collect(answers, _workers(variables))
        document = json.dumps(report)
        if arguments["file"]:
            _write("airflow_status_file", arguments["file"], f"{document}\n")
        if arguments["html"]:
            _write("airflow_status_html", arguments["html"], status_page.page(report))
        if arguments["format"] == "json":
            self._display.display(document)
        else:
            *lines, last = status_report.text(report)
            self._display.display("\n".join(lines))
            self._display.display(last, color=C.COLOR_OK if report["well"] else C.COLOR_ERROR)
        if arguments["strict"] and not report["well"]:
            # Without the report, which callbacks would print once more.
            return {"failed": True, "changed": False, "msg": f"{status_report.verdict(report)}, see the list above"}
        return {"changed": False, **report}


def _workers(variables: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the inventory says that each worker host serves; None where it cannot be read, which preflight tells better."""
    try:
        found: dict[str, Any] = planned(variables["hostvars"], variables["groups"])["workers"]
    except (AnsibleError, KeyError, TypeError, ValueError):
        return None
    return found


def _write(name: str, path: str, text: str) -> None:
    path = os.path.abspath(os.path.expanduser(path))
    try:
        with controller_file.locked(os.path.dirname(path)):
            controller_file.write(path, text.encode(), 0o644)
    except OSError as error:
        cure = "name a file in a folder of yours"
        raise AnsibleActionFail(f"{name}: {path} cannot be written: {error.strerror}; {cure}") from error
