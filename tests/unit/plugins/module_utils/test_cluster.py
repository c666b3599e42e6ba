# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, connections, parallelism, plan

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


def test_logins_are_those_of_a_host_that_has_read_the_secrets() -> None:
    """With --limit the first host of all has not."""
    read = {"airflow_database_password": "p", "airflow_database_login": "airflow_2", "airflow_database_previous_password": "q"}
    for host in ("db1", "worker1"):
        found = plan({**HOSTVARS, host: {**HOSTVARS[host], **read}}, GROUPS)["database"]
        assert (found["user"], found["previous"]) == ("airflow_2", "airflow"), host
    assert plan(HOSTVARS, GROUPS)["database"]["user"] == "airflow"


def test_connections_of_the_smallest_cluster_exceed_debians_hundred() -> None:
    # 17 + 30 + 15 + 30 + 2 x 17 + 9 = 135, a fifth more is 162.
    assert connections(1, 1, 1, 1, [16]).max_connections == 200


def test_another_worker_seldom_needs_a_restart_of_postgresql() -> None:
    assert connections(1, 1, 1, 1, [16, 16]).max_connections == connections(1, 1, 1, 1, [16] * 5).max_connections == 400
    assert connections(2, 2, 1, 1, [16] * 50).max_connections == 3200


def test_workers_cannot_take_the_connections_that_the_scheduler_lives_by() -> None:
    total, database, results, needed = connections(1, 1, 1, 1, [16])
    assert needed == 162
    # 2 + 2 x 17 = 36 and 15 + 30 + 15 + 30 = 90, a fifth more each; 9 stay for the superuser.
    assert (results, database) == (44, 147)
    assert database >= 90 * 1.2 and database + results + 9 == total


def test_worker_slots_count() -> None:
    few = plan({**HOSTVARS, "worker2": {"airflow_worker_concurrency": 4}}, GROUPS)["max_connections"]
    many = plan({**HOSTVARS, "worker2": {"airflow_worker_concurrency": 64}}, GROUPS)["max_connections"]
    assert many > few


def test_workers_are_resolved() -> None:
    instances = [{"name": "io", "concurrency": 20}, {"name": "etl", "queues": ["etl"], "autoscale": "8,2"}]
    found = plan({**HOSTVARS, "worker2": {"airflow_worker_instances": instances, "airflow_worker_queues": ["io"]}}, GROUPS)
    assert list(found["workers"]) == ["worker1", "worker2"]
    (default,) = found["workers"]["worker1"]
    assert (default["name"], default["queues"], default["concurrency"]) == ("default", ["default"], 16)
    assert [(one["name"], one["queues"], one["concurrency"]) for one in found["workers"]["worker2"]] == [
        ("io", ["io"], 20),
        ("etl", ["etl"], 8),
    ]
    assert found["queues"] == ["default", "etl", "io"]
    # 2 + 2 x (17 + 21 + 9) = 96, a fifth more.
    assert found["connection_limits"]["results_database"] == 116


def test_every_slot_can_be_used_when_one_of_several_schedulers_is_away() -> None:
    assert [parallelism(slots, 1) for slots in (0, 8, 32, 33, 64, 200)] == [32, 32, 32, 64, 64, 256]
    assert [parallelism(64, schedulers) for schedulers in (1, 2, 3)] == [64, 64, 32]
    assert plan({**HOSTVARS, "worker2": {"airflow_worker_concurrency": 80}}, GROUPS)["parallelism"] == 128


def test_a_number_of_connections_that_the_user_gives() -> None:
    found = plan({**HOSTVARS, "db1": {"postgresql_max_connections": 777}}, GROUPS)
    assert found["max_connections"] == 777
    assert found["connection_limits"]["database"] == 777 - 9 - found["connection_limits"]["results_database"]


def test_a_port_is_open_to_those_who_need_it() -> None:
    ports = plan(HOSTVARS, GROUPS)["ports"]
    by_name = {(host, one["name"]): (one["port"], one["clients"]) for host, found in ports.items() for one in found}
    (database,) = GROUPS["postgresql"]
    (control,) = GROUPS["airflow_webserver"]
    workers = GROUPS["airflow_worker"]
    assert by_name[database, "postgresql"] == (5432, ["10.0.0.2", "192.0.2.3", "worker2"])
    assert by_name[control, "triggerer_logs"] == (8794, ["10.0.0.2"])
    assert by_name[control, "flower"] == (5555, []) and by_name[control, "scheduler_health"] == (8974, [])
    for worker in workers:
        assert by_name[worker, "worker_logs"] == (8793, ["10.0.0.2"]) and by_name[worker, "execution_api"] == (8079, [])


def test_clients_of_the_users_own_databases_are_admitted() -> None:
    (database,) = GROUPS["postgresql"]
    own = {"postgresql_extra_hba_entries": [{"address": "samehost"}, {"address": "10.9.0.0/16"}, {"type": "local"}]}
    ports = plan({**HOSTVARS, database: {**HOSTVARS[database], **own}}, GROUPS)["ports"]
    assert next(one for one in ports[database] if one["name"] == "postgresql")["clients"][-1] == "10.9.0.0/16"


def test_a_group_in_the_place_of_an_address_stands_for_its_hosts() -> None:
    (database,) = GROUPS["postgresql"]

    def found(group: str, groups: dict[str, list[str]]) -> dict[str, Any]:
        own = {"postgresql_extra_hba_entries": [{"database": "mine", "user": "me", "address": group}]}
        return plan({**HOSTVARS, database: {**HOSTVARS[database], **own}}, groups)

    def addresses(group: str, groups: dict[str, list[str]]) -> list[str]:
        return [one["address"] for one in found(group, groups)["own_hba_entries"][database]]

    groups = {**GROUPS, "analysts": ["desk1", "worker1"], "nobody": [], "all": list(HOSTVARS)}
    assert addresses("airflow_worker", groups) == ["192.0.2.3", "worker2"]
    assert addresses("analysts", groups) == ["192.0.2.3", "desk1"]
    assert addresses("nobody", groups) == []
    # PostgreSQL's own word wins.
    assert addresses("all", groups) == ["all"]
    assert addresses("airflow_worker", {**groups, "airflow_worker": ["worker1"]}) == ["192.0.2.3", "worker2"]
    ports = found("analysts", groups)["ports"][database]
    assert "desk1" in next(one for one in ports if one["name"] == "postgresql")["clients"]


def test_the_users_own_databases_have_their_connections() -> None:
    (database,) = GROUPS["postgresql"]
    own = {"postgresql_extra_databases": [{"name": "mine", "connection_limit": 250}, {"name": "other"}]}
    before, after = plan(HOSTVARS, GROUPS), plan({**HOSTVARS, database: {**HOSTVARS[database], **own}}, GROUPS)
    assert after["max_connections"] == 2 * before["max_connections"]
    limits = after["connection_limits"]
    assert limits["database"] + limits["results_database"] + 250 + 9 == after["max_connections"]
    assert limits["results_database"] == before["connection_limits"]["results_database"]


def test_a_certificate_holds_every_name_that_is_verified() -> None:
    hostvars = {name: {**values, "airflow_base_url": "https://flows.example.com/x"} for name, values in HOSTVARS.items()}
    found = plan(hostvars, GROUPS)["certificate_names"]
    (control,) = GROUPS["airflow_webserver"]
    (database,) = GROUPS["postgresql"]
    assert found[control][0] == "10.0.0.2" and {control, "flows.example.com", "127.0.0.1"} <= set(found[control])
    assert "flows.example.com" not in found[database]


def test_tls_is_for_servers_of_ours() -> None:
    assert plan(HOSTVARS, GROUPS)["database"]["tls"] and plan(HOSTVARS, GROUPS)["database_clients"][0]["type"] == "hostssl"
    assert not plan(HOSTVARS, {**GROUPS, "postgresql": []})["database"]["tls"]
    plain = plan({name: {**values, "airflow_tls": False} for name, values in HOSTVARS.items()}, GROUPS)
    assert not plain["broker"]["tls"] and plain["database_clients"][0]["type"] == "host"


def test_haproxy_verifies_a_name_that_the_certificate_has() -> None:
    def verified(host: str, **values: Any) -> str:
        found = plan({**HOSTVARS, host: values}, {**GROUPS, "airflow": [host, "worker1", "worker2"], "airflow_webserver": [host]})
        (server,) = found["webservers"]
        return str(server["verify_name"])

    assert verified("control1", ansible_host="10.0.0.2") == "control1"
    assert verified("control1", airflow_address="web.example.com") == "web.example.com"
    # A name that is an address itself is none: the certificate's common name is the address that others use.
    assert verified("203.0.113.5", airflow_address="10.0.0.2") == "10.0.0.2"


def test_a_server_reached_by_another_name_has_it_in_its_certificate() -> None:
    hostvars = {name: {**values, "airflow_database_host": "pg.example.com"} for name, values in HOSTVARS.items()}
    names = plan(hostvars, GROUPS)["certificate_names"]
    assert "pg.example.com" in names["db1"] and "pg.example.com" not in names["control1"]


def test_a_worker_that_leaves_is_admitted_until_its_tasks_have_ended() -> None:
    groups = {**GROUPS, "airflow_worker": ["worker1"]}
    found = plan(HOSTVARS, groups)
    assert "worker2" in found["broker_clients"]
    assert {one["database"] for one in found["database_clients"] if one["address"] == "worker2"} == {"airflow_results"}
    gone = plan(HOSTVARS, {**groups, "airflow": ["control1", "worker1"]})
    assert "worker2" not in gone["broker_clients"]


def test_a_larger_pool_has_its_connections() -> None:
    config = {"airflow_config": {"database": {"sql_alchemy_pool_size": 50}}}
    found = plan({name: {**values, **config} for name, values in HOSTVARS.items()}, GROUPS)
    assert found["connection_limits"]["database"] >= 6 * 60 * 1.2


@pytest.mark.parametrize("given", [False, "false", "no"])
def test_no_tls_however_it_is_written(given: Any) -> None:
    assert not plan({name: {**values, "airflow_tls": given} for name, values in HOSTVARS.items()}, GROUPS)["tls"]
