# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration as text; that keepalived accepts it, and what it does, is tested on the lab's hosts."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import keepalived_server as ka
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError

LISTED = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
7: eth0@if12    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\       valid_lft forever preferred_lft forever
7: eth0@if12    inet 10.0.0.99/32 scope global eth0\\       valid_lft forever preferred_lft forever
7: eth0@if12    inet6 fd00::5/64 scope global \\       valid_lft forever preferred_lft forever
8: bond0.7    inet 192.0.2.5 peer 192.0.2.6/32 scope global bond0.7\\       valid_lft forever preferred_lft forever
"""
VALUES: dict[str, Any] = {
    "peers": ["as the module has it"],
    "address": "10.0.0.99",
    "router_id": 51,
    "priority": 200,
    "port": 443,
    "source": "10.0.0.5",
    "interface": "eth0",
}


def test_the_interface_is_that_of_the_address() -> None:
    assert ka.interface_of(LISTED, "10.0.0.5") == ka.interface_of(LISTED, "10.0.0.99") == "eth0"
    assert ka.interface_of(LISTED, "fd00:0::5") == "eth0"
    assert ka.interface_of(LISTED, "192.0.2.5") == "bond0.7"
    assert ka.interface_of(LISTED, "10.0.0.6") == ""


def test_the_configuration_knows_its_hash() -> None:
    text, value = ka.render(VALUES, ["10.0.0.6"])
    assert ka.hash_of(text) == value and text.startswith(ka.MARK)
    assert "        10.0.0.99/32\n" in text and "unicast_peer {\n        10.0.0.6\n    }" in text
    assert "/dev/tcp/127.0.0.1/443" in text and f'script "{ka.PROBE}"' in text
    assert ka.render({**VALUES, "priority": 199}, ["10.0.0.6"])[1] != value
    assert ka.hash_of(None) == ka.hash_of("vrrp_instance x {}") == ""


def test_six() -> None:
    text, _hash = ka.render({**VALUES, "address": "fd00::99", "source": "fd00::5"}, ["fd00::6"])
    assert "fd00::99/128" in text and "/dev/tcp/::1/443" in text


@pytest.mark.parametrize(
    ("answer", "expected"), [(b"Name: HAProxy\n", 0), (b"Oh\n", 1), (None, 1)], ids=["works", "something else", "hangs"]
)
def test_the_probe(answer: bytes | None, expected: int, tmp_path: Path) -> None:
    admin, script = str(tmp_path / "admin"), tmp_path / "probe"
    script.write_text(ka.SCRIPT.replace(ka.SOCKET, admin))
    assert subprocess.run(["perl", script], check=False).returncode == 0, "somebody else's server has no such socket"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(admin)
        assert subprocess.run(["perl", script], check=False).returncode == 1
        unix.listen()
        with subprocess.Popen(["perl", script]) as done:
            link, _peer = unix.accept()
            assert link.recv(100) == b"show info\n"
            if answer:
                link.sendall(answer)
            # A signal ends it where nobody answers.
            assert min(1, abs(done.wait(timeout=10))) == expected
            link.close()


def test_one_kind_of_address() -> None:
    assert ka.of_kind(["127.0.1.1", "10.0.0.5", "fd00::5"], "10.0.0.99") == "10.0.0.5"
    assert ka.of_kind(["10.0.0.5", "fd00::5"], "fd00::99") == "fd00::5"
    assert ka.of_kind(["10.0.0.5"], "fd00::99") is None


def test_the_drop_in_follows_the_unit() -> None:
    text, value = ka.drop_in("haproxy.service")
    assert "PartOf=haproxy.service\n" in text and f"WINDFARM_DROP_IN={value}\n" in text
    assert ka.drop_in("nginx.service")[1] != value
    assert ka.follower("haproxy.service") == "/etc/systemd/system/haproxy.service.d/91-ansible-keepalived.conf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "flows.test"}, "keepalived_virtual_address: 'flows.test' is no address"),
        ({"address": "127.0.0.1"}, "keepalived_virtual_address: '127.0.0.1' is no address"),
        ({"router_id": 0}, "keepalived_router_id: 0 is not between 1 and 255"),
        ({"priority": 255}, "keepalived_priority: 255 is not between 1 and 254"),
        ({"peers": []}, "keepalived_peers is empty"),
        ({"peers": ["a b"]}, "keepalived_peers: 'a b' is neither an address nor a host name"),
        ({"own": "a\nb"}, "keepalived_address: 'a\nb' is neither"),
        ({"interface": "eth0; rm"}, "keepalived_interface: 'eth0; rm' is no name"),
        ({"port": 70000}, "keepalived_port: 70000 is not"),
        ({"unit": "a b"}, "keepalived_unit: 'a b' is no name"),
    ],
)
def test_what_would_not_survive_in_the_file_is_refused(changes: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {
        "address": "10.0.0.99",
        "router_id": 51,
        "priority": 100,
        "own": "web1.test",
        "peers": ["10.0.0.6"],
        "interface": "",
        "port": 443,
        "unit": "haproxy.service",
    }
    ka.check(**sound)
    with pytest.raises(ServerError) as error:
        ka.check(**{**sound, **changes})
    assert message in str(error.value)
