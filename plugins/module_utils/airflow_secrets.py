# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's shared secrets: which there are, how they are made, and where their file is."""

from __future__ import annotations

import base64
import os
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils import pki
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


CA_KEY, CA_CERTIFICATE = "airflow_ca_key", "airflow_ca_certificate"
_MAKERS: dict[str, Callable[[], str]] = {
    "airflow_fernet_key": fernet_key,
    "airflow_jwt_private_key": pki.new_jwt_key,
    "airflow_api_secret_key": signing_key,
    "airflow_database_password": password,
    "airflow_results_database_password": password,
    "airflow_broker_password": password,
    "airflow_broker_admin_password": password,
    "airflow_flower_password": password,
    "airflow_admin_password": password,
    CA_KEY: pki.new_key,
}
# The certificate comes after its key, from which it is made.
SECRETS = (*_MAKERS, CA_CERTIFICATE)
# The variable that lists the names of the user's own passwords.
EXTRA = "airflow_extra_secrets"


def extra_names(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The user's own passwords, which are made like ours."""
    names: list[str] = []
    for found in hosts:
        listed = found.get(EXTRA) or []
        if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) and name.isidentifier() for name in listed):
            raise SecretsError(EXTRA, "is no list of names of variables", f"write it as `{EXTRA}: [NAME_password]`")
        names += [str(name) for name in listed]
    return [name for name in dict.fromkeys(names) if name not in SECRETS]


def create(names: Iterable[str], ca_key: object = None, cluster: str = "cluster") -> dict[str, str]:
    """New values, in the order of the names. A certificate needs its key, given or among the names before it."""
    made: dict[str, str] = {}
    for name in names:
        if name != CA_CERTIFICATE:
            made[name] = _MAKERS.get(name, password)()
            continue
        try:
            made[name] = pki.new_ca(made.get(CA_KEY) or ca_key, cluster)
        except ValueError as exc:
            raise SecretsError(CA_KEY, str(exc), f"correct it, or remove it, so that it is made with {CA_CERTIFICATE}") from None
    return made


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


def missing(defined: Iterable[Mapping[str, Any]], extra: Sequence[str] = ()) -> list[str]:
    """The secrets that none of the variable sets (the file's, each host's) defines."""
    names = {name for found in defined for name in found}
    if CA_CERTIFICATE in names:
        # An authority of the user's own, whose key is nobody's here.
        names.add(CA_KEY)
    return [name for name in (*SECRETS, *extra) if name not in names]


def empty(defined: Iterable[Mapping[str, Any]]) -> list[str]:
    """The secrets that one of the variable sets defines as nothing."""
    found = list(defined)
    return [name for name in SECRETS if any(name in one and is_empty(one[name]) for one in found)]


class Answers(NamedTuple):
    """What hosts said when they were asked for their fact file."""

    kept: list[str]
    """They keep what the old Fernet key has encrypted."""
    failed: list[str]
    silent: list[str]


def sorted_answers(answers: Mapping[str, Mapping[str, Any]]) -> Answers:
    kept = [host for host, answer in answers.items() if "airflow_fernet_key" in str(answer.get("stdout"))]
    silent = [host for host, answer in answers.items() if answer.get("unreachable")]
    failed = [host for host, answer in answers.items() if answer.get("failed") and host not in silent]
    return Answers(kept, failed, silent)


def appended(text: str, lines: Iterable[str]) -> str:
    """The file's text with more lines; what is there stays to the letter."""
    if text and not text.endswith("\n"):
        text += "\n"
    return (text or HEADER) + "".join(lines)


def plain_line(name: str, value: str) -> str:
    if "\n" in value:
        return f"{name}: |\n" + "".join(f"  {line}\n" for line in value.splitlines())
    # JSON's form of these characters is YAML's too; quotes keep a value like 1e5 a text.
    return f'{name}: "{value}"\n'


def vaulted_line(name: str, envelope: str) -> str:
    """An inline encrypted value, for files that are not encrypted as a whole."""
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in envelope.splitlines())
