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
        wanted: dict[tuple[str, str], dict[str, Any]] = {}
        requirements: dict[tuple[str, str], list[str]] = {}
        defaults = _read("roles", "airflow", "defaults", "main.yml")
        for host in hosts:
            found = _variables(task_vars["hostvars"][host], defaults)
            needed = self._requirements(found)
            if not needed:
                continue
            folder = airflow_secrets.inventory_folder(task_vars["hostvars"][host])
            if folder is None:
                cure = "use an inventory file, or set airflow_lock_file to a complete lock"
                raise LockError("airflow_requirements", "locks belong beside the inventory, which is no file", cure)
            key = (folder, str(found["airflow_version"]))
            if requirements.setdefault(key, needed) != needed:
                what = f"differs between hosts of Airflow {key[1]}, for example on {host}"
                raise LockError("airflow_requirements", what, "set it once, in group_vars/airflow or group_vars/all")
            wanted.setdefault(key, found)
        result: dict[str, Any] = {"changed": False, "locks": [], "diff": []}
        for (folder, version), found in wanted.items():
            shipped = airflow_lock.available_locks(LOCKS).get(version, [])
            for python in pythons or found["airflow_lock_pythons"] or shipped or [""]:
                self._resolve_one(result, folder, version, str(python), requirements[folder, version], found)
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

    def _resolve_one(
        self,
        result: dict[str, Any],
        folder: str,
        version: str,
        python: str,
        requirements: list[str],
        found: Mapping[str, Any],
    ) -> None:
        # find_lock without requirements tells what is wrong where there is no shipped lock.
        with open(airflow_lock.find_lock(COLLECTION, folder, version, python), encoding="utf-8") as file:
            shipped = file.read()
        path = airflow_lock.user_lock(folder, version, python)
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = file.read()
        result["locks"].append(path)
        if airflow_lock.lock_matches(before, version, python, requirements, shipped):
            return
        problem = airflow_lock.contradiction(requirements, airflow_lock.pins(shipped))
        if problem:
            raise LockError(*problem)
        resolved = self._resolve(requirements, shipped, version, python, found)
        facts = {"airflow": version, "python": python, "requirements": requirements, "base": airflow_lock.digest(shipped)}
        after = airflow_lock.render_header(
            [
                f"Packages of Apache Airflow {version} for Python {python}, with airflow_requirements of this inventory.",
                "Written by the playbook windfarm.airflow.lock; remove this file and run it again for newer packages.",
            ],
            facts,
        ) + airflow_lock.merge(shipped, resolved)
        result["changed"] = True
        result["diff"].append(
            {
                "before_header": path,
                "after_header": path,
                "before": _own_pins(before, shipped),
                "after": _own_pins(after, shipped),
            }
        )
        if self._task.check_mode:
            return
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with controller_file.locked(os.path.dirname(path)):
                controller_file.write(path, after.encode(), 0o644)
        except OSError as exc:
            raise LockError(path, str(exc.strerror), "make the folder writable, or set airflow_lock_file") from exc

    def _resolve(self, requirements: list[str], shipped: str, version: str, python: str, found: Mapping[str, Any]) -> str:
        data = _read(airflow_lock.SHIPPED, "locks.yml")
        uv = airflow_lock.find_uv(found["airflow_uv"])
        bundle = found["airflow_ca_bundle"]
        environment = airflow_lock.environment(
            found["airflow_index_url"],
            found["airflow_extra_index_url"],
            # The variable names a file on the hosts, which need not be here.
            bundle if bundle and os.path.exists(bundle) else "",
            found["airflow_proxy"],
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
                with open(output, encoding="utf-8") as file:
                    results[platform.split("-")[0]] = file.read()
        return airflow_lock.combine(results)


def _variables(known: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What the role would see: its defaults under the inventory's variables."""
    return {name: known[name] if name in known else defaults.get(name) for name in VARIABLES}


def _own_pins(text: str, shipped: str) -> str:
    known = airflow_lock.pins(shipped)
    return "".join(f"{name}=={pin}\n" for name, pin in airflow_lock.pins(text).items() if name not in known)


def _read(*parts: str) -> dict[str, Any]:
    with open(os.path.join(COLLECTION, *parts), encoding="utf-8") as file:
        return yaml.safe_load(file) or {}
