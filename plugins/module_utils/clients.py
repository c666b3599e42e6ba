# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is connected to a server of the cluster, was let in by us, and is not to be let in any more. Runs on the host.

A host that somebody just took out of the inventory is asked by nobody. But what it runs is connected to the servers, and its
tasks would be cut off in the middle, so the servers are asked instead.
"""

from __future__ import annotations

import glob
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.firewall import known_names
from ansible_collections.windfarm.airflow.plugins.module_utils.redis_server import socket_address
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import read_text

FIREWALL = "/etc/airflow-firewall.nft"
HBA = "/etc/postgresql/*/main/pg_hba.conf"
MARK = "windfarm.airflow"
ESTABLISHED = "01"
_SET = re.compile(r"set \w+_(\d+)_ipv[46] \{.*?elements = \{ ([^}]*) \}", re.S)
_HBA = re.compile(r"^host(?:ssl)? \S+ \S+ (\S+/(?:32|128)) (?!reject)", re.M)


def connected(tables: Iterable[str]) -> dict[int, set[str]]:
    """Own port -> addresses of the other ends, from /proc/net/tcp and tcp6."""
    found: dict[int, set[str]] = {}
    for line in (line for table in tables for line in table.splitlines()[1:]):
        words = line.split()
        if words[3] == ESTABLISHED:
            found.setdefault(socket_address(words[1])[1], set()).add(plain(socket_address(words[2])[0]))
    return found


def plain(address: str) -> str:
    """An IPv4 address that came in over IPv6 is the same one."""
    ip = ipaddress.ip_address(address)
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def let_in(firewall: str, hba: str, database_port: int) -> dict[int, set[str]]:
    """Port -> single addresses that our firewall, or where there is none our pg_hba.conf, lets in now."""
    found: dict[int, set[str]] = {}
    for port, elements in _SET.findall(firewall):
        found.setdefault(int(port), set()).update(one.strip() for one in elements.split(",") if "/" not in one)
    if not firewall and MARK in hba:
        found[database_port] = {network.partition("/")[0] for network in _HBA.findall(hba)}
    return found


def wanted(clients: Iterable[str], known: Mapping[str, Sequence[str]], lookup: Callable[[str], list[str]]) -> list[Any]:
    """The networks of clients, which may be addresses, networks or names."""
    networks = []
    for client in clients:
        try:
            networks.append(ipaddress.ip_network(client, strict=False))
        except ValueError:
            networks += [ipaddress.ip_network(one) for one in lookup(client) or known.get(client, [])]
    return networks


def shut_out(
    ports: Sequence[Mapping[str, Any]],
    now: Mapping[int, set[str]],
    admitted: Mapping[int, set[str]],
    known: Mapping[str, Sequence[str]],
    lookup: Callable[[str], list[str]],
) -> dict[str, list[str]]:
    """Address -> names of the ports that it is connected to, was admitted to, and is not wanted at any more."""
    found: dict[str, list[str]] = {}
    for port in ports:
        number = int(port["port"])
        lost = now.get(number, set()) & admitted.get(number, set())
        networks = wanted(port["clients"], known, lookup) if lost else []
        for address in sorted(lost):
            ip = ipaddress.ip_address(address)
            if not ip.is_loopback and not any(ip.version == network.version and ip in network for network in networks):
                found.setdefault(address, []).append(str(port["name"]))
    return found


def read(ports: Sequence[Mapping[str, Any]], database_port: int, lookup: Callable[[str], list[str]]) -> dict[str, list[str]]:
    firewall = read_text(FIREWALL) or ""
    hba = "".join(read_text(path) or "" for path in glob.glob(HBA))
    now = connected(read_text(f"/proc/net/{table}") or "" for table in ("tcp", "tcp6"))
    return shut_out(ports, now, let_in(firewall, hba, database_port), known_names(firewall), lookup)
