# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two of each control component: every process is killed, every control host is lost, while tasks run and users ask.

The ledger says what tasks noticed, the traffic what users of the entry (else of the first webserver) noticed. A host that carries
PostgreSQL or Redis is not taken away: there is one of each.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from api import wait
from entries import all_up, holders, unplugged
from inventory import Inventory
from ledger import Ledger, assert_clean
from traffic import Traffic

UNITS = {name: f"airflow-{name.replace('_', '-')}" for name in ("webserver", "scheduler", "triggerer", "dag_processor")}
JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag_processor": "DagProcessorJob"}
LONG_SECONDS = 60


@pytest.fixture(scope="module")
def ledger(inventory: Inventory) -> Iterator[Ledger]:
    if min(len(inventory.members[name]) for name in UNITS) < 2 or not inventory.plan["entry"]["hosts"]:
        pytest.skip("needs two of each control component, and an entry")
    with Ledger(inventory) as made:
        made.prepare()
        yield made


def healthy(inventory: Inventory, name: str, host: str, since: float) -> bool:
    """The component works again: its own answer, or a heartbeat of a process that is younger."""
    if inventory.run(host, "systemctl", "is-active", UNITS[name], check=False) != "active":
        return False
    if name == "webserver":
        return all_up(inventory)
    rows = inventory.sql(
        f"select 1 from job where job_type = '{JOBS[name]}' and state = 'running' and hostname = "
        f"'{inventory.plan['addresses'][host]}' and start_date > to_timestamp({since}) and latest_heartbeat > start_date"
    )
    return rows != []


def wait_for(inventory: Inventory, name: str, host: str, since: float) -> None:
    wait(f"{name} of {host} works again", 180, lambda: healthy(inventory, name, host, since), interval=1)


def now_of(inventory: Inventory) -> float:
    """The hosts' clock."""
    return float(inventory.sql("select extract(epoch from clock_timestamp())")[0][0])


def test_every_component_is_killed_on_every_host(inventory: Inventory, ledger: Ledger) -> None:
    with Traffic(inventory) as traffic, ledger.load("kill -9 of each control component", LONG_SECONDS):
        for name, unit in UNITS.items():
            for host in inventory.members[name]:
                with traffic.window(f"kill -9 of {unit} on {host}") as window:
                    begin = now_of(inventory)
                    inventory.run(host, "systemctl", "kill", "-s", "KILL", unit)
                    time.sleep(2)
                    wait_for(inventory, name, host, begin)
                # What a killed webserver had in its hands, and wrote, nobody but the sender may repeat.
                assert window.failures("GET") == 0 and window.failures("POST") <= (2 if name == "webserver" else 0), window
    report = ledger.settle()
    print(f"\n{traffic.table()}\n{report.table()}\n{report.remarks()}")
    assert_clean(report)


@pytest.mark.long
def test_every_control_host_is_lost(inventory: Inventory, ledger: Ledger) -> None:
    servers = {*inventory.members["postgresql"], *inventory.members["redis"], *inventory.members["worker"]}
    hosts = [host for host in inventory.members["scheduler"] if host not in servers]
    assert hosts, "every control host carries what there is one of"
    with Traffic(inventory) as traffic, ledger.load("loss of each control host", LONG_SECONDS):
        for host in hosts:
            has = " (has the address)" if host in holders(inventory) else ""
            begin = now_of(inventory)
            with contextlib.ExitStack() as stack:
                with traffic.window(f"loss of {host}{has}") as window:
                    boot = stack.enter_context(unplugged(inventory, host))
                    time.sleep(20)
                with traffic.window(f"{host} comes back") as back:
                    boot()
                    for name in UNITS:
                        if host in inventory.members[name]:
                            wait_for(inventory, name, host, begin)
            # With the host goes what its HAProxy had under way: one request for each of the four clients at most.
            assert len(window.failed) <= 4 and window.slowest < 10 and back.failed == [], f"{window}\n{back}"
    report = ledger.settle()
    print(f"\n{traffic.table()}\n{report.table()}\n{report.remarks()}")
    assert_clean(report)
