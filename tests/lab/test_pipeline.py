# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example pipeline on a deployed cluster (`make pipeline`). market.py, which shares nothing with it, says what is right."""

from __future__ import annotations

import json
import math
import socket
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import market
import pytest
import yaml
from api import Airflow
from inventory import ROOT, Inventory
from pipeline import DAGS, Step, begin, follow, moment

AGAIN = "2025-W10"
SECONDS = 300


@pytest.fixture(scope="module")
def data(inventory: Inventory) -> Path:
    """The files that were shipped."""
    folder = Path(inventory.common("airflow_dags_source", "") or str(ROOT / "dags")) / "listings" / "data"
    assert len(list(folder.glob("2*.csv"))) > 53, f"{folder}: run tools/listings.py, then dags.yml"
    return folder


@pytest.fixture(scope="module")
def steps(data: Path, airflow: Airflow) -> list[Step]:
    """A run over all weeks."""
    begin(airflow, SECONDS / 4)
    return follow(airflow, {}, SECONDS)


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[str, market.Table]:
    return market.tables(data)


def table(inventory: Inventory, name: str) -> market.Table:
    """What the database holds of it: numbers by what they are of, the week last."""
    found: market.Table = {}
    for (line,) in inventory.sql(f"select to_json(t) from {name} t", "listings"):
        row: dict[str, Any] = json.loads(line)
        names = list(row)
        last = names.index("week") + 1
        found[tuple(str(row[one]) for one in names[:last])] = {one: row[one] for one in names[last:]}
    return found


def differences(found: market.Table, wanted: market.Table) -> list[str]:
    lines = [f"{key}: only {'computed' if key in found else 'expected'}" for key in sorted(set(found) ^ set(wanted))]
    for key in set(found) & set(wanted):
        for name, value in wanted[key].items():
            other = found[key][name]
            same = value is other if value is None or other is None else math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)
            lines += [] if same else [f"{key} {name}: {other}, expected {value}"]
    return lines


def times(tasks: list[dict[str, Any]]) -> dict[str, int]:
    """By pool, how many tasks ran at once at most."""
    changes: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for task in tasks:
        assert task["try_number"] == 1, f"{task['dag_id']}.{task['task_id']} needed {task['try_number']} tries"
        # One that begins in the moment that another ends does not run beside it.
        changes[task["pool"]] += [(moment(task["start_date"]), 1), (moment(task["end_date"]), -1)]
    most = {}
    for pool, found in changes.items():
        now, most[pool] = 0, 0
        for _when, change in sorted(found):
            now += change
            most[pool] = max(most[pool], now)
    return most


def test_every_dag_succeeds_in_the_declared_order(steps: list[Step]) -> None:
    assert [(step.dag_id, step.run["state"]) for step in steps] == [(name, "success") for name in DAGS]
    for before, after in zip(steps, steps[1:]):
        assert after.run["run_type"] == "asset_triggered"
        assert {event["source_dag_id"] for event in after.causes} == {before.dag_id}
        (published,) = [task for task in before.tasks if task["task_id"] == "publish"]
        assert moment(after.run["start_date"]) >= moment(published["start_date"])
        assert min(moment(task["start_date"]) for task in after.tasks) >= moment(published["end_date"])
    whole = moment(steps[-1].run["end_date"]) - moment(steps[0].run["start_date"])
    print(f"{whole.total_seconds():.1f} s for the whole pipeline, {sum(len(step.tasks) for step in steps)} tasks")


def test_the_pools_are_used_and_never_exceeded(steps: list[Step], airflow: Airflow) -> None:
    declared = yaml.safe_load((ROOT / "dags" / "listings" / "inventory.yml").read_text())["airflow_pools"]
    slots = {pool["name"]: pool["slots"] for pool in declared}
    assert {name: airflow.get(f"pools/{name}")["slots"] for name in slots} == slots
    most = times([task for step in steps for task in step.tasks])
    for name, limit in slots.items():
        waiting = [task for step in steps for task in step.tasks if task["pool"] == name and task["map_index"] >= 0]
        assert len(waiting) > limit, f"only {len(waiting)} tasks in pool {name}"
        assert 2 <= most[name] <= limit, f"{most[name]} tasks at once in pool {name} with {limit} slots"
    print(f"at once: {most}")


@pytest.mark.parametrize("name", ["ingested", *DAGS[1:]])
def test_the_results_are_right(name: str, steps: list[Step], inventory: Inventory, expected: dict[str, market.Table]) -> None:
    assert len(expected[name]) >= 62
    wrong = differences(table(inventory, name), expected[name])
    assert not wrong, f"{len(wrong)} differences, such as: " + "; ".join(wrong[:5])


def test_the_files_hold_every_kind_of_fault(expected: dict[str, market.Table]) -> None:
    """Else a pipeline that forgot one of them would be right too."""
    for fault in ("unreadable", "without_rate", "repeated", "outliers"):
        assert sum(int(row[fault] or 0) for row in expected["ingested"].values()) > 50


# A number of each table of results; of those that are not here, median.
NUMBER = {"market_composition": "share_of_value", "volatility": "volatility", "growth": "place"}


def another(name: str, column: str, value: str) -> str:
    """A copy of a row, but for one column."""
    return f"insert into {name} select (jsonb_populate_record(t, jsonb_build_object('{column}', {value}))).* from {name} t"


def test_a_week_that_is_loaded_again_replaces_itself(steps: list[Step], airflow: Airflow, inventory: Inventory) -> None:
    names = ["listings", "ingested", *DAGS[1:]]
    before = {name: table(inventory, name) for name in names}
    monday = market.week_of(AGAIN)
    # Of what is loaded: mistaken, and one that is in no file.
    spoil = [
        f"update listings set price = 1 where week = '{monday}'",
        another("listings", "listing", "'never'") + f" where week = '{monday}' limit 1",
        f"update ingested set lines = 0, loaded = 0 where week = '{monday}'",
    ]
    # Of what is computed: lost, mistaken, and of a week in which nothing was listed.
    for name in DAGS[1:]:
        spoil += [
            f"delete from {name} where week = '{monday + 7 * market.DAY}'",
            f"update {name} set {NUMBER.get(name, 'median')} = 77 where week >= '{monday}'",
            f"{another(name, 'week', 'week + 7')} order by week desc limit 1",
        ]
    inventory.sql("; ".join(spoil), "listings")
    latest = max(key[-1] for key in before["growth"])
    for name in names:
        spoilt = table(inventory, name)
        assert spoilt != before[name], name
        assert name in names[:2] or max(key[-1] for key in spoilt) > latest, name
    again = follow(airflow, {"weeks": [AGAIN]}, SECONDS)
    assert [step.run["state"] for step in again] == ["success"] * len(DAGS)
    assert {event["extra"]["since"] for step in again for event in step.causes} == {str(monday)}
    for name in names:
        assert table(inventory, name) == before[name], name


def test_a_task_writes_to_this_database_and_to_no_other(steps: list[Step], inventory: Inventory) -> None:
    rows = inventory.sql("select rolsuper or rolcreatedb or rolcreaterole from pg_roles where rolname = 'listings'", "listings")
    assert rows == [["f"]]
    rules = inventory.sql("select database::text, address from pg_hba_file_rules where 'listings' = any(user_name)", "listings")
    # A name in the inventory is an address there.
    workers = {socket.gethostbyname(inventory.plan["addresses"][name]) for name in inventory.members["worker"]}
    assert {tuple(rule) for rule in rules} == {("{listings}", address) for address in workers}
