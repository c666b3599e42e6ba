# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A working cluster goes from one release to the next and back; the ledger, outside of it, says what that cost.

The tests go on from each other: 3.2.2, 3.3.2, back, again with kills, another lock, back from that."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest
from inventory import Inventory
from ledger import Ledger
from upgrading import (
    NEW,
    OLD,
    ROLLBACK,
    SITE,
    UPGRADE,
    Cluster,
    Patients,
    Watch,
    read_only,
    settle,
)

KILLS = 3
# Of the long tasks of the ledger: all that began last are waited for. One of 150 s and more is there besides.
LONG_SECONDS = 60


@pytest.fixture(scope="module")
def cluster(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield Cluster(inventory.path, tmp_path_factory.mktemp("upgrade") / "inventory")


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Iterator[Ledger]:
    with cluster.ledger() as ledger:
        yield ledger


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    """What later tests need to know of earlier ones."""
    return {}


def test_what_the_next_run_would_undo_is_refused(cluster: Cluster) -> None:
    assert set(cluster.versions().values()) == {OLD}
    run = cluster.play(UPGRADE, airflow_version=NEW)
    assert run.rc == 2 and run.changed == 0
    assert "airflow_version is given with -e" in run.said


def test_site_leaves_releases_to_upgrade(cluster: Cluster) -> None:
    cluster.edit(airflow_version=NEW)
    # One worker alone, which has no scheduler: the cluster is asked all the same.
    run = cluster.play(SITE, "--limit", cluster.members["worker"][0])
    assert run.rc == 2 and run.changed == 0
    assert "playbooks/upgrade.yml" in run.said


def test_staging_that_fails_on_one_host_touches_nothing(cluster: Cluster) -> None:
    host = cluster.members["worker"][-1]
    cluster.edit(airflow_version=NEW)
    before = cluster.units()
    with read_only(cluster, host):
        run = cluster.play(UPGRADE)
    print(run.table())
    assert run.rc == 2
    assert "Read-only file system" in run.said
    assert cluster.units() == before
    assert not [name for name in cluster.installed(host) if name.startswith(NEW)]


def test_upgrade_with_a_migration(cluster: Cluster, ledger: Ledger, seconds: dict[str, float]) -> None:
    cluster.edit(airflow_version=NEW)
    before = cluster.revision()
    patients = Patients(cluster, 1)
    with Watch(cluster) as watch, ledger.load("upgrade with a migration", LONG_SECONDS):
        run = cluster.must(UPGRADE)
    seconds["tasks"] = run.tasks
    print(f"\n{run.table()}\n{watch.table()}")
    assert cluster.revision() != before
    assert set(cluster.versions().values()) == {NEW}
    # What ran goes on in the release in which it began.
    patients.still_on(OLD)
    patients.end_well()
    settle(ledger)
    assert watch.together(["webserver", "worker"]) == []
    assert watch.api_seconds == 0
    print(cluster.settled().table())
    assert not cluster.failed_units()


def test_rollback_of_a_migration_asks_how(cluster: Cluster) -> None:
    cluster.edit(airflow_version=OLD)
    before = cluster.units()
    run = cluster.play(ROLLBACK)
    assert run.rc == 2
    assert "rollback_downgrade" in run.said and "rollback_backup" in run.said
    assert cluster.units() == before


def test_rollback_of_a_migration(cluster: Cluster) -> None:
    cluster.edit(airflow_version=OLD)
    run = cluster.must(ROLLBACK, rollback_downgrade=True)
    print(f"\n{run.table()}")
    assert set(cluster.versions().values()) == {OLD}
    cluster.smoke()
    assert {name.split("-")[0] for name in cluster.running()} == {OLD}
    assert not cluster.failed_units()


def test_killed_and_run_again(cluster: Cluster, seconds: dict[str, float]) -> None:
    """Anywhere, three times."""
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    cluster.edit(airflow_version=NEW)
    with Watch(cluster) as watch:
        for point in sorted(chance.sample(range(5, int(seconds.get("tasks", 80))), KILLS)):
            run = cluster.play(UPGRADE, kill_after=point, delay=chance.uniform(0, 3))
            print(f"killed after {run.seconds:.1f} s in {run.killed_in}" if run.killed_in else f"ran to its end: rc {run.rc}")
            assert run.killed_in or run.rc == 0, run.output[-8000:]
        run = cluster.must(UPGRADE)
    print(f"{run.table()}\n{watch.table()}")
    cluster.settled()
    assert set(cluster.versions().values()) == {NEW}
    assert watch.together(["webserver", "worker"]) == []
    cluster.smoke()
    assert not cluster.failed_units()


def test_a_host_that_does_not_start_goes_back(cluster: Cluster) -> None:
    """Another lock, the same schema: on one host the new release's webserver does not start."""
    cluster.edit(airflow_version=NEW, airflow_requirements=["cowsay"], airflow_lock_pythons=["3.11"])
    cluster.must("playbooks/lock.yml")
    (before,) = cluster.running()
    first, second = cluster.members["webserver"]
    mend = []
    with Watch(cluster) as watch:
        run = cluster.play(UPGRADE, at={"PLAY [(3/7)": lambda: mend.append(cluster.break_staged(second, "webserver"))})
        print(f"\n{run.table()}")
        assert run.rc == 2
        assert "runs with its last healthy files again" in run.said
        wanted = {"airflow-webserver.service": {before}}
        assert cluster.releases(first)["airflow-webserver.service"] != {before}
        assert cluster.releases(second).items() >= wanted.items()
        for host in cluster.members["worker"]:
            assert cluster.releases(host)[cluster.inventory.worker_unit(host)] == {before}, "nothing after it was touched"
        # From there back, without any stop.
        mend[0]()
        cluster.edit(airflow_requirements=None, airflow_lock_pythons=None)
        run = cluster.must(ROLLBACK)
    print(f"{run.table()}\n{watch.table()}")
    assert watch.together(["webserver", "worker", "scheduler", "dag_processor", "triggerer"]) == []
    assert watch.api_seconds == 0
    assert cluster.running() == {before}
    cluster.settled()
