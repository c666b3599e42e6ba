# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Broken copies of the cluster's inventory: site.yml ends with one clear line each, before it has connected to any host.

Wrong operating systems and architectures are in tests/unit (test_preflight_rules.py): the lab has no such host.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.windfarm.airflow.plugins.module_utils import pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_lock import describe_locks
from inventory import ROOT, Inventory

LOCKS = ROOT / "roles/airflow/files/locks"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)
PROBLEM = re.compile(r"^  \d+\. (.*)$", re.M)
TASKS = re.compile(r"^TASK \[(.*)\]", re.M)
ONLY_TASK = "Find every mistake in the inventory"
# The cures, to the letter.
MAKE_SECRETS = "run the playbook windfarm.airflow.secrets (playbooks/secrets.yml) with this inventory"
GOOD_SECRET = f"remove it and {MAKE_SECRETS}, which makes a good one"
GIVE_AUTHORITY = "give the certificates (PEM) of the authorities that the cluster trusts"
CONFIG_SHAPE = "write it as {section: {key: value}}"


class Copy:
    """A copy of the inventory under test that a case breaks."""

    def __init__(self, folder: Path, inventory: Inventory) -> None:
        self.folder = folder
        self.database_host = inventory.members["postgresql"][0]
        self.webserver = inventory.members["webserver"][0]
        self.address = inventory.plan["addresses"][self.database_host]
        tls = {host for name in ("postgresql", "redis", "webserver") for host in inventory.members[name]}
        self.tls_hosts = [host for host in inventory.groups["all"] if host in tls]
        self.worker = str(inventory.members["worker"][0])
        self.slots = sum(inventory.slots(host) for host in inventory.members["worker"])
        self.connections = inventory.plan["connections_needed"]

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


def play(inventory: Path, *arguments: str) -> tuple[int, str]:
    tool = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run([tool, "-i", str(inventory), *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture()
def copy(tmp_path: Path, inventory: Inventory) -> Iterator[Copy]:
    folder = tmp_path / "inventory"
    shutil.copytree(inventory.path, folder)
    made = Copy(folder, inventory)
    # The original's path is relative to its folder.
    made.set(airflow_dags_source=str(ROOT / "dags"))
    yield made


def entry_on_the_webserver(groups: dict[str, Any]) -> None:
    groups["haproxy"] = {"hosts": dict.fromkeys(groups["airflow"]["children"]["airflow_webserver"]["hosts"])}


def no_flower_but_misspelt(components: dict[str, Any]) -> None:
    components["airflow_flowers"] = components.pop("airflow_flower")


def two_worker_sets(copy: Copy) -> None:
    sets = {
        f"airflow_worker_{name}": {"hosts": {copy.worker: None}, "vars": {"airflow_worker_queues": [name]}}
        for name in ("etl", "gpu")
    }
    copy.components(lambda groups: groups["airflow_worker"].update(children=sets))


CASES: dict[str, tuple[Callable[[Copy], object], str]] = {
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
        "hosts worker1, worker9 — are one machine, 10.89.77.13 — use one inventory name per machine; "
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
    "misspelt worker variable": (
        lambda copy: copy.set(airflow_worker_queue=["etl"]),
        "airflow_worker_queue — is not a variable of role airflow — did you mean airflow_worker_queues?",
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
        "airflow_requirements — not resolved yet, {folder}/locks/airflow-3.3.2-py3.11.txt is missing — "
        "run the playbook windfarm.airflow.lock (playbooks/lock.yml) with this inventory",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_no_host_is_touched(case: str, copy: Copy) -> None:
    damage, expected = CASES[case]
    damage(copy)
    rc, output = play(copy.folder, "playbooks/site.yml")
    assert rc == 2, output
    assert PROBLEM.findall(output) == [copy.names(expected)], output
    assert "1 problem, no host was changed" in output
    assert TASKS.findall(output) == [ONLY_TASK], "a task ran that connects to hosts"
    recap = RECAP.findall(output)
    assert recap and all(changed == unreachable == "0" for _host, _ok, changed, unreachable, _failed in recap), output


def test_all_mistakes_are_told_at_once(copy: Copy) -> None:
    for case in ("empty group", "version without lock", "reserved key"):
        CASES[case][0](copy)
    rc, output = play(copy.folder, "playbooks/site.yml")
    assert rc == 2
    assert sorted(PROBLEM.findall(output)) == sorted(
        CASES[case][1] for case in ("empty group", "version without lock", "reserved key")
    )


def test_the_sound_inventory_has_no_problem(copy: Copy) -> None:
    rc, output = play(copy.folder, "playbooks/preflight.yml")
    assert rc == 0, output
    assert not PROBLEM.findall(output)
    assert {(changed, failed) for _host, _ok, changed, _unreachable, failed in RECAP.findall(output)} == {("0", "0")}


def test_a_host_without_systemd(tmp_path: Path, inventory: Inventory) -> None:
    """This machine is the host, so what the rule sees is what a real host says."""
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs this machine")
    folder = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "single", folder)
    shutil.copy(Path(inventory.path) / "group_vars/all/vault.yml", folder / "group_vars/all/vault.yml")
    rc, output = play(folder, "playbooks/site.yml")
    assert rc == 2, output
    found = PROBLEM.findall(output)
    assert [
        line for line in found if re.fullmatch(r"host airflow1 — is run by \S+, not by systemd — boot it with systemd .*", line)
    ]
    assert [(changed, failed) for _host, _ok, changed, _unreachable, failed in RECAP.findall(output)] == [("0", "1")]
