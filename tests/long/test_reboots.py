# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab of four, rebooted in several orders without any help: everything comes back and runs a DAG."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time

import pytest
from api import ApiError, wait
from fresh import BIN, changed, lab, output_of, smoke
from inventory import ROOT, Inventory

PATH = ROOT / "inventories" / "lab"
ORDERS = 3
# Seconds from the last host's being up until everything serves.
BACK = 120


@pytest.fixture(scope="module")
def cluster() -> Inventory:
    lab("up", str(PATH))
    for playbook in ("secrets", "site"):
        rc, output = output_of([str(BIN / "ansible-playbook"), "-i", str(PATH), f"playbooks/{playbook}.yml"])
        assert rc == 0, output[-6000:]
    return Inventory(str(PATH))


def booted(cluster: Inventory, host: str) -> str:
    """When the host's systemd started; nothing while the host is away or still on its way down or up."""
    try:
        if cluster.run(host, "systemctl", "is-system-running", check=False) not in ("running", "degraded"):
            return ""
        return cluster.run(host, "systemctl", "show", "-P", "UserspaceTimestampMonotonic", check=False)
    except subprocess.TimeoutExpired:
        return ""


def reboot(cluster: Inventory, hosts: list[str], pause: float) -> None:
    before = {host: booted(cluster, host) for host in hosts}
    for host in hosts:
        cluster.run(host, "systemctl", "reboot", check=False)
        time.sleep(pause)
    for host in hosts:
        wait(f"{host} is back", 180, lambda host=host: booted(cluster, host) not in ("", before[host]), interval=1)


def orders(hosts: list[str]) -> list[list[str]]:
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    return random.Random(seed).sample([list(order) for order in itertools.permutations(hosts)], ORDERS)  # noqa: S311


def units(cluster: Inventory) -> dict[str, list[str]]:
    listed = (
        "list-units",
        "--plain",
        "--no-legend",
        "--state=active",
        "airflow-*.service",
        "postgresql@*",
        "redis-server.service",
    )
    hosts = {host for members in cluster.members.values() for host in members}
    return {host: sorted(line.split()[0] for line in cluster.run(host, "systemctl", *listed).splitlines()) for host in hosts}


def answers(cluster: Inventory) -> bool:
    airflow = cluster.airflow()
    try:
        return airflow.dag("smoke") is not None
    except ApiError:
        return False


def test_any_order_and_all_at_once(cluster: Inventory) -> None:
    hosts = sorted({host for members in cluster.members.values() for host in members})
    before = units(cluster)
    for order, pause in [*((order, 5.0) for order in orders(hosts)), (hosts, 0.0)]:
        print(f"reboot {' '.join(order)}, {pause:.0f} s apart")
        reboot(cluster, order, pause)
        up = time.monotonic()
        wait("every unit is back", BACK, lambda: units(cluster) == before, interval=2)
        wait("the webserver answers", up + BACK - time.monotonic(), lambda: answers(cluster), interval=2)
        print(f"  everything is back {time.monotonic() - up:.0f} s after the last host was up")
        smoke(PATH)
        for host in hosts:
            assert not cluster.run(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend"), host
    rc, output = output_of([str(BIN / "ansible-playbook"), "-i", str(PATH), "playbooks/site.yml"])
    assert rc == 0 and set(changed(output).values()) == {0}, output[-6000:]
