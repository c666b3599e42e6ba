# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted
from ansible_collections.windfarm.airflow.plugins.action import airflow_secrets
from ansible_collections.windfarm.airflow.plugins.module_utils import pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import SECRETS
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import create as make

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


def values_in(path: pathlib.Path) -> dict[str, Any]:
    """The file's values, whatever of it is encrypted."""
    vault = VaultLib([("default", VaultSecret(b"pass"))])

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!vault", lambda _loader, node: vault.decrypt(node.value).decode())
    data = path.read_bytes()
    return yaml.load(vault.decrypt(data) if is_encrypted(data) else data, Loader)  # noqa: S506


def test_creates_all_once_and_shows_none(folder: pathlib.Path, create: Create) -> None:
    first = create()
    text = (folder / FILE).read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert first["changed"] and first["created"] == list(SECRETS) == list(values)
    assert len(base64.urlsafe_b64decode(values["airflow_fernet_key"])) == 32
    assert pki.load_jwt_key(values["airflow_jwt_private_key"])
    authority = pki.load_authority(values["airflow_ca_certificate"], values["airflow_ca_key"])
    assert f"Airflow {folder.name[:40]} CA" in authority.issuer.subject.rfc4514_string()
    # As readable as it gets.
    assert "airflow_ca_key: |\n  -----BEGIN PRIVATE KEY-----\n" in text
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
    before = "# mine\nairflow_jwt_secret: left over\nairflow_api_secret_key: keep  # this\nother: {a: [1]}\nlast: [text]"
    write(folder, {FILE: before, "group_vars/all/vars.yml": 'airflow_admin_password: "{{ lookup_of_mine }}"\n'})
    result = create()
    text = (folder / FILE).read_text(encoding="utf-8")
    assert text.startswith(before + "\n")
    assert set(SECRETS) - set(result["created"]) == {"airflow_api_secret_key", "airflow_admin_password"}
    assert yaml.safe_load(text)["last"] == ["text"]


def test_makes_the_users_own_passwords(folder: pathlib.Path, create: Create, write: Write) -> None:
    given = "own: [report_password]\nairflow_extra_secrets: \"{{ own + ['shop_password'] }}\"\n"
    write(folder, {"group_vars/all/mine.yml": given, "group_vars/postgresql.yml": "shop_password: given-elsewhere-1234\n"})
    result = create()
    values = values_in(folder / FILE)
    assert result["created"] == list(values) == [*SECRETS, "report_password"]
    assert len(values["report_password"]) == 32 and values["report_password"] not in str(result)
    assert not create()["changed"]


@pytest.mark.parametrize("value", ["report_password", "[{}]", "[not a name]"])
def test_own_passwords_are_a_list_of_names(value: str, folder: pathlib.Path, create: Create, write: Write) -> None:
    write(folder, {"group_vars/all/mine.yml": f"airflow_extra_secrets: {value}\n"})
    refused = create()
    assert refused["failed"] and refused["msg"].startswith("airflow_extra_secrets — is no list of names of variables — write")


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
    assert len(values_in(folder / FILE)["airflow_admin_password"]) == 32
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
        ({FILE: "airflow_api_secret_key:\n"}, "airflow_api_secret_key", "remove the line"),
        ({FILE: "airflow_ca_key: no key\n"}, "airflow_ca_key", "correct it"),
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


# The authority, a pair


def test_keys_survive_every_kind_of_file(folder: pathlib.Path, create: Create, write: Write) -> None:
    for number, (vault, before) in enumerate(((None, ""), ({"default": "pass"}, ""), ({"default": "pass"}, "other: 1\n"))):
        where = folder / str(number)
        write(where, {"hosts.yml": (folder / "hosts.yml").read_text(), **({FILE: before} if before else {})})
        create([str(where / "hosts.yml")], vault)
        found = values_in(where / FILE)
        assert pki.load_authority(found["airflow_ca_certificate"], found["airflow_ca_key"]).key
        assert pki.jwt_kid(found["airflow_jwt_private_key"])
        assert not create([str(where / "hosts.yml")], vault)["changed"]


def test_the_users_own_authority(folder: pathlib.Path, create: Create, write: Write) -> None:
    certificate = make(["airflow_ca_key", "airflow_ca_certificate"])["airflow_ca_certificate"]
    write(folder, {"group_vars/all/ca.yml": yaml.safe_dump({"airflow_ca_certificate": certificate})})
    assert not {"airflow_ca_key", "airflow_ca_certificate"} & set(create()["created"])


def test_a_certificate_for_the_key_that_is_there(folder: pathlib.Path, create: Create, write: Write) -> None:
    key = pki.new_key()
    vault = {"default": "pass"}
    write(folder, {"group_vars/all/ca.yml": "airflow_ca_key: '{{ my_key }}'\n" + yaml.safe_dump({"my_key": key})})
    result = create(vault=vault)
    assert "airflow_ca_key" not in result["created"] and "airflow_ca_certificate" in result["created"]
    assert pki.load_authority(values_in(folder / FILE)["airflow_ca_certificate"], key)


def test_the_key_in_a_file_beside_the_inventory(folder: pathlib.Path, create: Create) -> None:
    path = folder / "elsewhere/s.yml"
    create(arguments={"file": str(path)})
    lines = path.read_text().partition("airflow_ca_certificate: ")[0]
    path.write_text(lines)
    assert create(arguments={"file": str(path)})["created"] == ["airflow_ca_certificate"]
    found = yaml.safe_load(path.read_text())
    assert pki.load_authority(found["airflow_ca_certificate"], found["airflow_ca_key"])


# A cluster that is there already

EVERYONE = ["db1", "control1", "worker1", "worker2"]
KEPT = '{"fingerprints": {"airflow_fernet_key": ["0123456789ab"]}}'


@pytest.fixture(name="ask")
def _ask(folder: pathlib.Path, controller: Any) -> Callable[..., dict[str, Any]]:
    def ask(answers: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        found = controller([str(folder / "hosts.yml")])
        for host, answer in answers.items():
            found.variables.set_nonpersistent_facts(host, {"__airflow_secrets_answers": answer})
        return found.run(airflow_secrets.ActionModule, **options)

    return ask


def test_whom_to_ask(folder: pathlib.Path, create: Create, write: Write) -> None:
    assert sorted(create(check_mode=True)["asks"]) == sorted(EVERYONE)
    # Without a Fernet key to make, nobody.
    write(folder, {FILE: f"airflow_fernet_key: {make(['airflow_fernet_key'])['airflow_fernet_key']}\n"})
    first = create(check_mode=True)
    assert first["asks"] == [] and len(first["created"]) == len(SECRETS) - 1


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_cluster_that_is_there_keeps_its_key(folder: pathlib.Path, ask: Any, check_mode: bool) -> None:
    answers = {host: {"stdout": "", "rc": 0} for host in EVERYONE}
    refused = ask({**answers, "db1": {"stdout": f"{KEPT}\r\n", "rc": 0}}, check_mode=check_mode)
    assert refused["failed"] and refused["msg"].startswith(
        "airflow_fernet_key — would be made anew, but db1 belongs to a cluster"
    )
    assert "restore the file of secrets" in refused["msg"] and "\n" not in refused["msg"]
    assert not (folder / FILE).exists()
    assert ask(answers, check_mode=check_mode)["changed"]


def test_hosts_that_are_not_there_yet(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {host: {"stdout": "", "rc": 0} for host in EVERYONE}
    away = {"unreachable": True, "msg": "no route"}
    assert ask({**answers, "worker1": away, "worker2": away})["changed"]
    assert "worker1, worker2 cannot be asked whether a cluster" in " ".join(capsys.readouterr().err.split())


def test_a_host_that_cannot_answer_stops(folder: pathlib.Path, ask: Any) -> None:
    refused = ask({"db1": {"failed": True, "rc": 1, "stdout": ""}})
    assert refused["failed"] and refused["msg"].startswith("host db1 — cannot be asked") and not (folder / FILE).exists()
