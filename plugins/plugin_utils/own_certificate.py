# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A certificate and its key that the user keeps on the controller."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError


def own_certificate(
    loader: Any, certificate_file: str, key_file: str, inventory_dir: object, variable: str = "airflow_certificate"
) -> tuple[str, str]:
    """The texts of both files; a relative path starts at the inventory's folder."""
    base = str(inventory_dir) if os.path.isabs(str(inventory_dir)) else os.getcwd()

    def read(variable: str, name: str, other: str) -> str:
        if not name:
            raise ProblemError(variable, f"is empty, but {other} is not", "set both or none")
        path = os.path.normpath(os.path.join(base, os.path.expanduser(name)))
        if not os.path.isfile(path):
            raise ProblemError(variable, f"{path} does not exist on this machine", "correct the path")
        try:
            # The loader decrypts what Ansible Vault has encrypted.
            return str(loader.get_text_file_contents(path)).strip() + "\n"
        except (AnsibleError, OSError, ValueError):
            raise ProblemError(variable, f"{path} cannot be read", "check its rights and the vault password") from None

    return (
        read(f"{variable}_file", certificate_file, f"{variable}_key_file"),
        read(f"{variable}_key_file", key_file, f"{variable}_file"),
    )
