# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Drains a host and waits here, where waiting ends with the playbook: a module left behind would do what nobody expects."""

from __future__ import annotations

import time
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Of more tasks than that, the number says enough.
SHOWN = 10
GRACE = 30


class ActionModule(ActionBase):
    """See the module of the same name for the documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["drained", "working"], "default": "drained"},
                "timeout": {"type": "int", "default": 3600},
                "on_timeout": {"type": "str", "choices": ["fail", "kill"], "default": "fail"},
                "services": {"type": "list", "elements": "dict", "default": []},
                "health_timeout": {"type": "int", "default": 180},
                "restart": {"type": "str", "choices": ["overlap", "wait"], "default": "overlap"},
            }
        )
        self._vars = task_vars or {}
        self._arguments = arguments
        if arguments["state"] == "working":
            return self._put_back()
        first = self._ask("drain")
        if first.get("failed") or self._task.check_mode:
            self._say(first)
            return first
        return self._wait(first)

    def _ask(self, phase: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="windfarm.airflow.airflow_drain",
            module_args={"phase": phase, "restart": self._arguments["restart"]},
            task_vars=self._vars,
        )
        answer.pop("invocation", None)
        return answer

    def _say(self, seen: dict[str, Any], left: float | None = None) -> None:
        tasks = seen.get("tasks") or []
        if not tasks:
            return
        more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
        until = "" if left is None else f", waited for up to {left:.0f} s"
        count = f"{len(tasks)} running task{'' if len(tasks) == 1 else 's'}"
        host = self._vars["inventory_hostname"]
        self._display.display(f"{host}: {count}{until}: {', '.join(tasks[:SHOWN])}{more}", color=C.COLOR_HIGHLIGHT)

    def _wait(self, first: dict[str, Any]) -> dict[str, Any]:
        start = time.monotonic()
        deadline = start + self._arguments["timeout"]
        seen, shown = first, None
        while seen["busy"]:
            if seen["tasks"] != shown:
                shown = seen["tasks"]
                self._say(seen, max(0, deadline - time.monotonic()))
            # A worker whose last task has ended takes some seconds to end itself.
            if time.monotonic() >= deadline + (0 if seen["tasks"] else GRACE):
                return self._out_of_time(first, seen)
            waited = time.monotonic() - start
            time.sleep(max(0.5, min(10, waited / 10 + 1, deadline - time.monotonic())))
            seen = self._ask("look")
            if seen.get("failed"):
                return seen
        done = {key: first[key] for key in ("changed", "actions", "diff")}
        return {**seen, **done, "waited": round(time.monotonic() - start, 1)}

    def _out_of_time(self, first: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
        seconds = self._arguments["timeout"]
        host, tasks = self._vars["inventory_hostname"], seen["tasks"]
        running = f"{len(tasks)} task{'' if len(tasks) == 1 else 's'} ({', '.join(tasks[:SHOWN]) or 'none named'})"
        if self._arguments["on_timeout"] == "kill":
            killed = self._ask("kill")
            if not killed.get("failed"):
                self._display.warning(
                    f"{host}: killed after airflow_drain_timeout ({seconds} s): {running}. The scheduler notices within 310 s, "
                    "and gives each another try if it has one left"
                )
            done = [*first["actions"], *killed.get("actions", [])]
            return {**killed, "changed": True, "actions": done, "waited": float(seconds)}
        what = "stays drained, as it was before this run"
        actions: list[str] = []
        # Who had it drained before still wants that.
        if first["actions"]:
            back = self._put_back()
            actions = back.get("actions", [])
            what = f"works again, except that it could not be started: {back.get('msg')}" if back.get("failed") else "works again"
        return {
            "failed": True,
            "changed": bool(first["actions"] or actions),
            "actions": [*first["actions"], *actions],
            "tasks": tasks,
            "msg": f"host {host} — still runs {running} after airflow_drain_timeout ({seconds} s); nothing was killed, the host "
            f"{what} — run again when they have ended, raise airflow_drain_timeout, or end them with "
            "-e airflow_drain_on_timeout=kill",
        }

    def _put_back(self) -> dict[str, Any]:
        first = self._ask("undo")
        if first.get("failed"):
            return first
        services = self._arguments["services"]
        if self._arguments["restart"] == "wait" and first["actions"]:
            # systemd starts these when their tasks have ended, which nobody waits for; the others start now.
            finishing = {unit for unit, state in first.get("units", {}).items() if state == "deactivating"}
            services = [one for one in services if not finishing & {f"{one['service']}-{colour}.service" for colour in "ab"}]
            if finishing and not services:
                return first
        if not self._arguments["services"]:
            raise AnsibleActionFail("airflow_drain: without services nothing can be started; give it those of the host's workers")
        # In check mode the file is still there, and would be respected.
        services = [{**one, "unless": ""} if self._task.check_mode else one for one in services]
        started: dict[str, Any] = self._execute_module(
            module_name="windfarm.airflow.airflow_services",
            module_args={
                "services": services,
                "health_timeout": self._arguments["health_timeout"],
                "restart": self._arguments["restart"],
                "drain_timeout": self._arguments["timeout"],
            },
            task_vars=self._vars,
        )
        actions = [*first["actions"], *started.get("actions", [])]
        diff = {"before": "", "after": "".join(f"{action}\n" for action in actions)}
        return {**started, "changed": bool(actions), "actions": actions, "diff": diff, "drained": False}
