# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import firewall as fw
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError


def port(number: int = 6379, *clients: str, name: str = "redis") -> dict[str, Any]:
    return {"name": name, "port": number, "clients": list(clients)}


def rules(text: str) -> list[str]:
    lines = text.split("policy accept;\n")[1].splitlines()
    return [line.strip() for line in lines if line.strip() not in ("}", "")]


def test_each_port_accepts_its_clients_and_refuses_the_rest() -> None:
    text = fw.render([port(6379, "10.0.0.2", "fd00::2"), port(5555, name="flower-ui")], ["tcp dport 1 drop"], {})
    assert rules(text) == [
        "tcp dport 1 drop",
        'iif "lo" accept',
        "tcp dport 5555 reject with tcp reset",
        "tcp dport 6379 ip saddr @redis_6379_ipv4 accept",
        "tcp dport 6379 ip6 saddr @redis_6379_ipv6 accept",
        "tcp dport 6379 reject with tcp reset",
    ]
    assert "elements = { 10.0.0.2 }" in text
    assert "elements = { fd00::2 }" in text
    assert "add table inet airflow\ndelete table inet airflow\ntable inet airflow {" in text


def test_a_protocol_without_ports() -> None:
    vrrp = {**port(112, "10.0.0.2", name="vrrp"), "protocol": "vrrp"}
    text = fw.render([port(112, "10.0.0.3", name="tcp"), vrrp], [], {})
    assert rules(text)[1:] == [
        "tcp dport 112 ip saddr @tcp_112_ipv4 accept",
        "tcp dport 112 reject with tcp reset",
        "meta l4proto 112 ip saddr @vrrp_112_ipv4 accept",
        "meta l4proto 112 drop",
    ]
    with pytest.raises(ServerError, match="the number of the protocol vrrp is 112, not 113"):
        fw.check([{**vrrp, "port": 113}], [], 30)


def test_clients_within_others_are_left_out() -> None:
    text = fw.render([port(1, "10.0.0.7", "10.0.1.0/24", "10.0.0.0/24", "10.0.0.7", "10.0.0.9/24", "10.0.2.1")], [], {})
    assert "elements = { 10.0.0.0/24, 10.0.1.0/24, 10.0.2.1 }" in text


def test_a_port_that_is_named_twice_has_all_clients_once() -> None:
    text = fw.render([port(1, "10.0.0.9"), port(1, "10.0.0.2", name="other")], [], {})
    assert "elements = { 10.0.0.2, 10.0.0.9 }" in text
    assert rules(text).count("tcp dport 1 reject with tcp reset") == 1


def test_the_order_of_the_inventory_does_not_matter() -> None:
    one = fw.render([port(2, "10.0.0.1", "10.0.0.2"), port(1)], [], {})
    assert one == fw.render([port(1), port(2, "10.0.0.2", "10.0.0.1")], [], {})


def test_names_keep_what_they_had() -> None:
    ports = [port(1, "new", "old", "gone", "self", "10.0.0.1")]
    answers = {"new": ["10.0.0.2", "fd00::2"], "self": ["127.0.1.1"]}
    names, missing = fw.resolve(ports, {"old": ["10.0.0.3"], "new": ["10.0.0.9"]}, lambda name: answers.get(name, []))
    assert names == {"new": ["10.0.0.2", "fd00::2"], "old": ["10.0.0.3"], "self": []}
    assert missing == ["gone"]
    text = fw.render(ports, [], names)
    assert "elements = { 10.0.0.1, 10.0.0.2, 10.0.0.3 }" in text
    assert fw.known_names(text) == {"new": ["10.0.0.2", "fd00::2"], "old": ["10.0.0.3"]}
    assert fw.known_names(None) == {}


def test_the_listing_is_beside_the_text_not_in_it() -> None:
    text = fw.render([port(1, "x")], [], {"x": ["10.0.0.2"]})
    assert fw.split_listing(fw.with_listing(text, "abc123")) == (text, "abc123")
    assert fw.split_listing(text) == (text, "")
    assert fw.split_listing(None) == (None, "")


def listing(*objects: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *objects]})


def rule(handle: int, what: Any) -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": "airflow", "chain": "input", "handle": handle, "expr": what}}


def test_two_listings_of_the_same_rules_are_equal() -> None:
    def table(first: int, elements: list[str], packets: int) -> str:
        return listing(
            {"table": {"name": "airflow", "handle": first}},
            {"set": {"name": "s", "handle": first + 1, "elem": elements}},
            rule(first + 2, [{"counter": {"packets": packets, "bytes": 9}}, {"accept": None}]),
            rule(first + 3, [{"drop": None}]),
        )

    one = fw.listing_hash(table(1, ["10.0.0.1", "10.0.0.2"], 0))
    assert one
    assert one == fw.listing_hash(table(7, ["10.0.0.2", "10.0.0.1"], 5))
    assert one != fw.listing_hash(table(1, ["10.0.0.1"], 0))


def test_the_order_of_rules_counts_and_no_table_has_no_hash() -> None:
    assert fw.listing_hash(listing(rule(1, "a"), rule(2, "b"))) != fw.listing_hash(listing(rule(1, "b"), rule(2, "a")))
    assert [fw.listing_hash(text) for text in ("", "Error: no such table", listing())] == ["", "", ""]


@pytest.mark.parametrize(
    ("ports", "lines", "seconds", "message"),
    [
        ([port(name="1x")], [], 30, "firewall_ports: the name '1x' is not"),
        ([port(name="a b")], [], 30, "firewall_ports: the name 'a b' is not"),
        ([port(65536)], [], 30, "port 65536 is not between"),
        ([port(1, "a b")], [], 30, "'a b' is neither an address"),
        ([port(1, "10.0.0.300")], [], 30, "'10.0.0.300' is not an address"),
        ([port(1, "10.0.0.0/33")], [], 30, "'10.0.0.0/33' is neither"),
        ([], ["a\nb"], 30, "is not one rule"),
        ([], [" "], 30, "is not one rule"),
        ([], ["accept }"], 30, "is not one rule"),
        ([], ["accept; drop"], 30, "is not one rule"),
        ([], ["accept \\"], 30, "is not one rule"),
        ([], ["accept # because"], 30, "is not one rule"),
        ([], [], 9, "firewall_rollback_seconds: 9 is too short"),
    ],
)
def test_what_would_break_the_table_is_refused(ports: list[Any], lines: list[str], seconds: int, message: str) -> None:
    with pytest.raises(ServerError) as caught:
        fw.check(ports, lines, seconds)
    assert message in str(caught.value)


def test_what_is_right_is_accepted() -> None:
    fw.check([port(1, "10.0.0.1", "fd00::/8", "web-1.test", "0.0.0.0/0")], ["tcp dport { 22, 80 } accept"], 30)
