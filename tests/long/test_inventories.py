# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ways to use the collection other than a folder in a checkout: from its tarball, with a script or several files as the
inventory, and `inventories/single` as it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api import Airflow
from fresh import BIN, Fresh, changed, groups, output_of
from inventory import ROOT

PLAYBOOK = str(BIN / "ansible-playbook")
GALAXY = str(BIN / "ansible-galaxy")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("inventories") / "unused", "lt-script", "10.89.77.163") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where no checkout is: only what a user of the tarball has."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> dict[str, str | None]:
    """The environment of that user: collections installed by ansible-galaxy, no ansible.cfg of ours."""
    rc, output = output_of([GALAXY, "collection", "build", "--output-path", str(folder)])
    assert rc == 0, output
    (tarball,) = folder.glob("windfarm-airflow-*.tar.gz")
    installed = folder / "collections"
    command = [GALAXY, "collection", "install", "--offline", "-p", str(installed), str(tarball)]
    environment = {"ANSIBLE_CONFIG": None, "ANSIBLE_COLLECTIONS_PATH": str(installed)}
    rc, output = output_of(command, folder, **environment)
    assert rc == 0, output
    return environment


def variables(host: Fresh) -> dict[str, Any]:
    """What the lab's files say of the host, as plain values."""
    names = (
        "ansible_host",
        "ansible_user",
        "ansible_ssh_private_key_file",
        "ansible_ssh_common_args",
        "ansible_python_interpreter",
    )
    names += ("airflow_ca_bundle", "airflow_index_url", "airflow_proxy", *host.settings)
    found = host.inventory
    return json.loads(json.dumps({name: found.get(host.name, name) for name in names}))


def test_installed_tarball_with_a_script_as_inventory(host: Fresh, folder: Path, elsewhere: dict[str, str | None]) -> None:
    listing = {
        **{name: {key: list(value) for key, value in group.items()} for name, group in groups(host.name).items()},
        **{name: {"hosts": list(group["hosts"])} for name, group in groups(host.name)["airflow"]["children"].items()},
        "_meta": {"hostvars": {host.name: variables(host)}},
    }
    script = folder / "inventory.sh"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(listing)}\nEND\n")
    script.chmod(0o755)
    secrets = folder / "safe" / "secrets.yml"
    arguments = ["-i", str(script), "-e", f"airflow_secrets_file={secrets}"]

    rc, output = output_of([PLAYBOOK, *arguments, "windfarm.airflow.site"], folder, **elsewhere)
    assert rc == 2 and f"airflow_secrets_file — {secrets} does not exist" in output, output
    assert changed(output) == {host.name: 0}
    rc, output = output_of([PLAYBOOK, *arguments, "windfarm.airflow.secrets"], folder, **elsewhere)
    assert rc == 0 and changed(output)["localhost"] == 1, output
    assert secrets.stat().st_mode & 0o777 == 0o600
    rc, output = output_of([PLAYBOOK, *arguments, "windfarm.airflow.secrets"], folder, **elsewhere)
    assert rc == 0 and changed(output)["localhost"] == 0, output

    rc, output = output_of([PLAYBOOK, *arguments, "windfarm.airflow.site"], folder, **elsewhere)
    assert rc == 0, output[-6000:]
    run_smoke(host, secrets.read_text())


def test_several_inventories_mean_the_same(host: Fresh, folder: Path) -> None:
    """From a checkout, with two files in two folders: the same secrets, so nothing changes."""
    for name, content in (("hosts", {"all": {"hosts": {host.name: variables(host)}}}), ("groups", groups(host.name))):
        (folder / name).mkdir()
        (folder / name / "inventory.yml").write_text(yaml.safe_dump(content))
    arguments = ["-i", str(folder / "hosts/inventory.yml"), "-i", str(folder / "groups/inventory.yml")]
    arguments += ["-e", f"airflow_secrets_file={folder / 'safe/secrets.yml'}"]
    rc, output = output_of([PLAYBOOK, *arguments, "playbooks/secrets.yml"])
    assert rc == 0 and changed(output)["localhost"] == 0, output
    rc, output = output_of([PLAYBOOK, *arguments, "playbooks/site.yml"])
    assert rc == 0 and changed(output) == {host.name: 0}, output[-6000:]


def run_smoke(host: Fresh, secrets: str) -> None:
    found = yaml.safe_load(secrets)
    airflow = Airflow(f"https://{host.address}:8080", "admin", found["airflow_admin_password"], found["airflow_ca_certificate"])
    airflow.wait_for_dag("smoke", 60)
    assert airflow.wait_for_run("smoke", airflow.trigger("smoke"), 120) == "success"


def test_inventories_single_as_it_is(tmp_path: Path) -> None:
    """The checkout is on the host itself, with what README.md tells to install."""
    with Fresh(tmp_path / "unused", "lt-local", "10.89.77.164") as host:
        lister = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(lister, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        present = [name for name in names if name and os.path.lexists(ROOT / name)]
        pack = subprocess.run(
            ["tar", "-C", str(ROOT), "-c", "--null", "--files-from=-"],
            input="\0".join(present).encode(),
            check=True,
            capture_output=True,
        )
        host.run("mkdir", "/srv/windfarm")
        unpack = [*host.inventory.ssh(host.name), "tar -x --no-same-owner -C /srv/windfarm"]
        subprocess.run(unpack, input=pack.stdout, check=True)

        trust = host.inventory.get(host.name, "airflow_ca_bundle")
        index = host.inventory.get(host.name, "airflow_index_url")
        inside(host, "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv")
        pip = f"PIP_CERT={trust} " + (f"PIP_INDEX_URL='{index}' " if index else "")
        inside(host, f"python3 -m venv .venv && {pip} .venv/bin/pip install -q -r requirements.txt")
        # Nothing but what the lab's network asks for.
        network = {name: variables(host)[name] for name in ("airflow_ca_bundle", "airflow_index_url", "airflow_proxy")}
        # The inventory reaches the host as localhost, this test by its address.
        network["airflow_certificate_names"] = [host.address]
        play = f".venv/bin/ansible-playbook -i inventories/single -e '{json.dumps(network)}' playbooks/"
        inside(host, f"{play}secrets.yml")
        inside(host, f"{play}site.yml")
        run_smoke(host, inside(host, "cat inventories/single/group_vars/all/vault.yml"))
        assert changed(inside(host, f"{play}site.yml")) == {"airflow1": 0}


def inside(host: Fresh, script: str) -> str:
    """Run a command line in the checkout on the host, as long as it takes."""
    remote = [*host.inventory.ssh(host.name), f"cd /srv/windfarm && {script}"]
    rc, output = output_of(remote)
    assert rc == 0, f"{script}: rc {rc}: {output[-6000:]}"
    return output
