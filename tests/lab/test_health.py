# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The health timer on a host that runs everything: what hangs is restarted, what works or is not to blame is left alone.

Of HAProxy as every worker's host has it; that of an entry is in test_entry.py.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api import FINISHED, Airflow, wait
from conftest import Shipment
from inventory import Inventory
from test_change import changed, site

STATE = "/run/airflow/health.json"
WITHDRAWN = "/run/airflow/withdrawn"
LOGS = "/var/log/airflow/worker"
DROP_IN = "/run/systemd/system/airflow-health.service.d/test.conf"
PLAIN = ("scheduler", "dag-processor", "triggerer", "logs", "flower")
STRIKES = 3
# Three looks, 30 s apart, after a heartbeat has become too old, and the restart itself.
NOTICED_SECONDS = 200
IDLE_SECONDS = 300


@pytest.fixture(scope="module")
def one(inventory: Inventory) -> str:
    if not inventory.plan["single"]:
        pytest.skip("the inventory has more than one host")
    return inventory.members["worker"][0]


@pytest.fixture(scope="module")
def dags(one: str, shipment: Shipment, airflow: Airflow) -> dict[str, str]:
    """The DAGs, and what every run of site.yml must be given to leave them there."""
    if not shipment.marker:
        shipment.ship("health")
    wait("the DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    return {"airflow_dags_source": str(shipment.folder)}


def show(inventory: Inventory, host: str, name: str, unit: str) -> str:
    return inventory.run(host, "systemctl", "show", "-P", name, unit)


def state(inventory: Inventory, host: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inventory.run(host, "cat", STATE))
    return found


def look(inventory: Inventory, host: str, times: int = 1) -> dict[str, Any]:
    """What the timer does, without waiting for it."""
    for _ in range(times):
        # To start what the timer has just started would be to wait for that.
        wait("it rests", 60, lambda: show(inventory, host, "ActiveState", "airflow-health.service") in ("inactive", "failed"))
        inventory.run(host, "systemctl", "start", "airflow-health.service")
    return state(inventory, host)


def said(inventory: Inventory, host: str, since: float) -> str:
    return inventory.run(host, "journalctl", "-u", "airflow-health", "-o", "cat", "--no-pager", "--since", f"@{int(since)}")


def restarts(found: dict[str, Any]) -> dict[str, int]:
    return {name: component["restarts"] for name, component in found["components"].items()}


def signal(inventory: Inventory, host: str, name: str, unit: str, whom: str = "main") -> None:
    inventory.run(host, "systemctl", "kill", f"--kill-whom={whom}", f"--signal=SIG{name}", unit)


def all_old_enough(inventory: Inventory, host: str) -> None:
    """What has just been started is not judged."""
    seconds = int(inventory.get(host, "airflow_health_timeout", 180))
    running = "systemctl list-units --plain --no-legend --state=running 'airflow-*.service' | cut -d' ' -f1"
    script = f"cut -d' ' -f1 /proc/uptime; systemctl show -P ExecMainStartTimestampMonotonic $({running})"

    def old() -> bool:
        uptime, *started = inventory.run(host, "sh", "-c", script).split()
        return all(float(uptime) - int(one) / 1e6 > seconds for one in started)

    wait("no component is new", seconds + 30, old, interval=2)


def well(inventory: Inventory, host: str) -> None:
    found = look(inventory, host)
    bad = {name: component for name, component in found["components"].items() if not component["healthy"]}
    assert not bad and not found["withdrawn"], bad


@pytest.fixture(autouse=True)
def settled(one: str, inventory: Inventory) -> None:
    """An hour's restarts count, so each test begins as after a boot; and with everything up."""
    inventory.run(one, "rm", "-f", STATE)
    inventory.run(one, "systemctl", "start", "airflow-health.service")
    wait("all is well", 120, lambda: all(each["healthy"] for each in look(inventory, one)["components"].values()), interval=2)
    all_old_enough(inventory, one)


def start(airflow: Airflow, inventory: Inventory, seconds: int) -> str:
    """A run whose slow task has begun."""
    run_id = airflow.trigger("life_cycle", {"seconds": seconds})
    wait("the task runs", 60, lambda: any(task["state"] == "running" for task in airflow.tasks("life_cycle", run_id)))
    ended = "its other task has ended"
    wait(ended, 60, lambda: sum(task["state"] in FINISHED for task in airflow.tasks("life_cycle", run_id)) == 1)
    return run_id


def once(airflow: Airflow, run_id: str, seconds: int) -> None:
    assert airflow.wait_for_run("life_cycle", run_id, seconds) == "success"
    assert {task["try_number"] for task in airflow.tasks("life_cycle", run_id)} == {1}


# --- what hangs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kinds", [(*PLAIN, "worker"), ("webserver",)], ids=["all but the webserver", "the webserver"])
def test_the_timer_restarts_a_stopped_one_of_each_kind(kinds: tuple[str, ...], one: str, inventory: Inventory) -> None:
    units = [inventory.worker_unit(one) if kind == "worker" else f"airflow-{kind}.service" for kind in kinds]
    before = {unit: show(inventory, one, "MainPID", unit) for unit in units}
    begun = time.time()
    for unit in units:
        signal(inventory, one, "STOP", unit)
    seconds: dict[str, float] = {}

    def all_back() -> bool:
        for unit in units:
            pid = show(inventory, one, "MainPID", unit)
            if unit not in seconds and pid not in ("0", before[unit]):
                seconds[unit] = round(time.time() - begun)
        return len(seconds) == len(units)

    wait("all are back", NOTICED_SECONDS, all_back, interval=1)
    print(f"\nseconds from SIGSTOP to a new process: {seconds}")
    journal = said(inventory, one, begun)
    assert [unit for unit in units if f"{unit} does not work, 3 times in a row" not in journal] == []
    wait("they work", 120, lambda: all(each["healthy"] for each in look(inventory, one)["components"].values()), interval=2)
    found = state(inventory, one)
    keys = {unit.removeprefix("airflow-").rpartition(".")[0] for unit in units}
    keys = {key[:-2] if key.startswith("worker@") else key for key in keys}
    assert {name for name, count in restarts(found).items() if count} == keys
    assert all(count <= 1 for count in restarts(found).values())


def test_a_stuck_worker_with_a_task_is_replaced_and_the_task_ends(
    one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    run_id = start(airflow, inventory, 120)
    before = inventory.worker_unit(one)
    signal(inventory, one, "STOP", before)
    begun = time.time()
    look(inventory, one, STRIKES)
    assert "takes its place while it finishes 1 running task" in said(inventory, one, begun)
    assert show(inventory, one, "ActiveState", before) == "deactivating"
    after = inventory.worker_unit(one)
    assert after != before
    assert (
        show(inventory, one, "UnitFileState", after) == "enabled" and show(inventory, one, "UnitFileState", before) == "disabled"
    )
    # While it finishes its task nobody ends it.
    look(inventory, one, STRIKES)
    assert show(inventory, one, "ActiveState", before) == "deactivating"
    once(airflow, run_id, 200)
    wait("the old colour has ended", 60, lambda: show(inventory, one, "ActiveState", before) == "inactive")
    again = site(inventory.path, **dags)
    assert set(changed(again).values()) == {0}, "what it has done is what site.yml wants"


def test_a_frozen_worker_is_killed_with_its_frozen_task(
    one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    """Nothing of it runs, so nothing of it may go on later beside the next try."""
    run_id = start(airflow, inventory, 600)
    unit = inventory.worker_unit(one)
    pid = show(inventory, one, "MainPID", unit)
    signal(inventory, one, "STOP", unit, "all")
    begun = time.time()
    look(inventory, one, STRIKES)
    assert "no task was running" in said(inventory, one, begun)
    wait("a look has ended it", 60, lambda: look(inventory, one) and show(inventory, one, "MainPID", unit) not in ("0", pid), 5)
    # Brackets, as the shell's own command line is there too.
    titles = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '[a]irflow worker -- ' || true"
    assert inventory.run(one, "sh", "-c", titles) == "0"
    airflow.end("life_cycle", run_id, "failed")


def test_a_worker_that_only_looks_alive_is_restarted(
    one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    """A queue given back by remote control is lost when Redis restarts; the worker goes on sending heartbeats."""
    unit = inventory.worker_unit(one)
    name = f"default-{unit.rpartition('.')[0][-1]}@{one}"
    pid = show(inventory, one, "MainPID", unit)
    inventory.run(one, "airflow", "celery", "remove-all-queues", "-H", name)
    inventory.run(one, "airflow", "celery", "add-queue", "-H", name, "-q", "default")
    inventory.run(one, "systemctl", "restart", "redis-server")
    well(inventory, one)
    run_id = airflow.trigger("life_cycle", {"seconds": 1})
    wait("it waits in the queue", 60, lambda: inventory.redis("LLEN", "default") != "0")
    time.sleep(15)
    assert inventory.redis("LLEN", "default") != "0", "the worker takes it, so there is nothing to mend"
    begun = time.time()
    # The first one has nothing to compare with.
    look(inventory, one, 1 + STRIKES)
    assert "it starts none of the" in said(inventory, one, begun)
    assert airflow.wait_for_run("life_cycle", run_id, 120) == "success"
    assert show(inventory, one, "MainPID", unit) != pid


def test_a_haproxy_that_hangs_is_restarted_and_the_worker_stays(one: str, inventory: Inventory) -> None:
    unit, worker = "haproxy.service", inventory.worker_unit(one)
    before, pid = show(inventory, one, "MainPID", unit), show(inventory, one, "MainPID", worker)
    signal(inventory, one, "STOP", unit, "all")
    begun = time.time()
    found = look(inventory, one)
    assert "no answer" in found["components"]["haproxy"]["why"] or "timed out" in found["components"]["haproxy"]["why"], found
    assert found["components"]["worker@default"]["healthy"] is False, "it takes tasks that it cannot run"
    # The timer looks too, so it may be done already.
    look(inventory, one, STRIKES - 1)
    assert f"{unit} does not work, 3 times in a row" in said(inventory, one, begun)
    wait("it is new", 30, lambda: show(inventory, one, "MainPID", unit) not in ("0", before))
    wait("all is well", 60, lambda: all(each["healthy"] for each in look(inventory, one)["components"].values()), interval=2)
    print(f"\nseconds from SIGSTOP of HAProxy, looked at without a pause, until all is well: {time.time() - begun:.0f}")
    found = state(inventory, one)
    assert {name for name, count in restarts(found).items() if count} == {"haproxy"} and not found["withdrawn"]
    assert show(inventory, one, "MainPID", worker) == pid


# --- what is left alone ------------------------------------------------------------------------------------------------
def test_a_draining_worker_is_left_alone(one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]) -> None:
    run_id = start(airflow, inventory, 60)
    unit = inventory.worker_unit(one)
    pid = show(inventory, one, "MainPID", unit)
    inventory.run(one, "systemctl", "stop", "--no-block", unit)
    wait("it drains", 10, lambda: show(inventory, one, "ActiveState", unit) == "deactivating")
    signal(inventory, one, "STOP", unit)
    begun = time.time()
    found = look(inventory, one, 2 + STRIKES)
    assert not [name for name in found["components"] if name.startswith("worker")]
    assert said(inventory, one, begun) in ("", "-- No entries --")
    assert (show(inventory, one, "ActiveState", unit), show(inventory, one, "MainPID", unit)) == ("deactivating", pid)
    signal(inventory, one, "CONT", unit)
    once(airflow, run_id, 120)
    wait("it has ended", 60, lambda: show(inventory, one, "ActiveState", unit) == "inactive")
    look(inventory, one, STRIKES)
    assert show(inventory, one, "ActiveState", unit) == "inactive", "nobody asked for it to come back"
    inventory.run(one, "systemctl", "start", unit)


def test_nothing_is_restarted_while_the_servers_are_away(one: str, inventory: Inventory) -> None:
    words = ("list-units", "--plain", "--no-legend", "postgresql@*")
    units = [inventory.run(one, "systemctl", *words).split()[0], "redis-server.service"]
    begun = time.time()
    for unit in units:
        signal(inventory, one, "STOP", unit, "all")
    try:
        found = look(inventory, one, 1 + STRIKES)
    finally:
        for unit in units:
            signal(inventory, one, "CONT", unit, "all")
    away = {name: component["why"] for name, component in found["components"].items() if not component["healthy"]}
    assert {"scheduler", "dag-processor", "triggerer", "worker@default"} <= set(away)
    assert all("does not answer" in why for why in away.values()), away
    assert not any(component["strikes"] for component in found["components"].values())
    wait("they notice", 90, lambda: all(each["healthy"] for each in look(inventory, one)["components"].values()), interval=5)
    assert not any(restarts(state(inventory, one)).values())
    assert said(inventory, one, begun) in ("", "-- No entries --")


# --- the host ----------------------------------------------------------------------------------------------------------
@contextmanager
def small_disk(inventory: Inventory, host: str) -> Iterator[None]:
    mode, uid, gid = inventory.run(host, "stat", "-c", "%a %u %g", LOGS).split()
    inventory.run(host, "mount", "-t", "tmpfs", "-o", f"size=64m,mode={mode},uid={uid},gid={gid}", "none", LOGS)
    try:
        yield
    finally:
        inventory.run(host, "umount", "--lazy", LOGS)


def test_a_full_disk_takes_the_worker_away_until_there_is_space(
    one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    run_id = start(airflow, inventory, 150)
    before = inventory.worker_unit(one)
    with small_disk(inventory, one):
        well(inventory, one)
        inventory.run(one, "dd", "if=/dev/zero", f"of={LOGS}/filler", "bs=1M", "count=60", "status=none")
        found = look(inventory, one)
        assert "the disk is full: 4 MB are free" in found["withdrawn"]
        assert show(inventory, one, "ActiveState", before) == "deactivating"
        # Over a run of site.yml as well.
        assert f"while {WITHDRAWN} is there" in " ".join(site(inventory.path, **dags).split())
        assert inventory.active_worker_units(one) == []
        look(inventory, one)
        assert inventory.active_worker_units(one) == []
        inventory.run(one, "rm", f"{LOGS}/filler")
        # The one that left still has its task, so the other colour comes.
        assert show(inventory, one, "ActiveState", before) == "deactivating"
        assert look(inventory, one)["withdrawn"] == ""
        wait("a worker is back", 60, lambda: inventory.worker_unit(one) != before)
        wait("and works", 60, lambda: look(inventory, one)["components"]["worker@default"]["healthy"], interval=2)
    once(airflow, run_id, 200)
    wait("the old colour has ended", 60, lambda: show(inventory, one, "ActiveState", before) == "inactive")
    # Its logs were written to what is gone.
    inventory.run(one, "systemctl", "restart", inventory.worker_unit(one))
    assert set(changed(site(inventory.path, **dags)).values()) == {0}


def test_a_wrong_clock_takes_the_worker_away_until_it_is_right(one: str, inventory: Inventory) -> None:
    """Hosts of the lab share one clock: only what asks sees another one."""
    inventory.run(one, "sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y libfaketime")
    library = inventory.run(one, "sh", "-c", "dpkg -L libfaketime | grep '/libfaketime.so.1$'")
    lines = f'[Service]\nEnvironment=LD_PRELOAD={library} "FAKETIME=+10s" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1\n'
    unit = inventory.worker_unit(one)
    inventory.run(one, "mkdir", "-p", str(Path(DROP_IN).parent))
    inventory.run(one, "tee", DROP_IN, stdin=lines)
    inventory.run(one, "systemctl", "daemon-reload")
    try:
        found = look(inventory, one)
        assert "the clock is 10" in found["withdrawn"] and "ahead of" in found["withdrawn"], found
        wait("it has ended", 60, lambda: show(inventory, one, "ActiveState", unit) == "inactive")
        look(inventory, one)
        assert show(inventory, one, "ActiveState", unit) == "inactive"
    finally:
        inventory.run(one, "rm", DROP_IN)
        inventory.run(one, "systemctl", "daemon-reload")
    assert look(inventory, one)["withdrawn"] == ""
    wait("it is back", 60, lambda: show(inventory, one, "ActiveState", unit) == "active")


def test_a_worker_that_reaches_no_webserver_leaves_and_comes_back(
    one: str, inventory: Inventory, airflow: Airflow, dags: dict[str, str]
) -> None:
    """Its own way to them is stopped; as well for it if all of them were. Tasks wait instead of failing."""
    unit = inventory.worker_unit(one)
    inventory.run(one, "systemctl", "stop", "haproxy")
    begun = time.time()
    found = look(inventory, one, 1 + STRIKES)
    assert "no webserver answers" in found["withdrawn"], found
    print(f"\nseconds from the stop of HAProxy, looked at without a pause, until the worker leaves: {time.time() - begun:.0f}")
    wait("it has ended", 60, lambda: show(inventory, one, "ActiveState", unit) == "inactive")
    run_id = airflow.trigger("life_cycle", {"seconds": 1})
    wait("it waits in the queue", 60, lambda: inventory.redis("LLEN", "default") != "0")
    # Which starts HAProxy, and neither waits for the worker nor asks it to prove anything.
    begun = time.time()
    site(inventory.path, **dags)
    print(f"site.yml took {time.time() - begun:.0f} s")
    wait("a look brings it back", 60, lambda: show(inventory, one, "ActiveState", unit) == "active")
    assert state(inventory, one)["withdrawn"] == ""
    once(airflow, run_id, 120)
    assert set(changed(site(inventory.path, **dags)).values()) == {0}


def test_a_drained_worker_that_is_put_back_while_the_disk_is_full_comes_back(one: str, inventory: Inventory) -> None:
    unit, drained = inventory.worker_unit(one), "/etc/airflow/drained"
    inventory.run(one, "tee", drained, stdin="by a test\n")
    try:
        inventory.run(one, "systemctl", "stop", unit)
        with small_disk(inventory, one):
            inventory.run(one, "dd", "if=/dev/zero", f"of={LOGS}/filler", "bs=1M", "count=60", "status=none")
            assert "the disk is full" in look(inventory, one)["withdrawn"]
    finally:
        inventory.run(one, "rm", drained)
    assert look(inventory, one)["withdrawn"] == ""
    wait("it is back", 60, lambda: show(inventory, one, "ActiveState", unit) == "active")


# --- the timer itself --------------------------------------------------------------------------------------------------
def test_what_it_costs(one: str, inventory: Inventory) -> None:
    """Processor time of the unit's control group, children included, over some minutes without load."""
    script = f"""end=$(($(date +%s) + {IDLE_SECONDS})); last=
exec > /root/cost
while [ $(date +%s) -lt $end ]; do
  set -- $(systemctl show -p ActiveState -p CPUUsageNSec -p InvocationID airflow-health | sort | cut -d= -f2)
  if [ "$1" = inactive ] && [ "$3" != "$last" ]; then [ -n "$last" ] && echo $2; last=$3; fi
  sleep 2
done"""
    inventory.run(one, "tee", "/root/cost.sh", stdin=script)
    inventory.run(one, "systemd-run", "--quiet", "--collect", "sh", "/root/cost.sh")
    time.sleep(IDLE_SECONDS + 5)
    spent = [int(line) / 1e9 for line in inventory.run(one, "cat", "/root/cost").split()]
    share = sum(spent) / IDLE_SECONDS
    print(f"\n{len(spent)} runs, {sum(spent) / len(spent) * 1000:.0f} ms each: {share:.2%} of one core")
    assert len(spent) >= IDLE_SECONDS / 30 - 1
    assert share < 0.01
    quiet = inventory.run(one, "journalctl", "-u", "airflow-health", "-o", "cat", "--no-pager", "--since", f"-{IDLE_SECONDS}s")
    assert quiet in ("", "-- No entries --")


def test_it_is_root_s_and_holds_no_secret(one: str, inventory: Inventory) -> None:
    secrets = [str(inventory.common(f"airflow_{name}_password")) for name in ("database", "results_database", "broker", "admin")]
    for path in (STATE, "/etc/airflow/health.json", "/etc/systemd/system/airflow-health.service"):
        text = inventory.run(one, "cat", path)
        assert len(text) > 100 and not any(secret in text for secret in secrets), path
    assert inventory.run(one, "stat", "-c", "%U %a", "/usr/local/lib/airflow/health.py") == "root 644"


def test_the_timer_is_taken_away_and_comes_back(one: str, inventory: Inventory, dags: dict[str, str]) -> None:
    command = shlex.split("systemctl is-active airflow-health.timer")
    # Nobody is left who would undo what it has done.
    unit = inventory.worker_unit(one)
    inventory.run(one, "systemctl", "stop", "airflow-health.timer")
    wait("it rests", 60, lambda: show(inventory, one, "ActiveState", "airflow-health.service") in ("inactive", "failed"))
    inventory.run(one, "tee", WITHDRAWN, stdin="the disk is full\n")
    inventory.run(one, "systemctl", "stop", unit)
    site(inventory.path, airflow_health_interval=0, **dags)
    assert inventory.run(one, *command, check=False) == "inactive"
    inventory.run(one, "test", "!", "-e", "/etc/systemd/system/airflow-health.service")
    inventory.run(one, "test", "!", "-e", WITHDRAWN)
    assert inventory.active_worker_units(one) != []
    output = site(inventory.path, "--check", "--diff", **dags)
    assert "enable airflow-health.timer" in output
    site(inventory.path, **dags)
    assert inventory.run(one, *command) == "active"
    assert set(changed(site(inventory.path, **dags)).values()) == {0}
