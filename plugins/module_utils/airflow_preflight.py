# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must be right before any host is changed: one small function per rule, each returns problems."""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.windfarm.airflow.plugins.module_utils import (
    airflow_lock,
    content_rules,
    entry,
    pki,
    preflight_workers,
    rotation,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import (
    CA_CERTIFICATE,
    CA_KEY,
    EXTRA,
    SECRETS,
    SECRETS_PLAYBOOK,
    inventory_folder,
    is_empty,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, is_address
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem, ProblemError

COMPONENTS = ("airflow_scheduler", "airflow_webserver", "airflow_triggerer", "airflow_dag_processor", "airflow_worker")
GROUPS = ("postgresql", "redis", "airflow", *COMPONENT_GROUPS.values(), entry.GROUP)
# A group of servers may be empty where this variable names a server that exists already.
EXTERNAL = {"postgresql": "airflow_database_host", "redis": "airflow_broker_host"}
# What each host keeps of the shared keys: their fingerprints.
FACT_FILE = "/etc/ansible/facts.d/windfarm_airflow.fact"
DISTRIBUTIONS = {"Debian": ("12", "13")}
ARCHITECTURES = ("x86_64", "aarch64")
PASSWORD_LENGTH = 16
# Whoever serves with TLS has a certificate.
TLS_SERVERS = ("postgresql", "redis", "airflow_webserver", entry.GROUP)

_DATABASE = "airflow_database_host, _port, _name, _user and _password"

# Options that Airflow marks as sensitive, with the variables that set them where the roles do.
SENSITIVE: dict[str, str] = {
    "core.fernet_key": "airflow_fernet_key",
    "core.asset_manager_kwargs": "",
    "database.sql_alchemy_conn": _DATABASE,
    "database.sql_alchemy_conn_async": _DATABASE,
    "database.sql_alchemy_engine_args": "",
    "api.secret_key": "airflow_api_secret_key",
    "api_auth.jwt_secret": "airflow_jwt_private_key",
    "celery.broker_url": "airflow_broker_host, _port, _user and _password",
    "celery.result_backend": "airflow_results_database_name, _user and _password",
    "celery.flower_basic_auth": "airflow_flower_user and _password",
    "celery_broker_transport_options.sentinel_kwargs": "",
    "secrets.backend_kwargs": "",
    "workers.secrets_backend_kwargs": "",
    "logging.remote_task_handler_kwargs": "",
    "sentry.sentry_dsn": "",
    "smtp.smtp_password": "",
}
# Long enough that no random secret holds one by chance.
_PLACEHOLDERS = ("changeme", "changethis", "replaceme", "placeholder", "yourpassword", "yoursecret")

# The variables that the rules look at, besides the secrets.
VARIABLES = (
    "airflow_version",
    "airflow_requirements",
    "airflow_lock_file",
    "airflow_address",
    "airflow_config",
    "airflow_secret_config",
    *preflight_workers.VARIABLES,
    "airflow_flower_user",
    "airflow_broker_user",
    "airflow_tls",
    "airflow_certificate_file",
    "airflow_certificate_key_file",
    "airflow_certificate_days",
    "airflow_certificate_renew_days",
    "airflow_jwt_trusted_keys",
    rotation.JWT_OTHER,
    rotation.CA_NEXT,
    rotation.MARKER,
    "airflow_database_login",
    "airflow_results_database_login",
    *EXTERNAL.values(),
    "airflow_database_port",
    "airflow_database_name",
    "airflow_database_user",
    "airflow_results_database_name",
    "airflow_results_database_user",
    "airflow_broker_port",
    "airflow_base_url",
    "airflow_execution_api_url",
    "postgresql_config",
    "postgresql_max_connections",
    *entry.VARIABLES,
    *(variable for _group, variable, _default, _what in entry.NEIGHBOURS),
    "ansible_host",
    "ansible_port",
    "inventory_dir",
    "airflow_admin_user",
    "airflow_admin_email",
    "airflow_broker_url",
    "airflow_database_sslmode",
    "airflow_webserver_config",
)


# Long lists, of one host only: the first with a scheduler.
CONTENT = tuple(f"airflow_{kind}" for kind in (*content_rules.KINDS, "purge"))


class Inventory(NamedTuple):
    """What the rules see: each host's variables, the groups, and what the collection ships."""

    hosts: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[str]]
    collection: str
    managed: Mapping[str, Mapping[str, Any]]
    own_certificates: Mapping[str, tuple[str, str]] = {}
    """The certificate and key that the user brings for a host."""
    worker_sets: Mapping[str, Mapping[str, Any]] = {}
    """Sub-groups of airflow_worker with their hosts, the groups above them, and what they say their hosts serve."""
    settled: Set[str] = frozenset()
    """Hosts whose own variables say what they serve."""
    entry_certificates: Mapping[str, tuple[str, str]] = {}
    """Those that an entry host shows to users."""
    defined: Mapping[str, Collection[str]] = {}
    """The names of the variables that each host has from the inventory or the command line."""
    components: Collection[str] = ()
    config_defaults: Mapping[str, Mapping[str, Any]] = {}

    def members(self, group: str) -> Sequence[str]:
        return self.groups.get(group, ())

    def ours(self) -> list[str]:
        """The hosts of the cluster, in the inventory's order."""
        found = {host for group in GROUPS for host in self.members(group)}
        return [host for host in self.hosts if host in found]

    def has_airflow(self) -> bool:
        return any(self.members(group) for group in self.groups if group.startswith("airflow"))

    def values(self, name: str) -> dict[str, Any]:
        """The variable on each of our hosts that defines it."""
        return {host: self.hosts[host][name] for host in self.ours() if name in self.hosts[host]}


def listed(names: Iterable[str], limit: int = 5) -> str:
    found = list(names)
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


def _near(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.8)
    return found[0] if found else None


# Groups and hosts


def check_any_host(inventory: Inventory) -> list[Problem]:
    if inventory.ours() or inventory.has_airflow():
        return []
    return [Problem("inventory", "no host is in a group of this collection", f"put hosts into the groups {', '.join(GROUPS)}")]


def _elsewhere(inventory: Inventory, group: str) -> bool:
    """Whether the user runs this server, so that the group stays empty."""
    variables = [EXTERNAL.get(group, ""), *(["airflow_broker_url"] if group == "redis" else [])]
    return not inventory.members(group) and any(any(inventory.values(name).values()) for name in variables)


def check_required_groups(inventory: Inventory) -> list[Problem]:
    if not inventory.has_airflow():
        return []
    problems = []
    # The misspelt name is told of by check_group_names, and that is the only mistake.
    misspelt = {_near(group, GROUPS) for group in inventory.groups if group not in GROUPS and inventory.members(group)}
    for group in (*EXTERNAL, *COMPONENTS):
        variable = EXTERNAL.get(group)
        if inventory.members(group) or group in misspelt or _elsewhere(inventory, group):
            continue
        cure = f"put a host into it, or set {variable} to a server that you run" if variable else "put a host into it"
        problems.append(Problem(f"group {group}", "has no host", cure))
    return problems


def check_group_names(inventory: Inventory) -> list[Problem]:
    workers = set(inventory.members("airflow_worker"))
    problems = []
    for group in inventory.groups:
        if group in GROUPS or group in ("all", "ungrouped"):
            continue
        members = set(inventory.members(group))
        near = _near(group, GROUPS)
        # Sub-groups of airflow_worker make worker sets and may have any name, also while they are empty. A name that merely
        # resembles one of ours is the user's own business where our group has hosts or needs none.
        is_set = group in inventory.worker_sets or (members and members <= workers)
        ours = group.startswith("airflow") and not is_set
        meant = near is not None and bool(members) and not inventory.members(near) and not _elsewhere(inventory, near)
        if ours or meant:
            cure = f"did you mean {near}?" if near else f"known are {', '.join(GROUPS)} and sub-groups of airflow_worker"
            problems.append(Problem(f"group {group}", "is not a group of this collection", cure))
    return problems


def check_group_tree(inventory: Inventory) -> list[Problem]:
    parent = set(inventory.members("airflow"))
    children = [group for group in GROUPS if group.startswith("airflow_")]
    outside = [group for group in children if set(inventory.members(group)) - parent]
    problems = [
        Problem(f"group {group}", "is not a child of group airflow", "list it under `airflow: children:`") for group in outside
    ]
    return problems


def address(variables: Mapping[str, Any], name: str) -> str:
    return str(variables.get("airflow_address") or variables.get("ansible_host") or name)


def check_addresses(inventory: Inventory) -> list[Problem]:
    ways: dict[str, dict[str, list[str]]] = {}
    for host in inventory.ours():
        variables = inventory.hosts[host]
        ways.setdefault("address", {}).setdefault(address(variables, host), []).append(host)
        login = f"{variables.get('ansible_host') or host}:{variables.get('ansible_port') or 22}"
        ways.setdefault("login", {}).setdefault(login, []).append(host)
    problems: dict[str, Problem] = {}
    for found in ways.values():
        for where, hosts in found.items():
            if len(hosts) > 1:
                problems.setdefault(
                    " ".join(hosts),
                    Problem(
                        f"hosts {listed(hosts)}",
                        f"are one machine, {where.removesuffix(':22')}",
                        "use one inventory name per machine; it may be in any number of groups",
                    ),
                )
    return list(problems.values())


def check_loopback(inventory: Inventory) -> list[Problem]:
    hosts = inventory.ours()
    return [
        Problem(f"host {host}", f"has the address {found}, which means another machine on each host", "set airflow_address")
        for host in hosts
        for found in [address(inventory.hosts[host], host)]
        if len(hosts) > 1 and _is_loopback(found)
    ]


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return text.lower() == "localhost" or text.lower().startswith("localhost.")


# Secrets


def uses_tls(inventory: Inventory) -> bool:
    return any(boolean(inventory.hosts[host].get("airflow_tls", True), strict=False) for host in inventory.ours())


def _brings_certificate(variables: Mapping[str, Any]) -> bool:
    return bool(variables.get("airflow_certificate_file") or variables.get("airflow_certificate_key_file"))


def signed_here(inventory: Inventory) -> list[str]:
    """The hosts whose certificates this collection makes."""
    if not (inventory.has_airflow() and uses_tls(inventory)):
        return []
    servers = {
        host
        for group in TLS_SERVERS
        for host in inventory.members(group)
        if group != entry.GROUP or not inventory.hosts[host].get("airflow_entry_certificate_file")
    }
    return [host for host in inventory.ours() if host in servers and not _brings_certificate(inventory.hosts[host])]


def needed_secrets(inventory: Inventory) -> list[str]:
    if not inventory.has_airflow():
        return []
    needed = {
        "airflow_flower_password": bool(inventory.members("airflow_flower")),
        "airflow_broker_admin_password": bool(inventory.members("redis")),
        CA_KEY: bool(signed_here(inventory)),
        CA_CERTIFICATE: uses_tls(inventory),
    }
    extra = dict.fromkeys(name for names in inventory.values(EXTRA).values() for name in names)
    return [*(name for name in SECRETS if needed.get(name, True)), *extra]


def check_secrets_present(inventory: Inventory) -> list[Problem]:
    nowhere, problems = [], []
    for name in needed_secrets(inventory):
        # Other hosts do without the authority's key.
        ours = signed_here(inventory) if name == CA_KEY else inventory.ours()
        values = inventory.values(name)
        lacking = [host for host in ours if is_empty(values.get(host))]
        if lacking == ours:
            nowhere.append(name)
        elif lacking:
            problems.append(Problem(name, f"is not defined for {listed(lacking)}", "define it once, in group_vars/all"))
        elif len({str(value) for value in values.values()}) > 1:
            problems.append(Problem(name, "differs between hosts", "define it once, in group_vars/all"))
    if CA_KEY in nowhere and CA_CERTIFICATE not in nowhere:
        nowhere.remove(CA_KEY)
        what = f"is not defined, and {listed(signed_here(inventory))} has no certificate of its own"
        cure = "define it, or set airflow_certificate_file and airflow_certificate_key_file for the host"
        problems.append(Problem(CA_KEY, what, cure))
    if nowhere:
        word = "is" if len(nowhere) == 1 else "are"
        problems.insert(0, Problem(", ".join(nowhere), f"{word} not defined", SECRETS_PLAYBOOK))
    return problems


def secret_problem(name: str, value: object) -> str | None:
    """What is wrong with a secret; the text does not hold the value."""
    if not isinstance(value, str):
        return f"is no text but {type(value).__name__}: put it in quotes"
    if name == "airflow_jwt_private_key":
        return _answer(pki.load_jwt_key, value)
    if name in (CA_KEY, CA_CERTIFICATE):
        # The rule about both looks at them.
        return None
    bare = re.sub(r"[^a-z0-9]", "", value.lower())
    if bare == re.sub(r"[^a-z0-9]", "", name) or name.endswith("_" + value.lower()):
        return "is its own name"
    if any(word in bare for word in _PLACEHOLDERS) or re.fullmatch(r"<.*>|(todo)+", value.lower()) or len(set(value)) == 1:
        return "is a placeholder"
    if name == "airflow_fernet_key":
        keys = value.split(",")
        return None if all(_is_fernet(key.strip()) for key in keys) else "is no Fernet key (32 bytes in URL-safe base64)"
    size = len(value.encode())
    if size < PASSWORD_LENGTH:
        return f"is {size} characters long, at least {PASSWORD_LENGTH} are needed"
    return None


def _answer(load: Callable[[object], Any], value: object) -> str | None:
    """What a reader of keys has to say of the value."""
    try:
        load(value)
    except ValueError as exc:
        return str(exc)
    return None


def _is_fernet(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), altchars=b"-_", validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


# Whose account it is.
_ACCOUNTS = {
    "airflow_database_password": "postgresql",
    "airflow_results_database_password": "postgresql",
    "airflow_broker_password": "redis",
}


def check_secret_values(inventory: Inventory) -> list[Problem]:
    problems = []
    for name in needed_secrets(inventory):
        found = {secret_problem(name, value) for value in inventory.values(name).values() if not is_empty(value)}
        cure = f"remove it and {SECRETS_PLAYBOOK}, which makes a good one"
        if _elsewhere(inventory, _ACCOUNTS.get(name, "")):
            cure = "give its account a better one on the server that you run, and write that here"
        problems += [Problem(name, what, cure) for what in sorted(filter(None, found))]
    return problems


def check_equal_secrets(inventory: Inventory) -> list[Problem]:
    """Whoever learns one must not know another."""
    owners: dict[str, dict[str, None]] = {}
    for name in needed_secrets(inventory):
        for value in inventory.values(name).values():
            if isinstance(value, str) and value.strip():
                owners.setdefault(value.strip(), {})[name] = None
    cure = f"remove all but one of them and {SECRETS_PLAYBOOK}"
    return [Problem(", ".join(names), "are equal", cure) for names in owners.values() if len(names) > 1]


def check_trusted_keys(inventory: Inventory) -> list[Problem]:
    where, cure = "airflow_jwt_trusted_keys", "write a list of Ed25519 keys (PEM), public ones are enough"
    problems: dict[Problem, None] = {}
    for keys in inventory.values(where).values():
        if is_empty(keys):
            continue
        if not isinstance(keys, list):
            problems[Problem(where, f"is {_kind(keys)}, no list", cure)] = None
            continue
        for number, key in enumerate(keys, 1):
            what = _answer(pki.jwt_kid, key)
            problems.update({Problem(where, f"number {number} {what}", cure): None} if what else {})
    for key in inventory.values(rotation.JWT_OTHER).values():
        what = None if is_empty(key) else _answer(pki.jwt_kid, key)
        problems.update({Problem(rotation.JWT_OTHER, what, "restore the file of secrets"): None} if what else {})
    return list(problems)


def check_rotation(inventory: Inventory) -> list[Problem]:
    """What playbooks/rotate_secrets.yml has written, and somebody may have changed."""
    problems: dict[Problem, None] = {}
    for marker in inventory.values(rotation.MARKER).values():
        what = rotation.marker_problem(marker)
        cure = "restore the file of secrets, or remove the line if no rotation is unfinished"
        problems.update({Problem(rotation.MARKER, what, cure): None} if what else {})
    for prefix in rotation.LOGINS.values():
        for host, login in inventory.values(f"{prefix}_login").items():
            names = rotation.logins(inventory.hosts[host], prefix)
            if not is_empty(login) and login not in names:
                problems[Problem(f"{prefix}_login", f"is {login}", f"write {' or '.join(names)}, or remove it")] = None
    for host, key in inventory.values(rotation.CA_NEXT).items():
        if is_empty(key):
            continue
        try:
            pki.issuer_of(pki.load_certificates(inventory.hosts[host].get(CA_CERTIFICATE)), pki.load_private_key(key))
        except ValueError as exc:
            problems[Problem(rotation.CA_NEXT, str(exc), "restore the file of secrets")] = None
    return list(problems)


# Certificates


def reached_at(inventory: Inventory, host: str) -> str:
    """The address by which other hosts reach it, which clients compare with its certificate."""
    variables = inventory.hosts[host]
    return "127.0.0.1" if len(inventory.ours()) == 1 and not variables.get("airflow_address") else address(variables, host)


def check_authority(inventory: Inventory) -> list[Problem]:
    if not (inventory.has_airflow() and uses_tls(inventory)):
        return []
    problems: dict[Problem, None] = {}
    for host in inventory.ours():
        certificate, key = (inventory.hosts[host].get(name) for name in (CA_CERTIFICATE, CA_KEY))
        if is_empty(certificate):
            continue
        try:
            pki.load_authority(certificate, key)
        except ProblemError as exc:
            problems[exc.problem] = None
    return list(problems)


def check_own_certificates(inventory: Inventory) -> list[Problem]:
    if not uses_tls(inventory) or check_authority(inventory):
        return []
    problems = []
    for host, (certificate, key) in inventory.own_certificates.items():
        if is_empty(inventory.hosts[host].get(CA_CERTIFICATE)):
            continue
        authority = pki.load_authority(inventory.hosts[host][CA_CERTIFICATE])
        try:
            pki.check_own_certificate(certificate, key, authority, reached_at(inventory, host))
            # HAProxy compares names only, not addresses.
            if (
                host in inventory.members("airflow_webserver")
                and is_address(reached_at(inventory, host))
                and not is_address(host)
            ):
                pki.check_own_certificate(certificate, key, authority, host)
        except ProblemError as exc:
            where, what, cure = exc.problem
            problems.append(Problem(f"{where} of host {host}", what, cure))
    return problems


def check_entry(inventory: Inventory) -> list[Problem]:
    problems = entry.problems(inventory)
    for host, (certificate, key) in inventory.entry_certificates.items():
        problems += entry.certificate_problems(inventory, host, certificate, key)
    return problems


def check_certificate_days(inventory: Inventory) -> list[Problem]:
    where, cure = "airflow_certificate_renew_days", "set it to less than airflow_certificate_days"
    problems: dict[Problem, None] = {}
    for host in signed_here(inventory):
        variables = inventory.hosts[host]
        days, renew = variables.get("airflow_certificate_days", 365), variables.get(where, 90)
        if not (isinstance(days, int) and isinstance(renew, int)):
            problems[Problem(f"{where}, airflow_certificate_days", "are no numbers", cure)] = None
        elif renew >= days:
            problems[Problem(where, f"is {renew}, so each run would make new certificates", cure)] = None
    return list(problems)


# Variable, what it must be at least, whether 0 is allowed besides, and the cure.
_HEALTH = (
    ("airflow_health_interval", 10, True, "set it to 10 or more seconds, or to 0 for no health timer"),
    ("airflow_health_strikes", 2, False, "set it to 2 or more: what fails once is busy"),
    ("airflow_health_disk_free_mb", 0, True, "set it to a number of megabytes, or to 0"),
    ("airflow_health_clock_seconds", 1, True, "set it to 1 or more seconds, or to 0 for any clock"),
)


def check_health(inventory: Inventory) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for name, least, zero, cure in _HEALTH:
        for value in inventory.values(name).values():
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                problems[Problem(name, f"is {value!r}, which is no number", cure)] = None
            elif value < least and not (zero and value == 0):
                problems[Problem(name, f"is {value}", cure)] = None
    return list(problems)


# Airflow expands these as a shell would, in everything that it reads from the environment.
_EXPANDED = ("airflow_api_secret_key", "airflow_flower_password", "airflow_flower_user", "airflow_broker_url")


def check_expanded_values(inventory: Inventory) -> list[Problem]:
    problems = []
    for name in _EXPANDED:
        forbidden = {"$": "$", "\n": "a line break"}
        if name.startswith("airflow_flower"):
            forbidden |= {",": "a comma"} if name.endswith("password") else {",": "a comma", ":": "a colon"}
        for value in {str(value) for value in inventory.values(name).values()}:
            found = [word for character, word in forbidden.items() if character in value]
            found += ["~ at its start"] if value.startswith("~") else []
            # Flower answers each login with an error.
            found += [] if value.isascii() or not name.startswith("airflow_flower") else ["a character beyond ASCII"]
            if found:
                what = f"holds {' and '.join(found)}, which Airflow or Flower would read as something else"
                problems.append(Problem(name, what, "use a value without it"))
    return problems


def check_broker_user(inventory: Inventory) -> list[Problem]:
    names = {str(name) for name in inventory.values("airflow_broker_user").values()} if inventory.members("redis") else set()
    what, cure = "is the name of another account of the broker", "choose another name, such as airflow"
    return [Problem("airflow_broker_user", f"{name} {what}", cure) for name in sorted(names & {"admin", "default"})]


# Names that become words of a unit's command line

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_words(inventory: Inventory) -> list[Problem]:
    return [
        Problem(f"host {host}", "has a name that Celery and systemd would read as something else", preflight_workers.WORD_CURE)
        for host in inventory.members("airflow")
        if not _WORD.fullmatch(host)
    ]


# Releases


def check_version(inventory: Inventory) -> list[Problem]:
    if not inventory.has_airflow():
        return []
    folder = f"{inventory.collection}/{airflow_lock.SHIPPED}"
    known = airflow_lock.available_locks(folder)
    problems = []
    for version, hosts in _by_value(inventory, "airflow_version").items():
        given = [inventory.hosts[host].get("airflow_lock_file") for host in hosts]
        if all(given) or version in known:
            continue
        problems.append(
            Problem(
                "airflow_version",
                f"there is no lock for Airflow {version}",
                f"set one of {airflow_lock.describe_locks(folder)}, or run `make lock AIRFLOW={version}` in a checkout",
            )
        )
    return problems


def _by_value(inventory: Inventory, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host in inventory.members("airflow"):
        if not is_empty(inventory.hosts[host].get(name)):
            found.setdefault(str(inventory.hosts[host][name]), []).append(host)
    return found


def check_requirements(inventory: Inventory) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for host in inventory.members("airflow"):
        variables = inventory.hosts[host]
        requirements = variables.get("airflow_requirements") or []
        if not isinstance(requirements, list):
            problems[
                Problem("airflow_requirements", f"is {_kind(requirements)}, no list", "write a list of texts like pandas>=3")
            ] = None
            continue
        found = [airflow_lock.requirement_problem(requirement) for requirement in requirements]
        problems.update(dict.fromkeys(filter(None, found)))
        problems.update(dict.fromkeys([] if any(found) else _lock_problems(inventory, variables, requirements)))
    return list(problems)


def _lock_problems(inventory: Inventory, variables: Mapping[str, Any], requirements: Sequence[str]) -> list[Problem]:
    """Stale and missing locks of the inventory, as far as they can be told without knowing the hosts' Python."""
    folder, version = inventory_folder(variables), str(variables.get("airflow_version"))
    if not requirements or variables.get("airflow_lock_file"):
        return []
    pythons = airflow_lock.available_locks(f"{inventory.collection}/{airflow_lock.SHIPPED}").get(version, [])
    here = airflow_lock.available_locks(f"{folder}/locks").get(version, []) if folder else []
    # A missing lock counts only where there is none at all: a cluster may have one Python only.
    found = []
    for python in [python for python in pythons if python in here] or pythons[:1]:
        try:
            airflow_lock.find_lock(inventory.collection, folder, version, python, requirements)
        except airflow_lock.LockError as exc:
            found.append(exc.problem)
    return found


# airflow_config


def check_config(inventory: Inventory) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for config in inventory.values("airflow_config").values():
        for problem in config_problems(config, inventory.managed):
            problems[str(problem)] = problem
    for config in inventory.values("airflow_secret_config").values():
        for problem in secret_config_problems(config):
            problems[str(problem)] = problem
    return list(problems.values())


def config_problems(config: object, managed: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    cure = "write it as {section: {key: value}}"
    if is_empty(config):
        return []
    if not isinstance(config, Mapping):
        return [Problem("airflow_config", f"is {_kind(config)}, no dictionary", cure)]
    owned = {f"{section}.{key}".lower() for section, keys in managed.items() for key in keys}
    problems = []
    for section, keys in config.items():
        where = f"airflow_config.{section}"
        if keys is None:
            continue
        if not isinstance(keys, Mapping):
            problems.append(Problem(where, f"is {_kind(keys)}, no dictionary", cure))
            continue
        for key in keys:
            option = f"{section}.{key}".lower()
            if option in SENSITIVE:
                variables = SENSITIVE[option]
                move = (
                    f"set {variables} instead"
                    if variables
                    else "move it to airflow_secret_config, which keeps it out of airflow.cfg"
                )
                problems.append(Problem(f"{where}.{key}", "is secret", move))
            elif option in owned:
                problems.append(
                    Problem(
                        f"{where}.{key}",
                        "is managed by the role",
                        "remove it; the variables of role airflow set what may be set",
                    )
                )
            problems += _session_problems(where, section, key, keys[key])
    return problems


def secret_config_problems(config: object) -> list[Problem]:
    cure = "write it as {component or all: {section: {key: value}}}"
    if is_empty(config):
        return []
    if not isinstance(config, Mapping):
        return [Problem("airflow_secret_config", f"is {_kind(config)}, no dictionary", cure)]
    problems = []
    for component, sections in config.items():
        if not isinstance(sections, Mapping) or not all(isinstance(keys, Mapping) for keys in sections.values()):
            problems.append(Problem(f"airflow_secret_config.{component}", "is no dictionary of dictionaries", cure))
            continue
        for section, keys in sections.items():
            for key in keys:
                variables = SENSITIVE.get(f"{section}.{key}".lower())
                if variables:
                    where = f"airflow_secret_config.{component}.{section}.{key}"
                    problems.append(Problem(where, "is managed by the role", f"set {variables} instead"))
                problems += _session_problems(f"airflow_secret_config.{component}.{section}", section, key, keys[key])
    return problems


def _session_problems(where: str, section: object, key: object, value: object) -> list[Problem]:
    if f"{section}.{key}".lower() != "fab.session_backend" or str(value).strip().lower() != "securecookie":
        return []
    what = "is securecookie, which keeps sessions that nobody can end, not even with a new password"
    return [Problem(f"{where}.{key}", what, "remove it; sessions are then kept in the database")]


def _kind(value: object) -> str:
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return next((word for kind, word in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


# Read once for the whole cluster: what one host sets otherwise would hold for a part of it only.
_CLUSTER_WIDE = (
    "airflow_tls",
    "airflow_database_host",
    "airflow_database_port",
    "airflow_database_name",
    "airflow_database_user",
    "airflow_database_login",
    "airflow_results_database_name",
    "airflow_results_database_user",
    "airflow_results_database_login",
    "airflow_broker_host",
    "airflow_broker_port",
    "airflow_broker_user",
    "airflow_database_sslmode",
)


def check_cluster_wide(inventory: Inventory) -> list[Problem]:
    problems = []
    for name in _CLUSTER_WIDE:
        values = {str(inventory.hosts[host].get(name)) for host in inventory.members("airflow")}
        if len(values) > 1:
            what = f"differs between hosts ({', '.join(sorted(values))})"
            problems.append(Problem(name, what, "define it once, in group_vars/all"))
    return problems


def check_urls(inventory: Inventory) -> list[Problem]:
    """Addresses of webservers that speak TLS, left from a time when they did not."""
    if not uses_tls(inventory):
        return []
    webservers = {reached_at(inventory, host) for host in inventory.members("airflow_webserver")}
    problems: dict[Problem, None] = {}
    for name in ("airflow_base_url", "airflow_execution_api_url"):
        for value in {str(found) for found in inventory.values(name).values()}:
            parts = urlsplit(value)
            if parts.scheme == "http" and parts.hostname in webservers - {"127.0.0.1"}:
                problems[Problem(name, f"is {value}, where a webserver speaks TLS", "begin it with https, or remove it")] = None
    return list(problems)


SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


def check_servers_of_others(inventory: Inventory) -> list[Problem]:
    """PostgreSQL, a broker and a directory of users that are not this collection's."""
    problems: dict[Problem, None] = {}
    for mode in inventory.values("airflow_database_sslmode").values():
        if mode and mode not in SSL_MODES:
            problems[Problem("airflow_database_sslmode", f"is {mode}", content_rules.nearest(mode, SSL_MODES))] = None
        elif mode and inventory.members("postgresql"):
            what = "is of no use where group postgresql has a host, which is always verified"
            problems[Problem("airflow_database_sslmode", what, "remove it, or empty the group")] = None
    for url in inventory.values("airflow_broker_url").values():
        if url and inventory.members("redis"):
            what = "names a broker, and group redis has a host that is one"
            problems[Problem("airflow_broker_url", what, "remove it, or empty the group")] = None
        elif url and not re.match(r"rediss?://", str(url)):
            what = "is no URL of Redis"
            problems[Problem("airflow_broker_url", what, "begin it with redis:// or rediss://")] = None
    for path in inventory.values("airflow_webserver_config").values():
        if path and not os.path.isfile(str(path)):
            problems[Problem("airflow_webserver_config", f"{path} is no file here", "give the path on this machine")] = None
    return list(problems)


def check_content(inventory: Inventory) -> list[Problem]:
    """As the first scheduler's host has it; with --limit another one may initialise the cluster, so all must have the same."""
    problems = []
    first, *others = inventory.members("airflow_scheduler") or [""]
    for name in (*CONTENT, "airflow_admin_user", "airflow_admin_email") if others else ():
        differs = [host for host in others if inventory.hosts[host].get(name) != inventory.hosts[first].get(name)]
        if differs:
            # Without the values, which may be secret.
            what = f"differs between hosts ({listed([first, *differs])}), each of which may initialise the cluster"
            problems.append(Problem(name, what, "define it once, in group_vars/all"))
    if first:
        variables = inventory.hosts[first]
        declared = {kind: variables.get(f"airflow_{kind}") for kind in (*content_rules.KINDS, "purge")}
        admin = str(variables.get("airflow_admin_user") or "admin")
        email = str(variables.get("airflow_admin_email") or "admin@localhost")
        problems += content_rules.problems(declared, "airflow_", admin, email)
    return problems


INVENTORY_RULES: tuple[Callable[[Inventory], list[Problem]], ...] = (
    check_any_host,
    check_group_names,
    check_required_groups,
    check_group_tree,
    check_addresses,
    check_loopback,
    check_secrets_present,
    check_secret_values,
    check_equal_secrets,
    check_trusted_keys,
    check_rotation,
    check_authority,
    check_own_certificates,
    check_entry,
    check_certificate_days,
    check_health,
    check_cluster_wide,
    check_urls,
    check_expanded_values,
    check_broker_user,
    check_words,
    *preflight_workers.RULES,
    check_version,
    check_requirements,
    check_config,
    check_servers_of_others,
    check_content,
)


def inventory_problems(inventory: Inventory) -> list[Problem]:
    return [problem for rule in INVENTORY_RULES for problem in rule(inventory)]


# Hosts


def check_distribution(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    name, version = facts.get("distribution"), str(facts.get("distribution_major_version"))
    if version in DISTRIBUTIONS.get(str(name), ()):
        return None
    return f"runs {name} {version}", "use Debian 12 or 13"


def check_architecture(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    found = facts.get("architecture")
    return None if found in ARCHITECTURES else (f"has the architecture {found}", f"use {' or '.join(ARCHITECTURES)}")


def check_systemd(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    found = facts.get("service_mgr")
    return None if found == "systemd" else (f"is run by {found}, not by systemd", "boot it with systemd as process 1")


HOST_RULES: tuple[Callable[[Mapping[str, Any]], tuple[str, str] | None], ...] = (
    check_distribution,
    check_architecture,
    check_systemd,
)


def wrong_system(facts: Mapping[str, Any]) -> bool:
    return any(rule(facts) for rule in HOST_RULES)


def host_problems(inventory: Inventory, facts: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Problems of the hosts whose facts are known."""
    problems = []
    for host, found in facts.items():
        wrong = [answer for answer in (rule(found) for rule in HOST_RULES) if answer]
        problems += [Problem(f"host {host}", what, cure) for what, cure in wrong]
        # Where the operating system is another one, so is its Python: one line is enough.
        if host in inventory.members("airflow") and not check_distribution(found):
            problems += _host_lock_problems(inventory, host, found)
    return problems


def _host_lock_problems(inventory: Inventory, host: str, facts: Mapping[str, Any]) -> list[Problem]:
    variables = inventory.hosts[host]
    # That of the release, where it was asked for.
    python = ".".join(str(facts.get("interpreter") or facts.get("python_version")).split(".")[:2])
    folder = inventory_folder(variables)
    try:
        airflow_lock.find_lock(
            inventory.collection,
            folder,
            str(variables.get("airflow_version")),
            python,
            variables.get("airflow_requirements") or [],
            variables.get("airflow_lock_file"),
        )
    except airflow_lock.LockError as exc:
        return [Problem(f"host {host}", f"{exc.problem.where}: {exc.problem.what}", exc.problem.cure)]
    return []


def rotating(inventory: Inventory) -> str:
    """What playbooks/rotate_secrets.yml has begun and not finished."""
    return next(filter(None, map(rotation.unfinished, inventory.values(rotation.MARKER).values())), "")


def _given_keys(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fingerprints that the host keeps; empty where there is no readable file of them."""
    found: Any = facts
    for name in ("ansible_local", "windfarm_airflow", "fingerprints"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def key_problems(inventory: Inventory, facts: Mapping[str, Mapping[str, Any]]) -> tuple[list[Problem], list[Problem]]:
    """Keys of hosts that the inventory does not have: what ends the run, and what is only told."""
    given = {host: keys for host, keys in ((host, _given_keys(found)) for host, found in facts.items()) if keys}
    speaker = next(iter(inventory.members("airflow")), None)
    if not given or speaker is None:
        return [], []
    # Only here, as it takes its time.
    known = pki.fingerprints({name: value for name, value in inventory.hosts[speaker].items() if name in pki.FINGERPRINTS})
    differing: dict[str, list[str]] = {}
    for name, ours in known.items():
        for host, keys in given.items():
            # The first one is what the host encrypts with or, of authorities, any that both trust.
            theirs = list(keys.get(name) or [])
            shared = set(theirs if name == CA_CERTIFICATE else theirs[:1]) & set(ours)
            if theirs and not shared:
                differing.setdefault(name, []).append(host)
    problems, told = [], []
    rotated = rotation.SECRETS.get(rotating(inventory), ())
    for name, hosts in differing.items():
        # A mere worker keeps nothing that is encrypted, and may have been away while the key was changed.
        keepers = [host for host in hosts if not _is_mere_worker(inventory, host)]
        lost = keepers if name == "airflow_fernet_key" else []
        if lost:
            what = "was given another airflow_fernet_key, and the inventory's cannot read the connections that are stored"
            cure = (
                "restore the file of secrets, or write the key behind a comma; only to give up all that the cluster has "
                f"stored, remove {FACT_FILE} from its hosts"
            )
            problems.append(Problem(f"host {listed(lost)}", what, cure))
        if name == CA_CERTIFICATE:
            lost = hosts
            what = "trusts none of the authorities in airflow_ca_certificate, so hosts would refuse each other until all are done"
            cure = (
                "put the old and the new certificate into airflow_ca_certificate, run, and take the old one out for a second run"
            )
            problems.append(Problem(f"host {listed(lost)}", what, cure))
        others = [host for host in hosts if host not in lost]
        # That it changes there is what a rotation is for.
        if others and name not in rotated:
            what = f"was given to {listed(others)} with another value than the inventory's"
            told.append(Problem(name, what, "this run changes it there; if it must not, stop it and restore the file of secrets"))
    return problems, told


def _is_mere_worker(inventory: Inventory, host: str) -> bool:
    return not any(host in inventory.members(group) for group in GROUPS if group not in ("airflow", "airflow_worker"))


def absent_problems(inventory: Inventory, absent: Mapping[str, str]) -> list[Problem]:
    """Hosts that did not answer. Only a mere worker may be left out; whatever answered with an error stops the run."""
    problems = []
    for host, why in absent.items():
        groups = [group for group in GROUPS if group not in ("airflow", "airflow_worker") and host in inventory.members(group)]
        if why != "unreachable":
            problems.append(
                Problem(
                    f"host {host}",
                    "does not tell its facts, its error is above",
                    "mend it, or leave it out with --limit",
                )
            )
        elif groups:
            problems.append(
                Problem(
                    f"host {host}",
                    f"is unreachable and belongs to {', '.join(groups)}",
                    "bring it back before anything is changed",
                )
            )
    return problems


def report(problems: Sequence[Problem]) -> list[str]:
    """The readable list: how many, then a line each."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return [f"{count}, no host was changed", *(f"  {number}. {item}" for number, item in enumerate(problems, 1))]
