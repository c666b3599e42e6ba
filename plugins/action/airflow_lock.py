# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock, airflow_secrets, controller_file
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import LockError
from ansible_collections.windfarm.airflow.plugins.plugin_utils.role_variables import RoleVariables

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOCKS = os.path.join(COLLECTION, airflow_lock.SHIPPED)
VARIABLES = (
    "airflow_version",
    "airflow_requirements",
    "airflow_lock_file",
    "airflow_lock_pythons",
    "airflow_uv",
    "airflow_ca_bundle",
    "airflow_index_url",
    "airflow_extra_index_url",
    "airflow_proxy",
)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec({"pythons": {"type": "list", "elements": "str"}})
        try:
            return self._resolve_all(arguments["pythons"], task_vars or {})
        except LockError as exc:
            return {"failed": True, "msg": str(exc)}

    def _resolve_all(self, pythons: list[str] | None, task_vars: dict[str, Any]) -> dict[str, Any]:
        hosts = task_vars["groups"].get("airflow", [])
        # By folder and version: each list of requirements, with the variables of the first host that has it.
        wanted: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = {}
        role = RoleVariables(self._loader, self._templar, COLLECTION, task_vars)
        for host in hosts:
            found = {**dict.fromkeys(VARIABLES), **role.read(host, VARIABLES)}
            needed = self._requirements(found)
            if not needed:
                continue
            folder = airflow_secrets.inventory_folder(task_vars["hostvars"].raw_get(host))
            if folder is None:
                cure = "use an inventory file, or set airflow_lock_file to a complete lock"
                raise LockError("airflow_requirements", "locks belong beside the inventory, which is no file", cure)
            wanted.setdefault((folder, str(found["airflow_version"])), {}).setdefault(tuple(needed), found)
        result: dict[str, Any] = {"changed": False, "locks": [], "diff": []}
        # Everything is resolved before the first file is written: a conflict on one Python leaves all as it was.
        texts: dict[str, str] = {}
        for (folder, version), lists in wanted.items():
            known = airflow_lock.available_locks(LOCKS).get(version, [])
            asked: dict[str, list[tuple[str, ...]]] = {}
            for requirements, found in lists.items():
                for python in map(str, pythons or found["airflow_lock_pythons"] or known or ["3"]):
                    asked.setdefault(python, []).append(requirements)
            for python, here in asked.items():
                # Asked without requirements it finds the shipped lock, or tells that there is none.
                shipped = _text(airflow_lock.find_lock(COLLECTION, folder, version, python))
                for requirements, path in zip(here, airflow_lock.user_locks(folder, version, python, here)):
                    before = _text(path) if os.path.exists(path) else ""
                    result["locks"].append(path)
                    if not airflow_lock.lock_matches(before, version, python, requirements, shipped):
                        texts[path] = self._resolve(list(requirements), shipped, version, python, lists[requirements])
                        result["diff"].append(_diff(path, before, texts[path], shipped))
        result["changed"] = bool(texts)
        if not self._task.check_mode:
            for path, text in texts.items():
                _write(path, text)
        if not wanted:
            result["msg"] = "airflow_requirements is empty or airflow_lock_file is set: there is nothing to resolve"
        return result

    def _requirements(self, found: Mapping[str, Any]) -> list[str]:
        requirements = found["airflow_requirements"]
        if found["airflow_lock_file"] or not requirements:
            return []
        if not isinstance(requirements, list):
            raise LockError("airflow_requirements", "is no list", "write a list of texts like pandas>=3")
        for problem in filter(None, map(airflow_lock.requirement_problem, requirements)):
            raise LockError(*problem)
        return airflow_lock.normalised(requirements)

    def _resolve(self, requirements: list[str], shipped: str, version: str, python: str, found: dict[str, Any]) -> str:
        problem = airflow_lock.contradiction(requirements, airflow_lock.pins(shipped))
        if problem:
            raise LockError(*problem)
        data = _read(airflow_lock.SHIPPED, "locks.yml")
        uv = airflow_lock.find_uv(found["airflow_uv"])
        bundle = found["airflow_ca_bundle"]
        environment = airflow_lock.environment(
            found["airflow_index_url"] or "",
            found["airflow_extra_index_url"] or "",
            # The variable names a file on the hosts, which need not be here.
            bundle if bundle and os.path.exists(bundle) else "",
            found["airflow_proxy"] or "",
        )
        results = {}
        with tempfile.TemporaryDirectory() as temporary:
            source, constraints, output = (os.path.join(temporary, name) for name in ("in.txt", "pins.txt", "out.txt"))
            for path, lines in (
                (source, requirements),
                (constraints, [f"{name}=={pin}" for name, pin in airflow_lock.pins(shipped).items()]),
            ):
                with open(path, "w", encoding="utf-8") as file:
                    file.write("".join(f"{line}\n" for line in lines))
            for platform in data["platforms"]:
                full = str(data["pythons"].get(python, python))
                command = airflow_lock.compile_command(uv, [source], output, full, platform, [constraints])
                done = subprocess.run(
                    command, env={**os.environ, **environment}, cwd=temporary, text=True, capture_output=True, check=False
                )
                if done.returncode:
                    what = f"cannot be resolved under the lock of Airflow {version}: {airflow_lock.explanation(done.stderr)}"
                    raise LockError("airflow_requirements", what, "change the requirement that this names")
                results[platform.split("-")[0]] = _text(output)
        header = airflow_lock.render_header(
            [
                f"Packages of Apache Airflow {version} for Python {python}, with airflow_requirements of this inventory.",
                "Written by the playbook windfarm.airflow.lock; remove this file and run it again for newer packages.",
            ],
            {"airflow": version, "python": python, "requirements": requirements, "base": airflow_lock.digest(shipped)},
        )
        return header + airflow_lock.merge(shipped, airflow_lock.combine(results))


def _diff(path: str, before: str, after: str, shipped: str) -> dict[str, str]:
    known = airflow_lock.pins(shipped)

    def own(text: str) -> str:
        return "".join(f"{name}=={pin}\n" for name, pin in airflow_lock.pins(text).items() if name not in known)

    return {"before_header": path, "after_header": path, "before": own(before), "after": own(after)}


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with controller_file.locked(os.path.dirname(path)):
            controller_file.write(path, text.encode(), 0o644)
    except OSError as exc:
        raise LockError(path, str(exc.strerror), "make the folder writable, or set airflow_lock_file") from exc


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _read(*parts: str) -> dict[str, Any]:
    return yaml.safe_load(_text(os.path.join(COLLECTION, *parts))) or {}
