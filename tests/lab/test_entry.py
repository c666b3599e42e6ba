# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The users' entry on a deployed cluster: what it answers, whom it tells, and what its changes of hands cost.

Wants two hosts in group haproxy with a virtual address, two webservers, and this machine in airflow_webserver_clients.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import re
import shutil
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api import wait
from browser import logged_in
from entries import all_up, holders, unplugged
from fresh import BIN, changed, output_of
from inventory import ROOT, Inventory
from traffic import Traffic

pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture(scope="module")
def entries(inventory: Inventory) -> list[str]:
    found = list(inventory.plan["entry"]["hosts"])
    if len(found) < 2 or not inventory.plan["entry"]["virtual_address"]:
        pytest.skip("needs two entry hosts and a virtual address")
    return found


@pytest.fixture(scope="module")
def virtual(inventory: Inventory, entries: list[str]) -> str:
    return str(inventory.plan["entry"]["virtual_address"])


@pytest.fixture(scope="module")
def traffic(inventory: Inventory, entries: list[str]) -> Iterator[Traffic]:
    with Traffic(inventory) as made:
        yield made
    print(f"\n{made.table()}")


@pytest.fixture()
def settled(inventory: Inventory, entries: list[str]) -> None:
    """Each test begins with one holder, and every webserver in service."""
    wait("every webserver is up for each entry", 120, lambda: all_up(inventory), interval=1)
    wait("one host has the address", 30, lambda: len(holders(inventory)) == 1, interval=1)


def verified(inventory: Inventory) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=inventory.ca)


def ask(inventory: Inventory, address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """One request to an entry at an address, whose certificate must be for it."""
    port = inventory.plan["entry"]["port"]
    link = http.client.HTTPSConnection(address, port, timeout=20, context=verified(inventory))
    link.request(method, path, headers=headers)
    answer = link.getresponse()
    text = answer.read().decode(errors="replace")
    link.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


# What it answers ------------------------------------------------------------------------------------------------------------


def test_each_entry_answers_with_a_certificate_for_what_users_type(
    inventory: Inventory, entries: list[str], virtual: str
) -> None:
    for address in (virtual, *(inventory.reach(host) for host in entries)):
        status, _headers, text = ask(inventory, address, "/api/v2/version")
        assert status == 200 and "version" in json.loads(text), address


def test_plain_http_leads_to_the_entry(inventory: Inventory, virtual: str) -> None:
    port = int(inventory.get(inventory.plan["entry"]["hosts"][0], "airflow_entry_http_port", 0))
    if not port:
        pytest.skip("the inventory has no airflow_entry_http_port")
    link = http.client.HTTPConnection(virtual, port, timeout=10)
    link.request("GET", "/dags/x?y=z", headers={"Host": "elsewhere.example.org"})
    answer = link.getresponse()
    assert answer.status == 308
    assert answer.getheader("Location") == f"{inventory.plan['entry']['url']}/dags/x?y=z"


def test_redirects_stay_at_the_entry(inventory: Inventory, virtual: str) -> None:
    status, headers, _text = ask(inventory, virtual, "/auth/login")
    assert status in (301, 302, 303, 307, 308), status
    location = urllib.parse.urlsplit(headers["location"])
    assert (location.scheme, location.hostname) in (("https", virtual), ("", None)), headers["location"]


def test_log_in_over_both_webservers(inventory: Inventory, virtual: str) -> None:
    """No stickiness: the form comes from one webserver and goes to the next, and the session is known to both."""
    user, password = inventory.common("airflow_admin_user", "admin"), str(inventory.common("airflow_admin_password"))
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=verified(inventory)),
        urllib.request.HTTPCookieProcessor(jar),
    )
    # Without the port, where it is the usual one: a Referer is compared with what the browser calls the host.
    url = inventory.url
    page = opener.open(f"{url}/auth/login/", timeout=30).read().decode()
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert token, page[:500]
    body = urllib.parse.urlencode({"csrf_token": token[1], "username": user, "password": password}).encode()
    # Which the form's protection wants over TLS, and browsers send.
    opener.addheaders = [("Referer", f"{url}/auth/login/")]
    answer = opener.open(f"{url}/auth/login/", data=body, timeout=30)
    assert "/auth/login" not in answer.geturl()
    assert urllib.parse.urlsplit(answer.geturl()).hostname == virtual
    cookies = {cookie.name: cookie for cookie in jar}
    assert cookies["_token"].secure
    for _ in range(6):
        assert opener.open(f"{url}/ui/auth/me", timeout=30).status == 200


def test_the_page_in_a_browser(inventory: Inventory, tmp_path: Path, airflow: Any) -> None:
    with logged_in(inventory.url, airflow.user, inventory.common("airflow_admin_password")) as page:
        page.goto(f"{inventory.url}/dags")
        page.get_by_role("link", name="smoke", exact=True).first.wait_for()
        path = tmp_path / "entry.png"
        page.wait_for_timeout(1500)
        page.screenshot(path=path)
        print(f"\n{path}")
        assert urllib.parse.urlsplit(page.url).hostname == urllib.parse.urlsplit(inventory.url).hostname


def test_webservers_know_the_client(inventory: Inventory, virtual: str) -> None:
    """Not the entry: Airflow counts failed log-ins by address. What a client says of itself is dropped."""
    marker = f"/api/v2/version?who={time.time_ns():x}"
    ask(inventory, virtual, marker, **{"X-Forwarded-For": "192.0.2.77", "Forwarded": "for=192.0.2.77"})
    mine = this_machine(virtual)

    def logged() -> str:
        words = ("journalctl", "-q", "-o", "cat", "-u", "airflow-webserver", "--since", "-2min", "--grep", marker.split("=")[1])
        return "".join(inventory.run(host, *words, check=False) for host in inventory.members["webserver"])

    wait("the request is logged", 20, logged)
    assert mine in logged() and "192.0.2.77" not in logged(), logged()


def this_machine(address: str) -> str:
    """The address by which the lab's hosts know this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def test_webservers_are_closed_to_others(inventory: Inventory, entries: list[str]) -> None:
    """This machine is let in by airflow_webserver_clients; a host that has no part in the cluster is not."""
    strangers = [host for host in inventory.groups.get("ledger", []) if host not in inventory.plan["addresses"]]
    if not strangers:
        pytest.skip("no host outside of the cluster")
    script = (
        "import socket, sys\nfor item in sys.argv[1:]:\n host, port = item.rsplit(':', 1)\n try:\n"
        "  socket.create_connection((host, int(port)), 3).close(); print(item, 'open')\n except OSError: print(item, 'closed')"
    )
    doors = [f"{one['address']}:{one['port']}" for one in inventory.plan["webservers"]]
    doors += [f"{inventory.plan['entry']['virtual_address']}:{inventory.plan['entry']['port']}"]
    said = inventory.run(strangers[0], "python3", "-c", script, *doors).split()
    assert dict(zip(said[::2], said[1::2])) == {**dict.fromkeys(doors[:-1], "closed"), doors[-1]: "open"}


def test_vrrp_is_between_the_entries_alone(inventory: Inventory, entries: list[str]) -> None:
    for host in entries:
        table = inventory.run(host, "nft", "list", "table", "inet", "airflow")
        assert re.search(r"l4proto (112|vrrp) ip saddr @vrrp_112_ipv4 accept", table), table
        assert re.search(r"l4proto (112|vrrp) drop", table), table
    assert all_others_silent(inventory, entries)


def all_others_silent(inventory: Inventory, entries: list[str]) -> bool:
    """A stranger's advertisement of the highest priority takes nothing away."""
    strangers = [host for host in inventory.groups.get("ledger", []) if host not in inventory.plan["addresses"]]
    if not strangers:
        return True
    before = holders(inventory)
    identity = int(inventory.plan["entry"]["router_id"])
    address = inventory.plan["entry"]["virtual_address"]
    script = (
        "import socket, struct, sys, time\n"
        f"body = struct.pack('!BBBBHH', 0x31, {identity}, 255, 1, 50, 0) + socket.inet_aton('{address}')\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)\ns.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)\n"
        "for _ in range(30):\n for host in sys.argv[1:]:\n  s.sendto(body, (host, 0))\n time.sleep(0.1)\n"
    )
    inventory.run(strangers[0], "python3", "-c", script, *[inventory.reach(host) for host in entries])
    return holders(inventory) == before


@pytest.mark.long
def test_a_host_that_leaves_the_group_is_an_entry_no_more(inventory: Inventory, entries: list[str], tmp_path: Path) -> None:
    folder, left = tmp_path / "inventory", entries[-1]
    shutil.copytree(inventory.path, folder)
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    hosts["haproxy"]["hosts"].pop(left)
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    # Where the lab's inventory says it from its own place.
    source = str(ROOT / "dags")
    (folder / "group_vars" / "all" / "left.yml").write_text(
        yaml.safe_dump({"airflow_entry_virtual_address": "", "airflow_dags_source": source})
    )
    units = ("haproxy", "keepalived")

    def converge(path: Path) -> str:
        rc, said = output_of([str(BIN / "ansible-playbook"), "-i", str(path), "playbooks/haproxy.yml"])
        assert rc == 0, said[-4000:]
        return said

    try:
        converge(folder)
        assert inventory.run(left, "systemctl", "is-active", *units, check=False).split() == ["inactive"] * 2
        assert inventory.run(left, "systemctl", "is-enabled", *units, check=False).split() == ["disabled"] * 2
        assert inventory.run(left, "ls", "/etc/haproxy/haproxy.cfg", "/etc/keepalived/keepalived.conf", check=False) == ""
        assert holders(inventory) == []
        assert set(changed(converge(folder)).values()) == {0}
    finally:
        converge(Path(inventory.path))
    assert set(changed(converge(Path(inventory.path))).values()) == {0}


# What changes of hands cost ---------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_webserver_that_stops_and_starts_costs_nothing(inventory: Inventory, traffic: Traffic) -> None:
    for host in inventory.members["webserver"]:
        with traffic.window(f"systemctl restart of the webserver of {host}") as window:
            inventory.run(host, "systemctl", "restart", "airflow-webserver")
            time.sleep(3)
            wait("it is in service again", 120, lambda: all_up(inventory), interval=1)
            time.sleep(3)
        assert window.failed == [] and window.requests > 50


@pytest.mark.long
def test_a_killed_webserver_costs_no_reading_request(inventory: Inventory, traffic: Traffic) -> None:
    for host in inventory.members["webserver"]:
        with traffic.window(f"kill -9 of the webserver of {host}") as window:
            time.sleep(2)
            inventory.run(host, "systemctl", "kill", "-s", "KILL", "airflow-webserver")
            time.sleep(3)
            wait("it is in service again", 120, lambda: all_up(inventory), interval=1)
        # A request that writes, and had reached it, must not be repeated by anybody but its sender.
        assert window.failures("GET") == 0 and window.failures("POST") <= 2, window


def test_haproxy_that_stops_gives_the_address_away(inventory: Inventory, entries: list[str], traffic: Traffic) -> None:
    (holder,) = holders(inventory)
    with traffic.window(f"systemctl stop haproxy on {holder}, which has the address") as window:
        time.sleep(2)
        inventory.run(holder, "systemctl", "stop", "haproxy")
        wait("the other one has it", 20, lambda: holders(inventory) == [host for host in entries if host != holder])
        time.sleep(5)
    try:
        # What was under way at that moment, of four clients.
        assert len(window.failed) <= 4 and window.slowest < 10, window
    finally:
        with traffic.window(f"systemctl start haproxy on {holder}") as back:
            inventory.run(holder, "systemctl", "start", "haproxy")
            time.sleep(8)
    assert back.failed == [], back
    assert holder not in holders(inventory), "a host that comes back does not take the address"
    assert inventory.run(holder, "systemctl", "is-active", "keepalived") == "active"


@pytest.mark.long
def test_a_killed_haproxy_is_back_at_once(inventory: Inventory, traffic: Traffic) -> None:
    (holder,) = holders(inventory)
    with traffic.window(f"kill -9 of haproxy on {holder}, which has the address") as window:
        time.sleep(2)
        inventory.run(holder, "systemctl", "kill", "-s", "KILL", "haproxy")
        time.sleep(10)
    # Whoever asks within the second in which nothing listens is refused.
    assert len(window.failed) < window.requests / 4, window


def test_a_haproxy_that_hangs_gives_the_address_away_and_is_restarted(
    inventory: Inventory, entries: list[str], traffic: Traffic
) -> None:
    """Its port goes on accepting: the kernel does."""
    (holder,) = holders(inventory)
    before = inventory.run(holder, "systemctl", "show", "-P", "MainPID", "haproxy")

    def renewed() -> bool:
        return inventory.run(holder, "systemctl", "show", "-P", "MainPID", "haproxy") not in ("0", before)

    try:
        with traffic.window(f"haproxy of {holder}, which has the address, hangs") as window:
            inventory.run(holder, "systemctl", "kill", "--kill-whom=all", "-s", "STOP", "haproxy")
            wait("the other one has it", 20, lambda: holders(inventory) == [host for host in entries if host != holder])
        with traffic.window("the other one has it") as after:
            time.sleep(5)
        # What it had under way, of four clients.
        assert len(window.failed) <= 4 and after.failed == [], f"{window}\n{after}"
        # Of those alone that run something of Airflow.
        if any(holder in members for members in inventory.members.values()):
            wait("the health timer has restarted it", 300, renewed)
    finally:
        inventory.run(holder, "systemctl", "kill", "--kill-whom=all", "-s", "CONT", "haproxy")
    assert holder not in holders(inventory), "a host that comes back does not take the address"


def test_a_host_that_is_lost(inventory: Inventory, entries: list[str], traffic: Traffic) -> None:
    """The one that has the address, with its webserver and all else, as if its plug were pulled."""
    (holder,) = holders(inventory)
    with contextlib.ExitStack() as stack:
        with traffic.window(f"loss of {holder}, which has the address") as window:
            time.sleep(2)
            boot = stack.enter_context(unplugged(inventory, holder))
            time.sleep(20)
        with traffic.window(f"{holder} comes back") as back:
            boot()
            wait("its webserver is in service", 180, lambda: all_up(inventory), interval=1)
    # What it had under way, of four clients.
    assert len(window.failed) <= 4 and window.slowest < TIMEOUT_OF_USERS, window
    assert back.failed == [], back


TIMEOUT_OF_USERS = 10


@pytest.mark.long
def test_a_changed_setting_by_site_costs_nothing(
    inventory: Inventory, traffic: Traffic, playbook: Callable[..., str], tmp_path: Path
) -> None:
    """Both webservers, schedulers and all else restart."""
    settings = {**(inventory.common("airflow_config", {}) or {}), "webserver": {"x_test": "1"}}
    try:
        with traffic.window("site.yml restarts everything for a setting") as window:
            said = playbook("site", airflow_config={**settings, "api": {"page_size": 51}})
            time.sleep(5)
    finally:
        with traffic.window("site.yml takes it back") as back:
            playbook("site")
            time.sleep(5)
    assert "restart airflow-webserver.service" in said or window.seconds > 20
    assert window.failed == [] and back.failed == [], f"{window}\n{back}"
