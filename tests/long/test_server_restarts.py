# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL and Redis restarted in every way there is while tasks run; and who restarts them of their own accord."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api import wait
from fresh import Fresh
from ledger import Ledger, assert_clean

# So long tasks notice an outage; a load of them ends soon after.
LONG = 60
AFTER = 25
RUNNING = "airflow-scheduler airflow-webserver airflow-triggerer airflow-dag-processor airflow-logs"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(tmp_path_factory.mktemp("servers"), "lt-servers", "10.89.77.168", image="trixie") as fresh:
        fresh.must("playbooks/secrets.yml")
        fresh.must("playbooks/site.yml")
        yield fresh


@pytest.fixture(scope="module")
def ledger(host: Fresh) -> Iterator[Ledger]:
    with Ledger(host.inventory) as found:
        yield found


def database(host: Fresh) -> str:
    (cluster,) = host.run("sh", "-c", "cd /etc/postgresql && ls -d */main").splitlines()
    return f"postgresql@{cluster.replace('/', '-')}"


def pids(host: Fresh, *units: str) -> list[str]:
    return [host.run("systemctl", "show", "-P", "MainPID", unit) for unit in units]


def play(name: str, **variables: object) -> Callable[[Fresh, Ledger], None]:
    def run(host: Fresh, ledger: Ledger) -> None:
        host.must(f"playbooks/{name}.yml", "-e", json.dumps({**variables, **ledger.variables}))

    return run


def by_hand(script: str) -> Callable[[Fresh, Ledger], None]:
    def run(host: Fresh, _ledger: Ledger) -> None:
        host.run("sh", "-c", script)
        time.sleep(AFTER)

    return run


WAYS: dict[str, Callable[[Fresh, Ledger], None]] = {
    "upgrade_servers.yml, both": play("upgrade_servers", restart_servers=True),
    "upgrade_servers.yml, Redis": play("upgrade_servers", restart_servers=True, servers="redis"),
    "upgrade_servers.yml, PostgreSQL": play("upgrade_servers", restart_servers=True, servers="postgresql"),
    "redis.yml, a setting that needs it": play("redis", redis_config={"tcp-backlog": "512"}),
    "postgresql.yml, a setting that needs it": play("postgresql", postgresql_config={"max_worker_processes": 9}),
    "systemctl restart redis-server": by_hand("systemctl restart redis-server"),
    "systemctl restart postgresql": by_hand("systemctl restart 'postgresql@*'"),
    "kill -9 of Redis": by_hand("systemctl kill -s KILL redis-server"),
    "kill -9 of PostgreSQL": by_hand("kill -9 $(head -1 /var/lib/postgresql/*/main/postmaster.pid)"),
}


def waiting(host: Fresh) -> int:
    return int(host.inventory.redis("LLEN", "default"))


def test_a_task_that_is_taken_while_postgresql_is_away_waits_for_it(host: Fresh, ledger: Ledger) -> None:
    """Its worker cannot write that it has begun."""
    worker = host.inventory.worker_unit(host.name)
    with ledger.load("taken without PostgreSQL", long_seconds=LONG):
        host.run("systemctl", "kill", "-s", "STOP", "--kill-whom=main", worker)
        try:
            before = wait("tasks wait in Redis", 60, lambda: waiting(host) > 4 and waiting(host), interval=1)
            host.run("systemctl", "stop", "airflow-scheduler", database(host))
        finally:
            host.run("systemctl", "kill", "-s", "CONT", "--kill-whom=main", worker)
        try:
            wait("the worker takes some", 60, lambda: waiting(host) < before, interval=0.5)
            time.sleep(20)
        finally:
            host.run("systemctl", "start", database(host), "airflow-scheduler")
    report = ledger.settle()
    print(f"{report.table()}\n{report.remarks()}")
    assert_clean(report)


@pytest.mark.parametrize("way", WAYS)
def test_a_restart_costs_no_task(host: Fresh, ledger: Ledger, way: str) -> None:
    before = pids(host, "redis-server", database(host))
    with ledger.load(way, long_seconds=LONG):
        WAYS[way](host, ledger)
    report = ledger.settle()
    print(f"{report.table()}\n{report.remarks()}")
    assert_clean(report)
    assert pids(host, "redis-server", database(host)) != before


def older(host: Fresh, package: str) -> str:
    """The oldest version that the host's package lists have, if it is not the newest."""
    found = re.findall(r"\| (\S+) \|", host.run("apt-cache", "madison", package))
    return found[-1] if len(set(found)) > 1 else ""


def install(host: Fresh, *packages: str) -> None:
    host.run(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "--allow-downgrades", "--allow-change-held-packages",
        "-o", "Dpkg::Options::=--force-confold", "install", *packages,
    )  # fmt: skip


def test_apt_upgrades_them_only_without_the_hold(host: Fresh) -> None:
    """Debian's packages restart their servers; then the playbook upgrades what was held, in its own way."""
    version = older(host, "redis-server")
    if not version:
        pytest.skip("Debian has one version of Redis only today")
    old = [f"redis-server={version}", f"redis-tools={version}"]
    upgrade = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "upgrade")
    install(host, *old)
    before = pids(host, "redis-server")
    host.run(*upgrade)
    assert pids(host, "redis-server") != before, "without a hold apt restarts it"
    install(host, *old)
    assert "write" not in host.must("playbooks/redis.yml")
    before = pids(host, "redis-server")
    host.run(*upgrade)
    assert pids(host, "redis-server") == before
    output = host.must("playbooks/upgrade_servers.yml", "-e", "servers=redis")
    assert f"redis-server from {version} to " in output
    assert pids(host, "redis-server") != before
    assert {"redis-server", "redis-tools"} <= set(host.run("apt-mark", "showhold").split())
    assert version not in host.run("dpkg-query", "-W", "redis-server")


def test_needrestart_leaves_them_alone(host: Fresh) -> None:
    """A library that all of them use is replaced, and needrestart restarts services by itself."""
    host.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "install", "needrestart")
    units = ["redis-server", database(host), *RUNNING.split(), host.inventory.worker_unit(host.name)]
    before = pids(host, *units)
    library = host.run("sh", "-c", "dpkg-query -W -f='${Package}\\n' 'libssl3*' | head -1")
    reinstall = (
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "NEEDRESTART_MODE=a",
        "apt-get",
        "-y",
        "-q",
        "--reinstall",
        "install",
        library,
    )
    output = host.run(*reinstall)
    deferred = output.partition("being deferred")[2]
    assert all(unit in deferred for unit in ("redis-server", "postgresql@", "airflow-scheduler", "airflow-worker@"))
    assert pids(host, *units) == before
    # The control: the same without our files.
    host.run("sh", "-c", "mkdir /root/kept && mv /etc/needrestart/conf.d/90-windfarm-*.conf /root/kept")
    host.run(*reinstall)
    host.run("sh", "-c", "mv /root/kept/* /etc/needrestart/conf.d/ && rmdir /root/kept")
    wait("Redis is restarted", 60, lambda: pids(host, "redis-server") != before[:1], interval=1)
    # What runs with the old library is what upgrade_servers.yml restarts.
    host.run(*reinstall)
    assert "replaced since its start" in host.must("playbooks/upgrade_servers.yml")


def test_an_interrupted_run_is_made_good(host: Fresh, tmp_path: Path) -> None:
    """What it had stopped is started by the next run, although nothing is left to restart."""
    host.run("systemctl", "stop", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
    host.must("playbooks/upgrade_servers.yml")
    units = ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
    assert [host.run("systemctl", "is-active", unit) for unit in units] == ["active"] * 3
    host.smoke()
