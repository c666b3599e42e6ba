# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Finds the lock and brings what a host needs to build the release, only when the host lacks it."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import shutil
import tarfile
import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import (
    LockError,
    available_locks,
    find_lock,
)

COLLECTION = pathlib.Path(__file__).resolve().parents[2]
HOSTNAME_MODULE = COLLECTION / "roles" / "airflow" / "files" / "windfarm_airflow.py"
MODULE = "windfarm.airflow.airflow_release"


def release_name(version: str, python: str, lock: str) -> str:
    """The name that lock, Python and our own module in it make."""
    content = f"{python}\0{lock}\0{HOSTNAME_MODULE.read_text(encoding='utf-8')}"
    return f"{version}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def own_uv() -> str:
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise AnsibleActionFail("the controller has no uv; `pip install uv` beside ansible-core, or set airflow_uv to the binary")
    return found


class ActionModule(ActionBase):
    # It makes its own folder, and only when there is something to send.
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        locks = self._locks(arguments)
        uv = arguments.get("uv") or own_uv()
        if not os.path.isfile(uv):
            raise AnsibleActionFail(f"airflow_uv: {uv} is not a file on the controller")
        version = str(arguments["version"])
        arguments["candidates"] = {
            python: release_name(version, python, pathlib.Path(lock).read_text(encoding="utf-8"))
            for python, lock in locks.items()
        }
        arguments["uv_digest"] = hashlib.sha256(pathlib.Path(uv).read_bytes()).hexdigest()[:16]
        found = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if found.get("failed") or found["present"] or self._task.check_mode:
            return {**result, **found}
        if not arguments.get("uv") and not found["uv_present"] and found["architecture"] != platform.machine():
            raise AnsibleActionFail(
                f"the host is {found['architecture']}, the controller {platform.machine()}: "
                "set airflow_uv to a uv binary for the host's architecture"
            )
        lock = locks[found["python"]]
        built = self._build(arguments, uv, lock, found["uv_present"], task_vars)
        if built.get("failed"):
            return {**result, **built}
        # The first call also knows what Debian packages it installed.
        return {**result, **built, "changed": True, "diff": found["diff"]}

    def _locks(self, arguments: dict[str, Any]) -> dict[str, str]:
        """Lock by Python version; one that the user names serves every Python that it does not exclude itself."""
        version = str(arguments["version"])
        folder = str(arguments.get("inventory_directory") or "")
        # For `-i host,` Ansible's inventory_dir is the text None.
        folder = folder if os.path.isabs(folder) else ""
        if arguments.get("lock_file"):
            pythons = [f"3.{minor}" for minor in range(10, 15)]
        else:
            shipped = available_locks(str(COLLECTION / "roles" / "airflow" / "files" / "locks"))
            own = available_locks(os.path.join(folder, "locks")) if folder else {}
            pythons = sorted({*shipped.get(version, []), *own.get(version, [])})
        found, problem = {}, None
        for python in pythons:
            try:
                found[python] = find_lock(
                    str(COLLECTION),
                    folder,
                    version,
                    python,
                    arguments.get("requirements") or [],
                    arguments.get("lock_file") or "",
                )
            except LockError as error:
                problem = error
        if not found:
            raise AnsibleActionFail(str(problem or f"airflow_version {version} has no lock; run make lock AIRFLOW={version}"))
        return found

    def _build(
        self, arguments: dict[str, Any], uv: str, lock: str, uv_present: bool, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        remote = self._connection._shell.tmpdir or self._make_tmp_path()
        uploads = {"lock_upload": lock, "module_upload": str(HOSTNAME_MODULE)}
        if not uv_present:
            uploads["uv_upload"] = uv
        with tempfile.TemporaryDirectory() as local:
            if arguments.get("wheel_directory"):
                uploads["wheels_upload"] = self._wheels(arguments["wheel_directory"], local)
            for name, source in uploads.items():
                target = self._connection._shell.join_path(remote, name)
                self._transfer_file(source, target)
                arguments[name] = target
        self._fixup_perms2((remote, *(arguments[name] for name in uploads)))
        arguments["build"] = True
        built = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        self._remove_tmp_path(remote)
        return built

    @staticmethod
    def _wheels(directory: str, local: str) -> str:
        wheels = sorted(pathlib.Path(directory).glob("*.whl"))
        if not wheels:
            raise AnsibleActionFail(f"airflow_wheel_directory: no wheels in {directory} on the controller")
        archive = os.path.join(local, "wheels.tar")
        with tarfile.open(archive, "w") as tar:
            for wheel in wheels:
                tar.add(wheel, arcname=wheel.name, recursive=False)
        return archive
