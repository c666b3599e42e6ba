# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tasks go on while what they report to is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from api import Airflow, wait
from conftest import Shipment
from inventory import Inventory

API_OUTAGE_SECONDS = 60


@pytest.fixture(scope="module")
def life_cycle(shipment: Shipment, airflow: Airflow) -> str:
    shipment.ship("outage")
    wait("the shipped DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    return shipment.marker


def running_hosts(inventory: Inventory, runs: list[str]) -> dict[str, str]:
    """Run -> address of the worker that runs its task now."""
    listed = ", ".join(f"'{run}'" for run in runs)
    rows = inventory.sql(
        f"select run_id, hostname from task_instance where run_id in ({listed}) and task_id = 'slow' and state = 'running'"
    )
    return {run: host for run, host in rows}


@contextmanager
def cut_off(inventory: Inventory, worker: str, verdict: str) -> Iterator[None]:
    """The worker's packets to the webserver's port are refused, or vanish."""
    port = str(inventory.common("airflow_webserver_port", 8080))
    chain = f"type filter hook output priority 0\ntcp dport {port} {verdict}"
    rules = f"table inet test {{\nchain out {{\n{chain}\n}}\n}}\n"
    inventory.run(worker, "nft", "-f", "-", stdin=rules)
    try:
        yield
    finally:
        inventory.run(worker, "nft", "delete", "table", "inet", "test")


@pytest.mark.long
def test_tasks_start_run_and_end_while_the_api_is_away(life_cycle: str, inventory: Inventory, airflow: Airflow) -> None:
    """On the first worker connections are refused, on the second they vanish."""
    workers = inventory.members["worker"]
    if len(workers) < 2:
        pytest.skip("needs two workers")
    # Some tasks outlast the outage, some end in it; each run also has one that comes back from the triggerer, so starts in it.
    # More of them than one worker has slots, so that the other has some too.
    slots = inventory.slots(workers[0])
    runs = [airflow.trigger("life_cycle", {"seconds": seconds}) for seconds in [90] * (slots + 2) + [20, 20]]
    addresses = {inventory.plan["addresses"][worker]: worker for worker in workers[:2]}
    wait("each worker runs some", 60, lambda: set(running_hosts(inventory, runs).values()) == set(addresses))
    with cut_off(inventory, workers[0], "reject with tcp reset"), cut_off(inventory, workers[1], "drop"):
        time.sleep(API_OUTAGE_SECONDS)
    for run in runs:
        assert airflow.wait_for_run("life_cycle", run, 300) == "success"
        assert {task["task_id"]: task["try_number"] for task in airflow.tasks("life_cycle", run)} == {
            "slow": 1,
            "leave_and_return": 1,
        }


def test_redis_away_for_a_second_fails_no_task(life_cycle: str, inventory: Inventory, airflow: Airflow) -> None:
    """Runs are triggered before, during and after a restart of Redis that takes longer than kombu's own retries."""
    broker = inventory.members["redis"][0]
    runs = [airflow.trigger("life_cycle", {"seconds": 1})]
    inventory.run(broker, "systemctl", "stop", "redis-server")
    try:
        runs += [airflow.trigger("life_cycle", {"seconds": 1}) for _ in range(4)]
        time.sleep(3)
    finally:
        inventory.run(broker, "systemctl", "start", "redis-server")
    runs.append(airflow.trigger("life_cycle", {"seconds": 1}))
    for run in runs:
        assert airflow.wait_for_run("life_cycle", run, 180) == "success"
        tries = {task["task_id"]: task["try_number"] for task in airflow.tasks("life_cycle", run)}
        assert set(tries.values()) == {1}, f"{run}: {tries}"
