# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the entry hosts of a cluster say of themselves."""

from __future__ import annotations

from inventory import Inventory


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
