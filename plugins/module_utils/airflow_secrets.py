# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's shared secrets: which there are, how they are made, and where their file is."""

from __future__ import annotations

import base64
import os
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem, ProblemError

SECRETS_PLAYBOOK = "run the playbook windfarm.airflow.secrets (playbooks/secrets.yml) with this inventory"
HEADER = """\
---
# Secrets of this Airflow cluster, made by playbooks/secrets.yml, which adds what is missing and changes nothing else.
# Keep a copy in a safe place: without airflow_fernet_key nobody can read the stored connections.
"""
_ALPHABET = string.ascii_letters + string.digits


class SecretsError(ProblemError):
    """The secrets cannot be written."""


def password() -> str:
    return _alphanumeric(32)


def signing_key() -> str:
    """512 bits, and longer than the 64 bytes below which HS512 is refused."""
    return _alphanumeric(86)


def fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _alphanumeric(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _count in range(length))


SECRETS: dict[str, Callable[[], str]] = {
    "airflow_fernet_key": fernet_key,
    "airflow_jwt_secret": signing_key,
    "airflow_api_secret_key": signing_key,
    "airflow_database_password": password,
    "airflow_results_database_password": password,
    "airflow_broker_password": password,
    "airflow_flower_password": password,
    "airflow_admin_password": password,
}


def inventory_folder(variables: Mapping[str, Any]) -> str | None:
    """The folder of the inventory that a host comes from. For a list of hosts (`-i db1,`) Ansible says "None", a text."""
    found = str(variables.get("inventory_dir"))
    return found if os.path.isabs(found) else None


def inventory_folders(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The distinct folders that the hosts' inventories are in."""
    return sorted({folder for found in hosts.values() for folder in [inventory_folder(found)] if folder})


def secrets_path(given: Iterable[object], folders: Sequence[str]) -> tuple[str, bool]:
    """The secrets' file, and whether it is named by `airflow_secrets_file` (else Ansible loads it by itself)."""
    names = sorted({str(name) for name in given if name})
    if len(names) > 1:
        raise SecretsError("airflow_secrets_file", f"differs between hosts ({', '.join(names)})", "set it once, for all hosts")
    if names:
        base = folders[0] if len(folders) == 1 else os.getcwd()
        return os.path.normpath(os.path.join(base, os.path.expanduser(names[0]))), True
    if len(folders) != 1:
        found = f"the inventories are in {len(folders)} folders ({', '.join(folders)})" if folders else "the inventory is no file"
        raise SecretsError(
            "airflow_secrets_file",
            f"{found}, so the secrets have no natural place",
            "set it to a path in every run, for example with -e airflow_secrets_file=/safe/place/vault.yml",
        )
    return os.path.join(folders[0], "group_vars", "all", "vault.yml"), False


def hidden_file(path: str) -> Problem | None:
    """A `group_vars/all.yml` that Ansible would ignore once a folder `group_vars/all` is beside it."""
    folder = os.path.dirname(path)
    for extension in ("", ".yml", ".yaml", ".json"):
        hidden = folder + extension
        if os.path.isfile(hidden):
            cure = f"mkdir -p {folder} && mv {hidden} {folder}/main{extension}"
            if not extension:
                cure = f"mv {hidden} {hidden}.yml && {cure.replace(hidden + ' ', hidden + '.yml ', 1)}.yml"
            return Problem(hidden, f"Ansible ignores it once the folder {folder} is there, which {path} needs", f"run {cure}")
    return None


def is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def missing(defined: Iterable[Mapping[str, Any]]) -> list[str]:
    """The secrets that none of the variable sets (the file's, each host's) defines."""
    names = {name for found in defined for name in found}
    return [name for name in SECRETS if name not in names]


def appended(text: str, lines: Iterable[str]) -> str:
    """The file's text with more lines; what is there stays to the letter."""
    if text and not text.endswith("\n"):
        text += "\n"
    return (text or HEADER) + "".join(lines)


def plain_line(name: str, value: str) -> str:
    # JSON's form of these characters is YAML's too; quotes keep a value like 1e5 a text.
    return f'{name}: "{value}"\n'


def vaulted_line(name: str, envelope: str) -> str:
    """An inline encrypted value, for files that are not encrypted as a whole."""
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in envelope.splitlines())
