# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Worker hosts leave a cluster: what must not go stays, no task is lost, logs can still be read, nothing is left behind."""

from __future__ import annotations

import functools
import re
import time

import pytest
from api import wait
from fleet import DRAINED, REMOVE, Fleet, fleet  # noqa: F401  (a fixture)
from ledger import assert_clean
from upgrading import SITE

SOLO = """
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False)
def solo():
    @task(queue="solo")
    def alone():
        pass

    alone()

solo()
"""
# Of a bare host with Debian's packages, none of these is there.
GONE = (
    *("/etc/airflow", "/etc/airflow-firewall.nft", "/etc/sudoers.d/airflow", "/etc/haproxy/haproxy.cfg", "/etc/needrestart"),
    *("/etc/tmpfiles.d/airflow-logs.conf", "/opt/airflow", "/run/airflow", "/srv/airflow", "/usr/local/bin/airflow"),
    *("/usr/local/lib/airflow", "/var/lib/airflow", "/var/log/airflow"),
)


@pytest.fixture(scope="module")
def three(fleet: Fleet) -> Fleet:  # noqa: F811
    if len(fleet.everyone) < 3:
        pytest.skip("needs three worker hosts")
    return fleet


def admitted(fleet: Fleet, host: str) -> str:  # noqa: F811
    """What of the servers lets the host connect."""
    database, broker = fleet.inventory.plan["results_database"], fleet.inventory.plan["broker"]
    script = 'for one in {}; do timeout 3 bash -c ": <> /dev/tcp/${{one/:/\\/}}" 2>/dev/null && echo $one; done; true'
    return fleet.run(
        host, "bash", "-c", script.format(f"{database['host']}:{database['port']} {broker['host']}:{broker['port']}")
    )


def clean(fleet: Fleet, host: str) -> None:  # noqa: F811
    """Nothing of the cluster is on the host, and nothing of it runs."""

    def said(script: str) -> str:
        return fleet.run(host, "sh", "-c", f"{script}; true")

    assert said(f"ls -d {' '.join(GONE)} 2>/dev/null") == ""
    assert said("systemctl list-unit-files --no-legend 'airflow*'") == ""
    assert said("systemctl list-units --all --plain --no-legend 'airflow*' haproxy.service | grep -v ' inactive '") == ""
    assert (
        said("getent passwd | grep '^airflow'; getent group | grep '^airflow'; nft list tables; ps -eo args | grep '^/opt'") == ""
    )
    assert said("systemctl is-system-running") == "running"


def test_the_last_that_takes_tasks_stays(three: Fleet) -> None:
    """Every refusal ends with an error, before anything is changed. One of the others is drained, one is stopped."""
    fleet, (first, second, *rest) = three, three.everyone  # noqa: F811
    everyone = ",".join(fleet.everyone)
    assert f"host {', '.join(fleet.everyone)} — are the last of airflow_worker" in fleet.refused(REMOVE, worker=everyone)
    units = fleet.serving(second)
    fleet.run(first, "touch", DRAINED)
    fleet.run(second, "systemctl", "stop", *units)
    try:
        said = fleet.refused(REMOVE, worker=rest)
        assert (
            f"host {', '.join(rest)} — would be the last that takes tasks: {first}, {second} are drained, stopped or away" in said
        )
    finally:
        fleet.run(first, "rm", DRAINED)
        fleet.run(second, "systemctl", "start", *units)
    assert all(fleet.serving(host) for host in fleet.everyone)


@pytest.mark.long
def test_what_must_not_go(three: Fleet) -> None:
    fleet, third = three, three.everyone[2]  # noqa: F811
    assert "worker — is not given" in fleet.refused(REMOVE)
    assert "worker airflow_worker — is a group" in fleet.refused(REMOVE, worker="airflow_worker")
    assert "is a pattern" in fleet.refused(REMOVE, worker=f"{third[:-1]}?")
    database = fleet.members["postgresql"][0]
    assert f"worker {database} — is in the inventory, but not in airflow_worker" in fleet.refused(REMOVE, worker=database)
    assert "--limit — leaves out" in fleet.refused(REMOVE, "--limit", third, worker=third)
    assert f"host {third} — answers, so it is not lost" in fleet.refused(REMOVE, worker=third, worker_lost=True)
    assert all(fleet.serving(host) for host in fleet.everyone)


@pytest.mark.long
def test_it_is_announced_for_a_host_that_works(three: Fleet) -> None:
    host = three.everyone[-1]
    run = three.must(REMOVE, "--check", "--diff", worker=host)
    assert f"note that {host} was removed" in run.said and "remove user airflow-worker" in run.said
    assert three.complete()


@pytest.mark.long
def test_all_go_or_none(three: Fleet) -> None:
    """Of two one has a task that takes too long: the other, which was drained in time, works again."""
    runs = three.slow(60, 1)
    (host,) = three.where(runs).values()
    idle = next(name for name in three.everyone if name != host)
    run = three.play(REMOVE, worker=[host, idle], airflow_drain_timeout=15)
    assert run.rc != 0, run.output[-4000:]
    assert f"host {host} — could not be drained, see above, so none of {host}, {idle} is removed" in run.said
    for name in (host, idle):
        assert three.serving(name) and three.run(name, "ls", DRAINED, check=False) == ""
    three.end_well(runs, 120)
    three.unchanged(three.must(SITE))


@pytest.mark.long
def test_a_host_that_does_more_than_work(three: Fleet) -> None:
    """The inventory makes a worker's host the database's, Redis' and the triggerer's."""
    host = three.everyone[-1]
    groups = {"postgresql": "runs the database of the cluster", "redis": "runs Redis of the cluster"}
    for group, problem in {**groups, "airflow_triggerer": "runs the last triggerer of the cluster"}.items():
        with three.also(group, host, alone=True):
            said = three.refused(REMOVE, worker=host)
            assert f"host {host} — {problem} (group {group})" in said, said
    with three.also("airflow_triggerer", host):
        assert f"host {host} — also runs a triggerer (group airflow_triggerer)" in three.refused(REMOVE, worker=host)


@pytest.mark.long
def test_only_a_scheduler_outside_of_the_run_knows_it(three: Fleet) -> None:
    """Servers are somebody else's, and the host is built anew, so nobody whom `--limit` names knows that it was removed."""
    host, scheduler = three.everyone[-1], three.members["scheduler"][0]
    three.note("marked", scheduler, host)
    try:
        with three.servers_of_others():
            said = three.refused(SITE, "--limit", host)
            assert f"host {host} — was removed by playbooks/remove_worker.yml (2" in said
            assert f"to have it back, add -e airflow_readmit={host}" in said
            assert f"host {host} — was removed" not in three.play(SITE, "--check", "--limit", host, airflow_readmit=host).said
            other = three.everyone[0]
            assert "was removed" not in three.play(SITE, "--check", "--limit", other).said
    finally:
        three.note("forgotten", scheduler)
    assert three.complete()


@pytest.mark.long
def test_the_last_worker_of_a_queue(three: Fleet) -> None:
    host = three.everyone[-1]
    path = three.dags / "solo.py"
    path.write_text(SOLO)
    try:
        three.must("playbooks/dags.yml")
        wait("DAG solo is known", 60, lambda: three.airflow().dag("solo"))
        with three.variables(host, airflow_worker_queues=["default", "solo"]):
            said = three.refused(REMOVE, worker=host)
            assert f"host {host} — is the last that takes the queue solo (DAG solo) — let another worker take it" in said
            run = three.airflow().trigger("solo")
            queued = f"select 1 from task_instance where run_id = '{run}' and state = 'queued'"
            wait("its task waits for a worker", 60, lambda: three.sql(queued))
            said = three.refused(REMOVE, worker=host)
            assert f"host {host} — is the last that takes the queue solo (DAG solo, 1 waiting task)" in said
            three.airflow().end("solo", run, "failed")
        assert three.serving(host)
    finally:
        path.unlink()
        three.must("playbooks/dags.yml")
        # No worker has ever taken it.
        three.inventory.redis("DEL", "solo")


def test_three_become_one(three: Fleet) -> None:
    """With a task on a host that goes."""
    stays, *gone = three.everyone
    removed(three, gone, 20)
    three.keep(stays)


@pytest.mark.long
def test_three_become_one_while_tasks_run(three: Fleet) -> None:
    """Under the ledger, with a long task on a host that goes."""
    stays, *gone = three.everyone
    three.whole()
    with three.ledger() as ledger:
        with ledger.load("three workers become one", long_seconds=60):
            removed(three, gone, 180)
        report = ledger.settle(900)
        # The ledger takes its DAG files away by a playbook, which refuses an inventory with removed hosts.
        three.keep(stays)
    # The table has the longest, which is that of hosts without HAProxy by then.
    print(f"\n{report.table()}\n{report.remarks()}\nseconds without API on {stays}: {report.workers[stays]:.1f}")
    assert_clean(report)


def removed(fleet: Fleet, gone: list[str], seconds: int) -> None:  # noqa: F811
    """The hosts are removed, and a task of so many seconds on the first of them ended well."""
    runs = fleet.slow_on(gone[0], seconds)
    begun = time.monotonic()
    run = fleet.must(REMOVE, worker=gone, airflow_drain_timeout=600)
    print(f"removal of {len(gone)}, a task of {seconds} s on one: {time.monotonic() - begun:.0f} s")
    assert "running task" in run.said and "life_cycle.slow" in run.said
    fleet.end_well(runs, 60 + seconds)
    for host in gone:
        clean(fleet, host)
        assert admitted(fleet, host) == ""
    logs_can_be_read(fleet, runs)


@pytest.mark.long
def test_the_servers_forget_whom_the_inventory_has_forgotten(three: Fleet) -> None:
    """With the next run, and from then on there is nothing to do."""
    three.keep(three.everyone[0])
    three.must(SITE)
    three.unchanged(three.must(SITE))


def logs_can_be_read(fleet: Fleet, runs: list[str]) -> None:  # noqa: F811
    """Of each task the whole log of its last host, wherever that was."""
    airflow = fleet.airflow()
    for run in runs:
        for task in airflow.tasks("life_cycle", run):
            said = "read " if task["task_id"] == "slow" else "back on "
            assert said in airflow.log(task), f"{run} {task['task_id']} on {task['hostname']}: {airflow.log(task)}"


@pytest.mark.long
def test_a_removed_host_does_not_come_back_by_accident(three: Fleet) -> None:
    """Its inventory is the old one, as somebody else's may be."""
    host = three.everyone[-1]
    three.keep(*three.everyone)
    for arguments in ((), ("--limit", host)):
        said = three.refused(SITE, *arguments, airflow_readmit=",".join(three.everyone[1:-1]))
        assert f"host {host} — was removed" in said and f"-e airflow_readmit={host}" in said


def test_they_come_back_and_nobody_else_is_visited(three: Fleet) -> None:
    fleet, stays, new = three, three.everyone[0], three.everyone[1:]  # noqa: F811
    servers = dict.fromkeys([*fleet.members["postgresql"], *fleet.members["redis"]])
    fleet.keep(*fleet.everyone)
    begun = time.monotonic()
    run = fleet.must(SITE, "--limit", ",".join([*new, *servers]), airflow_readmit=",".join(new), airflow_canary=True)
    for host in new:
        assert re.search(rf"TASK .*Send it that task\].*^ok: \[{host}\b.*TASK .*End the trial", run.output, re.M | re.S), (
            run.output[-4000:]
        )
        wait(f"{host} waits for messages", 60, functools.partial(fleet.waits, host))
    print(f"from added to waiting for messages on each of {len(new)}: {time.monotonic() - begun:.0f} s")
    assert not re.search(rf"^{stays} ", run.output, re.M), "another host was visited"
    assert fleet.complete()
    fleet.bare_of_canaries(*new)


@pytest.mark.long
def test_killed_at_any_point_it_goes_on(three: Fleet) -> None:
    host = three.everyone[-1]
    three.whole()
    runs = [three.airflow().trigger("life_cycle", {"seconds": 1}) for _ in range(6)]
    three.end_well(runs, 120)
    for text, delay in (
        ("Take no new tasks", 2),
        ("Keep the logs", 0.3),
        ("Converge the PostgreSQL server", 1),
        ("Take the firewall's table away", 0.5),
        ("Take everything of the cluster off this host", 0.6),
    ):
        three.dies(REMOVE, text, delay, worker=host)
    three.must(REMOVE, worker=host)
    clean(three, host)
    assert admitted(three, host) == ""
    logs_can_be_read(three, runs)
    three.unchanged(three.must(REMOVE, worker=host))


@pytest.mark.long
def test_a_host_that_is_gone_for_good(three: Fleet) -> None:
    host = three.everyone[-1]
    three.whole()
    with three.away(host):
        assert f"host {host} — does not answer, so its tasks cannot finish" in three.refused(REMOVE, worker=host)
        run = three.must(REMOVE, worker=host, worker_lost=True)
        assert "Lost with it: the task logs that were on it" in run.said
        assert f"host {host} — was removed" in three.refused(SITE)
    # It was not lost after all, and is alone: nobody lets it in.
    assert three.serving(host) and admitted(three, host) == ""


@pytest.mark.long
def test_plain_site_does_not_cut_off_a_worker_that_runs(three: Fleet) -> None:
    """Moved to another group by the inventory alone, with a task on it."""
    host = three.everyone[-1]
    three.whole()
    runs = three.slow_on(host, 30)
    address = three.inventory.plan["addresses"][host]
    three.keep(*three.everyone[:-1])
    with three.also("airflow_triggerer", host):
        said = three.refused(SITE)
        assert f"host {host} — still runs airflow-worker@default-" in said and f"remove_worker.yml -e worker={host}" in said
    # Out of the inventory altogether: nobody asks the host, but the servers know it.
    three.keep(*three.everyone[:-1])
    said = three.refused(SITE)
    assert f"{address} is connected to " in said and f"-e airflow_shut_out={address}" in said
    three.keep(*three.everyone)
    three.end_well(runs, 90)


@pytest.mark.long
def test_without_a_worker_its_target_is_gone(three: Fleet) -> None:
    """A host that leaves the workers by the inventory keeps no unit that is nowhere on its disk."""
    host = three.everyone[-1]
    three.whole()
    three.must("playbooks/drain.yml", worker=host)
    three.keep(*three.everyone[:-1])
    with three.also("airflow", host):
        three.read()
        three.must(SITE)
        listed = "systemctl list-units --all --plain --no-legend 'airflow-worker*' | grep -v inactive; true"
        wait("nothing of the worker is left", 30, lambda: three.run(host, "sh", "-c", listed) == "")
    three.keep(*three.everyone)
