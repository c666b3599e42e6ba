# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import copy
import pathlib
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock, pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import (
    Inventory,
    absent_problems,
    check_words,
    host_problems,
    inventory_problems,
    key_problems,
    report,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_secrets import SECRETS, create, fernet_key, password

COLLECTION = str(pathlib.Path(__file__).resolve().parents[4])
MANAGED: dict[str, dict[str, Any]] = {"core": {"executor": "CeleryExecutor"}, "scheduler": {"enable_health_check": True}}
CA_KEY = pki.new_key()
GROUPS = {
    "all": ["db1", "control1", "worker1", "worker2"],
    "ungrouped": [],
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "worker1", "worker2"],
    "airflow_scheduler": ["control1"],
    "airflow_webserver": ["control1"],
    "airflow_triggerer": ["control1"],
    "airflow_dag_processor": ["control1"],
    "airflow_flower": ["control1"],
    "airflow_worker": ["worker1", "worker2"],
}


def sound() -> Inventory:
    secrets = create(SECRETS)
    hosts = {
        host: {"ansible_host": f"192.0.2.{number}", "airflow_version": "3.3.2", **secrets}
        for number, host in enumerate(GROUPS["all"], 1)
    }
    return Inventory(hosts, copy.deepcopy(GROUPS), COLLECTION, MANAGED)


def lines(groups: dict[str, Any] | None = None, hosts: dict[str, Any] | None = None, **everywhere: Any) -> list[str]:
    """The problems of the sound inventory after these changes; None takes away."""
    inventory = sound()
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = [(dict(inventory.groups), groups or {})]
    tables += [(dict(found), {**everywhere, **(hosts or {}).get(host, {})}) for host, found in inventory.hosts.items()]
    for table, changes in tables:
        table.update(changes)
        for name in [name for name, value in table.items() if value is None and changes.get(name, 0) is None]:
            del table[name]
    changed = dict(zip(inventory.hosts, (table for table, _changes in tables[1:])))
    return [str(problem) for problem in inventory_problems(inventory._replace(groups=tables[0][0], hosts=changed))]


def test_a_sound_inventory_has_no_problem() -> None:
    assert lines() == []


@pytest.mark.parametrize(
    "groups",
    [
        {"airflow_flower": None, "airflow_gpu": ["worker2"], "gpu": ["worker2"], "site_a": ["db1"], "redis_metrics": ["db1"]},
        {name: None for name in GROUPS if name.startswith("airflow")},
        {name: None for name in GROUPS if name.startswith("airflow") or name == "redis"},
    ],
)
def test_allowed_groups(groups: dict[str, Any]) -> None:
    assert lines(groups) == []


def test_a_host_may_have_lost_its_last_component() -> None:
    """Directly under airflow it is still visited, so what it ran is taken away."""
    assert lines({"airflow": [*GROUPS["airflow"], "db1"]}) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"airflow_api_secret_key": "x$HOME" + "0123456789" * 2}, "airflow_api_secret_key — holds $, which"),
        ({"airflow_api_secret_key": "~" + "0123456789" * 8}, "airflow_api_secret_key — holds ~ at its start"),
        ({"airflow_flower_password": "abcdefgh,0123456789"}, "airflow_flower_password — holds a comma"),
        ({"airflow_flower_password": "abcdefgh-ü-123456789"}, "airflow_flower_password — holds a character beyond ASCII"),
        ({"airflow_flower_user": "a:b"}, "airflow_flower_user — holds a colon"),
        ({"airflow_worker_queues": ["my queue"]}, "airflow_worker_queues — has the queue 'my queue'"),
        ({"airflow_worker_queues": "default"}, "airflow_worker_queues — is no list of names"),
    ],
)
def test_values_that_would_be_read_as_something_else(variables: dict[str, Any], expected: str) -> None:
    found = lines(**variables)
    assert len(found) == 1 and expected in found[0]


def test_host_names_are_words() -> None:
    inventory = sound()
    groups = {**inventory.groups, "airflow": [*inventory.groups["airflow"], "w%n"]}
    hosts = {**inventory.hosts, "w%n": dict(inventory.hosts["worker1"], ansible_host="192.0.2.99")}
    (found,) = check_words(inventory._replace(groups=groups, hosts=hosts))
    assert str(found).startswith("host w%n — has a name")


def test_own_passwords_are_secrets_like_ours() -> None:
    extra: dict[str, Any] = {"airflow_extra_secrets": ["shop_password"]}
    make = "run the playbook windfarm.airflow.secrets (playbooks/secrets.yml) with this inventory"
    assert lines(**extra) == [f"shop_password — is not defined — {make}"]
    assert lines(**extra, shop_password="well-made-0123456789") == []
    (found,) = lines(**extra, shop_password="short")
    assert found.startswith("shop_password — is 5 characters long")
    assert lines(shop_password="short") == []


def test_servers_that_exist_already() -> None:
    for database in ("db.example.org", "db1.example.org,db2.example.org:5433"):
        assert lines({"postgresql": [], "redis": []}, airflow_database_host=database, airflow_broker_host="r") == []
    # So a group of the user's own may resemble the empty one.
    assert lines({"postgresql": None, "postgres": ["db1"]}, airflow_database_host="db.example.org") == []
    (line,) = lines({"redis": None, "reddis": ["db1"]}, airflow_database_host="db.example.org")
    assert line == "group reddis — is not a group of this collection — did you mean redis?"


@pytest.mark.parametrize(
    ("name", "group", "variable"),
    [
        ("airflow_database_password", "postgresql", {"airflow_database_host": "db.example.org"}),
        ("airflow_results_database_password", "postgresql", {"airflow_database_host": "db.example.org"}),
        ("airflow_broker_password", "redis", {"airflow_broker_host": "r"}),
        ("airflow_broker_password", "redis", {"airflow_broker_url": "redis://r:6379/0"}),
    ],
)
def test_passwords_of_servers_that_exist_already(name: str, group: str, variable: dict[str, Any]) -> None:
    """A password that secrets.yml makes would be refused by the server."""
    (line,) = lines({group: []}, **{**variable, name: "Short-1"})
    assert line.endswith("needed — give its account a better one on the server that you run, and write that here")
    (line,) = lines({group: []}, **{**variable, "airflow_admin_password": "Short-1"})
    assert line.endswith("which makes a good one")


def test_a_worker_set_may_be_empty() -> None:
    inventory = sound()
    groups = {**inventory.groups, "airflow_worker_gpu": []}
    sets = {"airflow_worker_gpu": {"hosts": [], "above": ["airflow_worker", "airflow", "all"], "serves": {}}}
    assert inventory_problems(inventory._replace(groups=groups, worker_sets=sets)) == []
    assert len(inventory_problems(inventory._replace(groups=groups))) == 1


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"redis": []}, "group redis — has no host — put a host into it, or set airflow_broker_host"),
        ({"airflow_worker": None, "airflow_workers": ["worker1", "worker2"]}, "group airflow_workers — is not a group"),
        ({"airflow_worker": None, "airflow_workers": ["worker1"]}, "did you mean airflow_worker?"),
        ({"airflow_worker": None, "airflow-worker": ["worker1", "worker2"]}, "did you mean airflow_worker?"),
        ({"airflow_worker": None}, "group airflow_worker — has no host — put a host into it"),
        ({"airflow_sheduler": ["control1"]}, "did you mean airflow_scheduler?"),
        ({"airflow_production_site": ["control1"]}, "known are postgresql, redis, airflow, airflow_scheduler"),
        ({"postgresql": None, "postgresq": ["db1"]}, "group postgresq — is not a group of this collection — did you mean"),
        ({"airflow": ["control1"]}, "group airflow_worker — is not a child of group airflow"),
        (dict.fromkeys(GROUPS), "inventory — no host is in a group of this collection"),
    ],
)
def test_groups(groups: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in lines(groups))


def test_a_misspelt_group_is_one_line() -> None:
    """Not another one for the group that is empty because of it."""
    assert len(lines({"airflow_worker": None, "airflow_workers": ["worker1", "worker2"]})) == 1
    assert len(lines({"postgresql": None, "postgresq": ["db1"]})) == 1


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ({"db1": {"ansible_host": "192.0.2.2"}}, "hosts db1, control1 — are one machine, 192.0.2.2 — use one inventory"),
        ({"db1": {"ansible_host": "control1"}, "control1": {"ansible_host": None}}, "are one machine, control1"),
        ({"db1": {"airflow_address": "192.0.2.9"}, "worker1": {"airflow_address": "192.0.2.9"}}, "machine, 192.0.2.9"),
        ({"db1": {"ansible_host": "127.0.0.1"}}, "host db1 — has the address 127.0.0.1, which means another machine"),
        ({"db1": {"ansible_host": "localhost"}}, "set airflow_address"),
    ],
)
def test_addresses(hosts: dict[str, Any], expected: str) -> None:
    found = lines(hosts=hosts)
    assert len(found) == 1 and expected in found[0]


def test_two_hosts_behind_one_address() -> None:
    hosts = {
        "worker1": {"ansible_host": "192.0.2.9", "ansible_port": 2221, "airflow_address": "192.0.2.31"},
        "worker2": {"ansible_host": "192.0.2.9", "ansible_port": 2222, "airflow_address": "192.0.2.32"},
    }
    assert lines(hosts=hosts) == []


def test_one_host_may_be_loopback() -> None:
    inventory = sound()
    everything = {name: ["control1"] for name in GROUPS if name != "ungrouped"}
    one = {"control1": {**inventory.hosts["control1"], "ansible_host": "127.0.0.1"}}
    assert inventory_problems(inventory._replace(hosts=one, groups=everything)) == []


def test_missing_secrets_are_one_line() -> None:
    found = lines(airflow_jwt_private_key=None, airflow_admin_password="")
    assert len(found) == 1
    assert found[0].startswith("airflow_jwt_private_key, airflow_admin_password — are not defined — run the playbook")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("airflow_admin_password", "change me", "is a placeholder"),
        ("airflow_broker_password", "CHANGEME-CHANGEME-CHANGEME", "is a placeholder"),
        ("airflow_broker_password", "<your broker password>", "is a placeholder"),
        ("airflow_broker_password", "x" * 40, "is a placeholder"),
        ("airflow_admin_password", "admin_password", "is its own name"),
        ("airflow_admin_password", "airflow_admin_password", "is its own name"),
        ("airflow_database_password", "Short-1", "is 7 characters long, at least 16 are needed"),
        ("airflow_database_password", 1234567890123456789, "is no text but int"),
        ("airflow_fernet_key", "bm90IDMyIGJ5dGVz", "is no Fernet key"),
        ("airflow_fernet_key", "ü" * 44 + "=", "is no Fernet key"),
        ("airflow_jwt_private_key", "abcdefgh" * 7, "is no private key (PEM) — remove it and run"),
        ("airflow_jwt_private_key", CA_KEY, "is no Ed25519 private key (PEM) — remove it and run"),
        ("airflow_ca_certificate", "abcdefgh", "is no certificate (PEM) — give the certificates"),
        ("airflow_ca_key", CA_KEY, "does not belong to any certificate in airflow_ca_certificate"),
    ],
)
def test_bad_secrets(name: str, value: Any, expected: str) -> None:
    found = lines(**{name: value})
    assert len(found) == 1 and found[0].startswith(f"{name} — {expected}")
    assert str(value) not in found[0].replace(name, "") or value in name


def test_two_fernet_keys_are_good() -> None:
    assert lines(airflow_fernet_key=f"{fernet_key()},{fernet_key()}") == []


def test_secrets_must_be_the_same_everywhere() -> None:
    hosts = {"worker1": {"airflow_broker_password": password()}}
    assert lines(hosts=hosts)[0].startswith("airflow_broker_password — differs between hosts")
    assert "is not defined for worker1" in lines(hosts={"worker1": {"airflow_broker_password": None}})[0]


def test_equal_secrets() -> None:
    (found,) = lines(airflow_admin_password="Kx9-qq17-Zt55-Wm02", airflow_flower_password="Kx9-qq17-Zt55-Wm02")
    assert found.startswith("airflow_flower_password, airflow_admin_password — are equal — remove all but one of them and run")
    # Without Flower nobody reads its password.
    same: dict[str, Any] = {"airflow_admin_password": "Kx9-qq17-Zt55-Wm02", "airflow_flower_password": "Kx9-qq17-Zt55-Wm02"}
    assert lines({"airflow_flower": None}, **same) == []


def test_a_secret_that_is_no_longer_needed_is_ignored() -> None:
    assert lines(airflow_jwt_secret="changeme") == []


def test_what_a_rotation_has_written() -> None:
    rotated: dict[str, Any] = {"airflow_rotation": {"secret": "tls", "stage": 1}, "airflow_database_login": "airflow_2"}
    pair: dict[str, Any] = {"airflow_ca_key": CA_KEY, "airflow_ca_certificate": pki.new_ca(CA_KEY, "c")}
    assert lines(**rotated, **pair, airflow_ca_next_key=CA_KEY) == []
    assert lines(airflow_rotation={}, airflow_database_login="", airflow_jwt_other_key="", airflow_ca_next_key="") == []
    (found,) = lines(airflow_rotation={"secret": "tls", "stage": 9})
    assert found.startswith("airflow_rotation — has stage 9, and a rotation of tls has 1 to 3 — restore the file of secrets, or")
    (found,) = lines(airflow_results_database_login="somebody")
    assert found == "airflow_results_database_login — is somebody — write airflow_results or airflow_results_2, or remove it"
    (found,) = lines(airflow_jwt_other_key=CA_KEY)
    assert found.startswith("airflow_jwt_other_key — is no Ed25519 key (PEM)")
    (found,) = lines(airflow_ca_next_key=pki.new_key())
    assert found.startswith("airflow_ca_next_key — does not belong to any certificate in airflow_ca_certificate")


def test_trusted_keys() -> None:
    key = pki.new_jwt_key()
    public = pki.public_pem(pki.load_private_key(key).public_key())
    assert lines(airflow_jwt_trusted_keys=[key, public]) == lines(airflow_jwt_trusted_keys=[]) == []
    (found,) = lines(airflow_jwt_trusted_keys=[public, CA_KEY])
    assert found.startswith("airflow_jwt_trusted_keys — number 2 is no Ed25519 key (PEM) — write a list")
    assert lines(airflow_jwt_trusted_keys=public)[0].startswith("airflow_jwt_trusted_keys — is a text, no list")


def test_no_authority_without_tls() -> None:
    bare: dict[str, Any] = {"airflow_ca_key": None, "airflow_ca_certificate": None}
    assert lines(airflow_tls=False, **bare) == []
    assert lines(**bare)[0].startswith("airflow_ca_key, airflow_ca_certificate — are not defined — run the playbook")


def test_an_authority_whose_key_is_elsewhere() -> None:
    (found,) = lines(airflow_ca_key=None)
    assert found.startswith(
        "airflow_ca_key — is not defined, and db1, control1 has no certificate of its own — define it, or set"
    )
    own = {"airflow_certificate_file": "c.pem", "airflow_certificate_key_file": "c.key"}
    assert lines(airflow_ca_key=None, hosts={"db1": own, "control1": own}) == []


def test_the_days_of_certificates() -> None:
    (found,) = lines(airflow_certificate_days=60, airflow_certificate_renew_days=60)
    assert found == (
        "airflow_certificate_renew_days — is 60, so each run would make new certificates — "
        "set it to less than airflow_certificate_days"
    )


def test_the_health_timer() -> None:
    assert lines(airflow_health_interval=0, airflow_health_disk_free_mb=0, airflow_health_clock_seconds=0.0) == []
    assert lines(airflow_health_interval=10, airflow_health_strikes=2, airflow_health_clock_seconds=1.5) == []
    found = lines(airflow_health_interval=5, airflow_health_strikes="3", airflow_health_clock_seconds=0.5)
    assert found == [
        "airflow_health_interval — is 5 — set it to 10 or more seconds, or to 0 for no health timer",
        "airflow_health_strikes — is '3', which is no number — set it to 2 or more: what fails once is busy",
        "airflow_health_clock_seconds — is 0.5 — set it to 1 or more seconds, or to 0 for any clock",
    ]


def test_names_of_the_brokers_other_accounts() -> None:
    assert lines(airflow_broker_user="airflow") == []
    for name in ("admin", "default"):
        assert lines(airflow_broker_user=name)[0].startswith(f"airflow_broker_user — {name} is the name of another account")
    assert lines({"redis": []}, airflow_broker_host="r", airflow_broker_user="default") == []


def test_sessions_that_nobody_can_end() -> None:
    for variables in (
        {"airflow_config": {"FAB": {"session_backend": "SecureCookie"}}},
        {"airflow_secret_config": {"webserver": {"fab": {"session_backend": "securecookie"}}}},
    ):
        (found,) = lines(**variables)
        assert "session_backend — is securecookie, which keeps sessions that nobody can end" in found
    assert lines(airflow_config={"fab": {"session_backend": "database"}}) == []


def test_version_without_lock() -> None:
    found = lines(airflow_version="3.9.9")
    assert len(found) == 1
    assert found[0].startswith("airflow_version — there is no lock for Airflow 3.9.9 — set one of 3.2.2 (Python 3.11, 3.13), 3")
    assert lines(airflow_version="3.9.9", airflow_lock_file="/x") == []


def test_requirements(tmp_path: pathlib.Path) -> None:
    here: dict[str, Any] = {"inventory_dir": str(tmp_path), "airflow_requirements": ["pandas>=3"]}
    assert lines(**here)[0].startswith(f"airflow_requirements — not resolved yet, {tmp_path}/locks/airflow-3.3.2-py3.11.txt")
    shipped = pathlib.Path(airflow_lock.shipped_lock(COLLECTION, "3.3.2", "3.13")).read_text(encoding="utf-8")
    (tmp_path / "locks").mkdir()
    facts: dict[str, Any] = {
        "airflow": "3.3.2",
        "python": "3.13",
        "requirements": ["pandas>=3"],
        "base": airflow_lock.digest(shipped),
    }
    lock = tmp_path / "locks/airflow-3.3.2-py3.13.txt"
    lock.write_text(airflow_lock.render_header([], facts), encoding="utf-8")
    assert lines(**here) == []
    lock.write_text(airflow_lock.render_header([], {**facts, "requirements": ["pandas"]}), encoding="utf-8")
    assert "was resolved for other requirements — run the playbook" in lines(**here)[0]
    lock.write_text(airflow_lock.render_header([], {**facts, "base": "0"}), encoding="utf-8")
    assert "was resolved under another shipped lock" in lines(**here)[0]
    assert "has no folder" in lines(**{**here, "inventory_dir": "None"})[0]
    assert "is a text, no list" in lines(airflow_requirements="pandas")[0]
    assert "is an option" in lines(airflow_requirements=["-r x.txt"])[0]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"airflow_config": "x"}, "airflow_config — is a text, no dictionary — write it as {section"),
        ({"airflow_config": {"core": "x"}}, "airflow_config.core — is a text, no dictionary"),
        ({"airflow_config": {"core": {"Executor": "x"}}}, "airflow_config.core.Executor — is managed by the role"),
        ({"airflow_config": {"core": {"fernet_key": "x"}}}, "is secret — set airflow_fernet_key instead"),
        ({"airflow_config": {"sentry": {"sentry_dsn": "x"}}}, "is secret — move it to airflow_secret_config"),
        ({"airflow_secret_config": {"core": {"x": "y"}}}, "airflow_secret_config.core — is no dictionary of dictionaries"),
        ({"airflow_secret_config": {"all": {"celery": {"broker_url": "y"}}}}, "is managed by the role — set airflow_broker"),
    ],
)
def test_bad_config(variables: dict[str, Any], expected: str) -> None:
    found = lines(**variables)
    assert len(found) == 1 and expected in found[0]


def test_good_config() -> None:
    config = {"core": {"parallelism": 64}, "sentry": None}
    assert lines(airflow_config=config, airflow_secret_config={"all": {"sentry": {"sentry_dsn": "x"}}}) == []


FACTS = {
    "distribution": "Debian",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "service_mgr": "systemd",
    "python_version": "3.11.2",
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"distribution": "Ubuntu", "distribution_major_version": "24"}, "host worker1 — runs Ubuntu 24 — use Debian 12 or 13"),
        ({"distribution_major_version": "11"}, "runs Debian 11"),
        ({"architecture": "armv7l"}, "has the architecture armv7l — use x86_64 or aarch64"),
        ({"service_mgr": "sysvinit"}, "is run by sysvinit, not by systemd"),
        ({"python_version": "3.12.4"}, "airflow_version: there is no lock for Airflow 3.3.2 on Python 3.12 — set one of"),
    ],
)
def test_hosts(facts: dict[str, str], expected: str) -> None:
    found = [str(problem) for problem in host_problems(sound(), {"worker1": {**FACTS, **facts}, "db1": FACTS})]
    assert len(found) == 1 and expected in found[0]


def test_good_hosts() -> None:
    newer = {**FACTS, "distribution_major_version": "13", "python_version": "3.13.5", "architecture": "aarch64"}
    assert host_problems(sound(), {"worker1": newer, "db1": FACTS}) == []


def test_absent_hosts() -> None:
    assert absent_problems(sound(), {"worker1": "unreachable"}) == []
    assert "is unreachable and belongs to postgresql, redis" in str(absent_problems(sound(), {"db1": "unreachable"})[0])
    assert "does not tell its facts" in str(absent_problems(sound(), {"worker1": "failed"})[0])


def test_report() -> None:
    found = inventory_problems(sound()._replace(groups={"all": []}))
    assert report(found)[0] == "1 problem, no host was changed"
    assert report(found)[1].startswith("  1. inventory — no host is in a group")


def keys_of(inventory: Inventory, **changes: Any) -> dict[str, Any]:
    fingerprints = pki.fingerprints({**inventory.hosts["db1"], **changes})
    return {"ansible_local": {"windfarm_airflow": {"fingerprints": fingerprints}}}


def told(inventory: Inventory, **facts: Any) -> tuple[list[str], list[str]]:
    problems, warnings = key_problems(inventory, facts)
    return [str(problem) for problem in problems], [str(warning) for warning in warnings]


def test_hosts_with_the_inventorys_keys() -> None:
    inventory = sound()
    assert told(inventory, db1=keys_of(inventory), control1=keys_of(inventory), worker1=FACTS) == ([], [])
    unreadable: list[dict[str, Any]] = [
        {},
        {"windfarm_airflow": "error loading facts as JSON"},
        {"windfarm_airflow": {"fingerprints": {}}},
    ]
    for local in unreadable:
        assert told(inventory, db1={"ansible_local": local}) == ([], [])


def test_a_key_that_is_being_rotated_is_no_news() -> None:
    inventory = sound()
    facts = {
        "db1": keys_of(
            inventory, airflow_jwt_private_key=pki.new_jwt_key(), airflow_api_secret_key="another-one-of-40-characters"
        )
    }
    assert [text.partition(" ")[0] for text in told(inventory, **facts)[1]] == [
        "airflow_api_secret_key",
        "airflow_jwt_private_key",
    ]
    for host in inventory.hosts.values():
        host["airflow_rotation"] = {"secret": "jwt", "stage": 2}  # type: ignore[index]
    assert [text.partition(" ")[0] for text in told(inventory, **facts)[1]] == ["airflow_api_secret_key"]


def test_a_host_with_another_fernet_key() -> None:
    inventory, other = sound(), fernet_key()
    problems, warnings = told(inventory, db1=keys_of(inventory, airflow_fernet_key=other), control1=keys_of(inventory))
    assert warnings == [] and len(problems) == 1
    assert problems[0].startswith("host db1 — was given another airflow_fernet_key, and the inventory's cannot read")
    # Only a worker, which was away while the key was changed.
    problems, warnings = told(inventory, worker1=keys_of(inventory, airflow_fernet_key=other))
    assert problems == [] and warnings[0].startswith("airflow_fernet_key — was given to worker1 with another value")


def test_fernet_keys_while_one_replaces_another() -> None:
    inventory = sound()
    old, new = inventory.hosts["db1"]["airflow_fernet_key"], fernet_key()
    both = {host: {**variables, "airflow_fernet_key": f"{new},{old}"} for host, variables in inventory.hosts.items()}
    assert told(inventory._replace(hosts=both), db1=keys_of(inventory)) == ([], [])
    # What was encrypted with the new key meanwhile would be lost.
    assert told(inventory, db1=keys_of(inventory, airflow_fernet_key=f"{new},{old}"))[0]


def test_other_keys_are_only_told() -> None:
    inventory = sound()
    changed = keys_of(inventory, **create(["airflow_jwt_private_key", "airflow_api_secret_key"]))
    problems, warnings = told(inventory, db1=changed, control1=changed)
    assert problems == [] and [warning.split(" — ")[0] for warning in warnings] == [
        "airflow_api_secret_key",
        "airflow_jwt_private_key",
    ]
    assert "db1, control1" in warnings[0]
    key = pki.new_key()
    ca = inventory.hosts["db1"]["airflow_ca_certificate"]
    assert told(inventory, db1=keys_of(inventory, airflow_ca_certificate=pki.new_ca(key, "x") + ca)) == ([], [])
    (problem,) = told(inventory, db1=keys_of(inventory, airflow_ca_certificate=pki.new_ca(key, "x")))[0]
    assert problem.startswith("host db1 — trusts none of the authorities in airflow_ca_certificate")


def test_no_key_is_hashed_for_hosts_that_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "fingerprints", None)
    assert told(sound(), db1=FACTS) == ([], [])


def test_what_the_whole_cluster_shares_is_the_same_everywhere() -> None:
    assert lines(
        hosts={"worker1": {"airflow_tls": False}, "control1": {"airflow_tls": True}, "worker2": {"airflow_tls": True}}
    ) == ["airflow_tls — differs between hosts (False, True) — define it once, in group_vars/all"]
    assert lines(airflow_tls=False) == []
    # A server's host needs not know.
    assert lines(hosts={host: {"airflow_database_name": "flows"} for host in ("control1", "worker1", "worker2")}) == []


@pytest.mark.parametrize("off", [False, "false", "no"])
def test_a_plain_address_of_a_webserver_that_speaks_tls(off: Any) -> None:
    plain: dict[str, Any] = {"airflow_execution_api_url": "http://192.0.2.2:8080/execution/"}
    (found,) = lines(**plain)
    assert found.startswith("airflow_execution_api_url — is http://192.0.2.2:8080/execution/, where a webserver speaks TLS")
    assert lines(**plain, airflow_tls=off) == []
    assert lines(airflow_base_url="http://proxy.example.com/") == []


def test_an_intermediate_authority_does_not_sign() -> None:
    root_key, between_key = pki.new_key(), pki.new_key()
    root = pki.load_authority(pki.new_ca(root_key, "root"), root_key)
    between = _intermediate(root, between_key)
    (found,) = lines(airflow_ca_certificate=between, airflow_ca_key=between_key)
    assert found.startswith("airflow_ca_key — belongs to an intermediate authority")


def _intermediate(root: pki.Authority, key: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    private = pki.load_private_key(key)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "between")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(root.issuer.subject).public_key(private.public_key())
    builder = (
        builder.serial_number(1)
        .not_valid_before(root.issuer.not_valid_before_utc)
        .not_valid_after(root.issuer.not_valid_after_utc)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(root.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_servers_of_others() -> None:
    def found(groups: dict[str, Any] | None = None, **variables: Any) -> list[str]:
        return lines(groups, airflow_database_host="db.example.com", **variables)

    alone: dict[str, Any] = {"postgresql": [], "redis": []}
    assert found(alone, airflow_database_sslmode="verify-full", airflow_broker_url="rediss://u:hush@r:6380/0") == []
    assert found(alone, airflow_database_sslmode="verify", airflow_broker_host="r") == [
        "airflow_database_sslmode — is verify — did you mean verify-ca?"
    ]
    url = "airflow_broker_url — is no URL of Redis — begin it with redis:// or rediss://"
    assert found(alone, airflow_broker_url="amqp://u:hush@r") == [url]
    both = "airflow_broker_url — names a broker, and group redis has a host that is one — remove it, or empty the group"
    assert found({"postgresql": []}, airflow_broker_url="redis://r") == [both]
    assert (
        "airflow_database_sslmode — is of no use where group postgresql has a host"
        in found(airflow_database_sslmode="require")[0]
    )
    (problem,) = found(alone, airflow_broker_url="redis://u:p$x@r")
    assert problem.startswith("airflow_broker_url — holds $, which Airflow or Flower would read as something else")
    assert lines(airflow_webserver_config="/no/such") == [
        "airflow_webserver_config — /no/such is no file here — give the path on this machine"
    ]


def test_what_is_declared_is_looked_at() -> None:
    (problem,) = lines(airflow_pools=[{"name": "x", "slots": -7}])
    assert problem == "airflow_pools[0] x — slots is -7 — write 0 or more, or -1 for no limit"
    (problem,) = lines(airflow_users=[{"username": "root", "state": "absent"}], airflow_admin_user="root")
    assert problem.startswith("airflow_users[0] root — is the admin user")


def test_whoever_initialises_the_cluster_has_the_same_content() -> None:
    """With --limit that may be any scheduler; and a purge by one that has no lists would take all away."""
    groups = {"airflow_scheduler": ["control1", "worker1"]}
    pools = [{"name": "etl", "slots": 1}]
    assert lines(groups, airflow_pools=pools, airflow_purge=["pools"]) == []
    assert lines(
        groups, {"control1": {"airflow_pools": pools}, "worker1": {"airflow_admin_user": "root"}}, airflow_purge=["pools"]
    ) == [
        "airflow_pools — differs between hosts (control1, worker1), each of which may initialise the cluster — "
        "define it once, in group_vars/all",
        "airflow_admin_user — differs between hosts (control1, worker1), each of which may initialise the cluster — "
        "define it once, in group_vars/all",
    ]
