# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Broken inventories: site.yml ends with one clear line each, before it has connected to any host. Needs no lab.

What is wrong with hosts is in test_bad_hosts.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from bad_inventories import CASES, ROOT, Copy, new_secrets, sound

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)
PROBLEM = re.compile(r"^  \d+\. (.*)$", re.M)
TASKS = re.compile(r"^TASK \[(.*)\]", re.M)
ONLY_TASK = "Find every mistake in the inventory"
# In no group of the collection: only the inventory is looked at.
NOBODY = ("--limit", "nobody")


class Run(NamedTuple):
    copy: Copy
    rc: int
    output: str


def play(inventory: Path, *arguments: str) -> tuple[int, str]:
    tool = str(Path(sys.executable).with_name("ansible-playbook"))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "160"}
    # Of the processors' waiting, not their work: most of a run is Ansible's start.
    done = subprocess.run([tool, "-i", str(inventory), *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


class Bad:
    """The broken inventories of this session, several at a time."""

    def __init__(self, folder: Path, cases: list[str]) -> None:
        self._folder = folder
        self.secrets = new_secrets()
        self._pool = ThreadPoolExecutor((os.cpu_count() or 2) + 1)
        self._runs: dict[str, Future[Run]] = {case: self._pool.submit(self._run, case) for case in cases}

    def copy(self, name: str) -> Copy:
        folder = self._folder / re.sub(r"\W+", "_", name)
        sound(folder, self.secrets)
        return Copy(folder)

    def _run(self, case: str) -> Run:
        copy = self.copy(case)
        CASES[case][0](copy)
        return Run(copy, *play(copy.folder, "playbooks/site.yml"))

    def of(self, case: str) -> Run:
        return self._runs[case].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Bad]:
    parameters = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    chosen = [found["case"] for found in parameters if found.get("case") in CASES]
    made = Bad(tmp_path_factory.mktemp("bad"), chosen)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_no_host_is_touched(case: str, bad: Bad) -> None:
    copy, rc, output = bad.of(case)
    expected = [copy.names(line) for line in CASES[case][1:]]
    assert rc == 2, output
    assert PROBLEM.findall(output) == expected, output
    assert f"{len(expected)} problem{'s' if len(expected) > 1 else ''}, no host was changed" in output
    assert TASKS.findall(output) == [ONLY_TASK], "a task ran that connects to hosts"
    recap = RECAP.findall(output)
    assert recap and all(changed == unreachable == "0" for _host, _ok, changed, unreachable, _failed in recap), output


def test_all_mistakes_are_told_at_once(bad: Bad) -> None:
    copy = bad.copy("several")
    several = ("empty group", "version without lock", "reserved key", "boolean in quotes", "misspelt variable")
    for case in several:
        CASES[case][0](copy)
    rc, output = play(copy.folder, "playbooks/site.yml")
    assert rc == 2
    assert sorted(PROBLEM.findall(output)) == sorted(CASES[case][1] for case in several)


def test_a_value_from_the_command_line_is_told_of_too(bad: Bad) -> None:
    copy = bad.copy("command line")
    rc, output = play(copy.folder, "playbooks/site.yml", "-e", "airflow_tls=no", "-e", "airflow_workers_concurrency=4")
    assert rc == 2
    assert [line.split(" — ")[0] for line in PROBLEM.findall(output)] == ["airflow_tls", "airflow_workers_concurrency"]


@pytest.mark.parametrize("text", ["all: {hosts: [", None])
def test_an_inventory_that_cannot_be_read_is_no_success(text: str | None, tmp_path: Path) -> None:
    """Ansible itself only warns, and goes on without hosts."""
    path = tmp_path / "hosts.yml"
    if text:
        path.write_text(text)
    rc, output = play(path, "playbooks/site.yml")
    assert rc == 2, output
    (line,) = PROBLEM.findall(output)
    assert line.startswith("inventory — no host is in a group of this collection — put hosts into the groups")


def has_no_problem(folder: Path, *arguments: str) -> None:
    (folder / "nobody.yml").write_text(yaml.safe_dump({"all": {"hosts": {"nobody": {"ansible_connection": "local"}}}}))
    rc, output = play(folder, "playbooks/site.yml", *NOBODY, *arguments)
    assert rc == 0 and not PROBLEM.findall(output), output
    assert {(changed, failed) for _host, _ok, changed, _unreachable, failed in RECAP.findall(output)} == {("0", "0")}


def test_the_sound_inventory_has_no_problem(bad: Bad) -> None:
    copy = bad.copy("sound")
    has_no_problem(copy.folder)
    # Of playbooks, from the command line; they convert it.
    has_no_problem(
        copy.folder, "-e", "rotate_wait=true", "-e", "airflow_status_timeout=60", "-e", "airflow_adopt=redis,postgresql"
    )


def test_variables_may_name_those_of_other_hosts(bad: Bad) -> None:
    copy = bad.copy("hostvars")
    first = "{{ hostvars[groups['airflow_webserver'][0]].ansible_host }}"
    copy.set(airflow_base_url=f"https://{first}:8443/", airflow_own_variables=["airflow_site_*", "redis_exporter_*"])
    copy.set(
        airflow_site_name="east", redis_exporter_port=9121, airflow_certificate_names=["{{ airflow_site_name }}.example.org"]
    )
    has_no_problem(copy.folder)


@pytest.mark.parametrize("name", ["cluster", "lab", "lab-single", "single"])
def test_the_inventories_that_are_shipped(name: str, tmp_path: Path, bad: Bad) -> None:
    folder = tmp_path / "inventories" / name
    shutil.copytree(ROOT / "inventories" / name, folder)
    (tmp_path / "dags").symlink_to(ROOT / "dags")
    (folder / "group_vars/all/vault.yml").write_text(yaml.safe_dump(bad.secrets))
    has_no_problem(folder)


def test_a_host_without_systemd(tmp_path: Path, bad: Bad) -> None:
    """This machine is the host, so what the rule sees is what a real host says."""
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs this machine")
    folder = tmp_path / "inventories" / "single"
    shutil.copytree(ROOT / "inventories" / "single", folder)
    (tmp_path / "dags").symlink_to(ROOT / "dags")
    (folder / "group_vars/all/vault.yml").write_text(yaml.safe_dump(bad.secrets))
    rc, output = play(folder, "playbooks/site.yml")
    assert rc == 2, output
    (line,) = PROBLEM.findall(output)
    assert re.fullmatch(r"host airflow1 — is run by \S+, not by systemd — boot it with systemd .*", line)
    assert [(changed, failed) for _host, _ok, changed, _unreachable, failed in RECAP.findall(output)] == [("0", "1")]
