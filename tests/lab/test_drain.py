# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A worker host is drained and put back. What it was asked to be it stays, over a killed playbook, Redis and a reboot."""

from __future__ import annotations

import re
import subprocess
import time

import pytest
from api import wait
from fleet import DRAIN, DRAINED, Fleet, fleet  # noqa: F401  (a fixture)
from upgrading import LAB, SITE


@pytest.fixture()
def host(fleet: Fleet) -> str:  # noqa: F811
    return fleet.everyone[-1]


def restart_redis(fleet: Fleet) -> None:  # noqa: F811
    fleet.run(fleet.members["redis"][0], "systemctl", "restart", "redis-server")


@pytest.mark.long
@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        ("", "worker — is not given"),
        ("*", "worker * — is a pattern"),
        ("{host}*", "worker {host}* — is a pattern"),
        ("airflow_worker", "worker airflow_worker — is a group — name each of its hosts"),
        ("{host},nowhere", "worker nowhere — is the name of no host"),
        ("{database}", "worker {database} — is in the inventory, but not in airflow_worker"),
    ],
)
def test_only_exact_names(worker: str, problem: str, fleet: Fleet, host: str) -> None:  # noqa: F811
    names = {"host": host, "database": fleet.members["postgresql"][0]}
    if names["database"] in fleet.everyone:
        pytest.skip("the database's host has a worker")
    said = fleet.refused(DRAIN, worker=worker.format(**names))
    assert problem.format(**names) in said
    assert fleet.serving(host)


@pytest.mark.long
def test_its_tasks_finish_and_no_new_ones_come(fleet: Fleet, host: str) -> None:  # noqa: F811
    runs = fleet.slow_on(host, 40)
    (first,) = (run for run, where in fleet.where(runs).items() if where == host)
    predicted = fleet.must(DRAIN, "--check", "--diff", worker=host)
    assert "finish its tasks and stop" in predicted.output and fleet.serving(host)
    run = fleet.must(DRAIN, worker=host, airflow_drain_timeout=90)
    since = "select round(extract(epoch from now() - max(end_date))) from task_instance"
    ((beyond,),) = fleet.sql(f"{since} where run_id = '{first}' and task_id = 'slow'")
    print(f"drain of a host with a task: {run.seconds:.0f} s, of these {beyond} s after the end of the task")
    assert re.search(rf"{host}: \d running tasks?, waited for up to 90 s: ", run.said), run.said
    assert f"life_cycle.slow (run {first}, try 1)" in run.said
    assert not fleet.serving(host) and not fleet.waits(host)
    fleet.end_well(runs, 90)
    fleet.end_well([fleet.airflow().trigger("life_cycle", {"seconds": 1}) for _ in range(6)], 90)
    fleet.unchanged(fleet.must(DRAIN, worker=host))


@pytest.mark.long
def test_every_run_respects_it_and_says_so(fleet: Fleet, host: str) -> None:  # noqa: F811
    fleet.must(DRAIN, worker=host)
    run = fleet.must(SITE)
    fleet.unchanged(run)
    assert f"Drained, so they take no tasks: {host}. To let them work again: playbooks/drain.yml" in run.said
    assert not fleet.serving(host)
    status = fleet.must("playbooks/status.yml")
    assert "is drained" in status.said


@pytest.mark.long
def test_a_reboot_and_a_restart_of_redis_do_not_put_it_back(fleet: Fleet, host: str) -> None:  # noqa: F811
    fleet.must(DRAIN, worker=host)
    subprocess.run([str(LAB / "podman"), "restart", f"windfarm-{host}"], check=True, capture_output=True)
    running = ("systemctl", "is-system-running", "--wait")
    wait("the host has booted", 60, lambda: fleet.run(host, *running, check=False) in ("running", "degraded"), interval=2)
    restart_redis(fleet)
    time.sleep(10)
    assert not fleet.serving(host) and not fleet.waits(host)


def test_it_is_put_back_by_a_colour_that_outlives_redis(fleet: Fleet, host: str) -> None:  # noqa: F811
    """Not by add-queue, after which a worker forgets its queue at the next restart of Redis."""
    fleet.must(DRAIN, worker=host)
    assert fleet.run(host, "test", "-e", DRAINED) == "" and not fleet.serving(host) and not fleet.waits(host)
    fleet.must(DRAIN, worker=host, undo=True)
    assert fleet.serving(host)
    wait("it waits for messages", 30, lambda: fleet.waits(host))
    restart_redis(fleet)
    wait("it waits for messages again", 60, lambda: fleet.waits(host))


@pytest.mark.long
def test_putting_back_is_announced_and_done_once(fleet: Fleet, host: str) -> None:  # noqa: F811
    fleet.must(DRAIN, worker=host)
    announced = fleet.must(DRAIN, "--check", "--diff", worker=host, undo=True)
    assert f"+remove {DRAINED} +start airflow-worker@default-" in announced.said and not fleet.serving(host)
    fleet.must(DRAIN, worker=host, undo=True)
    fleet.unchanged(fleet.must(DRAIN, worker=host, undo=True))
    fleet.unchanged(fleet.must(SITE))


@pytest.mark.long
def test_a_playbook_that_dies_while_it_waits_leaves_it_drained(fleet: Fleet, host: str) -> None:  # noqa: F811
    runs = fleet.slow_on(host, 40)
    fleet.dies(DRAIN, "Take no new tasks", 5, worker=host)
    assert fleet.run(host, "test", "-e", DRAINED) == ""
    restart_redis(fleet)
    fleet.end_well(runs, 120)
    wait("its worker has ended", 60, lambda: not fleet.serving(host))
    assert not fleet.waits(host)
    fleet.must(DRAIN, worker=host, undo=True)
    wait("it waits for messages", 30, lambda: fleet.waits(host))


@pytest.mark.long
def test_out_of_time_it_works_again_and_nothing_is_killed(fleet: Fleet, host: str) -> None:  # noqa: F811
    runs = fleet.slow_on(host, 45)
    run = fleet.play(DRAIN, worker=host, airflow_drain_timeout=5)
    assert run.rc != 0
    assert re.search(rf"host {host} — still runs \d tasks? \(life_cycle\.", run.said) and "the host works again" in run.said
    assert fleet.serving(host) and fleet.run(host, "ls", DRAINED, check=False) == ""
    wait("it waits for messages", 30, lambda: fleet.waits(host))
    fleet.end_well(runs, 120)
    fleet.unchanged(fleet.must(SITE))


@pytest.mark.long
def test_out_of_time_its_tasks_are_killed_where_that_is_asked_for(fleet: Fleet, host: str) -> None:  # noqa: F811
    runs = fleet.slow_on(host, 300)
    try:
        run = fleet.must(DRAIN, worker=host, airflow_drain_timeout=5, airflow_drain_on_timeout="kill")
        assert re.search(rf"{host}: killed after airflow_drain_timeout \(5 s\): \d tasks? \(life_cycle\.", run.said)
        assert not fleet.serving(host)
        assert fleet.run(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""
    finally:
        fleet.give_up(runs)
        fleet.must(DRAIN, worker=host, undo=True)


@pytest.mark.long
def test_what_changed_meanwhile_keeps_it_from_work(fleet: Fleet, host: str) -> None:  # noqa: F811
    """Other DAG files than the others', a disk that takes no log, a webserver that reaches none: told, and nothing started."""
    fleet.must(DRAIN, worker=host)
    port = fleet.inventory.get(host, "airflow_worker_log_port", 8793)
    fleet.run(host, "touch", "/srv/airflow/dags/left_behind.py")
    fleet.run(host, "chmod", "0550", "/var/log/airflow/worker")
    said = fleet.refused(DRAIN, worker=host, undo=True)
    assert f"host {host} — would fail tasks, so its worker is not started: its DAG folder" in said
    assert "; and /var/log/airflow/worker cannot be written (Permission denied)" in said
    assert not fleet.serving(host) and fleet.run(host, "test", "-e", DRAINED) == ""
    fleet.must("playbooks/site.yml", "--limit", host)
    rules = f"table inet cut {{ chain input {{ type filter hook input priority -5; tcp dport {port} reject with tcp reset; }}; }}"
    fleet.run(host, "nft", "-f", "-", stdin=rules)
    try:
        assert "its task logs cannot be read from there" in fleet.refused(DRAIN, worker=host, undo=True)
    finally:
        fleet.run(host, "nft", "delete", "table", "inet", "cut")
    fleet.must(DRAIN, worker=host, undo=True)
    assert fleet.serving(host)
