# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bare lab host of its own that holds every group, with an inventory of its own; removed at the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from api import Airflow
from inventory import ROOT, Inventory

BIN = Path(sys.executable).parent
LAB = ROOT / "molecule" / "lab"
COMPONENTS = ("scheduler", "webserver", "triggerer", "dag_processor", "worker", "flower")
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


def lab(*argv: str) -> None:
    subprocess.run([sys.executable, str(LAB / "lab.py"), *argv], check=True)


def groups(name: str) -> dict[str, Any]:
    """Every group, with the one host in it."""
    member = {"hosts": {name: None}}
    components = {f"airflow_{component}": member for component in COMPONENTS}
    return json.loads(json.dumps({"postgresql": member, "redis": member, "airflow": {"children": components}}))


class Fresh:
    """Single host, not yet booted: `up` and `down`, or `with`."""

    def __init__(self, folder: Path, name: str, address: str, image: str = "bookworm", **settings: Any) -> None:
        self.name, self.folder, self.address = name, folder, address
        self.path = folder / "hosts.yml"
        # Read once: how the host is reached does not change.
        self._reached: Inventory | None = None
        self.host: dict[str, Any] = {"ansible_host": address, "lab_image": image}
        everywhere = folder / "group_vars" / "all"
        everywhere.mkdir(parents=True)
        (everywhere / "lab.yml").symlink_to(ROOT / "inventories/lab/group_vars/all/lab.yml")
        self.settings_file = everywhere / "airflow.yml"
        self.settings: dict[str, Any] = {
            **yaml.safe_load((ROOT / "inventories/lab-single/group_vars/all/airflow.yml").read_text()),
            # There it is relative to the inventory.
            "airflow_dags_source": str(ROOT / "dags"),
        }
        self.set(**settings)
        self.path.write_text(yaml.safe_dump({"all": {"hosts": {name: self.host}}, **groups(name)}, sort_keys=False))

    def set(self, **settings: Any) -> None:
        self.settings.update(settings)
        self.settings_file.write_text(yaml.safe_dump(self.settings))

    def __enter__(self) -> Fresh:
        lab("down", str(self.path))
        lab("up", str(self.path))
        return self

    def __exit__(self, *_error: object) -> None:
        lab("down", str(self.path))

    @property
    def container(self) -> str:
        return f"windfarm-{self.name}"

    @property
    def inventory(self) -> Inventory:
        return Inventory(str(self.path))

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        if self._reached is None:
            self._reached = self.inventory
        return self._reached.run(self.name, *command, stdin=stdin, check=check)

    def command(self, playbook: str, *arguments: str) -> list[str]:
        return [str(BIN / "ansible-playbook"), "-i", str(self.path), playbook, *arguments]

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        return output_of(self.command(playbook, *arguments))

    def must(self, playbook: str, *arguments: str) -> str:
        rc, output = self.play(playbook, *arguments)
        assert rc == 0, f"rc {rc}: {output[-6000:]}"
        return output

    def lose_power(self) -> None:
        """Everything on the host ends at once, and it boots again."""
        subprocess.run([str(LAB / "podman"), "restart", "--time", "0", self.container], check=True, capture_output=True)
        lab("up", str(self.path))

    def smoke(self) -> None:
        """The smoke DAG succeeds."""
        smoke(self.path)

    def api(self) -> Airflow:
        return self.inventory.airflow()

    def releases(self) -> list[str]:
        found = self.run("sh", "-c", "ls -d /opt/airflow/releases/*/ | xargs -rn1 basename", check=False)
        return found.split()


def smoke(inventory: Path) -> None:
    rc, output = output_of([str(BIN / "python"), str(ROOT / "tests/lab/smoke.py"), "--inventory", str(inventory)])
    assert rc == 0, output


def output_of(argv: list[str], folder: Path = ROOT, **environment: str | None) -> tuple[int, str]:
    """Exit code and what was said; None takes a variable out of the environment."""
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, env=variables, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def changed(output: str) -> dict[str, int]:
    return {host: int(count) for host, count, _unreachable, _failed in RECAP.findall(output)}
