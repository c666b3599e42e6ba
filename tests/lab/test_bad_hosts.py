# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts that cannot be part of the cluster: site.yml ends with one clear line each, and has changed nothing on any host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import BIN, COMPONENTS, lab, output_of
from inventory import ROOT, Inventory

FIRST, SECOND = os.environ.get("LAB_BARE", "bare1,bare2").split(",")
ADDRESSES = dict(zip((FIRST, SECOND), os.environ.get("LAB_BARE_ADDRESSES", "10.89.77.16,10.89.77.17").split(",")))
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)
PROBLEM = re.compile(r"^  \d+\. (.*)$", re.M)
PLAYS = re.compile(r"^PLAY \[(.*)\]", re.M)
ONLY_PLAYS = ["Check the inventory", "Check the hosts"]


class Pair:
    """Two bare hosts: the first holds everything, the second is a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        everywhere = folder / "group_vars" / "all"
        everywhere.mkdir(parents=True)
        (everywhere / "lab.yml").symlink_to(ROOT / "inventories/lab/group_vars/all/lab.yml")
        self.settings = {"airflow_dags_source": str(ROOT / "dags"), "airflow_worker_concurrency": 2}
        (everywhere / "airflow.yml").write_text(yaml.safe_dump(self.settings))
        first = {"hosts": {FIRST: None}}
        groups = {f"airflow_{name}": first for name in COMPONENTS if name != "worker"}
        groups["airflow_worker"] = {"hosts": {FIRST: None, SECOND: None}}
        hosts = {name: {"ansible_host": address, "lab_image": "bookworm"} for name, address in ADDRESSES.items()}
        content = {"all": {"hosts": hosts}, "postgresql": first, "redis": first, "airflow": {"children": groups}}
        (folder / "hosts.yml").write_text(json.dumps(content))

    def play(self, playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        words = [str(BIN / "ansible-playbook"), "-i", str(self.folder), f"playbooks/{playbook}.yml", *arguments]
        return output_of([*words, "-e", json.dumps(variables)])

    def run(self, host: str, script: str, stdin: str = "") -> str:
        return Inventory(str(self.folder)).run(host, "sh", "-c", script, stdin=stdin)

    @contextlib.contextmanager
    def while_running(self, host: str, before: str, after: str) -> Iterator[None]:
        self.run(host, before)
        try:
            yield
        finally:
            self.run(host, after)

    @contextlib.contextmanager
    def vars_of(self, host: str, **variables: Any) -> Iterator[None]:
        path = self.folder / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(variables))
        try:
            yield
        finally:
            path.unlink()

    def refused(self, *expected: str, arguments: tuple[str, ...] = (), **variables: Any) -> str:
        """site.yml tells exactly these problems, parts of lines, and no task has changed anything."""
        rc, output = self.play("site", *arguments, **variables)
        found = PROBLEM.findall(output)
        # 4: a host was unreachable too.
        assert rc in (2, 4), output
        assert len(found) == len(expected) and all(want in line for want, line in zip(expected, found)), output
        assert PLAYS.findall(output) == ONLY_PLAYS, output
        self.unchanged(output)
        return output

    @staticmethod
    def unchanged(output: str) -> None:
        recap = RECAP.findall(output)
        assert recap and {changed for _host, changed, _unreachable, _failed in recap} == {"0"}, output

    def accepted(self, **variables: Any) -> str:
        rc, output = self.play("preflight", **variables)
        assert rc == 0 and not PROBLEM.findall(output), output
        self.unchanged(output)
        return output


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    lab("up", str(made.folder))
    try:
        rc, output = made.play("secrets")
        assert rc == 0, output
        yield made
    finally:
        lab("down", str(made.folder))


def test_bare_hosts_are_right(pair: Pair) -> None:
    start = time.monotonic()
    pair.accepted()
    print(f"\npreflight of two hosts: {time.monotonic() - start:.1f} s")


def test_another_operating_system(pair: Pair) -> None:
    other = "sed 's/^ID=.*/ID=ubuntu/; s/^VERSION_ID=.*/VERSION_ID=\"24.04\"/' /etc/os-release > /run/other-release"
    mount = "mount --bind /run/other-release $(readlink -f /etc/os-release)"
    with pair.while_running(SECOND, f"{other} && {mount}", "umount $(readlink -f /etc/os-release)"):
        pair.refused(f"host {SECOND} — runs Ubuntu 24 — use Debian 12 or 13")


def test_a_port_is_taken(pair: Pair) -> None:
    serve = "cd /tmp && systemd-run -q --unit=shop --uid=nobody /usr/bin/python3 -m http.server 8080"
    with pair.while_running(FIRST, f"{serve}; until ss -ltn | grep -q :8080; do sleep 0.2; done", "systemctl stop shop"):
        pair.refused(
            f"host {FIRST} — port 8080, for webserver, is taken by python3 (shop.service) — "
            "stop it, or set airflow_webserver_port to another port"
        )
        pair.accepted(airflow_webserver_port=8081)


def test_a_clock_is_off(pair: Pair) -> None:
    """All hosts of the lab share a clock: this one's Python is told another time."""
    pair.run(SECOND, "apt-get update -qq && apt-get install -y -qq faketime >/dev/null")
    wrapper = '#!/bin/sh\nexec faketime -f +5s /usr/bin/python3 "$@"\n'
    pair.run(SECOND, "cat > /usr/local/bin/late-python && chmod 755 /usr/local/bin/late-python", stdin=wrapper)
    with pair.vars_of(SECOND, ansible_python_interpreter="/usr/local/bin/late-python"):
        pair.refused(f"clock of {SECOND} — {SECOND} is 5 s ahead of the others, 2 are allowed — let systemd-timesyncd or chrony")
        pair.accepted(airflow_clock_tolerance=9)


def test_a_disk_is_full(pair: Pair) -> None:
    with pair.while_running(
        SECOND,
        "mkdir -p /opt/airflow && mount -t tmpfs -o size=64m tmpfs /opt/airflow",
        "umount /opt/airflow; rmdir /opt/airflow",
    ):
        pair.refused(f"host {SECOND} — has 64 MB of disk free for /opt/airflow/releases, 1000 are needed — make room")
        output = pair.accepted(airflow_resource_check="warn")
        assert "has 64 MB of disk free" in " ".join(output.split())


def test_inodes_are_used_up(pair: Pair) -> None:
    with pair.while_running(
        SECOND,
        "mkdir -p /opt/airflow && mount -t tmpfs -o size=2g,nr_inodes=500 tmpfs /opt/airflow",
        "umount /opt/airflow; rmdir /opt/airflow",
    ):
        pair.refused(f"host {SECOND} — has 49", arguments=())


def test_a_disk_is_read_only(pair: Pair) -> None:
    with pair.while_running(
        SECOND,
        "mkdir -p /opt/airflow && mount -t tmpfs -o size=2g,ro tmpfs /opt/airflow",
        "umount /opt/airflow; rmdir /opt/airflow",
    ):
        pair.refused(f"host {SECOND} — can only read the file system of /opt/airflow/releases — mount it for writing")


def test_more_tasks_than_memory(pair: Pair) -> None:
    megabytes = int(pair.run(FIRST, "awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))
    tasks = megabytes // 150
    output = pair.refused("tasks at once need", "tasks at once need", airflow_worker_concurrency=tasks)
    fits = [int(found) for found in re.findall(r"set airflow_worker_concurrency to (\d+)", output)]
    assert len(fits) == 2 and fits[0] < fits[1] < tasks
    # What the cure says is right.
    pair.accepted(airflow_worker_concurrency=min(fits))


def test_a_python_that_is_not_there(pair: Pair) -> None:
    pair.refused(f"airflow_python — python3.14 is no Python on {FIRST}", f"no Python on {SECOND}", airflow_python="python3.14")


def test_a_name_that_nobody_knows(pair: Pair) -> None:
    with pair.vars_of(SECOND, airflow_address="bare2.nowhere.test"):
        pair.refused(f"host {SECOND} — has the address bare2.nowhere.test, which {FIRST} cannot resolve — make it known there")


def test_a_new_worker_without_the_host_that_admits_it(pair: Pair) -> None:
    """The servers themselves are asked."""
    pair.refused(
        f"host {SECOND} — is not admitted yet by {FIRST} (PostgreSQL: Connection refused; Redis: Connection refused), "
        f"which --limit leaves out — run again with --limit '{SECOND},{FIRST}'",
        arguments=("--limit", SECOND),
    )


def test_one_machine_under_two_names(pair: Pair) -> None:
    """By another port and another address, so that the inventory does not show it."""
    second = {"ansible_host": ADDRESSES[FIRST], "ansible_port": 2222, "airflow_address": ADDRESSES[SECOND]}
    start = "mkdir -p /run/sshd && /usr/sbin/sshd -p 2222 -o PidFile=/run/second-sshd.pid"
    with pair.while_running(FIRST, start, "kill $(cat /run/second-sshd.pid)"), pair.vars_of(SECOND, **second):
        pair.refused(f"hosts {FIRST}, {SECOND} — are one machine, {FIRST} — use one inventory name per machine")


def test_a_user_who_may_not_become_root(pair: Pair) -> None:
    pair.run(
        SECOND,
        "useradd -m guest && cp -r ~/.ssh ~guest/ && chown -R guest ~guest/.ssh",
    )
    with pair.vars_of(SECOND, ansible_user="guest"):
        pair.refused(f"host {SECOND} — does not tell its facts, its error is above")


def test_a_database_host_that_is_away(pair: Pair) -> None:
    with pair.vars_of(FIRST, ansible_port=2299):
        pair.refused(f"host {FIRST} — is unreachable and belongs to postgresql, redis, airflow_scheduler")


def test_somebody_elses_redis(pair: Pair) -> None:
    pair.run(FIRST, "apt-get update -qq && apt-get install -y -qq redis-server >/dev/null && redis-cli set order 1")
    pair.refused(
        f"host {FIRST} — has a Redis with keys that this collection did not make — "
        "use another host; or set airflow_adopt: [redis], which keeps keys and replaces accounts"
    )
    pair.accepted(airflow_adopt=["redis"])
    # Stopped, its keys are on the disk.
    pair.run(FIRST, "redis-cli save && systemctl stop redis-server")
    pair.refused(f"host {FIRST} — has a Redis with keys")
    pair.run(FIRST, "rm -f /var/lib/redis/dump.rdb; systemctl start redis-server")
    # Debian's, as it comes from the package, is nobody's.
    pair.accepted()
    pair.run(FIRST, "systemctl stop redis-server")


def test_a_redis_of_an_ordinary_user_whom_others_do_not_see(pair: Pair) -> None:
    start = "systemd-run -q --unit=cache --uid=nobody -p WorkingDirectory=/tmp /usr/bin/redis-server --port 6400 --save ''"
    start = f"mount -o remount,hidepid=2 /proc && {start}"
    stop = "systemctl stop cache; mount -o remount,hidepid=0 /proc"
    with (
        pair.while_running(FIRST, f"{start}; until ss -ltn | grep -q :6400; do sleep 0.2; done", stop),
        pair.vars_of(FIRST, ansible_user="admin"),
    ):
        pair.refused(f"host {FIRST} — runs another Redis (cache.service, user nobody)")
        pair.accepted(airflow_adopt=["redis"])


def test_somebody_elses_postgresql(pair: Pair) -> None:
    pair.run(FIRST, "apt-get update -qq && apt-get install -y -qq postgresql >/dev/null")
    pair.accepted()
    pair.run(FIRST, "runuser -u postgres -- createdb shop")
    line = f"host {FIRST} — has a PostgreSQL 15 cluster main with databases that this collection did not make — use another"
    pair.refused(line)
    pair.accepted(airflow_adopt=["postgresql"])
    # A cluster of its own beside Debian's, by hand.
    folder = "/var/lib/postgresql/own"
    start = f"runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb -D {folder} >/dev/null && "
    start += "systemd-run -q --unit=own --uid=postgres "
    pair.run(
        FIRST,
        f"{start} /usr/lib/postgresql/15/bin/postgres -D {folder} -p 5444; until ss -ltn | grep -q :5444; do sleep 0.2; done",
    )
    pair.refused(line, f"host {FIRST} — runs another PostgreSQL (own.service, user postgres)")
    pair.run(FIRST, f"systemctl stop own; rm -r {folder}; runuser -u postgres -- dropdb shop")
    pair.accepted()
    pair.run(FIRST, "systemctl stop postgresql")


def test_somebody_elses_airflow(pair: Pair) -> None:
    """As upstream's own unit files start it; what is behind the name is not asked."""
    unit = "[Service]\nExecStart=/opt/venv/bin/airflow scheduler\n"
    write = f"printf %s {shlex.quote(unit)} > /etc/systemd/system/airflow-scheduler.service"
    program = (
        "mkdir -p /opt/venv/bin && printf '#!/bin/sh\\nsleep 999; :\\n' > /opt/venv/bin/airflow && chmod 755 /opt/venv/bin/*"
    )
    remove = (
        "systemctl stop airflow-scheduler; rm -r /opt/venv /etc/systemd/system/airflow-scheduler.service; systemctl daemon-reload"
    )
    with pair.while_running(FIRST, f"{write}; {program}; systemctl daemon-reload; systemctl start airflow-scheduler", remove):
        pair.refused(
            f"host {FIRST} — has a unit airflow-scheduler.service that this collection did not write — "
            "stop and remove it; or set airflow_adopt: [airflow]"
        )
        pair.accepted(airflow_adopt=["airflow"])
    with pair.while_running(
        FIRST,
        f"{program}; systemd-run -q --unit=flow /opt/venv/bin/airflow api-server; sleep 0.5",
        "systemctl stop flow; rm -r /opt/venv",
    ):
        pair.refused(f"host {FIRST} — runs another Airflow (flow.service, user root)")


def test_every_mistake_of_every_host_at_once(pair: Pair) -> None:
    serve = "cd /tmp && systemd-run -q --unit=shop --uid=nobody /usr/bin/python3 -m http.server {port}; "
    serve += "until ss -ltn | grep -q :{port}; do sleep 0.2; done"
    with (
        pair.while_running(FIRST, serve.format(port=5432), "systemctl stop shop"),
        pair.while_running(SECOND, serve.format(port=8793), "systemctl stop shop"),
        pair.vars_of(SECOND, airflow_python="python3.14"),
    ):
        pair.refused(
            "python3.14 is no Python", "port 5432, for postgresql, is taken by python3", "port 8793, for worker_logs, is taken"
        )
