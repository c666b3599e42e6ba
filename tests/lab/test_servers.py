# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL and Redis restart when their operator says so, and then no task notices; and nothing fills the disks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from api import Airflow
from inventory import Inventory
from ledger import Ledger, assert_clean

LOGS = "/var/log/airflow/worker"
# Far more than the default retention.
OLD = "now() - interval '800 days'"


def server_units(inventory: Inventory) -> dict[str, str]:
    """Host -> unit of each server."""
    database = inventory.members["postgresql"][0]
    (cluster,) = inventory.run(database, "sh", "-c", "cd /etc/postgresql && ls -d */main").splitlines()
    return {
        f"postgresql@{cluster.replace('/', '-')}": database,
        "redis-server": inventory.members["redis"][0],
    }


def pids(inventory: Inventory) -> dict[str, str]:
    return {
        unit: inventory.run(host, "systemctl", "show", "-P", "MainPID", unit) for unit, host in server_units(inventory).items()
    }


def test_apt_and_needrestart_are_told_to_leave_the_servers_alone(inventory: Inventory) -> None:
    """That both obey, and what they do otherwise, is shown in tests/long/test_server_restarts.py."""
    for unit, host in server_units(inventory).items():
        package = re.sub(r"postgresql@(\d+)-main", r"postgresql-\1", unit)
        assert package in inventory.run(host, "apt-mark", "showhold").split()
        assert f"{{qr(^{unit.partition('@')[0]}" in inventory.run(host, "sh", "-c", "cat /etc/needrestart/conf.d/*.conf")
    for host in inventory.groups["airflow"]:
        assert "{qr(^airflow-)} = 0;" in inventory.run(host, "sh", "-c", "cat /etc/needrestart/conf.d/*.conf")


def test_a_restart_through_the_playbook_costs_no_task(inventory: Inventory, playbook: Callable[..., str]) -> None:
    before = pids(inventory)
    with Ledger(inventory) as ledger:
        with ledger.load("upgrade_servers.yml, restart_servers", long_seconds=60):
            playbook("upgrade_servers", restart_servers=True, **ledger.variables)
        report = ledger.settle()
    print(f"{report.table()}\n{report.remarks()}")
    assert_clean(report)
    after = pids(inventory)
    assert all(after[unit] != before[unit] for unit in before)


def test_without_a_reason_nothing_is_stopped_or_restarted(inventory: Inventory, playbook: Callable[..., str]) -> None:
    before = pids(inventory)
    scheduler = inventory.members["scheduler"][0]
    started = inventory.run(scheduler, "systemctl", "show", "-P", "MainPID", "airflow-scheduler")
    output = playbook("upgrade_servers")
    assert re.findall(r"changed=(\d+)", output) == ["0"] * output.count("changed=")
    assert pids(inventory) == before
    assert inventory.run(scheduler, "systemctl", "show", "-P", "MainPID", "airflow-scheduler") == started


# Disks


@pytest.fixture
def worker(inventory: Inventory) -> Iterator[str]:
    host = inventory.members["worker"][0]
    yield host
    inventory.run(host, "rm", "-rf", f"{LOGS}/dag_id=retention", "/var/log/airflow/own.log")


def test_old_logs_go_and_others_stay(inventory: Inventory, worker: str) -> None:
    days = int(inventory.get(worker, "airflow_log_retention_days", 90))
    folder = f"{LOGS}/dag_id=retention"
    old, young = (f"{days + margin} days ago" for margin in (2, -2))
    script = f"""
set -e
umask 027
for run in old young both; do mkdir -p "{folder}/run_id=$run/task_id=t"; done
for run in old both; do echo x > "{folder}/run_id=$run/task_id=t/attempt=1.log"; done
for run in young both; do echo x > "{folder}/run_id=$run/task_id=t/attempt=2.log"; done
echo x > /var/log/airflow/own.log
chown -R airflow-worker:airflow-logs "{folder}"
find "{folder}" -name attempt=2.log -exec touch -d '{young}' {{}} +
find "{folder}" -name attempt=1.log -exec touch -d '{old}' {{}} +
find "{folder}" -depth -type d -exec touch -d '{old}' {{}} +
touch -d '{old}' "{LOGS}" /var/log/airflow/own.log
"""
    inventory.run(worker, "sh", "-c", script)
    before = inventory.run(worker, "stat", "-c", "%a %U %G", LOGS)
    inventory.run(worker, "systemctl", "start", "systemd-tmpfiles-clean.service")
    left = inventory.run(worker, "find", folder, "-mindepth", "1", "-printf", "%P\n").splitlines()
    assert sorted(left) == [
        "run_id=both",
        "run_id=both/task_id=t",
        "run_id=both/task_id=t/attempt=2.log",
        "run_id=young",
        "run_id=young/task_id=t",
        "run_id=young/task_id=t/attempt=2.log",
    ]
    assert inventory.run(worker, "stat", "-c", "%a %U %G", LOGS) == before
    assert inventory.run(worker, "cat", "/var/log/airflow/own.log") == "x"


@pytest.fixture
def cleaner(inventory: Inventory) -> Iterator[str]:
    host = inventory.members["scheduler"][0]
    yield host
    inventory.run(host, "rm", "-f", "/etc/airflow/upgrading")
    inventory.sql("drop table if exists _airflow_deleted__log__20200101040000")


def clean(inventory: Inventory, host: str) -> str:
    """Runs the timer's service; what it said."""
    begin = inventory.run(host, "date", "+%s.%N")
    inventory.run(host, "systemctl", "start", "airflow-db-clean.service")
    return inventory.run(host, "journalctl", "-q", "-o", "cat", "-u", "airflow-db-clean", "--since", f"@{begin}")


def archives(inventory: Inventory) -> set[str]:
    rows = inventory.sql("select tablename from pg_tables where starts_with(tablename, '_airflow_deleted__')")
    return {name for (name,) in rows}


def test_old_rows_go_and_their_archives_later(inventory: Inventory, airflow: Airflow, cleaner: str) -> None:
    timers = inventory.run(cleaner, "systemctl", "list-timers", "--no-legend", "airflow-db-clean.timer")
    assert "airflow-db-clean.service" in timers
    old, young = (airflow.trigger("smoke") for _run in range(2))
    for run in (old, young):
        assert airflow.wait_for_run("smoke", run, 180) == "success"
    count = inventory.sql("select count(*) from celery_taskmeta", "results_database")
    assert count != [["0"]]
    inventory.sql(
        f"update dag_run set start_date = {OLD}, end_date = {OLD} where run_id = '{old}';"
        f"update task_instance set start_date = {OLD}, end_date = {OLD} where run_id = '{old}';"
        f"update log set dttm = {OLD} where run_id = '{old}';"
        "create table _airflow_deleted__log__20200101040000 (x int); create table _airflow_deleted__own (x int);"
    )
    inventory.sql(
        f"update celery_taskmeta set date_done = {OLD} where id = (select min(id) from celery_taskmeta)", "results_database"
    )
    before = archives(inventory)
    # Nothing while an upgrade is under way.
    inventory.run(cleaner, "touch", "/etc/airflow/upgrading")
    inventory.run(cleaner, "systemctl", "start", "airflow-db-clean.service")
    assert archives(inventory) == before
    assert inventory.sql(f"select count(*) from dag_run where run_id = '{old}'") == [["1"]]
    inventory.run(cleaner, "rm", "/etc/airflow/upgrading")

    said = clean(inventory, cleaner)
    assert "Dropped the archive table _airflow_deleted__log__20200101040000" in said
    assert "Deleted 1 rows of celery_taskmeta" in said
    for table in ("dag_run", "task_instance", "log"):
        assert inventory.sql(f"select count(*) from {table} where run_id = '{old}'") == [["0"]], table
        assert inventory.sql(f"select count(*) > 0 from {table} where run_id = '{young}'") == [["t"]], table
    made = archives(inventory) - before
    assert {name.split("__")[1] for name in made} >= {"dag_run", "task_instance", "log"}
    assert "_airflow_deleted__own" in archives(inventory)
    assert "_airflow_deleted__log__20200101040000" not in archives(inventory)
    # It works on as before.
    again = airflow.trigger("smoke")
    assert airflow.wait_for_run("smoke", again, 180) == "success"
    inventory.sql("drop table _airflow_deleted__own; " + "".join(f'drop table "{name}";' for name in sorted(made)))


def test_a_table_that_cannot_be_cleaned_is_a_failure_that_is_seen(
    inventory: Inventory, playbook: Callable[..., str], cleaner: str
) -> None:
    """`airflow db clean` says itself that it went well."""
    inventory.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise insufficient_privilege; end $$;"
        "create trigger refuse before delete on log for each row execute function refuse();"
        f"insert into log (dttm, event) values ({OLD}, 'retention test')"
    )
    try:
        inventory.run(cleaner, "systemctl", "start", "airflow-db-clean.service", check=False)
        assert inventory.run(cleaner, "systemctl", "show", "-P", "Result", "airflow-db-clean.service") == "exit-code"
        assert "airflow-db-clean.service, which deletes old rows from the databases, ended with exit-code" in playbook("status")
    finally:
        inventory.sql("drop trigger refuse on log; drop function refuse()")
        inventory.run(cleaner, "systemctl", "start", "airflow-db-clean.service")
        time.sleep(1)
        inventory.sql("".join(f'drop table "{name}";' for name in sorted(archives(inventory))) or "select 1")
    assert inventory.run(cleaner, "systemctl", "show", "-P", "Result", "airflow-db-clean.service") == "success"
