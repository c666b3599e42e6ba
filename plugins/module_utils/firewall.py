# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nftables table as text, and what the kernel says it has. Nothing here touches a host."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import NAME, ServerError

MARK = "# Written by Ansible (windfarm.airflow); changes made here are lost."
# Its number in the IP header.
VRRP = 112
FAMILY_TABLE = "inet airflow"
LABEL = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,23}$")
KNOWN = re.compile(r"^# name (\S+) = (.+)$", re.M)
LISTING = re.compile(r"^# listing ([0-9a-f]+)\n", re.M)

HEAD = """\
{mark}
{names}add table {table}
delete table {table}
table {table} {{
"""
CHAIN = """\
    chain input {{
        type filter hook input priority filter; policy accept;
{rules}    }}
}}
"""


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def check(ports: Sequence[Mapping[str, Any]], rules: Sequence[str], rollback_seconds: int) -> None:
    for port in ports:
        if not LABEL.match(port["name"]):
            raise ServerError(
                f"firewall_ports: the name '{port['name']}' is not a letter and up to 23 letters, digits, _ or -; rename it"
            )
        if port.get("protocol", "tcp") == "vrrp" and port["port"] != VRRP:
            raise ServerError(f"firewall_ports: {port['name']}: the number of the protocol vrrp is {VRRP}, not {port['port']}")
        if not 0 < port["port"] < 65536:
            raise ServerError(f"firewall_ports: {port['name']}: port {port['port']} is not between 1 and 65535")
        for client in port["clients"]:
            if network(client) is None and not NAME.match(client):
                raise ServerError(f"firewall_ports: {port['name']}: '{client}' is neither an address, a network nor a host name")
            if network(client) is None and re.fullmatch(r"[0-9./]+", client):
                raise ServerError(f"firewall_ports: {port['name']}: '{client}' is not an address; correct it")
    for rule in rules:
        if not rule.strip() or not _one_rule(rule):
            raise ServerError(f"firewall_rules: {rule!r} is not one rule of nftables; give each rule an item of its own")
    if rollback_seconds < 10:
        raise ServerError(f"firewall_rollback_seconds: {rollback_seconds} is too short for a new connection; give at least 10")


def _one_rule(rule: str) -> bool:
    """An anonymous set such as { 22, 80 } is part of a rule; a brace that ends the chain, or a second rule, is not."""
    depth = 0
    for character in rule:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0 or character in "\n\r\0#;":
            return False
    return depth == 0 and not rule.rstrip().endswith("\\")


def known_names(text: str | None) -> dict[str, list[str]]:
    """The addresses that names had when the file was written."""
    return {found[1]: found[2].split() for found in KNOWN.finditer(text or "")}


def resolve(
    ports: Sequence[Mapping[str, Any]], known: Mapping[str, list[str]], lookup: Callable[[str], list[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """Addresses of each name among the clients, and the names that have none.

    Where the resolver has no answer a name keeps what it had: an outage of DNS must not lock out a cluster.
    """
    names = sorted({client for port in ports for client in port["clients"] if network(client) is None})
    found: dict[str, list[str]] = {}
    missing = []
    for name in names:
        addresses = lookup(name)
        if addresses:
            # This host's own name is 127.0.1.1 to itself; loopback needs no entry.
            found[name] = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
        elif name in known:
            found[name] = known[name]
        else:
            missing.append(name)
    return found, missing


def _elements(clients: Iterable[str], names: Mapping[str, list[str]], version: int) -> list[str]:
    """The clients of one family, those left out that lie within another: overlapping intervals would be refused."""
    texts = [text for client in clients for text in ([client] if network(client) else names.get(client, []))]
    found = {one for one in map(network, texts) if one is not None and one.version == version}
    kept: list[Any] = []
    for one in sorted(found, key=lambda one: (one.prefixlen, int(one.network_address))):
        if not any(one.subnet_of(larger) for larger in kept):
            kept.append(one)
    kept.sort(key=lambda one: int(one.network_address))
    return [str(one.network_address) if one.num_addresses == 1 else str(one) for one in kept]


def render(ports: Sequence[Mapping[str, Any]], rules: Sequence[str], names: Mapping[str, list[str]]) -> str:
    """What `nft -f` loads in one step: the table as it was is gone in the same transaction."""
    clients: dict[tuple[str, int], list[str]] = {}
    labels: dict[tuple[str, int], str] = {}
    for port in ports:
        key = (str(port.get("protocol") or "tcp"), int(port["port"]))
        clients.setdefault(key, []).extend(port["clients"])
        labels.setdefault(key, re.sub("-", "_", port["name"]))
    sets: list[str] = []
    lines = [*(rule.strip() for rule in rules), 'iif "lo" accept']
    for protocol, number in sorted(clients):
        what = f"tcp dport {number}" if protocol == "tcp" else f"meta l4proto {number}"
        for version, match in ((4, "ip saddr"), (6, "ip6 saddr")):
            elements = _elements(clients[protocol, number], names, version)
            if elements:
                label = f"{labels[protocol, number]}_{number}_ipv{version}"
                sets.append(
                    f"    set {label} {{\n        type ipv{version}_addr\n        flags interval\n"
                    f"        elements = {{ {', '.join(elements)} }}\n    }}\n"
                )
                lines.append(f"{what} {match} @{label} accept")
        lines.append(f"{what} {'reject with tcp reset' if protocol == 'tcp' else 'drop'}")
    head = HEAD.format(
        mark=MARK,
        table=FAMILY_TABLE,
        names="".join(f"# name {name} = {' '.join(addresses)}\n" for name, addresses in sorted(names.items()) if addresses),
    )
    return head + "".join(sets) + CHAIN.format(rules="".join(f"        {line}\n" for line in lines))


def with_listing(text: str, listing: str) -> str:
    """The text with the hash of what the kernel lists once it is loaded."""
    return text.replace("\n", f"\n# listing {listing}\n", 1)


def split_listing(text: str | None) -> tuple[str | None, str]:
    found = LISTING.search(text or "")
    return (text, "") if text is None or found is None else (LISTING.sub("", text, count=1), found[1])


def _normal(value: Any) -> Any:
    """Without what differs between two listings of the same rules: handles, counts, order of a set's elements."""
    if isinstance(value, dict):
        return {
            key: None if key == "counter" else sorted(map(_normal, one), key=json.dumps) if key == "elem" else _normal(one)
            for key, one in value.items()
            if key not in ("handle", "metainfo", "used")
        }
    return [_normal(one) for one in value] if isinstance(value, list) else value


def listing_hash(listed: str) -> str:
    """Identity of a table, from `nft -j list table`; empty when there is none."""
    try:
        objects = [_normal(one) for one in json.loads(listed)["nftables"] if "metainfo" not in one]
    except (ValueError, KeyError, TypeError):
        return ""
    # Sets and chains may be listed in any order, the rules of a chain may not.
    fixed = sorted((one for one in objects if "rule" not in one), key=lambda one: json.dumps(one, sort_keys=True))
    rules = [one for one in objects if "rule" in one]
    return hashlib.sha256(json.dumps([fixed, rules], sort_keys=True).encode()).hexdigest()[:20] if objects else ""


def undo(listed: str) -> str:
    """What brings the table back that `nft list table` has shown; an empty text for none."""
    return f"add table {FAMILY_TABLE}\ndelete table {FAMILY_TABLE}\n{listed}"
