# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as the inventory describes it: who is where, who talks to whom, how many connections that makes.

Runs on the controller. Reads inventory variables only, never facts, so that a run with --limit renders what a full run renders.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.windfarm.airflow.plugins.module_utils import entry as users_entry
from ansible_collections.windfarm.airflow.plugins.module_utils import workers as worker_instances

COMPONENT_GROUPS = {
    "scheduler": "airflow_scheduler",
    "webserver": "airflow_webserver",
    "triggerer": "airflow_triggerer",
    "dag_processor": "airflow_dag_processor",
    "worker": "airflow_worker",
    "flower": "airflow_flower",
}
SERVER_GROUPS = {"postgresql": "postgresql", "redis": "redis"}

METADATA_CLIENTS = ("scheduler", "webserver", "triggerer", "dag_processor")
RESULTS_CLIENTS = ("scheduler", "worker")
BROKER_CLIENTS = ("scheduler", "worker", "flower")

# SQLAlchemy's pool in every process that opens one: [database] sql_alchemy_pool_size 5 + sql_alchemy_max_overflow 10.
POOL = 15
# PostgreSQL's superuser_reserved_connections, replication, and an operator with a backup.
RESERVED = 3 + 3 + 3
# [scheduler] scheduler_health_check_server_port
SCHEDULER_HEALTH_PORT = 8974
# Of these addresses PostgreSQL alone knows what they mean; it still refuses whom its own list refuses.
EVERYBODY = ["0.0.0.0/0", "::/0"]
HBA_KEYWORDS: dict[str, list[str]] = {"all": EVERYBODY, "samenet": EVERYBODY, "samehost": []}
# Debian's own value, doubled until it is enough: a new value is a restart of PostgreSQL, and each worker that joins needs more.
CONNECTIONS = 100
# Upstream's [core] parallelism, doubled likewise: a new value is a restart of the schedulers.
PARALLELISM = 32


@functools.cache
def _role_defaults() -> dict[str, Any]:
    """Literal defaults of role airflow: the one place where they are written, readable before the role runs."""
    import yaml  # PyYAML is on every controller; target hosts may lack it and never come here

    path = pathlib.Path(__file__).resolve().parents[2] / "roles" / "airflow" / "defaults" / "main.yml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {key: value for key, value in values.items() if not (isinstance(value, str) and "{{" in value)}


def _get(host_vars: Mapping[str, Any], name: str) -> Any:
    value = host_vars.get(name)
    return _role_defaults().get(name) if value is None or value == "" else value


class Login(NamedTuple):
    """Two logins of PostgreSQL take turns, so that a password can be replaced while it is in use."""

    user: str
    """The one in use."""
    previous: str
    """The other one while it is still admitted."""
    barred: str
    """The other one after that."""


def login(host_vars: Mapping[str, Any], prefix: str) -> Login:
    first = str(_get(host_vars, f"{prefix}_user"))
    given = str(_get(host_vars, f"{prefix}_login") or "")
    user = given or first
    other = first if user != first else f"{first}_2"
    admitted = bool(host_vars.get(f"{prefix}_previous_password"))
    # Before the first rotation there is no other.
    return Login(user, other if admitted else "", other if given and not admitted else "")


def database_logins(cluster: Mapping[str, Any], name: str, passwords: Sequence[str]) -> list[dict[str, Any]]:
    """The users of a database for role postgresql; the passwords are those of the login in use and of the one before."""
    target = cluster[name]
    admitted = [(user, secret) for user, secret in zip((target["user"], target["previous"]), passwords) if user]
    return [
        {
            "name": user,
            "password": secret,
            "member_of": [target["owner"]],
            "act_as": target["owner"],
            "connection_limit": cluster["connection_limits"][name],
        }
        for user, secret in admitted
    ] + ([{"name": target["barred"], "login": False, "member_of": []}] if target["barred"] else [])


def setting(host_vars: Mapping[str, Any], name: str) -> Any:
    """A variable of role airflow on the host, or its default."""
    return _get(host_vars, name)


def default_names() -> list[str]:
    """Variables of role airflow whose defaults are literal."""
    return list(_role_defaults())


def given_connections(database_vars: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The user's own number of connections, by variable: the first one counts."""
    config = database_vars.get("postgresql_config") or {}
    given = [("postgresql_config.max_connections", config.get("max_connections"))]
    given.append(("postgresql_max_connections", database_vars.get("postgresql_max_connections")))
    return [(name, value) for name, value in given if value not in (None, "")]


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Connections(NamedTuple):
    """PostgreSQL's max_connections, how many of them each login may take, and how many there must be."""

    max_connections: int
    database: int
    results_database: int
    needed: int


def parallelism(slots: int, schedulers: int) -> int:
    """[core] parallelism, which each scheduler has for itself: all slots can be used while one of several schedulers is away."""
    needed = max(slots, 1) / max(schedulers - 1, 1)
    return PARALLELISM * 2 ** max(0, math.ceil(math.log2(needed / PARALLELISM)))


def connections(
    schedulers: int,
    webserver_processes: int,
    dag_processors: int,
    triggerers: int,
    worker_slots: Sequence[int],
    pool: int = POOL,
    given: int = 0,
    others: int = 0,
) -> Connections:
    """The worst case of every pool and of the others, a fifth more, rounded up to 100, 200, 400…

    Per scheduler a pool and two result backend connections; per webserver process a synchronous and an asynchronous pool;
    per dag processor one pool; per triggerer two; per worker instance one result backend connection a slot and one of its own.
    `given` is the user's number, which preflight has compared with what is needed.
    """
    pools = (schedulers + webserver_processes * 2 + dag_processors + triggerers * 2) * pool
    # A worker counts twice: while a new colour starts, the old one still runs its tasks.
    results = schedulers * 2 + sum(2 * (slots + 1) for slots in worker_slots)
    needed = math.ceil((pools + results + RESERVED + others) * 1.2)
    total = given or CONNECTIONS * 2 ** max(0, math.ceil(math.log2(needed / CONNECTIONS)))
    # Code on a worker may open as many as it likes: they never take the ones that the scheduler lives by.
    for_results = math.ceil(results * 1.2)
    return Connections(total, total - RESERVED - for_results - others, for_results, needed)


def plan(hostvars: Mapping[str, Any], groups: Mapping[str, Sequence[str]], removed: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that one host's configuration needs to know of the others; nobody admits the `removed` ones any more."""
    members = {name: list(groups.get(group, [])) for name, group in {**COMPONENT_GROUPS, **SERVER_GROUPS}.items()}
    entries = list(groups.get(users_entry.GROUP, []))
    everyone = sorted({host for hosts in members.values() for host in hosts} | set(groups.get("airflow", [])) | set(entries))
    single = len(everyone) == 1
    # Once each: Ansible puts a host's variables together anew whenever it is asked for them.
    hostvars = {host: hostvars[host] for host in everyone}

    def address(host: str) -> str:
        given = hostvars[host].get("airflow_address")
        if given:
            return str(given)
        return "127.0.0.1" if single else str(hostvars[host].get("ansible_host") or host)

    addresses = {host: address(host) for host in everyone}
    # Any Airflow host can answer for cluster-wide variables; the first keeps the answer the same in every play.
    spokesmen = sorted(groups.get("airflow", [])) or everyone
    common: Mapping[str, Any] = hostvars[spokesmen[0]] if spokesmen else {}
    # A file that airflow_secrets_file names is read for the hosts of the run only: with --limit another one has to answer.
    read = (hostvars[host] for host in [*spokesmen, *everyone] if hostvars[host].get("airflow_database_password"))
    secrets: Mapping[str, Any] = next(read, common)

    def server(name: str, given: str) -> str:
        explicit = _get(common, given)
        if explicit:
            return str(explicit)
        return addresses[members[name][0]] if members[name] else ""

    tls = boolean(_get(common, "airflow_tls"), strict=False)
    database_host = server("postgresql", "airflow_database_host")
    broker_host = server("redis", "airflow_broker_host")
    database_port = int(_get(common, "airflow_database_port"))
    database: dict[str, Any] = {
        "host": database_host,
        "port": database_port,
        "name": _get(common, "airflow_database_name"),
        **login(secrets, "airflow_database")._asdict(),
        "owner": f"{_get(common, 'airflow_database_user')}_owner",
    }
    results: dict[str, Any] = {
        "host": database_host,
        "port": database_port,
        "name": _get(common, "airflow_results_database_name"),
        **login(secrets, "airflow_results_database")._asdict(),
        "owner": f"{_get(common, 'airflow_results_database_user')}_owner",
    }

    # They left their last group, but may still have tasks to finish.
    leaving = set(groups.get("airflow", [])) - {host for name in COMPONENT_GROUPS for host in members[name]}

    @functools.cache
    def clients(components: Sequence[str]) -> list[str]:
        known = {host for name in components for host in members[name]} | (leaving if "worker" in components else set())
        return sorted(addresses[host] for host in known - set(removed))

    def processes(host: str) -> int:
        config = _get(hostvars[host], "airflow_config") or {}
        return int((config.get("api") or {}).get("workers", 1))

    def pool(host: str) -> int:
        """Connections that a process of Airflow's opens at most."""
        config = (_get(hostvars[host], "airflow_config") or {}).get("database") or {}
        return int(config.get("sql_alchemy_pool_size", 5)) + int(config.get("sql_alchemy_max_overflow", 10))

    workers = {host: worker_instances.instances(functools.partial(_get, hostvars[host])) for host in members["worker"]}
    slots = [one["concurrency"] for found in workers.values() for one in found]

    def own_connections(host: str) -> int:
        """What the user's own databases may take, where they say how much."""
        databases = hostvars[host].get("postgresql_extra_databases") or []
        return sum(max(0, int(one.get("connection_limit", -1))) for one in databases)

    limits = connections(
        schedulers=len(members["scheduler"]),
        webserver_processes=sum(processes(host) for host in members["webserver"]),
        dag_processors=len(members["dag_processor"]),
        triggerers=len(members["triggerer"]),
        worker_slots=slots,
        pool=max((pool(host) for name in METADATA_CLIENTS for host in members[name]), default=POOL),
        given=next((int(value) for host in members["postgresql"][:1] for _name, value in given_connections(hostvars[host])), 0),
        others=sum(own_connections(host) for host in members["postgresql"]),
    )
    # A server that the user runs brings its own rules.
    database["tls"] = results["tls"] = tls and bool(members["postgresql"])

    airflow_hosts = [addresses[host] for host in everyone if host in groups.get("airflow", []) and host not in removed]
    entry = users_entry.plan(entries, addresses, lambda host, name: _get(hostvars[host], name), tls, single, airflow_hosts)

    def certificate_names(host: str) -> list[str]:
        """What a certificate of the host is valid for; the address, by which the others reach it, comes first."""
        given = _get(hostvars[host], "airflow_certificate_names") or []
        # Browsers and load balancers verify the name that users type.
        reached = host in (entries or members["webserver"])
        typed = urlsplit(str(hostvars[host].get("airflow_base_url") or "")).hostname if reached else None
        own = [addresses[host], host, hostvars[host].get("ansible_host"), typed, "localhost", "127.0.0.1", "::1", *given]
        own += entry["names"].get(host, [])
        # Clients verify the name that they connect to, which may be one of several.
        own += [database_host] if host in members["postgresql"] else []
        own += [broker_host] if host in members["redis"] else []
        return list(dict.fromkeys(str(name) for name in own if name))

    @functools.cache
    def own_hba_entries(host: str) -> list[dict[str, Any]]:
        """The user's own access rules; a group in the place of an address stands for the addresses of its hosts."""
        found = []
        for entry in hostvars[host].get("postgresql_extra_hba_entries") or []:
            group = str(entry.get("address"))
            if group not in groups or group in HBA_KEYWORDS:
                found.append(dict(entry))
                continue
            hosts = (set(groups[group]) | (leaving if group == COMPONENT_GROUPS["worker"] else set())) - set(removed)
            # A host that has none of our components has no address of ours, but a name.
            found += [{**entry, "address": one} for one in sorted(addresses.get(host, host) for host in hosts)]
        return found

    def ports(host: str) -> list[dict[str, Any]]:
        """What listens here for some hosts only; without clients: for the host itself."""
        own = hostvars[host]
        extra = [
            one
            for entry in own_hba_entries(host)
            if entry.get("address") and entry.get("type") != "local"
            for one in HBA_KEYWORDS.get(str(entry["address"]), [str(entry["address"])])
        ]
        webservers = clients(("webserver",))
        listening: list[tuple[str, str, Any, Sequence[str]]] = [
            ("postgresql", "postgresql", database_port, [*clients(METADATA_CLIENTS + RESULTS_CLIENTS), *extra]),
            ("redis", "redis", _get(common, "airflow_broker_port"), clients(BROKER_CLIENTS)),
            ("worker", "worker_logs", _get(own, "airflow_worker_log_port"), webservers),
            ("triggerer", "triggerer_logs", _get(own, "airflow_triggerer_log_port"), webservers),
            ("worker", "execution_api", _get(own, "airflow_execution_api_port"), []),
            ("flower", "flower", _get(own, "airflow_flower_port"), []),
            ("scheduler", "scheduler_health", SCHEDULER_HEALTH_PORT, []),
        ]
        if entries:
            # Without an entry users come here, from anywhere.
            known = [*entry["clients"], *(_get(own, "airflow_webserver_clients") or [])]
            listening.append(("webserver", "webserver", _get(own, "airflow_webserver_port"), known))
        return [
            {"name": name, "port": int(port), "clients": list(dict.fromkeys(allowed))}
            for component, name, port, allowed in listening
            if host in members[component]
        ]

    planned: dict[str, Any] = {
        "single": single,
        "tls": tls,
        "addresses": addresses,
        "members": members,
        "workers": workers,
        "queues": worker_instances.queues(workers),
        "parallelism": parallelism(sum(slots), len(members["scheduler"])),
        "database": database,
        "results_database": results,
        "broker": {
            "host": broker_host,
            "port": int(_get(common, "airflow_broker_port")),
            "tls": tls and bool(members["redis"]),
        },
        "database_clients": [
            {
                "type": "hostssl" if tls else "host",
                "database": target["name"],
                "user": user,
                "address": client,
            }
            for target, components in ((database, METADATA_CLIENTS), (results, RESULTS_CLIENTS))
            for user in filter(None, (target["user"], target["previous"]))
            for client in clients(components)
        ],
        "own_hba_entries": {host: own_hba_entries(host) for host in members["postgresql"]},
        "broker_clients": clients(BROKER_CLIENTS),
        "max_connections": limits.max_connections,
        "connections_needed": limits.needed,
        "connection_limits": {"database": limits.database, "results_database": limits.results_database},
        "webservers": [
            {
                "name": host,
                "address": addresses[host],
                "port": int(_get(hostvars[host], "airflow_webserver_port")),
                # HAProxy compares a certificate's names and its common name, which in ours is the address, but no addresses.
                "verify_name": host if is_address(addresses[host]) and not is_address(host) else addresses[host],
            }
            for host in members["webserver"]
        ],
        "entry": entry,
        "certificate_names": {host: certificate_names(host) for host in everyone},
        "ports": {host: ports(host) for host in everyone},
        "listen": {
            name: ["127.0.0.1", *([] if single else sorted({addresses[host] for host in members[name]} - {"127.0.0.1"}))]
            for name in SERVER_GROUPS
        },
    }
    entry["doors"] = users_entry.doors(planned)
    planned["listeners"] = {
        host: users_entry.listeners(host, planned, int(_get(hostvars[host], "airflow_execution_api_port"))) for host in everyone
    }
    return planned
