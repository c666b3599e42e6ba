# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext, is_encrypted
from ansible_collections.windfarm.airflow.plugins.action import airflow_rotate, airflow_secrets
from ansible_collections.windfarm.airflow.plugins.module_utils import rotation
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import create as make

FILE = "group_vars/all/vault.yml"
HOSTS = ["db1", "control1", "worker1", "worker2"]
Rotate = Callable[..., "dict[str, Any]"]
Write = Callable[[pathlib.Path, Mapping[str, str]], None]


@pytest.fixture(name="rotate")
def _rotate(folder: pathlib.Path, controller: Any) -> Rotate:
    """A run of the action, everything read anew, on the hosts that the play still has."""

    def run(
        kind: str, state: str, step: int = 0, vault: Any = None, hosts: Sequence[str] = tuple(HOSTS), **more: Any
    ) -> dict[str, Any]:
        # Ansible remembers for the life of its process which files there were.
        for module in [one for name, one in sys.modules.items() if name.endswith("host_group_vars")]:
            module.FOUND.clear()
            module.NAK.clear()
        # Once per process is all that Ansible allows.
        if VaultSecretsContext.current(optional=True) is None:
            VaultSecretsContext.initialize(VaultSecretsContext([("default", VaultSecret(b"pass"))]))
        found = controller([str(folder / "hosts.yml")], vault)
        arguments = {"secret": kind, "state": state, "step": step, **more.pop("arguments", {})}
        return found.run(airflow_rotate.ActionModule, arguments, ansible_play_hosts=list(hosts), **more)

    return run


@pytest.fixture(name="secrets")
def _secrets(folder: pathlib.Path, controller: Any) -> Callable[..., pathlib.Path]:
    """The file as playbooks/secrets.yml makes it."""

    def run(vault: Any = None) -> pathlib.Path:
        controller([str(folder / "hosts.yml")], vault).run(airflow_secrets.ActionModule)
        return folder / FILE

    return run


def values_in(path: pathlib.Path) -> dict[str, Any]:
    vault = VaultLib([("default", VaultSecret(b"pass"))])

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!vault", lambda _loader, node: vault.decrypt(node.value).decode())
    data = path.read_bytes()
    return yaml.load(vault.decrypt(data) if is_encrypted(data) else data, Loader)  # noqa: S506


def through(rotate: Rotate, kind: str, **more: Any) -> None:
    for number in range(1, len(rotation.STEPS[kind]) + 1):
        arguments = {"reached": "done"}
        found = rotate(kind, "entered", number, arguments=arguments, **more)
        assert found["changed"] and found["converge"], found


@pytest.mark.parametrize("kind", rotation.KINDS)
@pytest.mark.parametrize("form", ["plain", "whole", "inline"])
def test_a_file_of_any_form_is_rotated_and_keeps_its_form(
    rotate: Rotate, secrets: Any, folder: pathlib.Path, kind: str, form: str
) -> None:
    vault = {"plain": None, "whole": {"default": "pass"}, "inline": {"default": "pass"}}[form]
    if form == "inline":
        (folder / FILE).parent.mkdir(parents=True)
        (folder / FILE).write_text("# mine\nother: {a: [1]}  # kept\n")
    path = secrets(vault)
    before, text = values_in(path), path.read_bytes()
    assert not rotate(kind, "planned", vault=vault)["changed"]
    assert path.read_bytes() == text
    # Hosts that have reached each state are needed for the next one.
    for number in range(1, len(rotation.STEPS[kind]) + 1):
        inventory_vars = folder / "group_vars/all/reached.yml"
        inventory_vars.write_text(f"__airflow_rotation_reached: {number - 1}\n")
        found = rotate(kind, "entered", number, vault=vault)
        assert found["changed"] and found["converge"] == list(rotation.STEPS[kind][number - 1].converge), found
        assert values_in(path)[rotation.MARKER]["stage"] == number
        assert not rotate(kind, "entered", number, vault=vault)["changed"]
        assert rotate(kind, "entered", number - 1, vault=vault)["converge"] == [] or number == 1
        assert not [
            value for name, value in values_in(path).items() if rotation.is_secret(name) and value and str(value) in str(found)
        ]
    inventory_vars.write_text(f"__airflow_rotation_reached: {len(rotation.STEPS[kind])}\n")
    assert rotate(kind, "finished", vault=vault)["changed"]
    after = values_in(path)
    assert {name for name in after if after[name] != before.get(name)} == {*rotation.SECRETS[kind], *rotation.KEPT.get(kind, ())}
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_encrypted(path.read_bytes()) == (form == "whole")
    if form == "inline":
        assert path.read_text().startswith("# mine\nother: {a: [1]}  # kept\n")
        assert path.read_text().count("!vault |") == len(airflow_secrets.SECRETS)


def test_check_mode_says_what_it_would_do_and_writes_nothing(rotate: Rotate, secrets: Any) -> None:
    path = secrets()
    before = path.read_bytes()
    found = rotate("tls", "planned", check_mode=True)
    assert found["changed"] and found["steps"] == {}
    assert path.read_bytes() == before


def test_another_one_is_refused_while_one_is_unfinished(rotate: Rotate, secrets: Any) -> None:
    secrets()
    assert rotate("redis", "entered", 1)["changed"]
    found = rotate("jwt", "planned")
    assert found["failed"]
    assert found["msg"] == "rotate=jwt — a rotation of redis is unfinished — finish it first, with -e rotate=redis"
    goes_on = rotate("redis", "planned")
    assert list(goes_on["steps"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"group_vars/all/own.yml": "airflow_broker_password: some-other-password\n"}, "group_vars/all/vault.yml"),
        ({"group_vars/redis.yml": "airflow_broker_password: some-other-password\n"}, "group_vars/redis.yml"),
        ({"host_vars/worker2.yml": "airflow_broker_password: some-other-password\n"}, "host_vars/worker2.yml"),
    ],
)
def test_a_secret_that_is_defined_elsewhere_is_refused(
    rotate: Rotate, secrets: Any, folder: pathlib.Path, write: Write, files: dict[str, str], where: str
) -> None:
    path = secrets()
    if where.endswith("vault.yml"):
        # Read after the file of secrets, so that it wins.
        files = {"group_vars/all/zz.yml": next(iter(files.values()))}
        where = "group_vars/all/zz.yml"
    write(folder, files)
    before = path.read_bytes()
    found = rotate("redis", "planned")
    assert found["failed"] and found["msg"].startswith(f"airflow_broker_password — is defined in {folder / where}")
    assert "\n" not in found["msg"] and path.read_bytes() == before


def test_templates_and_what_is_missing_are_refused(rotate: Rotate, folder: pathlib.Path, write: Write) -> None:
    values = make(airflow_secrets.SECRETS)
    assert rotate("api", "planned")["msg"].endswith(airflow_secrets.airflow_secrets.SECRETS_PLAYBOOK)
    lines = "".join(rotation.line_of(name, value) for name, value in values.items() if name != "airflow_api_secret_key")
    write(folder, {FILE: lines})
    assert "airflow_api_secret_key — is not in" in rotate("api", "planned")["msg"]
    write(folder, {FILE: lines + "airflow_api_secret_key: \"{{ 'x' * 40 }}\"\n"})
    assert rotate("api", "planned")["msg"].startswith("airflow_api_secret_key — is a template")


def test_hidden_and_lost_hosts_are_refused(rotate: Rotate, secrets: Any, folder: pathlib.Path, write: Write) -> None:
    path = secrets()
    found = rotate("redis", "planned", hosts=["db1", "control1", "worker1"])
    assert found["msg"].startswith("rotate=redis — would pass over worker2") and "--limit" in found["msg"]
    assert rotate("redis", "entered", 1)["changed"]
    before = path.read_bytes()
    write(
        folder,
        {
            "host_vars/worker1.yml": "__airflow_rotation_reached: 1\n",
            "group_vars/postgresql.yml": "__airflow_rotation_reached: 1\n",
        },
    )
    found = rotate("redis", "entered", 2)
    assert found["msg"].startswith("host control1, worker2 — was lost on the way") and path.read_bytes() == before


def test_servers_and_authorities_of_the_users_own_are_refused(
    rotate: Rotate, secrets: Any, folder: pathlib.Path, write: Write
) -> None:
    path = secrets()
    write(folder, {"group_vars/all/tls.yml": "airflow_tls: false\n"})
    assert rotate("tls", "planned")["msg"].startswith("rotate=tls — airflow_tls is off")
    write(folder, {"group_vars/all/tls.yml": "airflow_tls: true\n", "host_vars/db1.yml": "airflow_certificate_file: x\n"})
    assert rotate("tls", "planned")["msg"].startswith("rotate=tls — db1 has a certificate of its own")
    (folder / "host_vars/db1.yml").unlink()
    text = path.read_text()
    path.write_text(rotation.edited(text, {"airflow_ca_key": None}))
    assert rotate("tls", "planned")["msg"].startswith("airflow_ca_key — is not in the file of secrets: the authority is your own")
    hosts = (folder / "hosts.yml").read_text()
    (folder / "hosts.yml").write_text(hosts.replace("    redis: {hosts: {db1: }}\n", ""))
    assert rotate("redis", "planned")["msg"].startswith("rotate=redis — airflow_broker_host names a server that you run")


def test_tokens_of_the_old_key_are_waited_for(rotate: Rotate, secrets: Any, folder: pathlib.Path, monkeypatch: Any) -> None:
    path = secrets()
    reached = folder / "group_vars/all/reached.yml"
    for number in (1, 2):
        reached.write_text(
            f"__airflow_rotation_reached: {number - 1}\nairflow_config: {{scheduler: {{task_queued_timeout: 900}}}}\n"
        )
        rotate("jwt", "entered", number)
        assert rotate("jwt", "settled", number)["changed"] == (number == 2)
    until = values_in(path)[rotation.MARKER]["until"]
    assert 930 < rotation.seconds_until(until) <= 940
    reached.write_text("__airflow_rotation_reached: 2\n")
    # It is not begun anew by a run that comes too early.
    before = path.read_bytes()
    for found in (rotate("jwt", "planned"), rotate("jwt", "entered", 3)):
        assert found["waits"] and not found["changed"] and not found.get("steps") and not found.get("converge")
    assert not rotate("jwt", "settled", 2)["changed"]
    assert path.read_bytes() == before
    slept: list[float] = []
    left = iter([7.0, 7.0, 7.0, 2.0, 2.0, 0.0, 0.0])
    monkeypatch.setattr(rotation, "seconds_until", lambda _time: next(left))
    monkeypatch.setattr(airflow_rotate.time, "sleep", slept.append)
    found = rotate("jwt", "entered", 3, arguments={"wait": True})
    assert found["changed"] and found["converge"] and slept


def test_a_file_that_cannot_be_edited_is_left_alone(rotate: Rotate, secrets: Any) -> None:
    path = secrets()
    text = path.read_text()
    for broken in (
        text + 'airflow_api_secret_key: "again"\n',
        "{" + ", ".join(f"{n}: x" for n in ("a", "airflow_api_secret_key")) + "}\n",
    ):
        path.write_text(broken)
        found = rotate("api", "entered", 1)
        assert found["failed"] and found["msg"].startswith(f"{path} — "), found
        assert path.read_text() == broken
