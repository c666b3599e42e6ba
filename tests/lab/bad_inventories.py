# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventories with one mistake each, and the line that preflight has for it."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_secrets, pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import describe_locks

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "roles/airflow/files/locks"
DEFAULTS = yaml.safe_load((ROOT / "roles/airflow/defaults/main.yml").read_text())
VERSION = DEFAULTS["airflow_version"]
# The cures, to the letter.
MAKE_SECRETS = "run the playbook windfarm.airflow.secrets (playbooks/secrets.yml) with this inventory"
GOOD_SECRET = f"remove it and {MAKE_SECRETS}, which makes a good one"
GIVE_AUTHORITY = "give the certificates (PEM) of the authorities that the cluster trusts"
CONFIG_SHAPE = "write it as {section: {key: value}}"
OWN = "If it is your own, list it in airflow_own_variables"
PATH = "write an absolute path of letters, digits and . _ - + @ only: systemd and shells read it too"
ONCE = "define it once, in group_vars/all"
HOST = "write an address or a name alone, without port, scheme or spaces"

# Nobody has these addresses (RFC 5737): whoever connected would be noticed.
HOSTS = """\
postgresql: {hosts: {db1: {ansible_host: 192.0.2.11}}}
redis: {hosts: {db1: }}
airflow:
  children:
    airflow_scheduler: {hosts: {control1: {ansible_host: 192.0.2.12}}}
    airflow_webserver: {hosts: {control1: }}
    airflow_triggerer: {hosts: {control1: }}
    airflow_dag_processor: {hosts: {control1: }}
    airflow_flower: {hosts: {control1: }}
    airflow_worker: {hosts: {worker1: {ansible_host: 192.0.2.13}, worker2: {ansible_host: worker2.example.org}}}
"""


def sound(folder: Path, secrets: dict[str, str]) -> None:
    everywhere = folder / "group_vars" / "all"
    everywhere.mkdir(parents=True)
    (folder / "hosts.yml").write_text(HOSTS)
    (everywhere / "airflow.yml").write_text(yaml.safe_dump({"airflow_dags_source": str(ROOT / "dags")}))
    (everywhere / "vault.yml").write_text(yaml.safe_dump(secrets))


def new_secrets() -> dict[str, str]:
    return airflow_secrets.create(airflow_secrets.SECRETS)


class Copy:
    """A copy of a sound inventory that a case breaks."""

    database_host = "db1"
    address = "192.0.2.11"
    tls_hosts = ("db1", "control1")
    webserver = "control1"
    worker = "worker1"
    slots = 32
    connections = 203

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, text: str) -> str:
        """The expected line, with what it says of this inventory."""
        found = {
            "folder": self.folder,
            "db": self.database_host,
            "web": self.webserver,
            "address": self.address,
            "tls_hosts": ", ".join(self.tls_hosts),
            "worker": self.worker,
            "slots": self.slots,
            "connections": self.connections,
            "fits": "give a certificate that fits, or leave it empty, so that one is made",
        }
        for name, value in found.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def edit(self, file: str, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.folder / file
        content = yaml.safe_load(path.read_text()) or {}
        change(content)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def hosts(self, change: Callable[[dict[str, Any]], object]) -> None:
        self.edit("hosts.yml", change)

    def components(self, change: Callable[[dict[str, Any]], object]) -> None:
        self.edit("hosts.yml", lambda groups: change(groups["airflow"]["children"]))

    def secret(self, name: str, value: str | None) -> None:
        self.edit(
            "group_vars/all/vault.yml",
            lambda secrets: secrets.pop(name) if value is None else secrets.update({name: value}),
        )

    def secrets(self, **values: str) -> None:
        for name, value in values.items():
            self.secret(name, value)

    def host(self, **variables: Any) -> None:
        """Of the host that runs PostgreSQL."""
        path = self.folder / "host_vars" / f"{self.database_host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(variables))

    def certificate(
        self,
        key: str = "",
        names: list[str] | None = None,
        authority: pki.Authority | None = None,
        ended: bool = False,
    ) -> None:
        """The host's own, which is good but for what is given."""
        values = yaml.safe_load((self.folder / "group_vars/all/vault.yml").read_text())
        signer = authority or pki.load_authority(values["airflow_ca_certificate"], values["airflow_ca_key"])
        own = pki.new_key()
        public = pki.public_pem(pki.load_private_key(own).public_key())
        if ended:
            certificate = certificate_until_2020(public, [self.address], signer)
        else:
            certificate = signer.sign(public, names or [self.address], 30)
        (self.folder / "own.pem").write_text(certificate)
        (self.folder / "own.key").write_text(key or own)
        self.host(airflow_certificate_file="own.pem", airflow_certificate_key_file="own.key")

    def of(self, host: str, **variables: Any) -> None:
        path = self.folder / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(variables))

    def set(self, **variables: Any) -> None:
        self.edit("group_vars/all/airflow.yml", lambda settings: settings.update(variables))


def new_authority() -> dict[str, str]:
    key = pki.new_key()
    return {"ca_certificate": pki.new_ca(key, "elsewhere"), "ca_key": key}


@contextlib.contextmanager
def years_ago() -> Iterator[None]:
    """What is made for ten years then has ended on the first day of 2020."""
    with pytest.MonkeyPatch.context() as patch:
        end = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc)
        patch.setattr(pki, "now", lambda: end - datetime.timedelta(days=pki.CA_DAYS))
        yield


def expired_authority() -> dict[str, str]:
    with years_ago():
        return {f"airflow_{name}": value for name, value in new_authority().items()}


def certificate_until_2020(public_key: str, names: list[str], authority: pki.Authority) -> str:
    """Of the inventory's authority, had it been there then."""
    issuer = SimpleNamespace(
        subject=authority.issuer.subject,
        extensions=authority.issuer.extensions,
        not_valid_before_utc=datetime.datetime.min.replace(tzinfo=datetime.timezone.utc),
        not_valid_after_utc=datetime.datetime.max.replace(tzinfo=datetime.timezone.utc),
    )
    with years_ago():
        return pki.sign(public_key, names, issuer, authority.key, pki.CA_DAYS)


def entry_on_the_webserver(groups: dict[str, Any]) -> None:
    groups["haproxy"] = {"hosts": dict.fromkeys(groups["airflow"]["children"]["airflow_webserver"]["hosts"])}


def no_flower_but_misspelt(components: dict[str, Any]) -> None:
    components["airflow_flowers"] = components.pop("airflow_flower")


def own_database(copy: Copy) -> None:
    copy.hosts(lambda groups: groups.pop("postgresql"))
    copy.set(airflow_database_host="192.0.2.99")
    copy.secret("airflow_database_password", "Kx9-qq17")


def two_worker_sets(copy: Copy) -> None:
    sets = {
        f"airflow_worker_{name}": {"hosts": {copy.worker: None}, "vars": {"airflow_worker_queues": [name]}}
        for name in ("etl", "gpu")
    }
    copy.components(lambda groups: groups["airflow_worker"].update(children=sets))


# What breaks it -> the expected lines.
CASES: dict[str, tuple[Any, ...]] = {
    "empty group": (
        lambda copy: copy.components(lambda groups: groups["airflow_triggerer"].update(hosts={})),
        "group airflow_triggerer — has no host — put a host into it",
    ),
    "no database": (
        lambda copy: copy.hosts(lambda groups: groups["postgresql"].update(hosts={})),
        "group postgresql — has no host — put a host into it, or set airflow_database_host to a server that you run",
    ),
    "misspelt group": (
        lambda copy: copy.components(lambda groups: groups.update(airflow_workers=groups.pop("airflow_worker"))),
        "group airflow_workers — is not a group of this collection — did you mean airflow_worker?",
    ),
    "misspelt optional group": (
        lambda copy: copy.components(no_flower_but_misspelt),
        "group airflow_flowers — is not a group of this collection — did you mean airflow_flower?",
    ),
    "entry on the webserver's port": (
        lambda copy: (copy.hosts(entry_on_the_webserver), copy.set(airflow_entry_port=8080)),
        "host {web} — is an entry and has a webserver, both on port 8080 — set airflow_entry_port or airflow_webserver_port "
        "to another port",
    ),
    "virtual address of one entry host": (
        lambda copy: (copy.hosts(entry_on_the_webserver), copy.set(airflow_entry_virtual_address="10.89.77.98")),
        "airflow_entry_virtual_address — is 10.89.77.98, but {web} is the only host of group haproxy — put a second host into "
        "it, or remove the variable",
    ),
    "entry without a host": (
        lambda copy: copy.set(airflow_entry_name="flows.example.org"),
        "airflow_entry_name — is set, but group haproxy has no host — put the entry hosts into group haproxy, or remove it",
    ),
    "missing secret": (
        lambda copy: copy.secret("airflow_api_secret_key", None),
        f"airflow_api_secret_key — is not defined — {MAKE_SECRETS}",
    ),
    "missing secrets": (
        lambda copy: (copy.folder / "group_vars/all/vault.yml").unlink(),
        "airflow_fernet_key, airflow_jwt_private_key, airflow_api_secret_key, airflow_database_password, "
        "airflow_results_database_password, airflow_broker_password, airflow_broker_admin_password, airflow_flower_password, "
        "airflow_admin_password, airflow_ca_key, airflow_ca_certificate "
        f"— are not defined — {MAKE_SECRETS}",
    ),
    "placeholder secret": (
        lambda copy: copy.secret("airflow_database_password", "changeme-changeme-changeme"),
        f"airflow_database_password — is a placeholder — {GOOD_SECRET}",
    ),
    "short password of a server that exists already": (
        own_database,
        "airflow_database_password — is 8 characters long, at least 16 are needed — "
        "give its account a better one on the server that you run, and write that here",
    ),
    "short secret": (
        lambda copy: copy.secret("airflow_broker_password", "Kx9-qq17"),
        f"airflow_broker_password — is 8 characters long, at least 16 are needed — {GOOD_SECRET}",
    ),
    "secret that is its own name": (
        lambda copy: copy.secret("airflow_results_database_password", "airflow-results-database-password"),
        f"airflow_results_database_password — is its own name — {GOOD_SECRET}",
    ),
    "equal secrets": (
        lambda copy: copy.secrets(airflow_flower_password="Kx9-qq17-Zt55-Wm02", airflow_admin_password="Kx9-qq17-Zt55-Wm02"),
        f"airflow_flower_password, airflow_admin_password — are equal — remove all but one of them and {MAKE_SECRETS}",
    ),
    "JWT key of another kind": (
        lambda copy: copy.secret("airflow_jwt_private_key", pki.new_key()),
        f"airflow_jwt_private_key — is no Ed25519 private key (PEM) — {GOOD_SECRET}",
    ),
    "trusted JWT key of another kind": (
        lambda copy: copy.set(airflow_jwt_trusted_keys=[pki.new_key()]),
        "airflow_jwt_trusted_keys — number 1 is no Ed25519 key (PEM) — write a list of Ed25519 keys (PEM), "
        "public ones are enough",
    ),
    "authority that is none": (
        lambda copy: copy.secret("airflow_ca_certificate", "-----BEGIN CERTIFICATE-----"),
        f"airflow_ca_certificate — is no certificate (PEM) — {GIVE_AUTHORITY}",
    ),
    "authority of another key": (
        lambda copy: copy.secret("airflow_ca_key", pki.new_key()),
        "airflow_ca_key — does not belong to any certificate in airflow_ca_certificate — "
        "give the key (PEM) of the authority in airflow_ca_certificate that signs",
    ),
    "authority that has expired": (
        lambda copy: copy.secrets(**expired_authority()),
        f"airflow_ca_certificate — has expired on 2020-01-01 — {GIVE_AUTHORITY}",
    ),
    "authority without its key": (
        lambda copy: copy.secret("airflow_ca_key", None),
        "airflow_ca_key — is not defined, and {tls_hosts} has no certificate of its own — define it, "
        "or set airflow_certificate_file and airflow_certificate_key_file for the host",
    ),
    "certificate of another key": (
        lambda copy: copy.certificate(key=pki.new_key()),
        "airflow_certificate_file of host {db} — does not match the key in airflow_certificate_key_file — {fits}",
    ),
    "certificate of another host": (
        lambda copy: copy.certificate(names=["elsewhere.example.org"]),
        "airflow_certificate_file of host {db} — is not for {address}, by which other hosts reach this one, "
        "but for elsewhere.example.org — {fits}",
    ),
    "certificate of another authority": (
        lambda copy: copy.certificate(authority=pki.load_authority(**new_authority())),
        "airflow_certificate_file of host {db} — is not signed by an authority in airflow_ca_certificate — {fits}",
    ),
    "certificate that has expired": (
        lambda copy: copy.certificate(ended=True),
        "airflow_certificate_file of host {db} — has expired on 2020-01-01 — {fits}",
    ),
    "certificate that is missing": (
        lambda copy: copy.host(airflow_certificate_file="gone.pem", airflow_certificate_key_file="gone.key"),
        "airflow_certificate_file of host {db} — {folder}/gone.pem does not exist on this machine — correct the path",
    ),
    "certificates that never last": (
        lambda copy: copy.set(airflow_certificate_days=30),
        "airflow_certificate_renew_days — is 90, so each run would make new certificates — "
        "set it to less than airflow_certificate_days",
    ),
    "sessions that nobody can end": (
        lambda copy: copy.set(airflow_config={"fab": {"session_backend": "securecookie"}}),
        "airflow_config.fab.session_backend — is securecookie, which keeps sessions that nobody can end, "
        "not even with a new password — remove it; sessions are then kept in the database",
    ),
    "account of the broker itself": (
        lambda copy: copy.set(airflow_broker_user="default"),
        "airflow_broker_user — default is the name of another account of the broker — choose another name, such as airflow",
    ),
    "invalid Fernet key": (
        lambda copy: copy.secret("airflow_fernet_key", "Kx9" * 20),
        f"airflow_fernet_key — is no Fernet key (32 bytes in URL-safe base64) — {GOOD_SECRET}",
    ),
    "version without lock": (
        lambda copy: copy.set(airflow_version="3.9.9"),
        f"airflow_version — there is no lock for Airflow 3.9.9 — set one of {describe_locks(str(LOCKS))}, "
        "or run `make lock AIRFLOW=3.9.9` in a checkout",
    ),
    "two names for one machine": (
        lambda copy: copy.components(
            lambda groups: groups["airflow_worker"]["hosts"].update(worker9=groups["airflow_worker"]["hosts"]["worker1"])
        ),
        "hosts worker1, worker9 — are one machine, 192.0.2.13 — use one inventory name per machine; "
        "it may be in any number of groups",
    ),
    "reserved key": (
        lambda copy: copy.set(airflow_config={"core": {"executor": "LocalExecutor"}}),
        "airflow_config.core.executor — is managed by the role — remove it; the variables of role airflow set what may be set",
    ),
    "sensitive key": (
        lambda copy: copy.set(airflow_config={"core": {"fernet_key": "x"}}),
        "airflow_config.core.fernet_key — is secret — set airflow_fernet_key instead",
    ),
    "sensitive key without a variable": (
        lambda copy: copy.set(airflow_config={"smtp": {"smtp_password": "x"}}),
        "airflow_config.smtp.smtp_password — is secret — move it to airflow_secret_config, which keeps it out of airflow.cfg",
    ),
    "settings of a wrong shape": (
        lambda copy: copy.set(airflow_config=["core.parallelism=4"]),
        f"airflow_config — is a list, no dictionary — {CONFIG_SHAPE}",
    ),
    "section of a wrong shape": (
        lambda copy: copy.set(airflow_config={"core": "parallelism=4"}),
        f"airflow_config.core — is a text, no dictionary — {CONFIG_SHAPE}",
    ),
    "misspelt setting of a worker instance": (
        lambda copy: copy.set(airflow_worker_instances=[{"name": "io"}, {"name": "etl", "queue": ["etl"]}]),
        "airflow_worker_instances.etl.queue — is not a setting of a worker instance — did you mean queues?",
    ),
    "worker instances of one name": (
        lambda copy: copy.set(airflow_worker_instances=[{"name": "etl"}, {"name": "etl"}]),
        "airflow_worker_instances — has the name etl twice — give each instance of a host a name of its own",
    ),
    "worker instance that is named like a colour": (
        lambda copy: copy.set(airflow_worker_instances=[{"name": "etl-b"}]),
        "airflow_worker_instances, number 1 — has the name etl-b, which ends like a colour of another instance — "
        "use a name that does not end in -a or -b",
    ),
    "host in two worker sets": (
        two_worker_sets,
        "host {worker} — is in the worker sets airflow_worker_etl and airflow_worker_gpu, which say differently what it serves, "
        "and only one would count — set airflow_worker_instances for the host, one instance for each set, or leave all but one "
        "of the groups",
    ),
    "autoscale the wrong way round": (
        lambda copy: copy.set(airflow_worker_autoscale="2,8"),
        "airflow_worker_autoscale — is '2,8', with the smaller number first — "
        'write two numbers, the larger one first, such as "8,2"',
    ),
    "memory that is no size": (
        lambda copy: copy.set(airflow_worker_memory_max="6 GB"),
        "airflow_worker_memory_max — is '6 GB' — write a size as systemd has it, such as 6G, 1500M or 50%",
    ),
    "fewer connections than the workers need": (
        lambda copy: copy.set(postgresql_max_connections=100),
        "postgresql_max_connections — is 100, and the inventory's processes, with {slots} worker slots, may open {connections} "
        "connections — raise it to {connections} or more, or remove it",
    ),
    "less parallelism than slots": (
        lambda copy: copy.set(airflow_config={"core": {"parallelism": 1}}),
        "airflow_config.core.parallelism — lets 1 scheduler start 1 tasks at once, and the workers have {slots} slots — "
        "raise it to {slots} or more, or remove it; pools and max_active_tasks limit what a DAG may take",
    ),
    "packages that nobody resolved": (
        lambda copy: copy.set(airflow_requirements=["tabulate-nobody-locked"]),
        f"airflow_requirements — not resolved yet, {{folder}}/locks/airflow-{VERSION}-py3.11.txt is missing — "
        "run the playbook windfarm.airflow.lock (playbooks/lock.yml) with this inventory",
    ),
}


def host_of(copy: Copy, group: str, **hosts: Any) -> None:
    copy.components(lambda groups: groups[group]["hosts"].update(hosts))


def triggerer_beside_airflow(copy: Copy) -> None:
    copy.components(lambda groups: groups.pop("airflow_triggerer"))
    copy.hosts(lambda groups: groups.update(airflow_triggerer={"hosts": {"trigger1": {"ansible_host": "192.0.2.17"}}}))


def worker_in_ini(copy: Copy) -> None:
    """INI has texts only."""
    (copy.folder / "more.ini").write_text("[airflow_worker]\nworker1\n[airflow_worker:vars]\nairflow_tls=false\n")


def setting(name: str, value: Any) -> Callable[[Copy], object]:
    return lambda copy: copy.set(**{name: value})


def config(section: str, **keys: Any) -> Callable[[Copy], object]:
    return lambda copy: copy.set(airflow_config={section: keys})


VISIBILITY = "airflow_config.celery_broker_transport_options.visibility_timeout"
CASES |= {
    # Names
    "misspelt variable": (
        setting("airflow_webserver_prot", 8081),
        f"airflow_webserver_prot — is no variable of this collection — did you mean airflow_webserver_port? {OWN}",
    ),
    "variable with dashes for underscores": (
        setting("airflow_base-url", "https://airflow.example.org"),
        f"airflow_base-url — is no variable of this collection — did you mean airflow_base_url? {OWN}",
    ),
    "misspelt variable of Redis": (
        setting("redis_max_memory", "512mb"),
        f"redis_max_memory — is no variable of this collection — did you mean redis_maxmemory? {OWN}",
    ),
    "misspelt variable of PostgreSQL": (
        setting("postgresql_configs", {"shared_buffers": "1GB"}),
        f"postgresql_configs — is no variable of this collection — did you mean postgresql_config? {OWN}",
    ),
    "misspelt variable of HAProxy": (
        setting("haproxy_max_conn", 100),
        f"haproxy_max_conn — is no variable of this collection — did you mean haproxy_maxconn? {OWN}",
    ),
    "variable of another collection": (
        setting("redis_exporter_listen", ":9121"),
        f"redis_exporter_listen — is no variable of this collection — remove it. {OWN}",
    ),
    "variable that the playbooks set": (
        setting("postgresql_users", [{"name": "me"}]),
        "postgresql_users — is set by the playbooks, so this value would be passed over — set postgresql_extra_users",
    ),
    "rules of another firewall": (
        setting("firewall_rules", ["tcp dport 22 accept"]),
        "firewall_rules — is set by the playbooks, so this value would be passed over — set airflow_firewall_rules",
    ),
    # Types
    "boolean in quotes": (
        setting("airflow_firewall", "false"),
        "airflow_firewall — is a text ('false'), not a boolean — "
        "write true or false without quotes (in an INI file True or False); with -e write it as JSON",
    ),
    "boolean in INI": (
        worker_in_ini,
        "airflow_tls — is a text ('false'), not a boolean — "
        "write true or false without quotes (in an INI file True or False); with -e write it as JSON",
    ),
    "boolean as number": (
        setting("postgresql_hold", 1),
        "postgresql_hold — is a number (1), not a boolean — write a boolean",
    ),
    "number in quotes": (
        setting("airflow_webserver_port", "8081"),
        "airflow_webserver_port — is a text ('8081'), not a number — "
        "write it without quotes; with -e write it as JSON, in a template add `| int`",
    ),
    "number in words": (
        setting("airflow_drain_timeout", "1h"),
        "airflow_drain_timeout — is a text ('1h'), not a number — write a number",
    ),
    "version that is a number": (
        setting("airflow_version", 3.3),
        "airflow_version — is a number (3.3), not a text — write it in quotes",
    ),
    "text that YAML makes a boolean of": (
        setting("airflow_worker_sandbox", False),
        "airflow_worker_sandbox — is a boolean (false), not a text — write it in quotes",
    ),
    "list as text": (
        setting("airflow_certificate_names", "airflow.example.org"),
        "airflow_certificate_names — is a text ('airflow.example.org'), not a list — write a list such as [airflow.example.org]",
    ),
    "dictionary as text": (
        setting("redis_config", "maxclients 500"),
        "redis_config — is a text ('maxclients 500'), not a dictionary — write a dictionary",
    ),
    "name without value": (
        setting("airflow_flower_port", None),
        "airflow_flower_port — has no value — write a number, or remove the line",
    ),
    "list of something else": (
        setting("airflow_firewall_rules", ["tcp dport 9100 accept", {"port": 9100}]),
        "airflow_firewall_rules — number 2 is a dictionary ({'port': 9100}), not a text — write a text",
    ),
    "secret of a wrong type, which is not shown": (
        setting("airflow_index_url", ["https://user:pass@example.org/simple"]),
        "airflow_index_url — is a list, not a text — write a text",
    ),
    "wrong on one host": (
        lambda copy: (copy.of("worker1", airflow_drain_timeout="60"), copy.of("worker2", airflow_drain_timeout=60)),
        "airflow_drain_timeout of worker1 — is a text ('60'), not a number — "
        "write it without quotes; with -e write it as JSON, in a template add `| int`",
    ),
    "unknown key in a list": (
        setting("postgresql_extra_databases", [{"name": "shop", "ovner": "shop"}]),
        "postgresql_extra_databases — number 1 has the key ovner, which means nothing — did you mean owner?",
        "postgresql_extra_databases — number 1 lacks owner — add it: Role that owns it. With a new owner, what the previous one "
        "has in it goes over to the new one too.",
    ),
    # Choices and ranges
    "no such choice": (
        setting("airflow_worker_restart", "overlapp"),
        "airflow_worker_restart — is 'overlapp' — did you mean overlap?",
    ),
    "no such choice, none like it": (
        setting("redis_appendfsync", "never"),
        "redis_appendfsync — is 'never' — write one of always, everysec",
    ),
    "no such choice in a list": (
        setting("airflow_adopt", ["mysql"]),
        "airflow_adopt — is 'mysql' — write one of postgresql, redis, airflow",
    ),
    "port beyond all ports": (
        setting("airflow_broker_port", 70000),
        "airflow_broker_port — is 70000 — ports go from 1 to 65535",
    ),
    "negative time": (
        setting("airflow_log_retention_days", -1),
        "airflow_log_retention_days — is -1 — write 0 or more",
    ),
    # Texts that would break a file, a unit, a URL
    "folder with a space": (
        setting("airflow_dags_folder", "/srv/my dags"),
        f"airflow_dags_folder — is '/srv/my dags' — {PATH}",
    ),
    "folder with a per cent sign": (
        setting("airflow_releases_directory", "/opt/%i"),
        f"airflow_releases_directory — is '/opt/%i' — {PATH}, not directly under /",
    ),
    "folder in which others keep something": (
        setting("airflow_releases_directory", "/opt"),
        f"airflow_releases_directory — is '/opt' — {PATH}, not directly under /",
    ),
    "folder with a dollar": (
        setting("airflow_worker_writable_paths", ["/srv/data", "$HOME/data"]),
        f"airflow_worker_writable_paths — is '$HOME/data' — {PATH}",
    ),
    "folder with a quote": (
        setting("airflow_plugins_folder", '/srv/"plugins"'),
        f"airflow_plugins_folder — is '/srv/\"plugins\"' — {PATH}",
    ),
    "line break in a text": (
        setting("airflow_db_clean_schedule", "*-*-* 04:00:00\nUnit=other.service"),
        "airflow_db_clean_schedule — holds a line break — write it on one line; in YAML use `>-` or quotes",
    ),
    "address with port": (
        lambda copy: copy.of("worker1", airflow_address="192.0.2.13:8793"),
        f"airflow_address — is '192.0.2.13:8793' — {HOST}",
    ),
    "address that is none": (
        lambda copy: copy.of("worker1", airflow_address="192.0.2.300"),
        f"airflow_address — is '192.0.2.300' — {HOST}",
    ),
    "address of everybody": (
        lambda copy: copy.of("worker1", airflow_address="0.0.0.0"),  # noqa: S104
        f"airflow_address — is '0.0.0.0' — {HOST}",
    ),
    "URL without scheme": (
        setting("airflow_base_url", "airflow.example.org"),
        "airflow_base_url — is 'airflow.example.org' — write it as https://HOST:PORT/, without spaces, quotes, % and passwords",
    ),
    "URL with a quote": (
        setting("airflow_base_url", 'https://airflow.example.org/"x'),
        "airflow_base_url — is 'https://airflow.example.org/\"x' — "
        "write it as https://HOST:PORT/, without spaces, quotes, % and passwords",
    ),
    "URL without the path": (
        setting("airflow_execution_api_url", "http://127.0.0.1:8079/"),
        "airflow_execution_api_url — is 'http://127.0.0.1:8079/' — write it as http://HOST:PORT/execution/",
    ),
    "index that is no URL, and is not shown": (
        setting("airflow_index_url", "user:secret-of-the-index@example.org"),
        "airflow_index_url — is not what it should be — write it as https://HOST/simple",
    ),
    "database with a slash": (
        setting("airflow_database_name", "airflow/prod"),
        "airflow_database_name — is 'airflow/prod' — "
        "use letters, digits, dashes and underscores, at most 56, and no name that PostgreSQL uses itself",
    ),
    "login of PostgreSQL itself": (
        setting("airflow_database_user", "postgres"),
        "airflow_database_user — is 'postgres' — "
        "use letters, digits, dashes and underscores, at most 56, and no name that PostgreSQL uses itself",
    ),
    "group with a space": (
        setting("airflow_admin_group", "air flow"),
        "airflow_admin_group — is 'air flow' — use small letters, digits, dashes and underscores",
    ),
    "copy without a host": (
        setting("postgresql_backup_copy_to", "/mnt/backup"),
        "postgresql_backup_copy_to — is '/mnt/backup' — write it as USER@HOST:/FOLDER",
    ),
    "memory in words": (
        setting("redis_maxmemory", "half"),
        "redis_maxmemory — is 'half' — write a size such as 512mb, a share such as 25%, or 0",
    ),
    "queue with a comma": (
        setting("airflow_worker_queues", ["default,etl"]),
        "airflow_worker_queues — has the queue 'default,etl' — "
        "use letters, digits, dots, dashes and underscores, beginning with a letter or digit",
    ),
    "host with a per cent sign": (
        lambda copy: host_of(copy, "airflow_worker", **{"worker%n": {"ansible_host": "192.0.2.15"}}),
        "host worker%n — has a name that Celery and systemd would read as something else — "
        "use letters, digits, dots, dashes and underscores, beginning with a letter or digit",
    ),
    "secret with a dollar": (
        lambda copy: copy.secret("airflow_api_secret_key", "x$HOME" + "0123456789" * 2),
        "airflow_api_secret_key — holds $, which Airflow or Flower would read as something else — use a value without it",
    ),
    # Files on this machine
    "DAG files that are not there": (
        setting("airflow_dags_source", "/nowhere/dags"),
        "airflow_dags_source — /nowhere/dags is no folder on this machine — correct the path",
    ),
    "DAG files somewhere": (
        setting("airflow_dags_source", "dags"),
        "airflow_dags_source — is 'dags', no absolute path — begin it with {{ inventory_dir }}/ or /",
    ),
    # Settings
    "line break in a setting": (
        config("core", dags_are_paused_at_creation="True\nfernet_key = x"),
        "airflow_config.core.dags_are_paused_at_creation — holds a line break, and airflow.cfg keeps one line — "
        "write it on one line; JSON may stand on one",
    ),
    "name of a setting that is none": (
        config("core", **{"parallelism = 4": 4}),
        "airflow_config.core.parallelism = 4 — is no name of a setting — use letters, digits, dots, dashes and underscores",
    ),
    "environment of nobody": (
        setting("airflow_environment", {"workers": {"HTTPS_PROXY": "http://proxy.example.org"}}),
        "airflow_environment.workers — is no component — did you mean worker?",
    ),
    "environment without component": (
        setting("airflow_environment", ["HTTPS_PROXY=http://proxy.example.org"]),
        "airflow_environment — is a list, no dictionary — write it as {component or all: {NAME: value}}",
    ),
    "environment with a name that is none": (
        setting("airflow_environment", {"worker": {"HTTPS-PROXY": "http://proxy.example.org"}}),
        "airflow_environment.worker.HTTPS-PROXY — is no name for an environment variable — use letters, digits and _",
    ),
    "line break in the environment": (
        setting("airflow_environment", {"all": {"NOTE": "one\ntwo"}}),
        "airflow_environment.all.NOTE — holds a line break, which systemd's EnvironmentFile cannot keep — write it on one line",
    ),
    "reserved key by the environment": (
        setting("airflow_environment", {"all": {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}}),
        "airflow_environment.all.AIRFLOW__CORE__EXECUTOR — is managed by the role — "
        "remove it; the variables of role airflow set what may be set",
    ),
    "secret settings of nobody": (
        setting("airflow_secret_config", {"scheduller": {"smtp": {"smtp_password": "x"}}}),
        "airflow_secret_config.scheduller — is no component — did you mean scheduler?",
    ),
    "what the cluster shall hold": (
        lambda copy: copy.set(
            airflow_users=[{"username": "ada", "email": "ada@example.com", "roles": ["Vewer"]}],
            airflow_pools=[{"name": "etl", "slots": 1}, {"name": "etl", "slots": 2}, {"name": "gpu", "slots": -3}],
            airflow_variables=[{"key": "since", "value": datetime.date(2026, 1, 1)}],
            airflow_connections=[
                {"conn_id": "db", "uri": "postgres://login:S3cret/abc@host/db"},
                {"conn_id": "web", "uri": "http://host", "host": "other"},
            ],
        ),
        "airflow_pools[2] gpu — slots is -3 — write 0 or more, or -1 for no limit",
        "airflow_variables[0] since — cannot be stored: value is a date, which JSON does not have — "
        "write it as a text, in quotes",
        "airflow_connections[0] db — has a uri whose parts are not quoted — "
        "write TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE, each part quoted",
        "airflow_connections[1] web — has a uri and host — write either the uri or the fields",
        "airflow_pools[1] etl — is declared twice, first as airflow_pools[0] — remove one of the two",
        "airflow_users[0] ada — has the unknown role Vewer — did you mean Viewer?",
    ),
    "variable that is not there": (
        setting("airflow_base_url", "https://{{ entry_name }}"),
        "airflow_base_url — cannot be evaluated for db1, control1, worker1, worker2: 'entry_name' is undefined — "
        "correct it in the inventory",
    ),
    # Hosts and groups
    "two databases": (
        lambda copy: copy.hosts(lambda groups: groups["postgresql"]["hosts"].update(db2={"ansible_host": "192.0.2.16"})),
        "group postgresql — has 2 hosts (db1, db2) — keep one of them",
    ),
    "group beside airflow": (
        triggerer_beside_airflow,
        "group airflow_triggerer — is not a child of group airflow — list it under `airflow: children:`",
    ),
    "group with a dash": (
        lambda copy: copy.components(lambda groups: groups.update({"airflow-triggerer": groups.pop("airflow_triggerer")})),
        "group airflow-triggerer — is not a group of this collection — did you mean airflow_triggerer?",
    ),
    "group that lacks a letter": (
        lambda copy: copy.components(lambda groups: groups.update({"airflow_dag_procesor": groups.pop("airflow_dag_processor")})),
        "group airflow_dag_procesor — is not a group of this collection — did you mean airflow_dag_processor?",
    ),
    "names that differ in capitals": (
        lambda copy: host_of(copy, "airflow_worker", Worker1={"ansible_host": "192.0.2.18"}),
        "hosts worker1, Worker1 — differ in capitals only — give them names that differ otherwise",
    ),
    "a worker with the name of a group": (
        lambda copy: copy.hosts(lambda groups: groups.update(worker2={"hosts": {copy.worker: None}})),
        "host worker2 — has the name of a group, which Ansible takes instead — rename the host or the group",
    ),
    "this machine among others": (
        lambda copy: host_of(copy, "airflow_worker", localhost={"ansible_host": "192.0.2.19"}),
        "host localhost — has a name that means another machine on each host — give it the name by which people know it",
    ),
    "loopback address among others": (
        lambda copy: copy.of("worker1", airflow_address="127.0.1.1"),
        "host worker1 — has the address 127.0.1.1, which means another machine on each host — set airflow_address",
    ),
    # What must be alike, and what must fit
    "two versions": (
        lambda copy: copy.of("worker1", airflow_version="3.2.2"),
        f"airflow_version — differs between hosts (3.2.2, {VERSION}) — {ONCE}",
    ),
    "two DAG folders": (
        lambda copy: copy.of("worker1", airflow_dags_folder="/srv/dags"),
        f"airflow_dags_folder — differs between hosts (/srv/airflow/dags, /srv/dags) — {ONCE}",
    ),
    "two log ports": (
        lambda copy: copy.of("worker2", airflow_worker_log_port=8893),
        f"airflow_worker_log_port — differs between hosts (8793, 8893) — {ONCE}",
    ),
    "TLS on some hosts": (
        lambda copy: copy.of("worker1", airflow_tls=False),
        f"airflow_tls — differs between hosts (False, True) — {ONCE}",
    ),
    "tasks that could run twice": (
        config("workers", max_failed_heartbeats=20),
        "airflow_config.workers — a worker without webserver ends its tasks after 2300 s, and the scheduler starts them "
        "elsewhere after 300 s, so a task could run twice at once — keep 30 s between them: lower max_failed_heartbeats or "
        "execution_api_retries, or raise [scheduler] task_instance_heartbeat_timeout",
    ),
    "tasks that are given up too soon": (
        config("scheduler", task_instance_heartbeat_timeout=240),
        "airflow_config.workers — a worker without webserver ends its tasks after 230 s, and the scheduler starts them elsewhere "
        "after 240 s, so a task could run twice at once — keep 30 s between them: lower max_failed_heartbeats or "
        "execution_api_retries, or raise [scheduler] task_instance_heartbeat_timeout",
    ),
    "messages that Redis delivers twice": (
        lambda copy: copy.of("worker1", airflow_config={"celery_broker_transport_options": {"visibility_timeout": 3600}}),
        f"{VISIBILITY} — differs between hosts (3600, 604800), and the shortest wins — {ONCE}",
    ),
    "messages that are delivered before a worker has stopped": (
        config("celery_broker_transport_options", visibility_timeout=86400),
        f"{VISIBILITY} — is 86400 s, and a stopping worker may take 604800 s for its tasks, which would run twice — "
        "raise it, or lower airflow_worker_stop_timeout",
    ),
    "two listeners on one port": (
        setting("airflow_flower_port", 8080),
        "host control1 — flower and webserver would both listen on port 8080 — "
        "change airflow_flower_port or airflow_webserver_port",
    ),
    "workers that reach the metadata": (
        setting("airflow_results_database_name", "airflow"),
        "airflow_results_database_name — is airflow, as airflow_database_name is, so workers would reach the metadata — "
        "choose another name",
    ),
}
