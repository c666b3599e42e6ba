# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A role used alone on lab hosts: its scenario's converge playbook, run again and again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from inventory import ROOT, Inventory


@dataclass
class Run:
    """What a run of the converge playbook said."""

    rc: int
    text: str

    @property
    def changed(self) -> int:
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.text))

    @property
    def restarted(self) -> bool:
        return "restarted: true" in self.text

    @property
    def message(self) -> str:
        found = re.search(r"Task failed: Module failed: (.*)", self.text)
        return found[1] if found else ""


class Role:
    """One role of the collection on one host."""

    def __init__(self, inventory: Inventory, role: str, host: str) -> None:
        self.inventory = inventory
        self.host = host
        self.playbook = ROOT / "molecule" / role / "converge.yml"
        play = yaml.safe_load(self.playbook.read_text(encoding="utf-8"))[0]
        self.variables: dict[str, Any] = play["roles"][0]["vars"]

    def run(self, *options: str, ok: bool = True, **variables: Any) -> Run:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as extra:
            # In a file, because -vvv shows the command line.
            json.dump(variables, extra)
            extra.flush()
            command = [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", self.inventory.path, "--limit", self.host, "-v", *options),
                *("-e", f"@{extra.name}", str(self.playbook)),
            ]
            environment = {**os.environ, "COLUMNS": "500"}
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        run = Run(done.returncode, done.stdout + done.stderr)
        assert (run.rc == 0) == ok, run.text[-4000:]
        return run

    def shell(self, script: str, *, stdin: str = "", check: bool = True) -> str:
        return self.inventory.run(self.host, "sh", "-c", script, stdin=stdin, check=check)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def hosts(path: str, group: str) -> list[str]:
    """The group's hosts, for parametrization; with LAB_ONE_HOST only the last, which has the newest Debian."""
    groups = InventoryManager(loader=DataLoader(), sources=[path]).groups
    found = [host.name for host in groups[group].get_hosts()] if group in groups else []
    return found[-1:] if os.environ.get("LAB_ONE_HOST") else found
