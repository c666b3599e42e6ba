# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Worker hosts join a cluster that runs tasks."""

from __future__ import annotations

import functools
import re
import time

import pytest
from api import wait
from fleet import REMOVE, Fleet, fleet  # noqa: F401  (a fixture)
from ledger import assert_clean
from upgrading import SITE, Run

# One join in short runs too, in test_remove.py: after a removal that it needs anyway.
pytestmark = pytest.mark.long
PROOF = ("Look what DAG files", "Ask the servers and the folders", "Read its log from", "Remove that log")

CANARY = """
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False)
def canary():
    @task(queue="canary")
    def sing():
        pass

    sing()

canary()
"""


@pytest.fixture(scope="module")
def alone(fleet: Fleet) -> Fleet:  # noqa: F811
    """One worker is left, the others are as good as bare."""
    if len(fleet.everyone) < 3:
        pytest.skip("needs three worker hosts")
    fleet.must(REMOVE, worker=fleet.everyone[1:])
    fleet.keep(fleet.everyone[0])
    # The servers forget them, so that they come as new ones.
    fleet.must(SITE)
    return fleet


def ran(fleet: Fleet, host: str) -> bool:  # noqa: F811
    address = fleet.inventory.plan["addresses"][host]
    query = f"select 1 from task_instance where hostname = '{address}' and start_date > now() - interval '2 minutes' limit 1"
    return bool(fleet.sql(query))


def seconds(run: Run, *names: str) -> float:
    """What these tasks took together."""
    starts = [(at, line) for at, line in run.lines if line.startswith(("TASK [", "PLAY ["))]
    ends = [at for at, _ in starts[1:]] + [run.seconds]
    return sum(end - at for (at, line), end in zip(starts, ends) if any(name in line for name in names))


def test_servers_outside_of_the_run_are_named(alone: Fleet) -> None:
    """From a controller that knows nothing but the inventory."""
    host = alone.everyone[1]
    server = alone.members["redis"][0]
    alone.keep(*alone.everyone[:2])
    said = alone.refused(SITE, "--limit", host, airflow_readmit=host)
    assert f"host {host} — is not admitted yet by {server} (PostgreSQL: " in said
    assert f"run again with --limit '{host},{server}'" in said
    assert alone.run(host, "sh", "-c", "ls -d /etc/airflow 2>/dev/null; true") == ""


def test_one_becomes_three_while_tasks_run(alone: Fleet) -> None:
    fleet = alone  # noqa: F811
    new = fleet.everyone[1:]
    server = fleet.members["redis"][0]
    fleet.keep(fleet.everyone[0])
    with fleet.ledger() as ledger:
        with ledger.load("one worker becomes three", long_seconds=60):
            fleet.keep(*fleet.everyone)
            begun = time.monotonic()
            run = fleet.must(SITE, "--limit", ",".join([*new, server]), airflow_readmit=",".join(new))
            for host in new:
                wait(f"{host} runs a task", 120, functools.partial(ran, fleet, host))
            print(f"from added to the first task on each: {time.monotonic() - begun:.0f} s, site.yml {run.seconds:.0f} s")
            print(f"proof of {len(new)}: {seconds(run, *PROOF):.1f} s")
            assert seconds(run, *PROOF) <= 3 * 2
        report = ledger.settle(900)
    print(f"\n{report.table()}\n{report.remarks()}")
    assert_clean(report)
    others = [host for host in fleet.hosts if host not in (*new, server)]
    assert not any(re.search(rf"^{host} ", run.output, re.M) for host in others), "another host was visited"


def test_a_second_run_proves_nothing_and_changes_nothing(alone: Fleet) -> None:
    alone.keep(*alone.everyone)
    run = alone.must(SITE, "--limit", alone.everyone[1])
    alone.unchanged(run)
    assert not any(name in run.output for name in PROOF)
    # The databases' host was in the run before; the schedulers and all else now.
    alone.must(SITE)
    alone.unchanged(alone.must(SITE))


def test_a_host_that_would_fail_tasks_takes_none(alone: Fleet) -> None:
    """Its log server cannot be reached from the webserver: one clear line, and the worker is not started."""
    host = alone.everyone[1]
    alone.keep(*alone.everyone)
    alone.run(host, "systemctl", "stop", *alone.serving(host))
    port = alone.inventory.get(host, "airflow_worker_log_port", 8793)
    # Not for the host itself, which asks its own log server whether it works.
    chain = f'type filter hook input priority -5; iifname != "lo" tcp dport {port} reject with tcp reset;'
    rules = f"table inet cut {{ chain input {{ {chain} }}; }}"
    alone.run(host, "nft", "-f", "-", stdin=rules)
    try:
        run = alone.play(SITE, "--limit", host)
        assert run.rc != 0
        assert f"host {host} — would fail tasks, so its worker is not started: its task logs cannot be read" in run.said, run.said
        assert not alone.serving(host)
    finally:
        alone.run(host, "nft", "delete", "table", "inet", "cut")
    alone.must(SITE, "--limit", host)
    assert alone.serving(host)


TRIAL = ("Start a worker that takes nothing but", "Send it that task", "End the trial")


def test_a_task_before_its_own_queues(alone: Fleet) -> None:
    """airflow_canary: a task goes the way of any other, by a worker like the host's own; nothing of it is left."""
    host = alone.everyone[1]
    alone.keep(*alone.everyone)
    alone.must(REMOVE, worker=host)
    # Also after one that was killed while the task was on its way.
    alone.dies(SITE, "Send it that task", 2, airflow_readmit=host, airflow_canary=True)
    assert alone.run(host, "systemctl", "is-active", "airflow-canary") == "active"
    alone.must(REMOVE, worker=host)
    assert alone.run(host, "sh", "-c", "systemctl is-active airflow-canary; id airflow-worker 2>&1 || true").startswith(
        "inactive\nid: "
    )
    alone.dies(SITE, "Send it that task", 2, airflow_readmit=host, airflow_canary=True)
    begun = alone.run(host, "date", "+%s")
    run = alone.must(SITE, airflow_readmit=host, airflow_canary=True)
    print(f"the task of {host}: {seconds(run, *TRIAL):.1f} s")
    journal = alone.run(host, "journalctl", "-u", "airflow-canary", "-o", "cat", "--no-pager", "--since", f"@{begun}")
    assert "succeeded in" in journal, journal[-3000:]
    assert alone.serving(host)
    alone.bare_of_canaries(host)
    assert alone.run(host, "sh", "-c", "ls -d /var/log/airflow/worker/dag_id=windfarm_canary* 2>/dev/null; true") == ""
    # Who works is not tried again.
    again = alone.must(SITE, airflow_canary=True)
    alone.unchanged(again)
    assert "Send it that task" not in again.output


def test_a_host_whose_task_fails_takes_none(alone: Fleet) -> None:
    """What only a task finds: the worker's own setting sends it to a webserver that is none."""
    host = alone.everyone[1]
    alone.keep(*alone.everyone)
    alone.run(host, "systemctl", "stop", *alone.serving(host))
    settings = {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",
    }
    with alone.variables(host, airflow_worker_environment=settings):
        run = alone.play(SITE, "--limit", host, airflow_canary=True)
        assert run.rc != 0
        what = f"host {host} — its worker is not started, since the task that it was tried with did not succeed: it has failed; "
        assert f"{what}httpx.ConnectError: [Errno 111] Connection refused; see journalctl -u airflow-canary" in run.said, run.said
        assert not alone.serving(host)
        alone.bare_of_canaries(host)
    alone.must(SITE, "--limit", host, airflow_canary=True)
    assert alone.serving(host)
    alone.bare_of_canaries(host)


def test_a_trial_queue_before_its_own(alone: Fleet) -> None:
    """A new worker gets a queue that only a trial DAG uses, and its own queues when the task has succeeded."""
    host = alone.everyone[1]
    alone.keep(*alone.everyone)
    alone.must(REMOVE, worker=host)
    path = alone.dags / "canary.py"
    path.write_text(CANARY)
    try:
        with alone.variables(host, airflow_worker_queues=["canary"]):
            alone.must(SITE, airflow_readmit=host)
            airflow = alone.airflow()
            wait("DAG canary is known", 60, lambda: airflow.dag("canary"))
            run = airflow.trigger("canary")
            assert airflow.wait_for_run("canary", run, 90) == "success"
            (task,) = airflow.tasks("canary", run)
            assert task["hostname"] == alone.inventory.plan["addresses"][host]
    finally:
        path.unlink()
    alone.must(SITE)
    runs = alone.slow_on(host, 5)
    alone.end_well(runs, 90)


def test_an_absent_worker_is_named_and_the_others_are_done(alone: Fleet) -> None:
    """Of a database host that is away everything depends, so nothing is changed at all."""
    host = alone.everyone[-1]
    alone.keep(*alone.everyone)
    setting = {"airflow_environment": {"worker": {"TEST_SETTING": str(time.time())}}}
    before = alone.units()
    with alone.away(host):
        run = alone.play(SITE, **setting)
        assert run.rc == 4, run.output[-3000:]
        assert re.search(rf"^{host} +: .*unreachable=1", run.output, re.M)
    after = alone.units()
    assert after[host] == before[host]
    assert all(after[other] != before[other] for other in alone.everyone[:-1])
    with alone.away(alone.members["postgresql"][0]):
        said = alone.refused(SITE)
        assert "is unreachable and belongs to" in said
    alone.must(SITE)
