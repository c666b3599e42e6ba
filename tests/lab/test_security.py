# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster under attack: from its users' code, from a host on its network, and by somebody who reads all that it writes.

What docs/security.md says is closed is tried here, and what it says cannot be closed is shown to be open."""

from __future__ import annotations

import base64
import http.client
import json
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modes
import probe_net
import pytest
import secret_scan
from api import Airflow, wait
from conftest import Shipment
from foreign import Foreign, tries
from inventory import ROOT, Inventory
from secret_scan import HERE, hosts_of, run_on

# A ratchet: what `systemd-analyze security` may say at most.
SCORES = {
    "webserver": 2.0, "scheduler": 2.0, "flower": 2.0, "logs": 2.0, "triggerer": 2.5, "dag-processor": 2.5, "worker": 4.0,
    "health": 2.5,
}  # fmt: skip
SSH = 22
CA_FILE = "/etc/airflow/ca.pem"
QUEUE = "hostile-idle"
TRIGGER = "hostile_trigger.py"
# The server's own words: a client that cannot speak so old a version would fail too.
OLD_TLS = r"tls: .*ALERT_PROTOCOL_VERSION"
# Python's asyncio, thus a webserver, hangs up without a word; another server has to show what the client sent.
HUNG_UP = r"tls: (.*ALERT_PROTOCOL_VERSION|UNEXPECTED_EOF_WHILE_READING|.*closed \(EOF\).*)|reset"
# Where nothing to attack is seen (hidden processes, no such component on the host), that is the defence.
MAY_HAVE_NO_TARGET = {
    "environments of other processes", "memory of other processes", "signals to other users' processes", "ptrace",
    "task logs on other hosts", "HAProxy's admin socket",
}  # fmt: skip

# What cannot be closed, by where the code runs; docs/security.md has the reason for each, under the same name.
CANNOT_BE_CLOSED = {
    "task": {
        "tokens of queued tasks",
        "queues of others",
        "results of other tasks",
        "task logs on its own host",
        "secrets in its own environment",
    },
    "dag processor": {"the metadata database", "secrets in its own environment"},
    "triggerer": {"the metadata database", "secrets in its own environment"},
}
OWN_SECRETS = {
    "task": ["BROKER_URL", "RESULT_BACKEND", "SECRET_KEY"],
    "dag processor": ["FERNET_KEY", "SECRET_KEY", "SQL_ALCHEMY_CONN"],
    "triggerer": ["FERNET_KEY", "SECRET_KEY", "SQL_ALCHEMY_CONN"],
}
PLACES = ("task", "dag processor", "triggerer")


def at(inventory: Inventory, host: str) -> str:
    return str(inventory.plan["addresses"][host])


@pytest.fixture(scope="module")
def ca(inventory: Inventory) -> str:
    if not inventory.plan["tls"]:
        pytest.skip("airflow_tls is false")
    return inventory.ca


# --- a secret scan -----------------------------------------------------------------------------------------------------
PLANTED = {
    "file /tmp/planted": lambda value: value,
    "file /var/tmp/planted": lambda value: base64.b64encode(b"x" + value.encode() + b"y").decode(),
    "file /etc/planted": lambda value: f"postgresql://airflow:{urllib.parse.quote(value, safe='')}@db/airflow",
    "file /root/planted.json": lambda value: json.dumps({"password": value}),
}


def plant(inventory: Inventory, host: str, value: str) -> None:
    """A value that means nothing, so that it may stay in the journal for ever."""
    for place, written in PLANTED.items():
        inventory.run(host, "tee", place.removeprefix("file "), stdin=written(value))
    inventory.run(host, "systemd-cat", "-t", "planted", stdin=value)
    inventory.run(host, "systemd-run", "--quiet", "--unit=planted", "--collect", "/bin/sh", "-c", "sleep 600; : $0", value)


def unplant(inventory: Inventory, host: str) -> None:
    inventory.run(host, "systemctl", "stop", "planted")
    inventory.run(host, "rm", *(place.removeprefix("file ") for place in PLANTED))


@pytest.fixture(scope="module")
def scanned(inventory: Inventory, airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> secret_scan.Report:
    since = time.time()
    outputs = {}
    for name in ("secrets", "site"):
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(Path(inventory.path).resolve())]
        done = subprocess.run(
            [*command, f"playbooks/{name}.yml", "-vvv", "--diff"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        outputs[f"output of {name}.yml -vvv"] = done.stdout + done.stderr
    # Flower shows tasks only that it saw running.
    airflow.wait_for_dag("smoke", 60)
    airflow.wait_for_run("smoke", airflow.trigger("smoke"), 120)
    host = inventory.members["worker"][0]
    # Letters that every encoding writes in another way.
    value = f'pl@n+ed/{secrets.token_hex(12)}:é"x$%'
    plant(inventory, host, value)
    file = tmp_path_factory.mktemp("planted") / "file"
    file.write_text(value)
    try:
        report = secret_scan.scan(inventory, {"planted": value}, {**outputs, "a planted output": f"x{value}x"}, since)
    finally:
        unplant(inventory, host)
    print(f"\n{report}")
    return report


def test_the_scan_finds_what_was_planted(scanned: secret_scan.Report, inventory: Inventory) -> None:
    host = inventory.members["worker"][0]
    found = {hit.place: hit.form for hit in scanned.hits if hit.name == "planted" and hit.host == host}
    assert set(PLANTED) < set(found)
    assert found["file /tmp/planted"] == "plain" and found["file /var/tmp/planted"] == "base64"
    assert found["file /etc/planted"] == "URL"
    assert {"journal", "units", "command line of root in planted.service"} <= set(found)
    here = {hit.place for hit in scanned.hits if hit.name == "planted" and hit.host == "controller"}
    assert "a planted output" in here and any(place.endswith("/file") for place in here)


def test_no_secret_is_outside_its_place(scanned: secret_scan.Report) -> None:
    assert not [str(hit) for hit in scanned.forbidden if hit.name != "planted"]


def test_the_scan_is_quick(scanned: secret_scan.Report) -> None:
    assert scanned.seconds < 60


def test_each_component_holds_what_the_table_says(scanned: secret_scan.Report, inventory: Inventory) -> None:
    """Also a proof that the scan sees: every secret is found where it belongs."""
    for host in hosts_of(inventory):
        here = {name for name in secret_scan.ENVIRONMENT if host in inventory.members.get(name.replace("-", "_"), [])}
        if host in inventory.members["worker"] + inventory.members["triggerer"]:
            here.add("logs")
        operator = host in inventory.members["scheduler"] + inventory.members["webserver"]
        here |= {"cli"} if operator else set()
        expected = {(name, secret) for name in here for secret in secret_scan.ENVIRONMENT[name]}
        expected |= {(name, secret_scan.JWT) for name in here & secret_scan.SIGNERS}
        files = [hit for hit in scanned.hits if hit.host == host and hit.place.startswith("file /etc/airflow/")]
        found = {(secret_scan.holder(hit.place)[0], hit.name) for hit in files}
        assert found == expected, host


# --- a hostile DAG -----------------------------------------------------------------------------------------------------
def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def targets(inventory: Inventory) -> dict[str, Any]:
    plan = inventory.plan
    scheme = "https" if plan["tls"] else "http"
    webservers = [f"{scheme}://{bracketed(one['address'])}:{one['port']}" for one in plan["webservers"]]
    flower_port = inventory.common("airflow_flower_port", 5555)
    flowers = ["127.0.0.1", *(at(inventory, host) for host in inventory.members["flower"])]
    logs = [
        (at(inventory, host), port["port"])
        for host in hosts_of(inventory)
        for port in plan["ports"][host]
        if port["name"] in ("worker_logs", "triggerer_logs")
    ]
    admin = inventory.common("airflow_admin_user", "admin")
    (user,) = inventory.sql(f"select id from ab_user where username = '{admin}'")
    (instance,) = inventory.sql("select id from task_instance limit 1")
    return {
        "run": secrets.token_hex(8),
        "database": plan["database"],
        "dags": inventory.common("airflow_dags_folder", "/srv/airflow/dags"),
        "plugins": inventory.common("airflow_plugins_folder", "/srv/airflow/plugins"),
        "ca": CA_FILE,
        "queue": QUEUE,
        "webservers": webservers,
        "flowers": [f"{address}:{flower_port}" for address in dict.fromkeys(flowers)],
        "logs": logs,
        "admin": user[0],
        "task": instance[0],
        "api_audience": "apache-airflow",
        "execution_audience": "urn:airflow.apache.org:task",
    }


@pytest.fixture(scope="module")
def order(inventory: Inventory, airflow: Airflow) -> dict[str, Any]:
    # Its task is the one that a forged token would act for.
    airflow.wait_for_dag("smoke", 60)
    airflow.wait_for_run("smoke", airflow.trigger("smoke"), 120)
    return targets(inventory)


@pytest.fixture(scope="module")
def attacked(inventory: Inventory, airflow: Airflow, shipment: Shipment, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What came of it in a task, in the dag processor and in the triggerer."""
    here = ROOT / "tests" / "lab"
    shutil.copy(here / "dags" / "attacks.py", shipment.folder)
    text = (here / "dags" / "hostile.py").read_text()
    text = text.replace("TARGETS: dict[str, Any] = {}", f"TARGETS: dict[str, Any] = json.loads({json.dumps(order)!r})")
    (shipment.folder / "hostile.py").write_text(text)
    plugin = f"{order['plugins']}/{TRIGGER}"
    for host in inventory.members["triggerer"]:
        inventory.run(host, "tee", plugin, stdin=(here / TRIGGER).read_text())
        inventory.run(host, "chgrp", "airflow", plugin)
        inventory.run(host, "chmod", "640", plugin)
    try:
        shipment.ship("hostile")
        airflow.wait_for_dag("hostile", 60)
        # A DAG of an earlier run may still be known, with what it found then.
        wait("the dag processor was attacked", 60, lambda: order["run"] in (airflow.get("dags/hostile/details")["doc_md"] or ""))
        airflow.wait_for_dag("hostile_victim", 60)
        inventory.redis("DEL", QUEUE)
        victim = airflow.trigger("hostile_victim")
        wait("a task waits in its queue", 60, lambda: inventory.redis("LLEN", QUEUE) == "1")
        run = airflow.trigger("hostile")
        airflow.wait_for_run("hostile", run, 180)
        airflow.end("hostile_victim", victim, "failed")
        states = {task["task_id"]: task for task in airflow.tasks("hostile", run)}
        for name, task in states.items():
            assert task["state"] == "success", f"{name}: {airflow.log(task)[-3000:]}"
        path = f"dags/hostile/dagRuns/{urllib.parse.quote(run)}/taskInstances"
        yield {
            "task": airflow.get(f"{path}/in_task/xcomEntries/return_value")["value"],
            "triggerer": airflow.get(f"{path}/in_triggerer/xcomEntries/return_value")["value"],
            "dag processor": json.loads(airflow.get("dags/hostile/details")["doc_md"]),
        }
    finally:
        for host in inventory.members["triggerer"]:
            inventory.run(host, "rm", "-f", plugin)
        inventory.redis("DEL", QUEUE)
        for name in ("hostile.py", "attacks.py"):
            (shipment.folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("place", PLACES)
def test_the_code_ran_as_the_components_own_user(attacked: dict[str, Any], place: str, order: dict[str, Any]) -> None:
    user = {"task": "airflow-worker", "dag processor": "airflow-dag-processor", "triggerer": "airflow-triggerer"}[place]
    assert "error" not in attacked[place], attacked[place]["error"]
    assert (attacked[place]["user"], attacked[place]["run"]) == (user, order["run"])


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_dag_gets_nowhere_else(attacked: dict[str, Any], place: str, inventory: Inventory) -> None:
    print(f"\n{json.dumps(attacked[place], indent=1)}")
    opened = {name: found["open"] for name, found in attacked[place]["attacks"].items() if found["open"]}
    # Webservers read the logs of all hosts, and an address is all that the firewall knows of a component.
    beside = {"task logs on other hosts", "task logs on its own host"} if beside_a_webserver(inventory, place) else set()
    assert {name: what for name, what in opened.items() if name not in CANNOT_BE_CLOSED[place] | beside} == {}


def beside_a_webserver(inventory: Inventory, place: str) -> bool:
    component = {"task": "worker", "dag processor": "dag_processor", "triggerer": "triggerer"}[place]
    return bool(set(inventory.members[component]) & set(inventory.members["webserver"]))


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_closed_is_known(attacked: dict[str, Any], place: str) -> None:
    """When one of these is closed one day, docs/security.md is to say so."""
    opened = {name for name, found in attacked[place]["attacks"].items() if found["open"]}
    assert opened >= CANNOT_BE_CLOSED[place]
    assert attacked[place]["attacks"]["secrets in its own environment"]["open"] == OWN_SECRETS[place]


def test_every_attack_had_targets_and_failed_for_the_right_reason(attacked: dict[str, Any]) -> None:
    found = attacked["task"]["attacks"]
    assert not [name for name, one in found.items() if not one["tried"] and name not in MAY_HAVE_NO_TARGET]
    for name in ("a forged admin token", "a forged execution token", "the webserver without login"):
        assert set(found[name]["denied"]) <= {"HTTP 401", "HTTP 403"}, f"{name}: {found[name]}"
    for name in ("a forged admin token", "a forged execution token", "the webserver without login"):
        triggerer = attacked["triggerer"]["attacks"][name]
        assert set(triggerer["denied"]) <= {"HTTP 401", "HTTP 403"} and triggerer["tried"], f"{name}: {triggerer}"


def test_the_forged_tokens_lack_only_the_key(order: dict[str, Any], inventory: Inventory) -> None:
    """With the real key the same claims are let in, each by its own part of the API, so what is refused is the signature."""
    sys.path.insert(0, str(ROOT / "tests" / "lab" / "dags"))
    import attacks
    from ansible_collections.windfarm.airflow.plugins.module_utils import pki
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = inventory.common(secret_scan.JWT)
    key: Any = load_pem_private_key(pem.encode(), None)
    paths = ("/api/v2/connections", "/execution/connections/hostile")
    cases: list[tuple[dict[str, Any], tuple[int, int]]] = [
        (attacks.claims(order["api_audience"], str(order["admin"])), (200, 403)),
        # Not found: it was asked for.
        (attacks.claims(order["execution_audience"], order["task"]), (403, 404)),
        # What waits in a queue may start its task, and nothing else.
        ({**attacks.claims(order["execution_audience"], order["task"]), "scope": "workload"}, (403, 403)),
    ]
    for body, expected in cases:
        made = attacks.token({"alg": "EdDSA", "kid": pki.jwt_kid(pem)}, body, key.sign)
        headers = {"Authorization": f"Bearer {made}"}
        assert tuple(send(inventory, path, headers)[0] for path in paths) == expected, body


# --- a foreign host ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def foreign(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    if inventory.get(inventory.members["webserver"][0], "lab_image") is None:
        pytest.skip("only the lab's network has room for a foreign host")
    with Foreign(tmp_path_factory.mktemp("network"), inventory) as host:
        yield host


def ports_open_to_all(inventory: Inventory, host: str) -> set[int]:
    webservers = {one["port"] for one in inventory.plan["webservers"] if one["name"] == host}
    return {SSH, *webservers}


def test_a_port_scan_equals_the_plan(foreign: Foreign, inventory: Inventory) -> None:
    hosts = hosts_of(inventory)
    begin = time.monotonic()
    found = foreign.tries([("scan", {"host": inventory.reach(host)}) for host in hosts])
    print(f"\n{len(hosts)} hosts, 65535 ports each, in {time.monotonic() - begin:.1f} s: {dict(zip(hosts, found))}")
    assert {host: set(ports) for host, ports in zip(hosts, found)} == {host: ports_open_to_all(inventory, host) for host in hosts}


def test_every_host_reaches_what_the_plan_says(foreign: Foreign, inventory: Inventory) -> None:
    """From every host of the cluster, and from the foreign one, to every port of every other."""
    wrong = []
    for source in [*hosts_of(inventory), ""]:
        places = [
            (host, port)
            for host in hosts_of(inventory)
            if host != source
            for port in [*inventory.plan["ports"][host], *open_to_all(inventory, host)]
        ]
        asked = [("connect", {"host": inventory.reach(host), "port": port["port"]}) for host, port in places]
        answers = tries(inventory, source, asked) if source else foreign.tries(asked)
        for (host, port), answer in zip(places, answers):
            allowed = port["clients"] == "all" or (source and at(inventory, source) in port["clients"])
            if (answer == "open") != bool(allowed):
                wrong.append(f"{source or 'foreign'} -> {host} {port['name']} {port['port']}: {answer}")
    assert not wrong


def open_to_all(inventory: Inventory, host: str) -> list[dict[str, Any]]:
    return [{"name": "open", "port": port, "clients": "all"} for port in ports_open_to_all(inventory, host)]


def test_nothing_else_listens(inventory: Inventory) -> None:
    """As the host itself sees it, UDP too: what is bound to more than loopback is in the plan."""
    for host in hosts_of(inventory):
        planned = {port["port"] for port in inventory.plan["ports"][host]} | ports_open_to_all(inventory, host)
        lines = inventory.run(host, "ss", "-Hltun").splitlines()
        rows = [(line.split()[0], *line.split()[4].rpartition(":")[::2]) for line in lines]
        reachable = {(kind, int(port)) for kind, address, port in rows if not re.match(r"(\[::1\]|127\.)", address)}
        assert reachable <= {("tcp", port) for port in planned}, host


@pytest.fixture()
def without_firewall(inventory: Inventory, request: pytest.FixtureRequest) -> Iterator[None]:
    """The services must hold without it: one layer at a time."""
    hosts = hosts_of(inventory)
    list_table = ("nft", "list", "table", "inet", "airflow")
    before = {host: inventory.run(host, *list_table) for host in hosts}
    assert all(before.values()), "there is no firewall to take away"
    for host in hosts:
        inventory.run(host, "nft", "delete", "table", "inet", "airflow")
    try:
        yield
    finally:
        for host in hosts:
            inventory.run(host, "systemctl", "restart", "airflow-firewall")
    assert {host: inventory.run(host, *list_table) for host in hosts} == before


def test_services_refuse_a_foreign_host_even_without_the_firewall(
    foreign: Foreign, inventory: Inventory, without_firewall: None
) -> None:
    plan, single = inventory.plan, inventory.plan["single"]
    asked, expected, what = [], [], []

    def expect(name: str, pattern: str, operation: str, **arguments: Any) -> None:
        asked.append((operation, arguments))
        expected.append(pattern)
        what.append(f"{name} {operation} {arguments}")

    # Bound to loopback: not there.
    gone = r"refused"
    for host in inventory.members["postgresql"]:
        at_host = {"host": inventory.reach(host), "port": plan["database"]["port"]}
        for target in (plan["database"], plan["results_database"]):
            # The password is not even asked for: the address is wrong.
            for secure in (True, False):
                pattern = gone if single else r"28000 .*pg_hba\.conf"
                expect("address", pattern, "pg", **at_host, user=target["user"], database=target["name"], secure=secure)
        expect("superuser", gone if single else "28000 ", "pg", **at_host, user="postgres", database="postgres")
        for version in ("1.0", "1.1"):
            expect("old TLS", gone if single else OLD_TLS, "tls", **at_host, version=version, postgresql=True)
    for host in inventory.members["redis"]:
        at_host = {"host": inventory.reach(host), "port": plan["broker"]["port"]}
        for version in ("1.0", "1.1"):
            expect("old TLS", gone if single else OLD_TLS, "tls", **at_host, version=version)
        expect("plain", gone if single else "(reset|closed|.*record)", "redis", **at_host, commands=[["PING"]], secure=False)
        for words in (["PING"], ["CONFIG", "GET", "*"], ["LLEN", "default"]):
            expect("no login", gone if single else "-NOAUTH", "redis", **at_host, commands=[words])
        for user in ("default", inventory.common("airflow_broker_user", "airflow"), "admin"):
            expect("wrong password", gone if single else "-WRONGPASS", "redis", **at_host, commands=[["AUTH", user, "wrong"]])
    for host in hosts_of(inventory):
        for port in plan["ports"][host]:
            at_host = {"host": inventory.reach(host), "port": port["port"]}
            if port["name"].endswith("_logs"):
                own = at(inventory, host) == "127.0.0.1"
                expect("no token", gone if own else "403 ", "http", **at_host, path="/log/x")
            elif not port["clients"]:
                expect("loopback", gone, "connect", **at_host)
    answers = foreign.tries(asked)
    said = [(one, answer[0] if isinstance(answer, list) else answer) for one, answer in zip(what, answers)]
    print("\n" + "\n".join(f"{name}: {answer}" for name, answer in said))
    assert not [f"{name}: {answer}" for (name, answer), pattern in zip(said, expected) if not re.match(pattern, answer)]


def test_a_worker_reaches_only_its_own_database(inventory: Inventory) -> None:
    plan = inventory.plan
    metadata, results = plan["database"], plan["results_database"]
    only_worker = [
        host
        for host in inventory.members["worker"]
        if not any(host in inventory.members[name] for name in ("scheduler", "webserver", "triggerer", "dag_processor"))
    ]
    if not only_worker:
        pytest.skip("every worker host runs another component too")
    at_host = {"host": metadata["host"], "port": metadata["port"]}
    asked = [
        ({"user": results["user"], "database": results["name"]}, r"asks for a password \(SCRAM\)"),
        ({"user": results["user"], "database": results["name"], "secure": False}, r"28000 .*pg_hba\.conf"),
        ({"user": metadata["user"], "database": metadata["name"]}, r"28000 .*pg_hba\.conf"),
        ({"user": metadata["user"], "database": results["name"]}, r"28000 .*pg_hba\.conf"),
        ({"user": results["user"], "database": metadata["name"]}, r"28000 .*pg_hba\.conf"),
        ({"user": results["owner"], "database": results["name"]}, r"28000 .*pg_hba\.conf"),
        ({"user": "postgres", "database": "postgres"}, r"28000 .*pg_hba\.conf"),
    ]
    answers = tries(inventory, only_worker[0], [("pg", {**at_host, **arguments}) for arguments, _pattern in asked])
    assert not [f"{one}: {got}" for (one, pattern), got in zip(asked, answers) if not re.match(pattern, got)]


# --- TLS ---------------------------------------------------------------------------------------------------------------
def send(
    inventory: Inventory, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str | None = None
) -> tuple[int, str]:
    """Status and text of the first webserver's answer, asked from here."""
    one = inventory.plan["webservers"][0]
    host, port = inventory.reach(one["name"]), one["port"]
    if inventory.plan["tls"]:
        trust = probe_net.context(inventory.ca, None)
        link: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=120, context=trust)
    else:
        link = http.client.HTTPConnection(host, port, timeout=120)
    try:
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        return answer.status, answer.read().decode()
    finally:
        link.close()


def test_webservers_speak_tls_only(ca: str, inventory: Inventory) -> None:
    database, asker = inventory.plan["database"], inventory.members["scheduler"][0]
    for one in inventory.plan["webservers"]:
        host, port = inventory.reach(one["name"]), one["port"]
        assert probe_net.tls(host, port, ca=ca) in ("TLSv1.2", "TLSv1.3")
        for name in inventory.plan["certificate_names"][one["name"]]:
            assert probe_net.tls(host, port, ca=ca, name=name).startswith("TLSv1."), name
        assert probe_net.tls(host, port, ca=ca, name="elsewhere.test").startswith("certificate: ")
        for version in ("1.0", "1.1"):
            shows = {"host": database["host"], "port": database["port"], "version": version, "postgresql": True}
            asked = {"host": one["address"], "port": port, "version": version}
            told, answer = tries(inventory, asker, [("tls", shows), ("tls", asked)])
            assert re.match(OLD_TLS, told) and re.match(HUNG_UP, answer), f"{version}: {told}; {answer}"
        assert not re.match(r"\d{3} ", probe_net.http_(host, port, "/api/v2/version"))


def test_servers_show_certificates_of_the_cluster(ca: str, inventory: Inventory) -> None:
    """As their clients see them, from a host that may ask."""
    scheduler = inventory.members["scheduler"][0]
    database, broker = inventory.plan["database"], inventory.plan["broker"]
    places = ((database, True), (broker, False))
    answers = tries(
        inventory,
        scheduler,
        [
            ("tls", {"host": one["host"], "port": one["port"], "ca": ca, "postgresql": postgresql, **more})
            for one, postgresql in places
            for more in ({}, {"name": "elsewhere.test"})
        ],
    )
    for right, wrong in (answers[:2], answers[2:]):
        assert right in ("TLSv1.2", "TLSv1.3") and wrong.startswith("certificate: ")


def test_every_connection_to_postgresql_is_encrypted(ca: str, inventory: Inventory) -> None:
    rows = inventory.sql(
        "select usename, ssl, coalesce(version, '-'), count(*) from pg_stat_ssl join pg_stat_activity using (pid) "
        "where client_addr is not null group by 1, 2, 3 order by 1"
    )
    print(f"\n{rows}")
    users = {inventory.plan["database"]["user"], inventory.plan["results_database"]["user"]}
    assert {row[0] for row in rows} == users
    assert {(row[1], row[2]) for row in rows} <= {("t", "TLSv1.3"), ("t", "TLSv1.2")}


def test_redis_has_no_plain_port(ca: str, inventory: Inventory) -> None:
    host = inventory.members["redis"][0]
    port = inventory.plan["broker"]["port"]
    lines = inventory.run(host, "ss", "-Hltnp").splitlines()
    listening = {line.split()[3].rpartition(":")[2] for line in lines if '"redis-server"' in line}
    assert listening == {str(port)}
    (answer,) = tries(inventory, host, [("redis", {"host": "127.0.0.1", "port": port, "commands": [["PING"]], "secure": False})])
    assert not answer[0].startswith(("+", "-"))


def test_the_asynchronous_way_to_the_database(inventory: Inventory, airflow: Airflow) -> None:
    """`wait` is answered by another driver than all else, with settings of its own."""
    airflow.wait_for_dag("smoke", 60)
    run = airflow.trigger("smoke")
    credentials = json.dumps({"username": airflow.user, "password": inventory.common("airflow_admin_password")})
    _status, login = send(inventory, "/auth/token", {"Content-Type": "application/json"}, "POST", credentials)
    headers = {"Authorization": f"Bearer {json.loads(login)['access_token']}"}
    path = f"/api/v2/dags/smoke/dagRuns/{urllib.parse.quote(run)}/wait?interval=1"
    status, text = send(inventory, path, headers)
    assert status == 200, text
    assert json.loads(text.strip().splitlines()[-1])["state"] == "success"


# --- the API without login ---------------------------------------------------------------------------------------------
PUBLIC = {"/api/v2/version", "/api/v2/monitor/health", "/api/v2/auth/login", "/api/v2/auth/logout"}


def test_the_api_answers_nobody_without_login(inventory: Inventory) -> None:
    status, text = send(inventory, "/openapi.json")
    assert status == 200
    calls = [
        (method.upper(), re.sub(r"\{[^}]+\}", "1", path))
        for path, methods in json.loads(text)["paths"].items()
        for method in methods
        if path not in PUBLIC and path.startswith(("/api/", "/ui/"))
    ]
    assert len(calls) > 100
    answers = {f"{method} {path}": send(inventory, path, None, method)[0] for method, path in calls}
    assert {call: status for call, status in answers.items() if status not in (401, 403)} == {}


# --- files and units ---------------------------------------------------------------------------------------------------
def test_modes_and_owners(inventory: Inventory) -> None:
    for host in hosts_of(inventory):
        entries = [modes.Entry(*one) for one in run_on(inventory, host, HERE / "modes.py", None)]
        assert len(entries) > 1
        assert not modes.problems(entries), host


def exposure(inventory: Inventory, host: str) -> dict[str, float]:
    listing = inventory.run(host, "systemd-analyze", "security", "--no-pager")
    scores = re.findall(r"^\s*(\S+)\.service\s+([\d.]+)", listing, re.M)
    # The listing leaves out what runs for a moment only.
    if inventory.run(host, "systemctl", "list-unit-files", "--no-legend", "airflow-health.service", check=False):
        details = inventory.run(host, "systemd-analyze", "security", "--no-pager", "airflow-health.service")
        scores += re.findall(r"level for (airflow-health)\.service: ([\d.]+)", details)
    return {unit: float(score) for unit, score in scores}


def test_units_are_sandboxed(inventory: Inventory) -> None:
    rows, seen = [], set()
    for host in hosts_of(inventory):
        for unit, score in sorted(exposure(inventory, host).items()):
            if found := re.match(r"airflow-([a-z-]+?)(?:@.*)?$", unit):
                seen.add(found[1])
            limit = SCORES.get(found[1]) if found else None
            if limit or re.match(r"postgresql@|redis-server|haproxy", unit):
                rows.append((host, unit, score, limit))
    print("\n" + "\n".join(f"{host:10} {unit:32} {score:4} {limit or '-'}" for host, unit, score, limit in rows))
    assert set(SCORES) <= seen
    assert not [row for row in rows if row[3] and row[2] > row[3]]
