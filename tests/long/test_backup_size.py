# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a backup and a restore take for each gigabyte of task history. Against a cluster of one's own: LAB_INVENTORY=…"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest
from fresh import Fresh
from inventory import Inventory
from test_backup import Backups

GIGABYTE = 10**9
# As Airflow leaves it: a run of twenty tasks, each with an XCom, rendered fields and four lines in the event log.
HISTORY = """
insert into dag_run (dag_id, run_id, state, run_type, run_after, queued_at, start_date, end_date, logical_date, conf, created_at,
  updated_at)
select 'history', 'scheduled__' || n, 'success', 'scheduled', t, t, t, t + interval '1 minute', t, '{{}}', t, t
from (select n, now() - n * interval '1 minute' as t from generate_series({first}, {last}) n) x;
insert into task_instance (id, task_id, dag_id, run_id, state, try_number, hostname, unixname, pool, pool_slots, queue,
  priority_weight, operator, start_date, end_date, duration, queued_dttm, scheduled_dttm, updated_at, task_display_name,
  context_carrier)
select gen_random_uuid(), 'task_' || k, 'history', r.run_id, 'success', 1, 'worker1.example.org', 'airflow-worker',
  'default_pool', 1, 'default', 1, 'PythonOperator', r.start_date, r.end_date, random() * 60, r.start_date, r.start_date,
  r.end_date, 'task_' || k,
  jsonb_build_object('traceparent', '00-' || md5(r.run_id || k) || '-01')
from dag_run r, generate_series(1, 20) k where r.dag_id = 'history' and r.id > {after};
insert into rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
select dag_id, task_id, run_id, map_index, json_build_object('op_kwargs', json_build_object(
  'path', 's3://bucket/' || md5(id::text),
  'query', 'select * from ' || md5(run_id) || ' where day = ' || repeat(md5(task_id), 6)))
from task_instance where dag_id = 'history' and run_id in (select run_id from dag_run where id > {after});
insert into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
select r.id, t.task_id, -1, 'return_value', t.dag_id, t.run_id, to_jsonb(md5(t.id::text) || md5(t.run_id)), r.end_date
from task_instance t join dag_run r using (dag_id, run_id) where t.dag_id = 'history' and r.id > {after};
insert into log (dttm, dag_id, task_id, map_index, event, run_id, owner, extra)
select r.end_date, t.dag_id, t.task_id, -1, (array['queued', 'running', 'success', 'state mismatch'])[e], t.run_id, 'airflow',
  json_build_object('host', 'worker1', 'command', md5(t.id::text || e))::text
from task_instance t join dag_run r using (dag_id, run_id), generate_series(1, 4) e where t.dag_id = 'history' and r.id > {after};
"""


def fill(backups: Backups, size: int) -> None:
    """Task history until the database has this size."""
    step, first = 500, 1
    while int(backups.sql(f"select pg_database_size('{backups.database}')")) < size:
        after = backups.sql("select coalesce(max(id), 0) from dag_run", backups.database)
        backups.sql(HISTORY.format(first=first, last=first + step - 1, after=after), backups.database)
        first += step


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    if given := os.environ.get("LAB_INVENTORY"):
        yield Backups(Inventory(given))
        return
    with Fresh(tmp_path_factory.mktemp("size"), "size1", "10.89.77.119", "trixie") as host:
        host.must("playbooks/secrets.yml")
        host.must("playbooks/site.yml")
        yield Backups(host.inventory)


def test_a_gigabyte(backups: Backups) -> None:
    fill(backups, GIGABYTE)
    backups.sql("vacuum analyze", backups.database)
    seconds: dict[str, float] = {}

    def timed(what: str, playbook: str, **variables: str) -> str:
        started = time.monotonic()
        said = backups.must(playbook, **variables)
        seconds[what] = time.monotonic() - started
        return said

    timed("backup.yml", "backup")
    made = backups.ids()[-1]
    manifest = backups.manifest(made)
    yes = {"restore_from": made, "restore_confirm": backups.host}
    # Something to forget, and something to lose.
    backups.sql(
        "update task_instance set state = 'failed' where dag_id = 'history' and task_id = 'task_1' and run_id like '%7'",
        backups.database,
    )
    timed("restore beside the live databases", "plays/restore_stage", **yes)
    said = " ".join(timed("the whole restore after that", "restore", **yes).split())
    wrong = re.search(r"forgotten: 0 DAG runs and (\d+) task instances", said)
    assert wrong
    assert int(wrong[1]) > 1000
    for database in manifest["databases"]:
        backups.sql(f'drop database "{database}" with (force)')
    timed("restore after a drop", "restore", **yes)
    for database, found in manifest["databases"].items():
        for name, rows in backups.rows(database).items():
            assert rows == found["tables"][name], name
    backups.must("restore", **{"restore_resume": "true"})
    per = manifest["database_bytes"] / GIGABYTE
    print(f"\n{manifest['database_bytes'] / GIGABYTE:.2f} GB, dumps of {manifest['bytes'] / 10**6:.0f} MB")
    print(f"dump {manifest['dump_seconds'] / per:.1f} s/GB, verification {manifest['verify_seconds'] / per:.1f} s/GB")
    for what, took in seconds.items():
        print(f"{what}: {took:.1f} s, {took / per:.1f} s/GB")
    assert manifest["dump_seconds"] + manifest["verify_seconds"] < 300 * per
