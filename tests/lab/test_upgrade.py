# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A working cluster goes from one release to the next and back; the ledger, outside of it, says what that cost.

The tests go on from each other: 3.2.2, 3.3.2 with kills, back; the long ones: 3.3.2 again, another lock, back from that."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

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


@pytest.mark.parametrize("playbook", [UPGRADE, ROLLBACK])
def test_a_part_of_the_cluster_is_refused(playbook: str, cluster: Cluster) -> None:
    """Without the database's host nobody would make the backup before the migration."""
    database = cluster.members["postgresql"][0]
    run = cluster.play(playbook, "--limit", f"all:!{database}")
    assert run.rc == 2 and run.changed == 0
    assert f"--limit — leaves out {database}" in run.said


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


def test_upgrade_that_is_killed_and_meets_a_worker_that_does_not_start(cluster: Cluster, ledger: Ledger) -> None:
    """With a migration, under load: three kills anywhere, a worker whose new release does not start, and the run that ends it."""
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    cluster.edit(airflow_version=NEW)
    before = cluster.revision()
    broken = cluster.members["worker"][0]
    mend: list[Callable[[], None]] = []

    def attempt(point: int = 0) -> bool:
        """One run; whether it met the broken worker."""
        at = {} if mend else {"PLAY [(3/7)": lambda: mend.append(cluster.break_staged(broken, "worker"))}
        run = cluster.play(UPGRADE, kill_after=point, delay=chance.uniform(0, 3), at=at)
        print(f"{run.table()}\nkilled in {run.killed_in}" if run.killed_in else run.table())
        met = run.rc == 2 and broken in run.said
        assert run.killed_in or met, run.output[-8000:]
        return met and not run.killed_in

    with Watch(cluster) as watch, ledger.load("upgrade with three kills and a broken worker", LONG_SECONDS):
        met = [attempt(point) for point in sorted(chance.sample(range(5, 70), KILLS))]
        assert any(met) or attempt()
        # Whoever is left still works, in the release before.
        assert cluster.releases(cluster.members["worker"][-1])
        mend[0]()
        run = cluster.must(UPGRADE)
        print(run.table())
    print(watch.table())
    assert cluster.revision() != before
    assert set(cluster.versions().values()) == {NEW}
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


@pytest.mark.long
def test_upgrade_with_a_migration(cluster: Cluster, ledger: Ledger) -> None:
    cluster.edit(airflow_version=NEW)
    before = cluster.revision()
    patients = Patients(cluster, 1)
    with Watch(cluster) as watch, ledger.load("upgrade with a migration", LONG_SECONDS):
        run = cluster.must(UPGRADE)
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


@pytest.mark.long
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
