# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import preflight_hosts
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import plan
from ansible_collections.windfarm.airflow.plugins.module_utils.preflight_hosts import Case, problems, question

GROUPS = {
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "worker1", "worker2"],
    "airflow_scheduler": ["control1"],
    "airflow_webserver": ["control1"],
    "airflow_triggerer": ["control1"],
    "airflow_dag_processor": ["control1"],
    "airflow_flower": ["control1"],
    "airflow_worker": ["worker1", "worker2"],
}
HOSTS = ("db1", "control1", "worker1", "worker2")
PLENTY = {"device": 1, "free_mb": 9999, "total_mb": 99999, "inodes": 10**6, "free_inodes": 10**6, "read_only": False}


def facts(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "service_mgr": "systemd",
        "cgroup": 2,
        "root": True,
        "interpreter": "3.11.2",
        "memory_mb": 8000,
        "time": 1000.5,
        "asked": 1000.0,
        "answered": 1001.0,
        "ports": [],
        "servers": [],
        "clusters": [],
        "redis": {"installed": False, "ours": False, "kept": False, "closed": False},
        "units": [],
        "names": {},
        "ansible_local": {"windfarm_airflow": {"fingerprints": {"a": ["b"]}}},
        "dags": "",
    }
    return {**found, **changes}


def case(
    limited: bool = False, variables: dict[str, Any] | None = None, absent: tuple[str, ...] = (), **changes: dict[str, Any]
) -> Case:
    """All well, but for these facts of these hosts."""
    common = {"airflow_worker_concurrency": 16, **(variables or {})}
    hosts = {host: {"ansible_host": f"192.0.2.{number}", **common} for number, host in enumerate(HOSTS, 1)}
    inventory = Inventory(hosts, GROUPS, "", {})
    asked = question(inventory, plan(hosts, GROUPS))
    known = {
        host: facts(**{"disks": {path: PLENTY for path in asked[host]["paths"]}, **changes.get(host, {})})
        for host in HOSTS
        if host not in absent
    }
    return Case(inventory, plan(hosts, GROUPS), known, limited)


def lines(*arguments: Any, **changes: Any) -> list[str]:
    found, told = problems(case(*arguments, **changes))
    assert told == []
    return [str(problem) for problem in found]


def test_good_hosts() -> None:
    assert lines() == []


def test_what_a_host_is_asked() -> None:
    hosts = {host: {"ansible_host": f"{host}.example.org"} for host in HOSTS}
    asked = question(Inventory(hosts, GROUPS, "", {}), plan(hosts, GROUPS))
    assert asked["db1"]["ports"] == [5432, 6379] and asked["db1"]["python"] == ""
    assert asked["db1"]["paths"] == ["/var/lib/postgresql", "/var/lib/redis"]
    assert asked["worker1"]["ports"] == [8079, 8793] and asked["worker1"]["python"] == "python3"
    assert asked["control1"]["ports"] == [5555, 8080, 8794, 8974]
    assert asked["worker2"]["names"] == sorted(f"{host}.example.org" for host in HOSTS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cgroup": 1}, "host worker1 — has no unified cgroup hierarchy (version 2)"),
        ({"root": False}, "host worker1 — does not let Ansible become root"),
        ({"interpreter": ""}, "airflow_python — python3 is no Python on worker1 — install it there"),
        ({"time": 1010.5}, "clock of worker1 — worker1 is 10 s ahead of the others, 2 are allowed"),
        ({"time": 990.5}, "clock of worker1 — worker1 is 10 s behind the others, 2 are allowed"),
        ({"memory_mb": 2000}, "components with 16 tasks at once need 2900 — set airflow_worker_concurrency to 10, add memory"),
        ({"memory_mb": 400}, "need 2900 — add memory, or set airflow_resource_check: warn"),
        ({"open_files": 1024}, "host worker1 — lets a process open 1024 files at most, 4096 are needed — raise the limit"),
        ({"units": ["airflow-worker.service"]}, "has a unit airflow-worker.service that this collection did not write"),
    ],
)  # fmt: skip
def test_bad_host(changes: dict[str, Any], expected: str) -> None:
    (found,) = lines(worker1=changes)
    assert expected in found


def test_everything_on_one_host_needs_two_processors() -> None:
    one = case(control1={"processors": 1})
    assert problems(one) == ([], [])
    found, told = problems(one._replace(plan={**one.plan, "single": True}))
    assert [str(problem) for problem in found] == [
        "host control1 — has 1 processor, everything on one host needs 2 — give it another, or set airflow_resource_check: warn"
    ]
    assert told == []


def test_one_machine_by_two_addresses() -> None:
    marks = {"machine_id": "6f1c", "boot_id": "0a", "hostname": "big1"}
    (line,) = lines(worker1=marks, worker2=marks, db1={**marks, "hostname": "db1"})
    assert line == (
        "hosts worker1, worker2 — are one machine, big1 — use one inventory name per machine; it may be in any number of groups"
    )
    # A clone has been booted for itself; who tells nothing is not judged.
    assert lines(worker1=marks, worker2={**marks, "boot_id": "0b"}) == []
    assert lines(worker1={**marks, "machine_id": ""}, worker2={**marks, "machine_id": ""}) == []


def test_small_differences_of_clocks_are_allowed() -> None:
    assert lines(worker1={"time": 1002.9}) == []
    # A slow answer: the host may have read its clock at any time of it.
    assert lines(worker1={"time": 1005.0, "answered": 1006.0}) == []


def test_of_two_clocks_both_may_be_wrong() -> None:
    (found,) = lines(absent=("control1", "db1"), worker1={"time": 1004.5})
    assert found.startswith("clock of worker1 — worker1 is 4 s ahead")


def test_other_tolerance() -> None:
    assert lines(variables={"airflow_clock_tolerance": 20}, worker1={"time": 1010.5}) == []


LISTENER = {"address": "0.0.0.0", "port": 8080, "pid": 7, "program": "nginx", "unit": "nginx.service", "user": "www-data"}  # noqa: S104


def test_ports() -> None:
    assert lines(control1={"ports": [{**LISTENER, "unit": "airflow-webserver.service"}]}) == []
    # Who has it is not known.
    assert lines(control1={"ports": [{"address": "::", "port": 8080}]}) == []
    assert lines(control1={"ports": [LISTENER, {**LISTENER, "address": "::"}]}) == [
        "host control1 — port 8080, for webserver, is taken by nginx (nginx.service) — "
        "stop it, or set airflow_webserver_port to another port"
    ]
    assert lines(control1={"ports": [{**LISTENER, "port": 8974, "unit": ""}]}) == [
        "host control1 — port 8974, for scheduler_health, is taken by nginx of user www-data — stop it"
    ]


CLUSTER = {"version": "15", "name": "main", "databases": 2, "ours": False, "data": "/x"}
POSTGRES = {"kind": "postgresql", "pid": 9, "program": "postgres", "unit": "postgresql@15-main.service", "user": "postgres"}
REDIS = {"kind": "redis", "pid": 9, "program": "redis-server", "unit": "redis-server.service", "user": "redis"}
AIRFLOW = {"kind": "airflow", "pid": 9, "program": "python3", "unit": "session-1.scope", "user": "me"}


@pytest.mark.parametrize(
    ("host", "found", "kind"),
    [
        ("db1", {"clusters": [CLUSTER], "servers": [POSTGRES]}, "postgresql"),
        ("db1", {"clusters": [{**CLUSTER, "ours": True}], "servers": [{**POSTGRES, "unit": "session-3.scope"}]}, "postgresql"),
        ("db1", {"redis": {"installed": True, "ours": False, "kept": True, "closed": False}}, "redis"),
        ("db1", {"redis": {"installed": True, "ours": False, "kept": False, "closed": True}}, "redis"),
        ("db1", {"servers": [{**REDIS, "unit": "", "user": "1000"}]}, "redis"),
        ("worker1", {"servers": [AIRFLOW]}, "airflow"),
        ("worker1", {"units": ["airflow-worker.service"]}, "airflow"),
    ],
)
def test_what_is_somebody_elses(host: str, found: dict[str, Any], kind: str) -> None:
    (line,) = lines(**{host: found})
    assert line.startswith(f"host {host} — ") and f"airflow_adopt: [{kind}]" in line
    assert lines(variables={"airflow_adopt": [kind]}, **{host: found}) == []
    assert lines(variables={"airflow_adopt": kind}, **{host: found}) == []


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("db1", {"clusters": [{**CLUSTER, "ours": True}], "servers": [POSTGRES]}),
        ("db1", {"clusters": [{**CLUSTER, "databases": 0}], "servers": [POSTGRES]}),
        ("db1", {"redis": {"installed": True, "ours": True, "kept": True, "closed": True}, "servers": [REDIS]}),
        ("db1", {"redis": {"installed": True, "ours": False, "kept": False, "closed": False}, "servers": [REDIS]}),
        ("worker1", {"servers": [{**AIRFLOW, "unit": "airflow-worker@default-a.service"}]}),
        # No business of a host that does not run it.
        ("worker1", {"clusters": [CLUSTER], "servers": [POSTGRES, {**REDIS, "unit": ""}]}),
        ("db1", {"servers": [AIRFLOW]}),
    ],
)
def test_what_is_nobodys_or_ours(host: str, found: dict[str, Any]) -> None:
    assert lines(**{host: found}) == []


def disk(**changes: Any) -> dict[str, Any]:
    paths = ("/opt/airflow/releases", "/var/log/airflow", "/var/lib/airflow")
    return {"disks": {path: {**PLENTY, **changes} for path in paths}}


def test_disks() -> None:
    # A release more, logs and homes on one file system.
    assert (
        "has 999 MB of disk free for /opt/airflow/releases, /var/log/airflow, /var/lib/airflow, 1100 are needed"
        in lines(worker1=disk(free_mb=999))[0]
    )
    assert "1600 are needed" in lines(worker1={**disk(free_mb=1599), "ansible_local": {}})[0]
    assert "has 100 inodes free" in lines(worker1=disk(free_inodes=100))[0]
    assert lines(worker1=disk(free_inodes=0, inodes=0)) == []
    assert "can only read the file system" in lines(worker1=disk(read_only=True))[0]


@pytest.mark.parametrize("level", ["warn", "skip"])
def test_resources_that_need_not_be_enough(level: str) -> None:
    variables = {"airflow_resource_check": level}
    found, told = problems(case(variables=variables, worker1={**disk(free_mb=1), "memory_mb": 100}))
    assert found == [] and len(told) == {"warn": 2, "skip": 0}[level]


def test_instances_count_their_slots() -> None:
    instances = [{"name": "a", "concurrency": 4}, {"name": "b", "autoscale": "8,2"}, {"name": "c", "concurrency": 0}]
    assert preflight_hosts.slots(case(variables={"airflow_worker_instances": instances}), "worker1") == 13
    assert preflight_hosts.slots(case(), "worker2") == 16
    # What follows from memory fits.
    assert preflight_hosts.slots(case(variables={"airflow_worker_concurrency": 0}), "worker2") == 1
    assert preflight_hosts.slots(case(), "db1") == 0


def test_names() -> None:
    variables = {"airflow_address": "all.example.org"}
    found = case(variables=variables, worker1={"names": {"all.example.org": []}})
    assert problems(found)[0] == []

    hosts = {host: {"ansible_host": f"{host}.example.org"} for host in HOSTS}
    inventory = Inventory(hosts, GROUPS, "", {})
    known = {host: facts(disks={}, names={f"{one}.example.org": ["192.0.2.9"] for one in HOSTS}) for host in HOSTS}
    known["worker1"]["names"]["db1.example.org"] = []
    known["worker2"]["names"]["db1.example.org"] = ["127.0.1.1"]
    # Debian's own line.
    known["db1"]["names"]["db1.example.org"] = ["127.0.1.1"]
    found_lines = [str(problem) for problem in problems(Case(inventory, plan(hosts, GROUPS), known))[0]]
    assert [line.split(" — ")[1] for line in found_lines] == [
        "has the address db1.example.org, which worker1 cannot resolve",
        "has the address db1.example.org, which on worker2 means the host itself",
    ]


def test_new_hosts_need_the_servers() -> None:
    new: dict[str, Any] = {"ansible_local": {}}
    assert lines(True, None, ("db1", "worker1"), control1=new) == [
        "host control1 — is new, and --limit leaves out db1, which must admit it — run it with --limit control1,db1"
    ]
    # Workers are admitted where the servers say so.
    assert lines(True, None, ("db1", "control1"), worker1=new, worker2=new) == []
    assert lines(True, None, ("worker1",), control1=new) == []
    assert lines(True, None, ("db1", "worker1")) == []
    assert lines(False, None, (), control1=new) == []


def test_revisions() -> None:
    dags: dict[str, Any] = {
        host: {"dags": f"20261122T00000{number}-{number}abc"} for number, host in enumerate(("worker1", "worker2"))
    }
    _found, told = problems(case(True, None, ("db1",), **dags))
    assert [str(line) for line in told] == [
        "DAG files — differ between hosts (0abc, 1abc) — run playbooks/dags.yml without --limit"
    ]
    assert problems(case(**dags))[1] == []
