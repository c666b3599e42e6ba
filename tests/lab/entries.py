# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the entry hosts of a cluster say of themselves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator

from inventory import ROOT, Inventory


def holders(inventory: Inventory) -> list[str]:
    address = inventory.plan["entry"]["virtual_address"]
    found = []
    for host in inventory.plan["entry"]["hosts"]:
        listed = inventory.run(host, "ip", "-o", "address", "show")
        found += [host] if f" {address}/" in listed else []
    return found


def states(inventory: Inventory, host: str) -> dict[str, str]:
    """What HAProxy of an entry host thinks of each webserver."""
    script = (
        'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/haproxy-admin.sock"); '
        's.sendall(b"show stat\\n"); print(b"".join(iter(lambda: s.recv(65536), b"")).decode())'
    )
    rows = [line.split(",") for line in inventory.run(host, "python3", "-c", script).splitlines() if line.startswith("entry,")]
    return {row[1]: row[17].split()[0] for row in rows if row[1] not in ("FRONTEND", "BACKEND")}


def all_up(inventory: Inventory) -> bool:
    return all(set(states(inventory, host).values()) == {"UP"} for host in inventory.plan["entry"]["hosts"])


@contextlib.contextmanager
def unplugged(inventory: Inventory, host: str) -> Iterator[Callable[[], None]]:
    """A lab host loses its network and then everything else at once, as with its plug; what is given boots it again."""
    podman, container, down = str(ROOT / "molecule/lab/podman"), f"windfarm-{host}", True

    def boot() -> None:
        nonlocal down
        if down:
            subprocess.run([podman, "start", container], check=True, capture_output=True)
            lab = [sys.executable, str(ROOT / "molecule/lab/lab.py"), "up", inventory.path, "--only", host]
            subprocess.run(lab, check=True, capture_output=True)
        down = False

    # Killed alone, its processes would go some time before its address, and the kernel would refuse for them.
    subprocess.run([podman, "exec", container, "ip", "link", "set", "eth0", "down"], check=True, capture_output=True)
    subprocess.run([podman, "kill", container], check=True, capture_output=True)
    try:
        yield boot
    finally:
        boot()
