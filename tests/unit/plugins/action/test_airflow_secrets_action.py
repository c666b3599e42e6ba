# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.windfarm.airflow.plugins.action import airflow_secrets
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import SECRETS

FILE = "group_vars/all/vault.yml"


Create = Callable[..., "dict[str, Any]"]
Write = Callable[[pathlib.Path, Mapping[str, str]], None]


@pytest.fixture(name="create")
def _create(folder: pathlib.Path, controller: Any) -> Create:
    """A run of the playbook: everything is read anew."""

    def run(sources: list[str] | None = None, vault: Any = None, **options: Any) -> dict[str, Any]:
        found = controller(sources or [str(folder / "hosts.yml")], vault)
        return found.run(airflow_secrets.ActionModule, **options)

    return run


def decrypt(path: pathlib.Path, password: str) -> str:
    return VaultLib([("default", VaultSecret(password.encode()))]).decrypt(path.read_bytes()).decode()


def test_creates_all_once_and_shows_none(folder: pathlib.Path, create: Create) -> None:
    first = create()
    text = (folder / FILE).read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert first["changed"] and first["created"] == list(SECRETS) == list(values)
    assert len(base64.urlsafe_b64decode(values["airflow_fernet_key"])) == 32
    assert len(values["airflow_jwt_secret"]) >= 64
    assert len(values["airflow_admin_password"]) == 32
    assert len(set(values.values())) == len(values)
    assert not [name for name, value in values.items() if value in str(first)]
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (folder / "group_vars/all").iterdir()] == ["vault.yml"]
    second = create()
    assert not second["changed"] and second["created"] == []
    assert (folder / FILE).read_text(encoding="utf-8") == text


def test_check_mode_writes_nothing(folder: pathlib.Path, create: Create) -> None:
    result = create(check_mode=True)
    assert result["changed"] and result["created"] == list(SECRETS)
    assert not (folder / "group_vars").exists()


def test_adds_only_what_is_missing_and_keeps_the_rest(folder: pathlib.Path, create: Create, write: Write) -> None:
    before = "# mine\nairflow_jwt_secret: keep  # this\nother: {a: [1]}\nlast: [text]"
    write(folder, {FILE: before, "group_vars/all/vars.yml": 'airflow_admin_password: "{{ lookup_of_mine }}"\n'})
    result = create()
    text = (folder / FILE).read_text(encoding="utf-8")
    assert text.startswith(before + "\n")
    assert set(SECRETS) - set(result["created"]) == {"airflow_jwt_secret", "airflow_admin_password"}
    assert yaml.safe_load(text)["last"] == ["text"]


def test_a_secret_of_one_group_counts_as_present(folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {"group_vars/airflow_worker.yml": "airflow_broker_password: given-elsewhere-1234\n"})
    assert "airflow_broker_password" not in create()["created"]


def test_encrypts_a_new_file(folder: pathlib.Path, create: Create) -> None:
    vault = {"default": "pass"}
    result = create(vault=vault)
    assert result["encrypted"]
    assert (folder / FILE).read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert set(yaml.safe_load(decrypt(folder / FILE, "pass"))) == set(SECRETS)
    assert not create(vault=vault)["changed"]


def test_keeps_the_vault_id(folder: pathlib.Path, create: Create) -> None:
    secret = VaultSecret(b"two")
    path = folder / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(VaultLib([("prod", secret)]).encrypt("# mine\nother: 1\n", secret=secret, vault_id="prod"))
    result = create(vault={"default": "one", "prod": "two"})
    assert result["created"] == list(SECRETS) and result["encrypted"]
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;prod\n")
    assert decrypt(path, "two").startswith("# mine\nother: 1\nairflow_fernet_key: ")


def test_adds_encrypted_values_to_a_plain_file(folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {FILE: "other: 1\n"})
    vault = {"default": "pass"}
    result = create(vault=vault)
    text = (folder / FILE).read_text(encoding="utf-8")
    assert result["encrypted"] and text.count("!vault |") == len(SECRETS)
    inline = text.split("airflow_admin_password: !vault |\n")[1].replace("  ", "").strip()
    assert len(VaultLib([("default", VaultSecret(b"pass"))]).decrypt(inline)) == 32
    assert not create(vault=vault)["changed"]


def test_tells_that_a_file_is_plain(create: Create) -> None:
    assert not create()["encrypted"]
    assert not create(vault={"default": "pass"})["encrypted"]


def test_tightens_the_mode(folder: pathlib.Path, create: Create) -> None:
    create()
    (folder / FILE).chmod(0o644)
    assert create()["changed"]
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600


def test_removes_what_a_killed_run_left(folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {"group_vars/all/.vault.yml.x1.new": "half"})
    create()
    assert [path.name for path in (folder / "group_vars/all").iterdir()] == ["vault.yml"]


@pytest.mark.parametrize(
    ("files", "where", "cure"),
    [
        ({"group_vars/all.yml": "a: 1\n"}, "group_vars/all.yml", "mv "),
        ({"group_vars/all": "a: 1\n"}, "group_vars/all", "mv "),
        ({FILE: "- a\n"}, FILE, "`name: value`"),
        ({FILE: "{a: 1}\n"}, FILE, "first column"),
        ({FILE: "last: |\n  text"}, FILE, "line break"),
        ({FILE: "airflow_jwt_secret:\n"}, "airflow_jwt_secret", "remove the line"),
    ],
)
def test_refuses(folder: pathlib.Path, create: Create, write: Write, files: dict[str, str], where: str, cure: str) -> None:
    write(folder, files)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # A file that Ansible itself cannot load is read by name here, as it may be outside of the inventory.
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    sources = [str(folder / "hosts.yml")]
    if files.get(FILE, "").startswith(("-", "{")):
        (elsewhere / "hosts.yml").write_bytes(before[folder / "hosts.yml"])
        before[elsewhere / "hosts.yml"] = before[folder / "hosts.yml"]
        sources = [str(elsewhere / "hosts.yml")]
    result = create(sources, arguments={"file": str(folder / FILE)} if elsewhere.name in sources[0] else None)
    assert result["failed"] and where in result["msg"] and cure in result["msg"] and "\n" not in result["msg"]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_needs_a_password_for_an_encrypted_file(create: Create, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(VaultLib([("default", VaultSecret(b"x"))]).encrypt("a: 1\n"))
    result = create(arguments={"file": str(path)})
    assert result["failed"] and "--ask-vault-pass" in result["msg"]


def test_several_inventories(folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {"other/hosts.yml": "redis: {hosts: {db2: }}\n"})
    sources = [str(folder / "hosts.yml"), str(folder / "other/hosts.yml")]
    refused = create(sources)
    assert refused["failed"] and refused["msg"].startswith("airflow_secrets_file — the inventories are in 2 folders")
    assert create(sources, arguments={"file": str(folder / "s.yml")})["file"] == str(folder / "s.yml")


def test_no_inventory_file(create: Create) -> None:
    refused = create(["db1,"])
    assert refused["failed"] and "the inventory is no file" in refused["msg"]


def test_script_inventory(folder: pathlib.Path, create: Create) -> None:
    script = folder / "hosts.sh"
    script.write_text('#!/bin/sh\necho \'{"airflow_worker": {"hosts": ["w1"]}}\'\n', encoding="utf-8")
    script.chmod(0o755)
    result = create([str(script)], arguments={"file": "safe/s.yml"})
    assert result["file"] == str(folder / "safe/s.yml") and (folder / "safe/s.yml").exists()


def test_the_file_named_in_the_inventory(folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {"group_vars/airflow.yml": "airflow_secrets_file: ../kept/s.yml\n"})
    assert create()["file"] == str((folder / "../kept/s.yml").resolve())
