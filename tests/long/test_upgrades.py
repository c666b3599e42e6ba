# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Upgrades that are disturbed in every way we know of, and what each of them costs, on the hosts of scenario `upgrade`."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from api import wait
from fresh import lab
from inventory import ROOT
from ledger import Ledger
from upgrading import (
    NEW,
    OLD,
    ROLLBACK,
    SITE,
    UNITS,
    UPGRADE,
    WORKERS,
    Cluster,
    Patients,
    Watch,
    cut_off,
    deployed,
    full,
    settle,
    void,
)

KILLS = 10
BACKUPS = "/var/backups/postgresql"
EVERY_GROUP = ("webserver", "scheduler", "dag_processor", "triggerer", "worker")
# With a migration all of the others are away together, on purpose.
SERVING = ("webserver", "worker")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(str(ROOT / "molecule/upgrade/inventory"), tmp_path_factory.mktemp("upgrades") / "inventory")
    with deployed(cluster):
        yield cluster


@pytest.fixture()
def ledger(cluster: Cluster) -> Iterator[Ledger]:
    with cluster.ledger() as ledger:
        yield ledger


@pytest.fixture()
def old(cluster: Cluster) -> Cluster:
    """The release before, with the schema of that release; the inventory asks for the new one."""
    if cluster.version() != OLD:
        cluster.edit(airflow_version=OLD, airflow_requirements=None, airflow_lock_pythons=None)
        cluster.must(ROLLBACK, rollback_downgrade=True)
    cluster.edit(airflow_version=NEW)
    return cluster


@pytest.fixture()
def new(cluster: Cluster) -> Cluster:
    """The new release, converged."""
    cluster.edit(airflow_version=NEW)
    cluster.must(UPGRADE)
    return cluster


def converges(cluster: Cluster) -> None:
    """One more run brings it to the end, the next has nothing to do."""
    run = cluster.must(UPGRADE)
    print(run.table())
    cluster.settled()
    assert set(cluster.versions().values()) == {NEW}
    cluster.smoke()
    assert not cluster.failed_units()


# ---------------------------------------------------------------------------------------------- refused or failed early
def test_a_host_without_a_package_index_touches_nothing(old: Cluster) -> None:
    """Its releases and the cache of wheels are gone too, or it would need no index."""
    host = old.members["worker"][-1]
    old.run(
        host, "sh", "-c", f"rm -rf /opt/airflow/releases/{NEW}-*; find /opt/airflow -maxdepth 2 -name cache -exec rm -rf {{}} +"
    )
    before = old.units()
    with cut_off(old, host):
        run = old.play(UPGRADE)
    print(f"\n{run.table()}")
    assert run.rc == 2 and host in run.said
    assert old.units() == before


def test_a_dag_file_that_the_new_release_cannot_parse_touches_nothing(old: Cluster) -> None:
    name = "needs_the_old_release.py"
    file = f"/srv/airflow/dags/{name}"
    text = f"import airflow\nfrom airflow.sdk import dag\nassert airflow.__version__ == '{OLD}', 'wrong release'\n"
    before = old.units()
    hosts = old.members["dag_processor"]
    for host in hosts:
        folder = old.run(host, "readlink", "-f", "/srv/airflow/dags")
        old.run(host, "sh", "-c", f"cat > {folder}/{name} && chmod 644 {folder}/{name}", stdin=text)
    try:
        run = old.play(UPGRADE)
    finally:
        for host in hosts:
            old.run(host, "rm", file)
    assert run.rc == 2 and name in run.said
    assert old.units() == before


def test_no_room_for_the_backup_stops_nothing(old: Cluster) -> None:
    before, revision = old.units(), old.revision()
    with full(old, old.members["postgresql"][0], BACKUPS):
        run = old.play(UPGRADE)
    print(f"\n{run.table()}")
    assert run.rc == 2
    assert "space" in run.said or "disk" in run.said
    assert old.units() == before and old.revision() == revision
    assert set(old.versions().values()) == {OLD}


# ------------------------------------------------------------------------------------------------ in and after a migration
# Looks and acts within the server: a migration is over before anything outside has noticed that it has begun.
WAITING = """
DO $$ DECLARE found int; BEGIN
  FOR turn IN 1..60000 LOOP
    SELECT count({act}) INTO found FROM (
      SELECT DISTINCT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL
      AND pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS migrating;
    EXIT WHEN found > 0;
    PERFORM pg_sleep(0.002);
  END LOOP;
END $$
"""


def once_it_has_changed_a_table(cluster: Cluster, act: str, then: str = "true") -> Callable[[], None]:
    """Waits for it from now on."""
    database = cluster.inventory.plan["database"]["name"]
    script = f'cd / && runuser -u postgres -- psql -Xq -d {database} -c "$(cat)" && {then}'
    host, statement = cluster.members["postgresql"][0], WAITING.format(act=act)
    thread = threading.Thread(target=lambda: cluster.run(host, "sh", "-c", script, stdin=statement), daemon=True)
    return thread.start


def terminate_backend(cluster: Cluster) -> Callable[[], None]:
    """Ends the session that migrates."""
    return once_it_has_changed_a_table(cluster, "pg_terminate_backend(pid)")


def kill_process(cluster: Cluster) -> Callable[[], None]:
    """SIGKILL to what runs the migration, on the first scheduler's host, which has the database too."""
    assert cluster.members["scheduler"][0] == cluster.members["postgresql"][0]
    return once_it_has_changed_a_table(cluster, "pid", "for pid in $(pgrep -u airflow-cli); do kill -KILL $pid; done")


@pytest.mark.parametrize("act", [terminate_backend, kill_process])
def test_a_migration_that_is_killed_half_way(act: Callable[[Cluster], Callable[[], None]], old: Cluster) -> None:
    with Watch(old) as watch:
        run = old.play(UPGRADE, at={"PLAY [(6/7)": act(old)})
        print(f"\n{run.table()}")
        assert run.rc == 2
        # What was not stopped serves on, on the old release.
        assert set(old.versions().values()) == {OLD}
        assert all(old.inventory.worker_unit(host) for host in old.members["worker"])
    assert watch.api_seconds == 0
    converges(old)


def test_a_webserver_that_crashes_after_the_migration_and_before_its_turn(old: Cluster, ledger: Ledger) -> None:
    """Its release cannot start on the new schema: it stays down and does not flap, until its turn comes."""
    last = old.members["webserver"][-1]
    crash = ("systemctl", "kill", "--signal=SIGKILL", "airflow-webserver.service")
    with Watch(old) as watch, ledger.load("webserver crashes after the migration"):
        run = old.must(UPGRADE, at={"PLAY [Roll 1/6": lambda: void(old.run(last, *crash))})
    print(f"\n{run.table()}\n{watch.table()}")
    assert old.run(last, "systemctl", "show", "-P", "NRestarts", "airflow-webserver.service") == "0"
    old.settled()
    settle(ledger)


def test_a_webserver_that_does_not_start_after_the_migration(old: Cluster) -> None:
    """Its old release cannot either: it is left stopped, and the message says what to do."""
    first, last = old.members["webserver"]
    mend: list[Callable[[], None]] = []
    try:
        with Watch(old) as watch:
            run = old.play(UPGRADE, at={"PLAY [(3/7)": lambda: mend.append(old.break_staged(last, "webserver"))})
            print(f"\n{run.table()}")
            backup = old.run(old.members["postgresql"][0], "sh", "-c", f"ls {BACKUPS} | tail -1")
            assert run.rc == 2
            assert f"rollback.yml -e rollback_backup={backup}" in run.said
            assert old.state(last, "airflow-webserver.service") in ("inactive", "failed")
            time.sleep(12)
            assert old.state(last, "airflow-webserver.service") in ("inactive", "failed"), "it flaps"
            assert old.airflow(first).get("version")["version"] == NEW
        assert watch.api_seconds == 0
    finally:
        for undo in mend:
            undo()
    converges(old)


def test_a_worker_that_does_not_start(old: Cluster, ledger: Ledger) -> None:
    """It works on in the old release, whatever the schema is, and loses nothing."""
    first = old.members["worker"][0]
    mend: list[Callable[[], None]] = []
    with Watch(old) as watch, ledger.load("canary worker does not start"):
        run = old.play(UPGRADE, at={"PLAY [(3/7)": lambda: mend.append(old.break_staged(first, "worker"))})
        print(f"\n{run.table()}")
        assert run.rc == 2 and first in run.said
        for host in old.members["worker"]:
            (release,) = old.releases(host)[old.inventory.worker_unit(host)]
            assert release.startswith(OLD)
        mend[0]()
        converges(old)
    print(watch.table())
    assert watch.together(SERVING) == []
    settle(ledger)


def test_ten_kills_at_random_points(cluster: Cluster, ledger: Ledger) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100000))
    print(f"\nSEED={seed}")
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    kills, tasks = 0, 100
    while kills < KILLS:
        cluster.edit(airflow_version=OLD)
        if cluster.version() != OLD:
            cluster.must(ROLLBACK, rollback_downgrade=True)
        cluster.edit(airflow_version=NEW)
        with Watch(cluster) as watch, ledger.load(f"killed upgrade, from kill {kills + 1}"):
            for point in sorted(chance.sample(range(3, tasks), min(4, KILLS - kills))):
                run = cluster.play(UPGRADE, kill_after=point, delay=chance.uniform(0, 3))
                assert run.killed_in or run.rc == 0, run.output[-8000:]
                if not run.killed_in:
                    break
                kills += 1
                print(f"kill {kills} at task {point}, after {run.seconds:.1f} s in {run.killed_in}")
            run = cluster.must(UPGRADE)
            tasks = max(20, run.tasks)
        print(f"{run.table()}\n{watch.table()}")
        cluster.settled()
        assert set(cluster.versions().values()) == {NEW}
        assert watch.together(SERVING) == []
        settle(ledger)
    assert not cluster.failed_units()


def test_rollback_to_a_backup(old: Cluster) -> None:
    """What was run since then is forgotten; nothing is scheduled before somebody has looked."""
    database, operator = old.members["postgresql"][0], old.members["scheduler"][0]
    before = old.revision()
    old.must(UPGRADE)
    assert old.revision() != before
    backup = old.run(database, "sh", "-c", f"ls {BACKUPS} | tail -1")
    rows = old.sql("select count(*) from dag_run")
    old.smoke()
    old.edit(airflow_version=OLD)
    run = old.must(ROLLBACK, rollback_backup=backup, restore_confirm=database)
    print(f"\n{run.table()}")
    assert old.revision() == before and old.sql("select count(*) from dag_run") == rows
    assert set(old.versions().values()) == {OLD}
    assert old.state(operator, UNITS["scheduler"]) == "inactive"
    old.must("playbooks/restore.yml", restore_resume=True)
    old.smoke()
    assert {name.split("-")[0] for name in old.running()} == {OLD}


# ---------------------------------------------------------------------------------------------------------- no migration
def another_lock(cluster: Cluster, *requirements: str) -> None:
    cluster.edit(airflow_requirements=list(requirements) or None, airflow_lock_pythons=["3.11"])
    cluster.must("playbooks/lock.yml")


def test_another_lock_with_two_webservers(new: Cluster, ledger: Ledger) -> None:
    another_lock(new, "cowsay")
    patients = Patients(new, 1)
    with Watch(new) as watch, ledger.load("another lock, two webservers"):
        run = new.must(UPGRADE)
    print(f"\n{run.table()}\n{watch.table()}")
    assert watch.together(EVERY_GROUP) == []
    assert watch.api_seconds == 0
    new.settled()
    patients.end_well()
    assert settle(ledger).api_seconds == 0


def test_rollback_of_another_lock(new: Cluster, ledger: Ledger) -> None:
    another_lock(new, "cowsay")
    new.must(UPGRADE)
    another_lock(new)
    with Watch(new) as watch, ledger.load("rollback without a migration"):
        run = new.must(ROLLBACK)
    print(f"\n{run.table()}\n{watch.table()}")
    assert watch.together(EVERY_GROUP) == []
    assert settle(ledger).api_seconds == 0


def test_another_lock_with_one_webserver(new: Cluster) -> None:
    hosts = new.folder / "hosts.yml"
    before = hosts.read_text()
    content = yaml.safe_load(before)
    del content["airflow"]["children"]["airflow_webserver"]["hosts"][new.members["webserver"][-1]]
    hosts.write_text(yaml.safe_dump(content))
    new.read()
    try:
        new.must(SITE)
        another_lock(new, "cowsay")
        with new.ledger() as ledger:
            with Watch(new) as watch, ledger.load("another lock, one webserver"):
                run = new.must(UPGRADE)
            print(f"\n{run.table()}\n{watch.table()}")
            assert watch.api_seconds <= 15
            assert settle(ledger).api_seconds <= 15
    finally:
        hosts.write_text(before)
        new.read()
        another_lock(new)
        new.must(UPGRADE)


# --------------------------------------------------------------------------------------------------------------- releases
def test_three_generations_and_a_reboot(old: Cluster) -> None:
    """Two changes within one long task. Nothing that a process runs from is removed; a host that is rebooted lets its tasks end
    and comes back with its newest generation."""
    first, last = old.members["worker"]
    old.must(UPGRADE)
    another_lock(old)
    (middle,) = old.running()
    # More than one host has slots for.
    patients = Patients(old, 4)
    another_lock(old, "cowsay")
    old.must(UPGRADE)
    patients.still_on(NEW)
    assert middle in old.running()

    # The third waits for the first, whose colour it needs, and is waited for.
    another_lock(old, "cowsay", "tabulate")
    rolls = threading.Event()
    third = threading.Thread(target=lambda: old.play(UPGRADE, at={"PLAY [Roll 5/6": rolls.set}))
    third.start()
    assert rolls.wait(900)
    time.sleep(30)
    assert third.is_alive(), "the third generation waits"
    for host in (first, last):
        assert middle in old.installed(host)
    booted = old.run(last, "systemctl", "show", "-P", "UserspaceTimestampMonotonic")
    old.run(last, "systemctl", "reboot", check=False)
    patients.end_well()
    third.join(900)
    assert not third.is_alive()
    wait(
        f"{last} is back",
        300,
        lambda: old.run(last, "systemctl", "show", "-P", "UserspaceTimestampMonotonic", check=False) not in ("", booted),
        interval=2,
    )
    old.must(UPGRADE)
    old.settled()
    newest = old.running()
    assert len(newest) == 1
    for host in (first, last):
        assert [old.state(host, unit) for unit in WORKERS].count("active") == 1
        assert middle not in old.installed(host), "nobody runs from it any more, and it is neither this nor the previous one"
        assert newest <= set(old.installed(host))


# ----------------------------------------------------------------------------------------------------------------- figures
def test_time_by_number_of_workers(cluster: Cluster) -> None:
    hosts = cluster.folder / "hosts.yml"
    before = hosts.read_text()
    rows, up = [], []
    extra = [(f"up{number}", f"10.89.77.{200 + number}") for number in range(11, 17)]
    try:
        for number in (2, 4, 8):
            cluster.edit(airflow_version=OLD, airflow_requirements=None)
            if cluster.version() != OLD:
                cluster.must(ROLLBACK, rollback_downgrade=True)
            content = yaml.safe_load(before)
            for name, address in extra[: number - 2]:
                worker = {"ansible_host": address, "lab_image": "bookworm"}
                content["airflow"]["children"]["airflow_worker"]["hosts"][name] = worker
            hosts.write_text(yaml.safe_dump(content))
            cluster.read()
            lab("up", str(cluster.folder))
            up = [name for name, _address in extra[: number - 2]]
            for playbook in (UPGRADE, ROLLBACK, "playbooks/rotate_secrets.yml") if up else ():
                refused = cluster.play(playbook, rotate="api")
                assert refused.rc == 2 and refused.changed == 0
                assert f"host {up[-1]} — runs nothing of the cluster yet" in refused.said
            cluster.must(SITE)
            cluster.edit(airflow_version=NEW)
            run = cluster.must(UPGRADE)
            rows.append(f"{number} workers: {run.seconds:.0f} s\n{run.table()}")
    finally:
        if up:
            lab("down", str(cluster.folder), "--only", ",".join(up))
        hosts.write_text(before)
        cluster.read()
    print("\n" + "\n".join(rows))
