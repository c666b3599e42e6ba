# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a release comes onto a host: without any network, after an interruption, with packages of one's own, never from a
stale lock."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from api import wait
from fresh import BIN, Fresh, changed, output_of
from inventory import ROOT
from processes import kill

PREPARE = "tests/long/prepare.yml"
EXTRA = "cowsay"
RESOLVE = "run the playbook windfarm.airflow.lock (playbooks/lock.yml) with this inventory"
# All that is left is ssh from the machine that runs Ansible.
CUT = """
table inet cut {
  chain input { type filter hook input priority 0; policy drop; iif lo accept; ip saddr CONTROLLER tcp dport 22 accept; }
  chain output { type filter hook output priority 0; policy drop; oif lo accept; ip daddr CONTROLLER tcp sport 22 accept; }
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("release"), "lt-release", "10.89.77.160") as fresh:
        fresh.must("playbooks/secrets.yml")
        yield fresh


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetched by the command in the documentation, to the letter."""
    (command,) = re.findall(r"(?m)^    (pip download (?:.*\\\n)*.*)$", (ROOT / "docs/inventory.md").read_text())
    folder = tmp_path_factory.mktemp("wheels")
    command = command.replace("-d wheels", f"-d '{folder}'")
    rc, output = output_of(["bash", "-euc", command], PATH=f"{BIN}:{os.environ['PATH']}")
    assert rc == 0, output[-2000:]
    return folder


@pytest.fixture()
def cut(host: Fresh) -> Iterator[None]:
    name = ("getent", "hosts", host.name)
    assert host.run(*name), "names are resolved while there is a network"
    gateway = host.run("sh", "-c", "ip -4 route show default | cut -d' ' -f3")
    host.run("nft", "-f", "-", stdin=CUT.replace("CONTROLLER", gateway))
    try:
        assert not host.run(*name, check=False), "the host still has a network"
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "cut")


def version(host: Fresh) -> str:
    release = os.path.basename(host.run("sh", "-c", "ls -td /opt/airflow/releases/*/ | head -1").rstrip("/"))
    assert host.run("cat", f"/opt/airflow/releases/{release}/release.json")
    return host.run(f"/opt/airflow/releases/{release}/bin/airflow", "version").splitlines()[-1]


def test_without_any_network(host: Fresh, wheels: Path, cut: None) -> None:
    # A host that never had a network has no fresh lists of Debian's packages either.
    host.run("rm", "-rf", "/var/lib/apt/lists", "/var/lib/apt/periodic")
    host.run("mkdir", "/var/lib/apt/lists")
    host.run("touch", "-d", "2020-01-01", "/var/lib/apt/lists")
    output = host.must(PREPARE, "-e", f"airflow_wheel_directory={wheels}")
    assert changed(output)[host.name] > 0
    assert version(host) == "3.3.2"
    assert changed(host.must(PREPARE, "-e", f"airflow_wheel_directory={wheels}")) == {host.name: 0}
    host.run("sh", "-c", "rm -r /opt/airflow/releases/*")


def test_a_wheel_that_is_missing_is_named(host: Fresh, wheels: Path, cut: None) -> None:
    (absent,) = wheels.glob("apache_airflow-*.whl")
    absent.rename(absent.with_suffix(".absent"))
    try:
        rc, output = host.play(PREPARE, "-e", f"airflow_wheel_directory={wheels}")
    finally:
        absent.with_suffix(".absent").rename(absent)
    assert rc == 2
    assert "apache-airflow" in output
    assert not host.run("sh", "-c", "ls /opt/airflow/releases/*/release.json", check=False)


def test_an_interrupted_build_is_begun_anew(host: Fresh) -> None:
    process = subprocess.Popen(
        host.command(PREPARE), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        find = ("sh", "-c", "ls -d /opt/airflow/releases/*/lib/python3*/site-packages/airflow")
        wait("packages are being unpacked", 120, lambda: host.run(*find, check=False), interval=0.05)
    finally:
        kill(process)
    # What Ansible started on the host would go on without it.
    host.lose_power()
    assert not host.run("sh", "-c", "ls /opt/airflow/releases/*/release.json", check=False), "killed too late"
    host.must(PREPARE)
    assert version(host) == "3.3.2"
    assert changed(host.must(PREPARE)) == {host.name: 0}


def test_a_debian_package_that_is_missing_is_installed(host: Fresh) -> None:
    """Also where the package lists are missing, as the first test left them."""
    status = ("dpkg-query", "-W", "-f", "${db:Status-Status}", "file")
    assert host.run(*status, check=False) != "installed"
    wanted = ("-e", '{"airflow_packages": ["sudo", "file"]}')
    assert changed(host.must(PREPARE, "--check", *wanted)) == {host.name: 1}
    assert changed(host.must(PREPARE, *wanted)) == {host.name: 1}
    assert host.run(*status) == "installed"
    assert changed(host.must(PREPARE, *wanted)) == {host.name: 0}


def test_packages_that_nobody_resolved_are_refused(host: Fresh) -> None:
    before = host.releases()
    host.set(airflow_requirements=[EXTRA])
    lock = host.folder / "locks" / "airflow-3.3.2-py3.11.txt"
    rc, output = host.play("playbooks/site.yml")
    assert rc == 2
    assert f"airflow_requirements — not resolved yet, {lock} is missing — {RESOLVE}" in output
    assert changed(output) == {host.name: 0}
    # A role that is used without the preflight refuses as well.
    rc, output = host.play(PREPARE)
    assert rc == 2 and "not resolved yet" in output
    assert host.releases() == before


def test_packages_of_ones_own(host: Fresh) -> None:
    (before,) = host.releases()
    host.set(airflow_requirements=[EXTRA])
    host.must("playbooks/lock.yml")
    host.must(PREPARE)
    after = host.releases()
    assert before in after and len(after) == 2, "a new release beside the old one"
    (new,) = set(after) - {before}
    found = [
        host.run("sh", "-c", f"ls -d /opt/airflow/releases/{name}/lib/*/site-packages/{EXTRA}", check=False)
        for name in (before, new)
    ]
    assert not found[0] and found[1]
    assert version(host) == "3.3.2"
    assert changed(host.must("playbooks/lock.yml")) == {"localhost": 0}


def test_a_stale_lock_is_refused(host: Fresh) -> None:
    host.set(airflow_requirements=[EXTRA, "tabulate>=0.9"])
    rc, output = host.play("playbooks/site.yml")
    lock = host.folder / "locks" / "airflow-3.3.2-py3.11.txt"
    assert rc == 2
    assert f"airflow_requirements — {lock} was resolved for other requirements — {RESOLVE}" in output
    assert changed(output) == {host.name: 0}
    assert len(host.releases()) == 2
