# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role firewall alone: who gets through, what survives, and that a host never locks Ansible out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from inventory import ROOT, Inventory
from processes import kill
from server import Role, hosts, until

KEPT = "/etc/airflow-firewall.nft"
OPEN, LOCAL, UNLISTED = 6379, 5555, 7000
GHOST = "ghost.lab.test"

# Echoes; on every address.
ECHO = (
    "import socket, threading, sys\n"
    "def talk(link):\n"
    "    while data := link.recv(99): link.sendall(data)\n"
    "def serve(port):\n"
    "    server = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "    while True: threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()\n"
    "for port in sys.argv[1:]: threading.Thread(target=serve, args=(int(port),)).start()\n"
)
ASK = (
    "import socket, sys, time\n"
    "try:\n"
    "    link = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)\n"
    "    for number in range(int(sys.argv[3])):\n"
    "        if number: time.sleep(1)\n"
    "        link.sendall(b'x'); assert link.recv(9) == b'x'\n"
    "    print('open')\n"
    "except ConnectionRefusedError: print('refused')\n"
    "except ConnectionResetError: print('reset')\n"
    "except TimeoutError: print('silence')\n"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", hosts(metafunc.config.getoption("--inventory"), "firewall"), scope="module")


class Firewall(Role):
    def __init__(self, inventory: Inventory, host: str) -> None:
        super().__init__(inventory, "firewall", host)
        self.address = inventory.reach(host)
        self.friend = next(name for name in inventory.groups["firewall"] if name != host)
        self.stranger = inventory.groups["outside"][0]

    def ports(self, *clients: str) -> list[dict[str, Any]]:
        return [{"name": "open", "port": OPEN, "clients": list(clients)}, {"name": "local", "port": LOCAL, "clients": []}]

    def ask(self, source: str, port: int, address: str = "", times: int = 1) -> str:
        return self.inventory.run(source, "python3", "-c", ASK, address or self.address, str(port), str(times))

    def table(self) -> str:
        return self.shell("nft list table inet airflow", check=False)

    def state(self) -> tuple[str, str]:
        return self.table(), self.shell(f"cat {KEPT}", check=False)

    def armed(self) -> bool:
        return self.shell("systemctl is-active airflow-firewall-rollback.timer", check=False) == "active"

    def serve(self) -> None:
        """An echo on each port."""
        self.inventory.run(
            self.host, "systemd-run", "-q", "--collect", "--unit=lab-echo",
            "python3", "-c", ECHO, str(OPEN), str(LOCAL), str(UNLISTED),
        )  # fmt: skip
        until(lambda: self.ask(self.host, LOCAL, "127.0.0.1") == "open", 10, "the echo answers")


@pytest.fixture(scope="module")
def firewall(inventory: Inventory, name: str) -> Iterator[Firewall]:
    role = Firewall(inventory, name)
    role.shell("systemctl stop lab-echo; systemctl reset-failed lab-echo; true")
    role.serve()
    role.run()
    yield role
    role.shell("systemctl stop lab-echo", check=False)
    role.run()


def test_only_those_on_the_list_get_through(firewall: Firewall) -> None:
    assert firewall.run().changed == 0
    assert firewall.ask(firewall.friend, OPEN) == "open"
    assert firewall.ask(firewall.stranger, OPEN) == "refused"
    assert firewall.ask(firewall.friend, LOCAL) == "refused"
    for address in ("127.0.0.1", "::1", firewall.address):
        assert firewall.ask(firewall.host, LOCAL, address) == "open"
        assert firewall.ask(firewall.host, OPEN, address) == "open"
    assert firewall.ask(firewall.stranger, UNLISTED) == "open"


def test_networks_and_both_families(firewall: Firewall) -> None:
    # Each host its own: the stranger remembers who had an address.
    own, other = f"fd77::{firewall.address.rsplit('.', 1)[1]}", "fd77::ff"
    # A second run of the test finds them there.
    firewall.shell(f"ip -6 addr replace {own}/64 dev eth0 nodad")
    firewall.inventory.run(firewall.stranger, "ip", "-6", "addr", "replace", f"{other}/64", "dev", "eth0", "nodad")
    try:
        firewall.run()
        assert firewall.ask(firewall.stranger, OPEN, own) == "refused"
        firewall.run(firewall_ports=firewall.ports(f"{other}/128", "fd77::/64", "192.0.2.0/24", "192.0.2.7"))
        assert firewall.ask(firewall.stranger, OPEN, own) == "open"
        assert firewall.ask(firewall.friend, OPEN) == "refused"
        firewall.run(firewall_ports=firewall.ports("10.89.77.0/24"))
        assert firewall.ask(firewall.stranger, OPEN) == "open"
        assert firewall.ask(firewall.stranger, OPEN, own) == "refused"
    finally:
        firewall.shell(f"ip -6 addr del {own}/64 dev eth0")
        firewall.inventory.run(firewall.stranger, "ip", "-6", "addr", "del", f"{other}/64", "dev", "eth0")
        firewall.run()


def test_who_is_taken_off_the_list_loses_open_connections(firewall: Firewall) -> None:
    prefix = firewall.inventory.ssh(firewall.friend)
    command = f"python3 -c '{ASK.replace(chr(39), chr(34))}' {firewall.address} {OPEN} 30"
    talk = subprocess.Popen([*prefix, command], stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    firewall.run(firewall_ports=firewall.ports("192.0.2.1"))
    assert talk.communicate(timeout=60)[0].strip() == "reset"
    firewall.run()


@pytest.mark.parametrize(
    "harm",
    [
        "nft delete table inet airflow",
        "nft insert rule inet airflow input tcp dport 6379 accept",
        "nft flush chain inet airflow input",
        "nft flush ruleset",
        f"rm {KEPT}",
        f"sed -i s/6379/6380/ {KEPT}",
        "systemctl disable airflow-firewall",
        "systemctl stop airflow-firewall",
        "rm /etc/systemd/system/airflow-firewall.service; systemctl daemon-reload",
        "rm /etc/systemd/system/nftables.service.d/90-airflow.conf; systemctl daemon-reload",
    ],
)
def test_harm_is_healed(firewall: Firewall, harm: str) -> None:
    before = firewall.state()
    firewall.shell(harm)
    assert firewall.run().changed == 1
    assert firewall.run().changed == 0
    assert firewall.state() == before
    assert firewall.ask(firewall.stranger, OPEN) == "refused"
    assert firewall.shell("systemctl is-enabled airflow-firewall; systemctl is-active airflow-firewall").split() == [
        "enabled",
        "active",
    ]


@pytest.mark.parametrize("verb", ["start", "restart", "reload", "reload-or-restart"])
def test_debians_rules_do_not_take_it_away(firewall: Firewall, verb: str) -> None:
    firewall.shell("systemctl stop nftables; nft -f /etc/airflow-firewall.nft")
    if verb == "reload":
        firewall.shell("systemctl start nftables")
    before = firewall.table()
    assert before
    firewall.shell(f"systemctl {verb} nftables")
    try:
        assert firewall.table() == before
        assert "table inet filter" in firewall.shell("nft list tables")
    finally:
        firewall.shell("systemctl stop nftables; nft -f /etc/airflow-firewall.nft")
    assert firewall.run().changed == 0


def test_other_tables_are_not_touched(firewall: Firewall) -> None:
    firewall.shell(
        "nft 'table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain input { type filter hook input "
        "priority 5; policy accept; ip saddr @s counter drop; }; }'"
    )
    try:
        before = firewall.shell("nft list table inet other")
        for variables in ({"firewall_ports": firewall.ports("192.0.2.1")}, {"firewall_enabled": False}, {}):
            firewall.run(**variables)
            assert firewall.shell("nft list table inet other") == before
        # Theirs forbids what ours allows: both are asked.
        address = firewall.inventory.reach(firewall.friend)
        firewall.shell(f"nft add element inet other s '{{ {address} }}'")
        assert firewall.ask(firewall.friend, OPEN) == "silence"
    finally:
        firewall.shell("nft delete table inet other")


@pytest.mark.parametrize("rule", ["tcp dport 22 drop", "tcp dport 22 reject with tcp reset", "ct state new tcp dport 22 drop"])
def test_a_rule_that_locks_ansible_out_is_taken_back(firewall: Firewall, rule: str) -> None:
    before = firewall.state()
    begin = time.monotonic()
    run = firewall.run(ok=False, firewall_rules=[rule])
    seconds = time.monotonic() - begin
    print(f"{rule}: {seconds:.0f} s")
    assert "the new table was taken back before it was confirmed" in run.text
    assert seconds < 12 + 30
    assert firewall.state() == before
    assert not firewall.armed()
    assert firewall.shell("ls /run/airflow-firewall", check=False) == ""
    assert firewall.run().changed == 0


def killed(firewall: Firewall, seconds: int) -> None:
    """A run that dies after it has loaded its table, before it has come back to keep it."""
    # Each of its connections takes three seconds: time enough to kill it in between.
    slow = "-o ProxyCommand='bash -c \"sleep 3; exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3\"'"
    variables = {
        "firewall_rules": ["tcp dport 9999 drop"],
        "firewall_rollback_seconds": seconds,
        "ansible_ssh_extra_args": slow,
    }
    run = subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", firewall.inventory.path,
         "--limit", firewall.host, "-e", json.dumps(variables), str(firewall.playbook)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait = "for i in $(seq 300); do nft list table inet airflow 2>/dev/null | grep -q 9999 && exit 0; sleep 0.1; done; exit 1"
    try:
        firewall.shell(wait)
    finally:
        kill(run)


def test_a_run_that_dies_before_it_confirms_is_taken_back(firewall: Firewall) -> None:
    before = firewall.state()
    killed(firewall, 10)
    assert "9999" in firewall.table()
    assert firewall.state()[1] == before[1]
    until(lambda: firewall.state() == before, 20, "the table is taken back")
    assert firewall.run().changed == 0


def test_a_run_after_one_that_died_does_not_go_back_to_its_table(firewall: Firewall) -> None:
    before = firewall.state()
    killed(firewall, 60)
    assert firewall.armed()
    # Locked out again: what comes back must be the table that was confirmed last.
    run = firewall.run(ok=False, firewall_rules=["tcp dport 22 drop"])
    assert "taken back" in run.text
    assert firewall.state() == before
    killed(firewall, 60)
    firewall.run()
    assert firewall.state() == before
    assert not firewall.armed()


def test_the_table_is_there_after_a_boot(firewall: Firewall) -> None:
    before = firewall.state()
    boot = firewall.shell("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1")
    firewall.shell("systemctl reboot", check=False)

    def booted() -> bool:
        try:
            return firewall.shell("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1") != boot
        except (AssertionError, subprocess.TimeoutExpired):
            return False

    until(booted, 60, "the host is back")
    until(lambda: firewall.shell("systemctl is-system-running", check=False) == "running", 30, "the host has booted")
    assert firewall.state() == before
    firewall.serve()
    assert firewall.ask(firewall.stranger, OPEN) == "refused"
    assert firewall.run().changed == 0


def test_opting_out_removes_everything(firewall: Firewall) -> None:
    run = firewall.run("--check", firewall_enabled=False)
    assert run.changed == 1
    assert firewall.table()
    assert firewall.run(firewall_enabled=False).changed == 1
    assert firewall.state() == ("", "")
    assert firewall.shell("ls /etc/systemd/system | grep firewall; ls /etc/systemd/system/nftables.service.d", check=False) == ""
    assert firewall.shell("systemctl is-enabled airflow-firewall 2>/dev/null", check=False) in ("", "not-found")
    assert firewall.ask(firewall.stranger, OPEN) == "open"
    assert firewall.run(firewall_enabled=False).changed == 0
    assert firewall.run("--check", "--diff").changed == 1
    firewall.run()
    assert firewall.ask(firewall.stranger, OPEN) == "refused"


def test_a_name_keeps_its_address_while_the_resolver_is_away(firewall: Firewall) -> None:
    address = firewall.inventory.reach(firewall.stranger)
    firewall.shell(f"echo '{address} {GHOST}' >> /etc/hosts")
    try:
        firewall.run(firewall_ports=firewall.ports(GHOST))
        assert firewall.ask(firewall.stranger, OPEN) == "open"
    finally:
        # Bind-mounted files cannot be replaced.
        firewall.shell(f"grep -v {GHOST} /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; rm /tmp/hosts")
    assert firewall.run(firewall_ports=firewall.ports(GHOST)).changed == 0
    assert firewall.ask(firewall.stranger, OPEN) == "open"
    firewall.run()
    run = firewall.run(firewall_ports=firewall.ports(GHOST, firewall.friend))
    assert f"cannot resolve '{GHOST}'" in run.text
    assert (firewall.ask(firewall.stranger, OPEN), firewall.ask(firewall.friend, OPEN)) == ("refused", "open")
    firewall.run()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"firewall_rules": ["tcp dport 22 acept"]}, "firewall_rules or firewall_ports: nftables refuses them: "),
        ({"firewall_rules": ["accept; }; }; table inet other { chain x { "]}, "is not one rule of nftables"),
        ({"firewall_ports": [{"name": "x", "port": 0}]}, "port 0 is not between"),
        ({"firewall_ports": [{"name": "x", "port": 1, "clients": ["10.0.0.300"]}]}, "'10.0.0.300' is not an address"),
        ({"firewall_rollback_seconds": 2}, "firewall_rollback_seconds: 2 is too short"),
    ],
)
def test_bad_input_changes_nothing(firewall: Firewall, variables: dict[str, Any], message: str) -> None:
    before = firewall.state()
    run = firewall.run(ok=False, **variables)
    assert message in run.message
    assert firewall.state() == before
    assert not firewall.armed()
