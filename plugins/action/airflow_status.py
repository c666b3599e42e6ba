# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import workers
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import setting
from ansible_collections.windfarm.airflow.plugins.module_utils.layout import components_of

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CATALOG = os.path.join(COLLECTION, "roles", "airflow", "vars", "main.yml")
SERVERS = ("postgresql", "redis")
# Components that read DAG files.
READERS = ("dag_processor", "triggerer", "worker")
# Sub-groups of airflow_worker.
SETS = "airflow_worker_"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        groups = list(variables.get("group_names", []))
        catalog = self._loader.load_from_file(CATALOG)["__airflow_catalog"]
        catalog["worker"]["instances"] = workers.named(self._templar.template(variables.get("airflow_worker_instances")))
        known = {group for entry in catalog.values() for group in entry["groups"]} | {*SERVERS, "haproxy"}
        shown = [group for group in groups if (group in known and group != "airflow") or group.startswith(SETS)]
        status: dict[str, Any] = {"groups": shown}
        arguments = {
            "services": [
                {"name": one["name"], "service": one["service"], "instance": one.get("instance", "")}
                for one in components_of(catalog, groups)
                if "exec" in one
            ],
            "servers": [server for server in SERVERS if server in groups],
            "dags_folder": self._dags_folder(catalog, groups, task_vars or {}),
            **self._task.args,
        }
        # No failed and no unreachable task: what is wrong with a host is what was asked for.
        try:
            result = self._execute_module(
                module_name="windfarm.airflow.airflow_status", module_args=arguments, task_vars=task_vars
            )
        except AnsibleConnectionFailure as error:
            # What ssh says, without what Ansible says before it.
            why = one_line(error).rpartition(" over ssh: ")[2]
            return answer({**status, "reachable": False, "problems": [f"unreachable: {why}"]})
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

    def _dags_folder(self, catalog: dict[str, Any], groups: list[str], variables: dict[str, Any]) -> str:
        """Only hosts whose components read DAG files have a revision of them."""
        reading = {group for name in READERS for group in catalog[name]["groups"]}
        if not reading & set(groups):
            return ""
        return str(self._templar.template(setting(variables, "airflow_dags_folder")))


def answer(status: dict[str, Any]) -> dict[str, Any]:
    dicts = ("host", "health", "dags", "queues", "entry", "backup")
    empty: dict[str, Any] = {**{name: {} for name in dicts}, "units": [], "certificates": []}
    return {"changed": False, "status": {"notes": [], **empty, **status}}


def one_line(*texts: Any) -> str:
    return " ".join(" ".join(map(str, texts)).split())[:500]
