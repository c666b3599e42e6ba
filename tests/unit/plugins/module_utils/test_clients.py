# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from ansible_collections.windfarm.airflow.plugins.module_utils import clients, firewall

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(local: str, remote: str, state: str = "01") -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 1\n"


# 10.0.0.5 and 10.0.0.6 at 10.0.0.1:6379 (0x18EB), the second one no longer; somebody over IPv6 with an IPv4 address.
TCP = HEAD + line("0100000A:18EB", "0500000A:C000") + line("0100000A:18EB", "0600000A:C000", "06")
TCP6 = HEAD + line("0000000000000000FFFF00000100000A:1538", "0000000000000000FFFF00000700000A:C000")
PORTS = [{"name": "redis", "port": 6379, "clients": ["10.0.0.5", "10.0.0.6", "worker3"]}]


def test_who_is_connected() -> None:
    assert clients.connected([TCP, TCP6]) == {6379: {"10.0.0.5"}, 5432: {"10.0.0.7"}}


def test_whom_the_firewall_lets_in() -> None:
    text = firewall.render([{**PORTS[0], "clients": ["10.0.0.5", "10.1.0.0/16", "worker3"]}], [], {"worker3": ["10.0.0.7"]})
    assert clients.let_in(text, "", 5432) == {6379: {"10.0.0.5", "10.0.0.7"}}
    assert firewall.known_names(text) == {"worker3": ["10.0.0.7"]}


def test_whom_postgresql_lets_in_where_there_is_no_firewall() -> None:
    hba = "# windfarm.airflow\nlocal all postgres peer\nhostssl airflow airflow 10.0.0.5/32 md5\nhost x y 10.0.0.6/32 reject\n"
    assert clients.let_in("", hba, 5432) == {5432: {"10.0.0.5"}}
    # What others wrote is not withdrawn by us.
    assert clients.let_in("", hba.replace("windfarm.airflow", "x"), 5432) == {}


def test_who_would_be_shut_out() -> None:
    now = {6379: {"10.0.0.5", "10.0.0.7", "10.0.0.8", "127.0.0.1"}, 5432: {"10.0.0.9"}}
    let_in = {6379: {"10.0.0.5", "10.0.0.6", "10.0.0.7", "127.0.0.1"}}

    def found(*wanted: str, lookup: list[str]) -> dict[str, list[str]]:
        return clients.shut_out([{**PORTS[0], "clients": wanted}], now, let_in, {"worker3": ["10.0.0.7"]}, lambda _name: lookup)

    # 10.0.0.6 is not connected, 10.0.0.8 was never let in by us.
    assert found(lookup=[]) == {"10.0.0.5": ["redis"], "10.0.0.7": ["redis"]}
    assert found("10.0.0.5", "worker3", lookup=[]) == {}
    assert found("10.0.0.5", "worker3", lookup=["10.0.0.1"]) == {"10.0.0.7": ["redis"]}
    assert found("10.0.0.0/24", lookup=[]) == {}
