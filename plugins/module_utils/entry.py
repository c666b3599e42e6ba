# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The users' way to the webservers: HAProxy on the hosts of group haproxy, and the address that may move between two of them.

What follows from the inventory, and what in it cannot be. Runs on the controller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem, ProblemError
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import NAME

if TYPE_CHECKING:
    from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory

GROUP = "haproxy"
# VRRP is no TCP: this is its number in the IP header.
VRRP = 112
# One value for all entry hosts: they stand for each other.
EQUAL = (
    "airflow_entry_port",
    "airflow_entry_http_port",
    "airflow_entry_name",
    "airflow_entry_virtual_address",
    "airflow_entry_virtual_router_id",
)
# What means nothing without an entry host, and its default.
DEFAULTS: dict[str, Any] = {
    "airflow_entry_port": 443,
    "airflow_entry_http_port": 0,
    "airflow_entry_name": "",
    "airflow_entry_listen_address": "*",
    "airflow_entry_certificate_file": "",
    "airflow_entry_certificate_key_file": "",
    "airflow_entry_virtual_address": "",
    "airflow_entry_virtual_router_id": 51,
    "airflow_entry_interface": "",
    "airflow_webserver_clients": [],
}
VARIABLES = tuple(DEFAULTS)
# What else may listen on an entry host: group, variable of its port, default, name.
NEIGHBOURS = (
    ("airflow_webserver", "airflow_webserver_port", 8080, "a webserver"),
    ("airflow_worker", "airflow_execution_api_port", 8079, "a worker's way to the webservers"),
    ("airflow_worker", "airflow_worker_log_port", 8793, "a worker's log server"),
    ("airflow_triggerer", "airflow_triggerer_log_port", 8794, "a triggerer's log server"),
    ("airflow_flower", "airflow_flower_port", 5555, "Flower"),
    ("postgresql", "airflow_database_port", 5432, "PostgreSQL"),
    ("redis", "airflow_broker_port", 6379, "Redis"),
)


def as_ip(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


def url(scheme: str, host: str, port: int) -> str:
    default = {"https": 443, "http": 80}[scheme]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{'' if port == default else f':{port}'}"


def plan(
    members: Sequence[str],
    addresses: Mapping[str, str],
    setting: Callable[[str, str], Any],
    tls: bool,
    single: bool,
    inside: Sequence[str],
) -> dict[str, Any]:
    """What the entry hosts and those behind them need to know.

    `setting` gives a host's variable, `inside` are the addresses of the cluster's own hosts.
    """
    empty: dict[str, Any] = {
        "hosts": [],
        "url": "",
        "names": {},
        "tls": False,
        "virtual_address": "",
        "proxies": [],
        "vrrp": {},
        "doors": {},
    }
    if not members:
        return empty
    first = members[0]
    port = int(setting(first, "airflow_entry_port"))
    name = str(setting(first, "airflow_entry_name") or "")
    virtual = str(setting(first, "airflow_entry_virtual_address") or "")
    own = bool(setting(first, "airflow_entry_certificate_file"))
    speaks = tls or own
    typed = name or virtual or ("" if single else addresses[first])

    def bind(host: str, number: int) -> str:
        address = str(setting(host, "airflow_entry_listen_address"))
        return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"

    http_port = int(setting(first, "airflow_entry_http_port") or 0)
    return {
        **empty,
        "hosts": list(members),
        "port": port,
        "binds": {host: bind(host, port) for host in members},
        "http_binds": {host: bind(host, http_port) for host in members if http_port},
        "typed": typed or addresses[first],
        # Where the plain port leads.
        "redirects": {host: url("https" if speaks else "http", typed or addresses[host], port) for host in members},
        "tls": speaks,
        # Where users type any of its addresses, links must stay relative.
        "url": url("https" if speaks else "http", typed, port) if typed else "",
        "names": {
            host: [
                *([name] if name else []),
                *([virtual] if virtual else []),
            ]
            for host in members
        },
        "virtual_address": virtual,
        "router_id": int(setting(first, "airflow_entry_virtual_router_id")),
        # The first host of the group is where the address belongs while nothing has happened.
        "priorities": {host: 200 - number for number, host in enumerate(members)},
        "peers": {host: [addresses[other] for other in members if other != host] for host in members},
        # uvicorn compares with what it sees, which is never a name.
        "proxies": [addresses[host] for host in members if as_ip(addresses[host])],
        # The cluster's own hosts: workers report, rotations prove.
        "clients": sorted({*inside, *(addresses[host] for host in members)}),
        "vrrp": {
            host: [
                {
                    "name": "vrrp",
                    "port": VRRP,
                    "protocol": "vrrp",
                    "clients": [addresses[other] for other in members if other != host],
                }
            ]
            for host in members
            if virtual
        },
    }


def doors(cluster: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The webservers' ports, where they are closed to all but the cluster's own hosts: a new one must be let through."""
    if not cluster["entry"]["hosts"]:
        return {}
    return {one["name"]: {"kind": "webserver", "host": one["address"], "port": one["port"]} for one in cluster["webservers"]}


def listeners(host: str, cluster: Mapping[str, Any], worker_port: int) -> list[dict[str, Any]]:
    """What HAProxy listens on on a host of the planned cluster."""
    entry, tls = cluster["entry"], cluster["tls"]
    common = {"servers": cluster["webservers"]}
    found: list[dict[str, Any]] = []
    if host in cluster["members"]["worker"]:
        found.append(
            {
                **common,
                "name": "webserver",
                "bind": f"127.0.0.1:{worker_port}",
                "ca_file": "/etc/airflow/ca.pem" if tls else "",
                # What workers talk to: a webserver that has just booted answers other paths some seconds earlier.
                "check_path": ["/execution/health"],
                # Airflow's client repeats every request that fails, so repeating it here adds no risk.
                "replay": "all",
            }
        )
    if host in entry["hosts"]:
        found.append(
            {
                **common,
                "name": "entry",
                "bind": entry["binds"][host],
                "certificate": "/etc/airflow/tls/entry.pem" if entry["tls"] else "",
                "certificate_key": "/etc/airflow/tls/entry.key" if entry["tls"] else "",
                "ca_file": "/etc/airflow/tls/ca.pem" if tls else "",
                "forwarded": True,
                # The first request of a worker keeps all others waiting for seconds: no users before it.
                "check_path": ["/execution/health", "/api/v2/version"],
                # Logs are followed, and large answers take their time.
                "timeout": 300,
            }
        )
        if host in entry["http_binds"]:
            found.append({"name": "entry_http", "bind": entry["http_binds"][host], "redirect": entry["redirects"][host]})
    return found


# What cannot be ------------------------------------------------------------------------------------------------------------


def problems(inventory: Inventory) -> list[Problem]:
    members = list(inventory.members(GROUP))
    found: list[Problem] = []
    if not members:
        return _without_hosts(inventory) if inventory.has_airflow() else []
    # A host of this group without a cluster is somebody else's, or the role's own test.
    if not inventory.has_airflow():
        return []
    for rule in (_equal, _ports, _name, _virtual_address, _redirect, _base_url, _clients):
        found += rule(inventory, members)
    return list(dict.fromkeys(found))


def _get(inventory: Inventory, host: str, name: str) -> Any:
    value = inventory.hosts[host].get(name)
    return DEFAULTS.get(name) if value is None or value == "" else value


def speaks_tls(inventory: Inventory, host: str) -> bool:
    known = inventory.hosts[host]
    return boolean(known.get("airflow_tls", True), strict=False) or bool(known.get("airflow_entry_certificate_file"))


def _without_hosts(inventory: Inventory) -> list[Problem]:
    given = [
        name
        for name, default in DEFAULTS.items()
        if any(value not in (None, "", default) and str(value) != str(default) for value in inventory.values(name).values())
    ]
    what = "is set" if len(given) == 1 else "are set"
    cure = "put the entry hosts into group haproxy, or remove it"
    return [Problem(", ".join(given), f"{what}, but group haproxy has no host", cure)] if given else []


def _equal(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    found = []
    for name in EQUAL:
        values = {str(_get(inventory, host, name)) for host in members}
        if len(values) > 1:
            what = f"differs between entry hosts ({', '.join(sorted(values))})"
            found.append(Problem(name, what, "define it once, in group_vars/all or group_vars/haproxy"))
    return found


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _ports(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    found = []
    for host in members:
        port, http_port = (_get(inventory, host, name) for name in ("airflow_entry_port", "airflow_entry_http_port"))
        for name, value, low in (("airflow_entry_port", port, 1), ("airflow_entry_http_port", http_port, 0)):
            number = _number(value)
            if number is None or not low <= number < 65536:
                found.append(Problem(name, f"is {value}, no TCP port", f"give a number from {low} to 65535"))
                continue
            for group, variable, default, what in NEIGHBOURS:
                taken = _number(inventory.hosts[host].get(variable) or default)
                if number and number == taken and host in inventory.members(group):
                    clash = f"is an entry and has {what}, both on port {number}"
                    found.append(Problem(f"host {host}", clash, f"set {name} or {variable} to another port"))
            if number and number == _number(inventory.hosts[host].get("ansible_port") or 22):
                found.append(Problem(name, f"is {number}, where SSH listens on {host}", "set another port"))
        if _number(port) == _number(http_port):
            found.append(
                Problem("airflow_entry_http_port", f"is {port}, as airflow_entry_port", "set one of them to another port")
            )
    return found


def _name(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    name = str(_get(inventory, members[0], "airflow_entry_name"))
    if not name or as_ip(name) or NAME.match(name):
        return []
    return [
        Problem(
            "airflow_entry_name", f"is {name}, no host name", "give what users type between https:// and the first slash or colon"
        )
    ]


def _virtual_address(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    where, value = "airflow_entry_virtual_address", str(_get(inventory, members[0], "airflow_entry_virtual_address"))
    if not value:
        return []
    found = []
    address = as_ip(value)
    if address is None or address.is_loopback or address.is_multicast or address.is_unspecified:
        return [Problem(where, f"is {value}, no address that a host can have", "give a free address of the entry hosts' network")]
    if len(members) < 2:
        what = f"is {value}, but {members[0]} is the only host of group haproxy"
        found.append(Problem(where, what, "put a second host into it, or remove the variable"))
    for host in inventory.ours():
        known = inventory.hosts[host]
        if value in (str(known.get("airflow_address")), str(known.get("ansible_host")), host):
            found.append(Problem(where, f"is {value}, the address of host {host}", "give an address that no host has"))
    for host in members:
        known = inventory.hosts[host]
        other = as_ip(known.get("airflow_address") or known.get("ansible_host") or host)
        if other and other.version != address.version:
            what = f"is IPv{address.version}, but the address of {host} is IPv{other.version}"
            found.append(Problem(where, what, "give an address of the same kind"))
        if str(_get(inventory, host, "airflow_entry_listen_address")) not in ("*", "::"):
            what = "is set, so HAProxy cannot listen on the virtual address, which comes and goes"
            found.append(Problem("airflow_entry_listen_address", what, "remove it, or airflow_entry_virtual_address"))
    identity = _number(_get(inventory, members[0], "airflow_entry_virtual_router_id"))
    if identity is None or not 0 < identity < 256:
        what = f"is {_get(inventory, members[0], 'airflow_entry_virtual_router_id')}"
        found.append(
            Problem("airflow_entry_virtual_router_id", what, "give a number from 1 to 255 that no other VRRP in the network has")
        )
    return found


def _redirect(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    port = _number(_get(inventory, members[0], "airflow_entry_http_port"))
    if not port or speaks_tls(inventory, members[0]):
        return []
    return [
        Problem("airflow_entry_http_port", f"is {port}, but the entry itself speaks plain HTTP", "set only airflow_entry_port")
    ]


def _base_url(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    """Browsers would be led past the entry, or to a port where nothing answers."""
    first = members[0]
    known = {str(_get(inventory, first, name)) for name in ("airflow_entry_name", "airflow_entry_virtual_address")} - {""}
    scheme = "https" if speaks_tls(inventory, first) else "http"
    port = _number(_get(inventory, first, "airflow_entry_port"))
    found = []
    for value in {str(given) for given in inventory.values("airflow_base_url").values() if given}:
        parts = urlsplit(value)
        try:
            named = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        except ValueError:
            named = None
        if parts.hostname in known and (parts.scheme, named) != (scheme, port):
            what = f"is {value}, where the entry answers with {scheme} on port {port}"
            found.append(Problem("airflow_base_url", what, "remove it; it follows from the entry"))
    return found


def _clients(inventory: Inventory, members: Sequence[str]) -> list[Problem]:
    found = []
    for host in inventory.members("airflow_webserver"):
        given = inventory.hosts[host].get("airflow_webserver_clients") or []
        if not isinstance(given, list):
            found.append(Problem("airflow_webserver_clients", "is no list", "write a list of addresses, networks or host names"))
    return found


def certificate_problems(inventory: Inventory, host: str, certificate: str, key: str) -> list[Problem]:
    """The user's own, which browsers verify by the name that users type."""
    # Needs cryptography, which the plan of the cluster does without.
    from ansible_collections.windfarm.airflow.plugins.module_utils import pki

    known = inventory.hosts[host]
    name = str(
        known.get("airflow_entry_name")
        or known.get("airflow_entry_virtual_address")
        or known.get("airflow_address")
        or known.get("ansible_host")
        or host
    )
    try:
        pki.check_own_certificate(certificate, key, None, name, "airflow_entry_certificate")
    except ProblemError as exc:
        where, what, cure = exc.problem
        return [Problem(f"{where} of host {host}", what, cure)]
    return []
