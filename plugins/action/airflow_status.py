# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils.layout import components_of

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CATALOG = os.path.join(COLLECTION, "roles", "airflow", "vars", "main.yml")
SERVERS = ("postgresql", "redis")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        groups = list((task_vars or {}).get("group_names", []))
        catalog = self._loader.load_from_file(CATALOG)["__airflow_catalog"]
        known = {group for entry in catalog.values() for group in entry["groups"]} | {*SERVERS, "haproxy"}
        status: dict[str, Any] = {"groups": [group for group in groups if group in known and group != "airflow"]}
        arguments = {
            "services": [
                {"name": one["name"], "service": one["service"], "instance": one.get("instance", "")}
                for one in components_of(catalog, groups)
                if "exec" in one
            ],
            "servers": [server for server in SERVERS if server in groups],
            **self._task.args,
        }
        # No failed and no unreachable task: what is wrong with a host is what was asked for.
        try:
            result = self._execute_module(
                module_name="windfarm.airflow.airflow_status", module_args=arguments, task_vars=task_vars
            )
        except AnsibleConnectionFailure as error:
            return answer({**status, "reachable": False, "problems": [f"unreachable: {one_line(error)}"]})
        except AnsibleError as error:
            result = {"failed": True, "msg": error}
        except BaseException as error:
            # Ansible's alarm for the keyword timeout, which is no public class.
            if type(error).__name__ != "TaskTimeoutError":
                raise
            return answer({**status, "reachable": False, "problems": [f"unreachable: {one_line(error)}"]})
        if "status" not in result:
            # A module that raises leaves no message, only Ansible's summary of the exception.
            summary = getattr(getattr(result.get("exception"), "event", None), "msg", "")
            why = one_line(result.get("msg") or summary, result.get("module_stderr", ""))
            return answer({**status, "reachable": True, "problems": [f"its status cannot be read: {why}"]})
        return {**result, "status": {**status, "reachable": True, **result["status"]}}


def answer(status: dict[str, Any]) -> dict[str, Any]:
    return {"changed": False, "status": {"notes": [], "host": {}, "units": [], "certificates": [], "backup": {}, **status}}


def one_line(*texts: Any) -> str:
    return " ".join(" ".join(map(str, texts)).split())[:500]
