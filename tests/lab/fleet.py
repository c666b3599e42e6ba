# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several worker hosts of a deployed cluster, drained, removed and added, through a copy of its inventory."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api import FINISHED, wait
from fresh import BIN, changed
from inventory import ROOT, Inventory
from upgrading import LAB, SITE, WORKERS, Cluster, Run

DRAIN, REMOVE = (f"playbooks/{name}.yml" for name in ("drain", "remove_worker"))
DRAINED = "/etc/airflow/drained"
NOTES = "/etc/ansible/facts.d/windfarm_airflow.fact"

# What a trial of a host could leave in the database.
TRACES = """
select 'dag' from dag where dag_id like 'windfarm_canary%' union all
select 'serialized' from serialized_dag where dag_id like 'windfarm_canary%' union all
select 'task' from task_instance where dag_id like 'windfarm_canary%' union all
select 'pool' from slot_pool where pool like 'windfarm_canary%' union all
select 'bundle' from dag_bundle where name like 'windfarm_canary%' union all
select 'import error' from import_error
"""


class Died(Exception):
    """A run of Ansible was killed on purpose."""


class Fleet(Cluster):
    """A cluster whose workers come and go; `everyone` are those that the inventory has in the end."""

    def __init__(self, source: str, folder: Path) -> None:
        super().__init__(source, folder)
        # Plain text: what Ansible hands out carries tags that YAML has no form for.
        self.everyone = [str(name) for name in self.members["worker"]]
        self._hosts = (folder / "hosts.yml").read_text()
        self.dags = self._dags
        shutil.copy(ROOT / "tests/lab/dags/life_cycle.py", self.dags)

    def keep(self, *names: str) -> None:
        """Write these workers, and no other, into the inventory."""
        content = yaml.safe_load(self._hosts)
        group = content["airflow"]["children"]["airflow_worker"]
        group["hosts"] = {name: group["hosts"][name] for name in names}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(content))
        self.read()

    @contextlib.contextmanager
    def also(self, group: str, host: str, alone: bool = False) -> Iterator[None]:
        """The inventory puts the host into another group too; `alone`: nobody else is in it."""
        path = self.folder / "hosts.yml"
        before = path.read_text()
        content = yaml.safe_load(before)
        known = yaml.safe_load(self._hosts)["airflow"]["children"]["airflow_worker"]["hosts"][host]
        groups = {**content, **content["airflow"]["children"]}
        hosts = groups[group].get("hosts") or {}
        if alone:
            # What the file says of a host may stand in this group only.
            content["all"] = {"hosts": hosts}
            hosts = {}
        groups[group]["hosts"] = {**hosts, host: known}
        path.write_text(yaml.safe_dump(content))
        try:
            yield
        finally:
            path.write_text(before)

    @contextlib.contextmanager
    def servers_of_others(self) -> Iterator[None]:
        """The inventory has the same servers by their addresses alone."""
        path, settings = self.folder / "hosts.yml", self.folder / "group_vars/all/zz_external.yml"
        before = path.read_text()
        content = yaml.safe_load(before)
        database, broker = self.inventory.plan["results_database"], self.inventory.plan["broker"]
        content["all"] = {"hosts": content.pop("postgresql")["hosts"]}
        content.pop("redis")
        path.write_text(yaml.safe_dump(content))
        address = f"airflow:{self.inventory.common('airflow_broker_password')}@{broker['host']}:{broker['port']}"
        settings.write_text(
            yaml.safe_dump({"airflow_database_host": database["host"], "airflow_broker_url": f"rediss://{address}/0"})
        )
        try:
            yield
        finally:
            settings.unlink()
            path.write_text(before)

    @contextlib.contextmanager
    def variables(self, host: str, **settings: Any) -> Iterator[None]:
        """The inventory says these of the host."""
        path = self.folder / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(settings))
        try:
            yield
        finally:
            path.unlink()

    @contextlib.contextmanager
    def away(self, host: str) -> Iterator[None]:
        """Nobody reaches the host by SSH; what runs on it goes on."""
        # From inside: by SSH the answer to this very command would be lost.
        inside = [str(LAB / "podman"), "exec", f"windfarm-{host}", "nft"]
        rules = "table inet away { chain input { type filter hook input priority -5; tcp dport 22 reject with tcp reset; }; }"
        subprocess.run([*inside, rules], check=True)
        try:
            yield
        finally:
            subprocess.run([*inside, "delete", "table", "inet", "away"], check=True)

    def serving(self, host: str) -> list[str]:
        """Units of workers that take tasks."""
        return [unit for unit in WORKERS if self.state(host, unit) == "active"]

    def waits(self, host: str) -> bool:
        """Whether Redis has a worker of this host waiting for messages: whatever the host says, this is what counts."""
        address = self.inventory.plan["addresses"][host]
        lines = self.inventory.redis("CLIENT", "LIST").splitlines()
        return any(f" addr={address}:" in line and " cmd=brpop " in line for line in lines)

    def slow(self, seconds: int, number: int) -> list[str]:
        """Runs of a task of so many seconds, all of them running."""
        airflow = self.airflow()
        wait("DAG life_cycle is known", 60, lambda: airflow.dag("life_cycle"))
        runs = [airflow.trigger("life_cycle", {"seconds": seconds}) for _ in range(number)]
        wait("the tasks run", 90, lambda: len(self.where(runs)) == number)
        return runs

    def where(self, runs: list[str]) -> dict[str, str]:
        """Run -> host on which its slow task runs now."""
        names = {address: name for name, address in self.inventory.plan["addresses"].items()}
        of = f"run_id in ({str(runs)[1:-1]}) and task_id = 'slow' and state = 'running'"
        return {run: names[address] for run, address in self.sql(f"select run_id, hostname from task_instance where {of}")}

    def slow_on(self, host: str, seconds: int, most: int = 12) -> list[str]:
        """Runs of which one's slow task runs on that host; one after the other, so that no host gets more than it must."""
        runs: list[str] = []
        while host not in self.where(runs).values() if runs else True:
            assert len(runs) < most, f"no task has come to {host}"
            runs += self.slow(seconds, 1)
        return runs

    def end_well(self, runs: list[str], seconds: float) -> None:
        """Each has succeeded with the first try of each task."""
        airflow = self.airflow()
        for run in runs:
            assert airflow.wait_for_run("life_cycle", run, seconds) == "success"
            assert {task["try_number"] for task in airflow.tasks("life_cycle", run)} == {1}, run

    def give_up(self, runs: list[str]) -> None:
        airflow = self.airflow()
        for run in runs:
            if airflow.run("life_cycle", run)["state"] not in FINISHED:
                airflow.end("life_cycle", run, "failed")

    def refused(self, playbook: str, *arguments: str, **extra: Any) -> str:
        """What a run says that must end with an error before it has changed anything."""
        run = self.play(playbook, *arguments, **extra)
        assert run.rc != 0, run.output[-4000:]
        assert set(changed(run.output).values()) == {0}, run.output[-4000:]
        return run.said

    def dies(self, playbook: str, text: str, delay: float, **extra: Any) -> None:
        """A run that is killed so many seconds after it has said that."""

        def stop() -> None:
            time.sleep(delay)
            raise Died

        with contextlib.suppress(Died):
            run = self.play(playbook, at={text: stop}, **extra)
            raise AssertionError(f"{playbook} has ended: {run.output[-4000:]}")

    def bare_of_canaries(self, *hosts: str) -> None:
        """Nothing is left of a trial, neither in the database nor on these hosts."""
        left = self.sql(TRACES)
        assert not left, left
        for host in hosts:
            left = self.run(host, "sh", "-c", "ls /run/airflow/canary* /run/systemd/system/airflow-canary* 2>/dev/null; true")
            assert not left, left
            assert self.run(host, "systemctl", "show", "-P", "ActiveState", "airflow-canary") == "inactive"

    def note(self, state: str, server: str, *hosts: str) -> None:
        """The server is told that these hosts were removed, and no longer that others were."""
        words = [str(BIN / "ansible"), "-i", str(self.folder), server, "-b", "-m", "windfarm.airflow.airflow_removal"]
        subprocess.run([*words, "-a", json.dumps({"state": state, "hosts": hosts})], cwd=ROOT, check=True)

    def unchanged(self, run: Run) -> None:
        assert set(changed(run.output).values()) == {0}, run.output[-4000:]

    def complete(self) -> bool:
        """Whether every worker takes tasks and no server remembers that one was removed."""
        for host in self.everyone:
            drained = self.run(host, "ls", DRAINED, check=False)
            if drained or not self.serving(host) or not self.waits(host):
                return False
        servers = {*self.members["postgresql"], *self.members["scheduler"]}
        return not any('"removed"' in self.run(server, "cat", NOTES, check=False) for server in servers)

    def whole(self) -> None:
        """Every worker is deployed and takes tasks, whatever a test has left."""
        self.keep(*self.everyone)
        if self.complete():
            return
        for host in self.everyone:
            self.run(host, "rm", "-f", DRAINED)
        self.must(SITE, airflow_readmit=",".join(self.everyone))
        for host in self.everyone:
            assert self.serving(host), host


@pytest.fixture(scope="module")
def fleet(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = Fleet(inventory.path, tmp_path_factory.mktemp("fleet") / "inventory")
    if len(found.everyone) < 2:
        pytest.skip("needs two worker hosts")
    found.whole()
    found.must("playbooks/dags.yml")
    yield found
    found.whole()
