# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import copy
import pathlib
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import entry, pki
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_preflight import Inventory, check_entry, signed_here
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import COMPONENT_GROUPS, plan

COLLECTION = str(pathlib.Path(__file__).resolve().parents[4])
Hosts = dict[str, dict[str, Any]]
HOSTS: Hosts = {
    "db1": {"ansible_host": "10.0.0.1"},
    "control1": {"ansible_host": "10.0.0.2"},
    "control2": {"ansible_host": "10.0.0.3"},
    "worker1": {"ansible_host": "10.0.0.4"},
    "entry1": {"ansible_host": "10.0.0.5"},
}
GROUPS: dict[str, list[str]] = {
    "postgresql": ["db1"],
    "redis": ["db1"],
    "airflow": ["control1", "control2", "worker1"],
    **{group: ["control1", "control2"] for group in COMPONENT_GROUPS.values()},
    "airflow_worker": ["worker1"],
    "haproxy": ["control1", "control2"],
}


def planned(haproxy: list[str] | None = None, hosts: Hosts | None = None, **everywhere: Any) -> dict[str, Any]:
    found = {host: {**known, **everywhere, **(hosts or {}).get(host, {})} for host, known in HOSTS.items()}
    return plan(found, {**GROUPS, **({} if haproxy is None else {"haproxy": haproxy})})


def problems(haproxy: list[str] | None = None, hosts: Hosts | None = None, **everywhere: Any) -> list[str]:
    found = {host: {**known, **everywhere, **(hosts or {}).get(host, {})} for host, known in HOSTS.items()}
    groups = {**copy.deepcopy(GROUPS), **({} if haproxy is None else {"haproxy": haproxy})}
    return [str(problem) for problem in check_entry(Inventory(found, groups, COLLECTION, {}))]


# What follows


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "https://10.0.0.2"),
        ({"airflow_entry_port": 8443}, "https://10.0.0.2:8443"),
        ({"airflow_entry_virtual_address": "10.0.0.99"}, "https://10.0.0.99"),
        ({"airflow_entry_virtual_address": "10.0.0.99", "airflow_entry_name": "flows.example.com"}, "https://flows.example.com"),
        ({"airflow_tls": False, "airflow_entry_port": 80}, "http://10.0.0.2"),
        ({"airflow_tls": False, "airflow_entry_certificate_file": "own.pem"}, "https://10.0.0.2"),
        ({"airflow_entry_name": "fd00::9"}, "https://[fd00::9]"),
    ],
)
def test_what_users_type(variables: dict[str, Any], expected: str) -> None:
    assert planned(**variables)["entry"]["url"] == expected


def test_without_an_entry_nothing_changes() -> None:
    found = planned(haproxy=[])
    assert found["entry"]["url"] == "" and found["entry"]["proxies"] == []
    assert "webserver" not in {port["name"] for port in found["ports"]["control1"]}
    assert found["listeners"]["control1"] == []
    assert [one["name"] for one in found["listeners"]["worker1"]] == ["webserver"]


def test_one_host_that_holds_everything_has_relative_links() -> None:
    groups = {name: ["all1"] for name in GROUPS}
    found = plan({"all1": {"ansible_host": "10.0.0.9"}}, groups)
    assert found["entry"]["url"] == "" and found["entry"]["proxies"] == ["127.0.0.1"]
    named = plan({"all1": {"ansible_host": "10.0.0.9", "airflow_entry_name": "flows.test"}}, groups)
    assert named["entry"]["url"] == "https://flows.test"
    assert [one["bind"] for one in named["listeners"]["all1"]] == ["127.0.0.1:8079", "*:443"]


def test_a_host_that_is_only_an_entry() -> None:
    found = planned(haproxy=["entry1"])
    (listener,) = found["listeners"]["entry1"]
    assert listener["ca_file"] == "/etc/airflow/tls/ca.pem" and listener["certificate"] == "/etc/airflow/tls/entry.pem"
    assert found["addresses"]["entry1"] == "10.0.0.5"
    assert "10.0.0.5" in found["certificate_names"]["entry1"]
    (port,) = [port for port in found["ports"]["control1"] if port["name"] == "webserver"]
    assert port["clients"] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]


def test_others_may_be_let_in() -> None:
    found = planned(airflow_webserver_clients=["192.0.2.0/24"])
    (port,) = [port for port in found["ports"]["control1"] if port["name"] == "webserver"]
    assert port["clients"][-1] == "192.0.2.0/24"


def test_a_new_host_must_be_let_through() -> None:
    assert planned(haproxy=[])["entry"]["doors"] == {}
    assert planned()["entry"]["doors"]["control2"] == {"kind": "webserver", "host": "10.0.0.3", "port": 8080}


def test_certificates_have_the_name_and_the_moving_address() -> None:
    names = planned(airflow_entry_virtual_address="10.0.0.99", airflow_entry_name="flows.example.com")["certificate_names"]
    for host in GROUPS["haproxy"]:
        assert {"10.0.0.99", "flows.example.com"} <= set(names[host])
    assert "10.0.0.99" not in names["worker1"]


def test_vrrp_only_with_an_address() -> None:
    assert planned()["entry"]["vrrp"] == {}
    (door,) = planned(airflow_entry_virtual_address="10.0.0.99")["entry"]["vrrp"]["control1"]
    assert (door["protocol"], door["port"], door["clients"]) == ("vrrp", 112, ["10.0.0.3"])


def test_proxies_are_addresses() -> None:
    assert planned()["entry"]["proxies"] == ["10.0.0.2", "10.0.0.3"]
    assert planned(hosts={"control1": {"airflow_address": "control1.test"}})["entry"]["proxies"] == ["10.0.0.3"]


def test_plain_http_leads_to_the_entry() -> None:
    found = planned(airflow_entry_http_port=80)["listeners"]["control1"]
    assert found[-1] == {"name": "entry_http", "bind": "*:80", "redirect": "https://10.0.0.2"}
    six = planned(airflow_entry_http_port=80, airflow_entry_listen_address="::")["listeners"]["control1"]
    assert [one["bind"] for one in six] == ["[::]:443", "[::]:80"]


# What cannot be


def test_a_sound_entry_has_no_problem() -> None:
    assert problems() == []
    assert problems(airflow_entry_virtual_address="10.0.0.99", airflow_entry_http_port=80) == []
    assert problems(haproxy=["worker1", "entry1"]) == []
    assert problems(airflow_entry_name="flows.test", airflow_base_url="https://flows.test") == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"airflow_entry_port": 8080},
            "host control1 — is an entry and has a webserver, both on port 8080 — set airflow_entry_port",
        ),
        ({"haproxy": ["worker1"], "airflow_entry_port": 8079}, "is an entry and has a worker's way to the webservers"),
        ({"airflow_entry_http_port": 443}, "airflow_entry_http_port — is 443, as airflow_entry_port — set one of them"),
        ({"airflow_entry_port": 22}, "airflow_entry_port — is 22, where SSH listens on control1"),
        ({"airflow_entry_port": "https"}, "airflow_entry_port — is https, no TCP port — give a number from 1 to 65535"),
        ({"airflow_entry_name": "https://flows.test"}, "airflow_entry_name — is https://flows.test, no host name"),
        (
            {"haproxy": ["control1"], "airflow_entry_virtual_address": "10.0.0.99"},
            "airflow_entry_virtual_address — is 10.0.0.99, but control1 is the only host of group haproxy",
        ),
        ({"airflow_entry_virtual_address": "10.0.0.256"}, "is 10.0.0.256, no address that a host"),
        ({"airflow_entry_virtual_address": "127.0.0.9"}, "is 127.0.0.9, no address that a host can have — give a free address"),
        ({"airflow_entry_virtual_address": "10.0.0.3"}, "is 10.0.0.3, the address of host control2 — give an address"),
        ({"airflow_entry_virtual_address": "fd00::9"}, "is IPv6, but the address of control1 is IPv4 — give an address"),
        (
            {"airflow_entry_virtual_address": "10.0.0.99", "airflow_entry_virtual_router_id": 256},
            "airflow_entry_virtual_router_id — is 256 — give a number from 1 to 255",
        ),
        (
            {"airflow_entry_virtual_address": "10.0.0.99", "airflow_entry_listen_address": "10.0.0.2"},
            "airflow_entry_listen_address — is set, so HAProxy cannot listen on the virtual address",
        ),
        (
            {"hosts": {"control2": {"airflow_entry_port": 8443}}},
            "airflow_entry_port — differs between entry hosts (443, 8443) — define it once",
        ),
        (
            {"haproxy": [], "airflow_entry_name": "flows.test"},
            "airflow_entry_name — is set, but group haproxy has no host — put the entry hosts into group haproxy, or remove it",
        ),
        (
            {"airflow_tls": False, "airflow_entry_http_port": 80},
            "airflow_entry_http_port — is 80, but the entry itself speaks plain HTTP",
        ),
        (
            {"airflow_entry_name": "flows.test", "airflow_base_url": "https://flows.test:8080"},
            "airflow_base_url — is https://flows.test:8080, where the entry answers with https on port 443 — remove it",
        ),
        ({"airflow_webserver_clients": "10.0.0.0/8"}, "airflow_webserver_clients — is no list — write a list of addresses"),
    ],
)
def test_what_cannot_be(variables: dict[str, Any], expected: str) -> None:
    found = problems(**variables)
    assert any(expected in line for line in found), found
    assert len(found) <= 2


def test_every_collision_is_told_for_its_host() -> None:
    assert len(problems(airflow_entry_port=8080)) == 2


def test_the_users_own_certificate_need_not_be_by_the_clusters_authority() -> None:
    key = pki.new_key()
    authority = pki.load_authority(pki.new_ca(key, "public"), key)
    own = pki.new_key()
    certificate = authority.sign(pki.public_pem(pki.load_private_key(own).public_key()), ["flows.test"], 30)
    hosts = {host: {**known, "airflow_entry_name": "flows.test"} for host, known in HOSTS.items()}
    inventory = Inventory(hosts, GROUPS, COLLECTION, {}, entry_certificates={"control1": (certificate, own)})
    assert check_entry(inventory) == []
    (other,) = check_entry(inventory._replace(entry_certificates={"control1": (certificate, pki.new_key())}))
    assert str(other).startswith("airflow_entry_certificate_file of host control1 — does not match the key in airflow_entry_")
    named = {host: {**known, "airflow_entry_name": "elsewhere.test"} for host, known in HOSTS.items()}
    (other,) = check_entry(inventory._replace(hosts=named))
    assert "is not for elsewhere.test, which users type, but for flows.test" in str(other)


def test_an_entry_with_its_own_certificate_needs_none_of_ours() -> None:
    hosts = {**HOSTS, "entry1": {**HOSTS["entry1"], "airflow_entry_certificate_file": "own.pem"}}
    groups = {**GROUPS, "haproxy": ["entry1"]}
    assert "entry1" not in signed_here(Inventory(hosts, groups, COLLECTION, {}))
    assert "entry1" in signed_here(Inventory(HOSTS, groups, COLLECTION, {}))


def test_a_group_of_the_same_name_without_a_cluster_is_not_ours_to_judge() -> None:
    assert entry.problems(Inventory({"a": {"airflow_entry_port": 22}}, {"haproxy": ["a"]}, COLLECTION, {})) == []
