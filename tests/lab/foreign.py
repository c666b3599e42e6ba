# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host in the lab's network that belongs to no cluster, and what any host can be asked to try."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml
from fresh import lab
from inventory import ROOT, Inventory
from secret_scan import HERE, LOADER, run_on, sent

NAME, ADDRESS = "foreign", "10.89.77.15"

Order = list[tuple[str, dict[str, Any]]]


class Foreign:
    """`with Foreign(folder, inventory) as host`: boots it, removes it at the end."""

    def __init__(self, folder: Path, inventory: Inventory) -> None:
        self.path = folder / "foreign" / "hosts.yml"
        everywhere = self.path.parent / "group_vars" / "all"
        everywhere.mkdir(parents=True)
        (everywhere / "lab.yml").symlink_to(ROOT / "inventories/lab/group_vars/all/lab.yml")
        host = {"ansible_host": ADDRESS, "lab_image": "bookworm"}
        self.path.write_text(yaml.safe_dump({"all": {"hosts": {NAME: host}}}))
        # Reached as the cluster's own hosts are: Inventory itself wants a whole cluster.
        words = inventory.ssh(inventory.members["webserver"][0])
        self._ssh = [*words[:-1], f"root@{ADDRESS}"]

    def __enter__(self) -> Foreign:
        lab("up", str(self.path))
        return self

    def __exit__(self, *_error: object) -> None:
        lab("down", str(self.path))

    def tries(self, order: Order) -> list[Any]:
        command = [*self._ssh, shlex.join(["python3", "-c", LOADER])]
        done = subprocess.run(command, input=sent(HERE / "probe_net.py", order), capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers


def tries(inventory: Inventory, host: str, order: Order) -> list[Any]:
    """The same from a host of the cluster."""
    answers: list[Any] = run_on(inventory, host, HERE / "probe_net.py", order)
    return answers
