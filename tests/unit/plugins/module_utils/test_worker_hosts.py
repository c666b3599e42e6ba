# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import worker_hosts
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, SERVER_GROUPS, plan

GROUPS = {
    "all": ["db1", "control1", "worker1", "worker2", "worker3"],
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "worker1", "worker2", "worker3"],
    "airflow_scheduler": ["control1"],
    "airflow_webserver": ["control1"],
    "airflow_triggerer": ["control1"],
    "airflow_dag_processor": ["control1"],
    "airflow_worker": ["worker1", "worker2", "worker3"],
    "airflow_worker_gpu": ["worker3"],
}
HOSTS: dict[str, dict[str, Any]] = {name: {"ansible_host": f"192.0.2.{number}"} for number, name in enumerate(GROUPS["all"], 1)}
UNIT = "airflow-worker@default-a.service"


def members(**groups: list[str]) -> dict[str, list[str]]:
    known = {**GROUPS, **groups}
    return {name: known.get(group, []) for name, group in {**COMPONENT_GROUPS, **SERVER_GROUPS}.items()}


def facts(state: str = "active", drained: bool = False, **removed: str) -> dict[str, Any]:
    worker = {"drained": drained, "units": {UNIT: state}}
    return {"ansible_local": {"windfarm_airflow_worker": worker, "windfarm_airflow": {"removed": removed}}}


def test_names() -> None:
    assert worker_hosts.names(" a, b,,a ") == ["a", "b"]
    assert worker_hosts.names(["a", "b"]) == ["a", "b"]
    assert worker_hosts.names(None) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            "",
            "worker — is not given — run playbooks/drain.yml with -e worker=NAME[,NAME]; airflow_worker has worker1, worker2",
        ),
        ("worker*", "worker worker* — is a pattern"),
        ("airflow_worker_gpu", "worker airflow_worker_gpu — is a group — name each of its hosts: worker3"),
        ("db1", "worker db1 — is in the inventory, but not in airflow_worker"),
        ("Worker1", "worker Worker1 — is the name of no host"),
    ],
)
def test_what_is_no_name_of_a_worker(given: str, problem: str) -> None:
    (found,) = worker_hosts.name_problems(given, GROUPS, "drain.yml")
    assert str(found).startswith(problem)
    assert not worker_hosts.name_problems("worker1,worker3", GROUPS, "drain.yml")


def test_a_host_with_the_name_of_a_group() -> None:
    groups = {**GROUPS, "worker1": ["worker2", "worker3"]}
    (found,) = worker_hosts.name_problems("worker1,worker2", groups, "drain.yml")
    assert str(found) == "worker worker1 — is a host and a group — rename one of them; as a group it has worker2, worker3"


def test_what_hosts_say() -> None:
    assert worker_hosts.serves(facts()) and worker_hosts.serves(facts("activating"))
    assert not any(map(worker_hosts.serves, (facts("deactivating"), facts("inactive"), facts(drained=True), {})))
    assert worker_hosts.working(facts("deactivating")) == {UNIT: "deactivating"} and worker_hosts.working(facts("failed")) == {}
    assert worker_hosts.drained_hosts({"worker1": facts(), "worker2": facts(drained=True)}) == ["worker2"]
    # A program that fails gives a text, a host without one nothing at all.
    without: list[dict[str, Any]] = [{"ansible_local": {"windfarm_airflow_worker": "error loading"}}, {"ansible_local": {}}, {}]
    for broken in without:
        assert worker_hosts.working(broken) == {} and not worker_hosts.is_drained(broken)


def test_removed_hosts_come_back_only_if_that_is_meant() -> None:
    known = {"db1": facts(worker3="2026-11-22 10:00 UTC", worker9="2026-01-01 00:00 UTC"), "worker1": facts()}
    (found,) = worker_hosts.removed_problems(GROUPS["airflow_worker"], known, [])
    assert "host worker3 — was removed" in str(found) and "-e airflow_readmit=worker3" in str(found)
    assert worker_hosts.removed_problems(GROUPS["airflow_worker"], known, ["worker3"]) == []


def removal(
    leaving: list[str],
    absent: tuple[str, ...] = (),
    lost: bool = False,
    drained: tuple[str, ...] = (),
    stopped: tuple[str, ...] = (),
    bare: tuple[str, ...] = (),
    **groups: Any,
) -> str:
    there = [host for host in GROUPS["all"] if host not in absent]
    known = {host: facts("inactive" if host in stopped else "active", drained=host in drained) for host in there}
    known |= {host: {"ansible_local": {}} for host in bare}
    return "\n".join(map(str, worker_hosts.removal_problems(leaving, leaving if lost else [], members(**groups), known)))


def test_who_may_be_removed() -> None:
    assert removal(["worker1", "worker2"]) == ""
    assert removal(["worker1"], absent=("worker1",), lost=True) == ""
    assert removal(["worker1"], absent=("worker1",)).startswith("host worker1 — does not answer")
    assert removal(["worker1"], lost=True).startswith("host worker1 — answers, so it is not lost")
    assert removal(["worker1", "worker2", "worker3"]).startswith(
        "host worker1, worker2, worker3 — are the last of airflow_worker"
    )
    assert removal(["worker1"], absent=("worker2",), drained=("worker3",)) == (
        "host worker1 — would be the last that takes tasks: worker2, worker3 are drained, stopped or away — "
        "put another one to work first (drain.yml -e undo=true, or site.yml)"
    )
    # A worker that was never deployed, or is stopped, is no one's successor.
    assert "would be the last that takes tasks" in removal(["worker1"], stopped=("worker2",), bare=("worker3",))
    assert removal(["worker1", "worker2"], stopped=("worker2",)) == ""


def test_who_does_more_than_work_stays() -> None:
    assert "runs the database of the cluster (group postgresql)" in removal(["worker1"], postgresql=["worker1"])
    assert "runs Redis of the cluster (group redis)" in removal(["worker1"], redis=["db1", "worker1"])
    assert "runs the last scheduler of the cluster" in removal(["worker1"], airflow_scheduler=["worker1"])
    assert "also runs a dag processor" in removal(["worker1"], airflow_dag_processor=["control1", "worker1"])


def test_an_entry_stays() -> None:
    (found,) = worker_hosts.removal_problems(["worker1"], [], members(), {host: facts() for host in GROUPS["all"]}, ["worker1"])
    assert str(found).startswith("host worker1 — is an entry of the users (group haproxy)")


def test_a_worker_that_left_by_the_inventory_alone_is_not_cut_off() -> None:
    moved = {**GROUPS, "airflow_worker": ["worker1", "worker2"], "airflow_triggerer": ["control1", "worker3"]}
    known = {"worker3": facts("deactivating")}
    (found,) = worker_hosts.shut_out_problems(plan(HOSTS, moved), known)
    assert f"host worker3 — still runs {UNIT}" in str(found) and "remove_worker.yml -e worker=worker3" in str(found)
    assert worker_hosts.shut_out_problems(plan(HOSTS, moved), {"worker3": facts("inactive")}) == []
    # Directly under `airflow`, or a scheduler: these are admitted as a worker is.
    for group in ("airflow", "airflow_scheduler"):
        stays = {**GROUPS, "airflow_worker": ["worker1", "worker2"], group: [*GROUPS[group], "worker3"]}
        assert worker_hosts.shut_out_problems(plan(HOSTS, stays), known) == []


def test_a_removed_host_is_admitted_nowhere() -> None:
    before, after = plan(HOSTS, GROUPS), plan(HOSTS, GROUPS, ["worker3"])
    assert "192.0.2.5" in before["broker_clients"] and "192.0.2.5" not in str(
        [after["broker_clients"], after["database_clients"]]
    )
    assert "192.0.2.5" not in str([port["clients"] for port in after["ports"]["db1"]])
    # A new number would be a restart of PostgreSQL.
    assert after["max_connections"] == before["max_connections"] and after["connection_limits"] == before["connection_limits"]


def test_the_servers_that_do_not_admit_are_named() -> None:
    refused = {"worker3": {"postgresql": "no entry", "redis": "Connection refused"}, "worker2": {}}
    (found,) = worker_hosts.admission_problems(refused, {"postgresql": ["db1"], "redis": ["db1"]}, "worker3,worker2")
    assert str(found) == (
        "host worker3 — is not admitted yet by db1 (PostgreSQL: no entry; Redis: Connection refused), which --limit leaves out — "
        "run again with --limit 'worker3,worker2,db1'"
    )
