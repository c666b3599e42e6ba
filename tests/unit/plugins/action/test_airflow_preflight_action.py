# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.action import airflow_preflight, airflow_secrets
from ansible_collections.windfarm.airflow.plugins.module_utils import pki

FACTS = {
    "distribution": "Debian",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "service_mgr": "systemd",
    "python_version": "3.11.2",
}


def check(controller: Any, folder: pathlib.Path, **variables: Any) -> dict[str, Any]:
    return controller([str(folder / "hosts.yml")]).run(airflow_preflight.ActionModule, {"check": "inventory"}, **variables)


def test_a_new_inventory_then_its_secrets(folder: pathlib.Path, controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = check(controller, folder)
    assert result == {"failed": True, "changed": False, "msg": "1 problem, no host was changed, see the list above"}
    assert "  1. airflow_fernet_key, airflow_jwt_private_key" in capsys.readouterr().out
    controller([str(folder / "hosts.yml")]).run(airflow_secrets.ActionModule)
    # Ansible remembers per process which files of variables a folder has.
    shutil.copytree(folder, folder / "copy")
    result = check(controller, folder / "copy")
    assert result["secrets_file"] == "" and not result["changed"] and "failed" not in result
    assert result["question"]["worker1"]["ports"] == [8079, 8793]


def test_secrets_in_a_file_of_their_own(folder: pathlib.Path, controller: Any, write: Any) -> None:
    write(folder, {"group_vars/all.yml": "airflow_secrets_file: safe/s.yml\n"})
    assert check(controller, folder)["failed"]
    controller([str(folder / "hosts.yml")]).run(airflow_secrets.ActionModule)
    text = (folder / "safe/s.yml").read_text(encoding="utf-8").replace("airflow_admin_password", "vault_admin")
    (folder / "safe/s.yml").write_text(text + 'airflow_admin_password: "{{ vault_admin }}"\n', encoding="utf-8")
    assert check(controller, folder)["secrets_file"] == str(folder / "safe/s.yml")


def test_a_broken_template_is_one_line(
    folder: pathlib.Path, controller: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, {"group_vars/airflow.yml": 'airflow_config: "{{ not_there }}"\n'})
    assert check(controller, folder)["failed"]
    expected = "airflow_config — cannot be evaluated for control1, worker1, worker2: 'not_there' is undefined — correct it"
    assert expected in capsys.readouterr().out


def test_templates_may_use_the_roles_defaults(folder: pathlib.Path, controller: Any, write: Any) -> None:
    config = 'airflow_config: {api: {port: "{{ airflow_webserver_port }}", x: "{{ groups.redis[0] }}"}}\n'
    write(folder, {"group_vars/airflow.yml": "airflow_secrets_file: s.yml\n" + config})
    controller([str(folder / "hosts.yml")]).run(airflow_secrets.ActionModule)
    assert check(controller, folder)["secrets_file"]


def test_what_the_role_manages_is_known(
    folder: pathlib.Path, controller: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, {"group_vars/airflow.yml": "airflow_config: {core: {executor: LocalExecutor}}\n"})
    assert check(controller, folder)["failed"]
    assert "airflow_config.core.executor — is managed by the role" in capsys.readouterr().out


def test_worker_sets(folder: pathlib.Path, controller: Any, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What a group says itself, in its file or in the inventory's lines, and not which of several has won."""
    write(
        folder,
        {
            "sets.yml": """\
all: {vars: {airflow_secrets_file: s.yml}}
airflow_worker:
  children:
    airflow_worker_etl: {hosts: {worker1: }}
    gpu: {hosts: {worker1: , worker2: }, vars: {airflow_worker_queues: [gpu, default]}}
""",
            "group_vars/airflow_worker_etl.yml": "airflow_worker_queues: [\"{{ 'etl' }}\"]\nairflow_worker_queue: x\n",
        },
    )

    def told(where: pathlib.Path) -> str:
        sources = [str(where / "hosts.yml"), str(where / "sets.yml")]
        controller(sources).run(airflow_secrets.ActionModule)
        capsys.readouterr()
        controller(sources).run(airflow_preflight.ActionModule, {"check": "inventory"})
        return capsys.readouterr().out

    # Ansible remembers per process which files of variables a folder has.
    shutil.copytree(folder, folder / "copy")
    found = told(folder)
    assert "host worker1 — is in the worker sets airflow_worker_etl and gpu, which say differently what it serves" in found
    assert "airflow_worker_queue — is no variable of this collection — did you mean airflow_worker_queues?" in found
    assert "2 problems" in found
    write(folder / "copy", {"host_vars/worker1.yml": "airflow_worker_queues: [etl]\n"})
    write(folder / "copy", {"group_vars/airflow_worker_etl.yml": "airflow_worker_queues: [etl]\n"})
    assert told(folder / "copy") == ""


def test_what_is_the_users_own(folder: pathlib.Path, controller: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that only a playbook's -e gives a meaning, hosts of other things, a worker set that waits for hosts."""
    others = "shop: {hosts: {shop1: {airflow_base_url: '{{ nowhere }}', airflow_tls: 'no'}}}\n"
    others += "airflow_worker: {children: {airflow_worker_gpu: {hosts: {}}}}\n"
    own = "airflow_secrets_file: s.yml\nservers: [a, b]\nworker: 7\nundo: maybe\nrotate: '{{ nowhere }}'\n"
    write(folder, {"more.yml": others, "group_vars/all.yml": own})
    found = controller([str(folder / "hosts.yml"), str(folder / "more.yml")])
    found.run(airflow_secrets.ActionModule)
    assert found.run(airflow_preflight.ActionModule, {"check": "inventory"})["question"]
    monkeypatch.setattr(airflow_preflight, "load_extra_vars", lambda _loader: {"rotate": "x"})
    assert found.run(airflow_preflight.ActionModule, {"check": "inventory"})["failed"]


def test_hosts(folder: pathlib.Path, controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = controller([str(folder / "hosts.yml")])
    everyone = ["db1", "control1", "worker1", "worker2"]
    for host in everyone[1:]:
        found.variables.set_nonpersistent_facts(host, {"__airflow_preflight_facts": {"host": FACTS}})
    found.variables.set_nonpersistent_facts("db1", {"__airflow_preflight_facts": {"unreachable": True}})
    plays = {"ansible_play_hosts_all": everyone, "ansible_play_hosts": everyone[1:]}
    result = found.run(airflow_preflight.ActionModule, {"check": "hosts"}, **plays)
    assert result["failed"]
    assert "  1. host db1 — is unreachable and belongs to postgresql, redis" in capsys.readouterr().out
    # Left out by --limit, it is not asked; the others have been deployed before.
    plays["ansible_play_hosts_all"] = everyone[1:]
    for host in everyone[1:]:
        known = {**FACTS, "ansible_local": {"windfarm_airflow": {"fingerprints": {}}, "x": {}}}
        found.variables.set_nonpersistent_facts(host, {"__airflow_preflight_facts": {"host": known}})
    assert "failed" not in found.run(airflow_preflight.ActionModule, {"check": "hosts"}, **plays)


def test_the_users_own_certificates(
    folder: pathlib.Path, controller: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    key = pki.new_key()
    ca = pki.new_ca(key, "x")
    host_key = pki.new_key()
    public = pki.public_pem(pki.load_private_key(host_key).public_key())
    files = 'airflow_certificate_file: "{{ inventory_hostname }}.pem"\nairflow_certificate_key_file: own.key\n'
    names = {"db1": "192.0.2.1", "control1": "192.0.2.9"}
    certificates = {f"{host}.pem": pki.load_authority(ca, key).sign(public, [name], 9) for host, name in names.items()}
    values = yaml.safe_dump({"airflow_ca_certificate": ca})
    write(folder, {"group_vars/all/ca.yml": files + values, "own.key": host_key, **certificates})
    controller([str(folder / "hosts.yml")]).run(airflow_secrets.ActionModule)
    # Ansible remembers per process which files of variables a folder has.
    shutil.copytree(folder, folder / "copy")
    assert check(controller, folder / "copy")["failed"]
    printed = capsys.readouterr().out
    assert "airflow_certificate_file of host control1 — is not for 192.0.2.2, by which other hosts reach this one, but" in printed
    assert f"airflow_certificate_file of host worker1 — {folder}/copy/worker1.pem does not exist on this machine" in printed
    assert "host db1" not in printed and "airflow_ca_key" not in printed


def test_the_keys_that_hosts_were_given(folder: pathlib.Path, controller: Any, capsys: pytest.CaptureFixture[str]) -> None:
    controller([str(folder / "hosts.yml")]).run(airflow_secrets.ActionModule)
    shutil.copytree(folder, folder / "copy")
    found = controller([str(folder / "copy/hosts.yml")])
    everyone = ["db1", "control1", "worker1", "worker2"]
    plays = {"ansible_play_hosts_all": everyone, "ansible_play_hosts": everyone}
    keys = {"fingerprints": {"airflow_fernet_key": ["0123456789ab"], "airflow_api_secret_key": ["0123456789ab"]}}
    for host in everyone:
        facts = {**FACTS, "ansible_local": {"windfarm_airflow": keys} if host == "control1" else {}}
        found.variables.set_nonpersistent_facts(host, {"__airflow_preflight_facts": {"host": facts}})
    assert found.run(airflow_preflight.ActionModule, {"check": "hosts"}, **plays)["failed"]
    printed = capsys.readouterr()
    assert "  1. host control1 — was given another airflow_fernet_key" in printed.out and "  2. " not in printed.out
    assert "airflow_api_secret_key — was given to control1 with another value" in " ".join(printed.err.split())
