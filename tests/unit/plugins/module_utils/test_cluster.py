# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, max_connections, plan

HOSTVARS: dict[str, dict[str, Any]] = {
    "db1": {"ansible_host": "10.0.0.1"},
    "control1": {"ansible_host": "10.0.0.2"},
    "worker1": {"airflow_address": "192.0.2.3", "ansible_host": "10.0.0.3"},
    "worker2": {},
}
GROUPS = {
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "worker1", "worker2"],
    **{group: ["control1"] for group in COMPONENT_GROUPS.values()},
    "airflow_worker": ["worker1", "worker2"],
}


def test_addresses_come_from_the_inventory() -> None:
    found = plan(HOSTVARS, GROUPS)
    assert found["addresses"] == {"db1": "10.0.0.1", "control1": "10.0.0.2", "worker1": "192.0.2.3", "worker2": "worker2"}
    assert not found["single"]


def test_one_host_that_holds_everything_talks_to_itself() -> None:
    groups = {name: ["all1"] for name in GROUPS}
    found = plan({"all1": {"ansible_host": "10.0.0.9"}}, groups)
    assert found["single"]
    assert found["addresses"] == {"all1": "127.0.0.1"}
    assert found["database"]["host"] == "127.0.0.1"
    assert found["listen"] == {"postgresql": ["127.0.0.1"], "redis": ["127.0.0.1"]}


def test_workers_do_not_connect_to_the_metadata_database() -> None:
    clients = plan(HOSTVARS, GROUPS)["database_clients"]
    assert {one["address"] for one in clients if one["database"] == "airflow"} == {"10.0.0.2"}
    assert {one["address"] for one in clients if one["database"] == "airflow_results"} == {"10.0.0.2", "192.0.2.3", "worker2"}


def test_a_database_elsewhere() -> None:
    hostvars = {name: {**values, "airflow_database_host": "pg.example.com"} for name, values in HOSTVARS.items()}
    assert plan(hostvars, {**GROUPS, "postgresql": []})["database"]["host"] == "pg.example.com"


def test_connections_of_the_smallest_cluster_exceed_debians_hundred() -> None:
    # 17 + 30 + 15 + 30 + 2 x 17 + 9 = 135, a fifth more is 162.
    assert max_connections(1, 1, 1, 1, [16]) == 200


def test_another_worker_seldom_needs_a_restart_of_postgresql() -> None:
    assert max_connections(1, 1, 1, 1, [16, 16]) == max_connections(1, 1, 1, 1, [16] * 5) == 400
    assert max_connections(2, 2, 1, 1, [16] * 50) == 3200


def test_worker_slots_count() -> None:
    few = plan({**HOSTVARS, "worker2": {"airflow_worker_concurrency": 4}}, GROUPS)["max_connections"]
    many = plan({**HOSTVARS, "worker2": {"airflow_worker_concurrency": 64}}, GROUPS)["max_connections"]
    assert many > few
