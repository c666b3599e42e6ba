# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""keepalived's configuration as text. Nothing here touches a host."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence

from ansible_collections.windfarm.airflow.plugins.module_utils.haproxy_server import SOCKET
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import NAME, ServerError, as_ip

MARK = "# Written by Ansible (windfarm.airflow); changes made here are lost."
# systemd writes it at each start and reload: the hash of the configuration that the process has.
LOADED = "/run/windfarm-keepalived"
# keepalived runs nothing of a folder that others may write to, as /usr/local is on some hosts.
PROBE = "/etc/keepalived/ansible-probe"
UNIT = re.compile(r"^[A-Za-z0-9@_.-]+$")
INTERFACE = re.compile(r"^[A-Za-z0-9_.:-]{1,15}$")
_HASH = re.compile(r"^# hash ([0-9a-f]+)$", re.M)
_ADDRESS = re.compile(r"^\d+: (\S+?)(?:@\S+)? +inet6? ([0-9A-Fa-f.:]+)[/ ]", re.M)

# Advertisements each half second: a host that is gone is noticed after less than two. nopreempt: a host that comes back does not
# take the address, since each change costs the requests that are under way.
CONFIG = """\
{mark}
# hash {hash}
global_defs {{
    router_id airflow
    enable_script_security
    script_user root
    vrrp_version 3
}}
vrrp_script serves {{
    script "/usr/bin/bash -c 'exec 3<>/dev/tcp/{own}/{port}'"
    interval 1
    timeout 2
    fall 2
    rise 2
    init_fail
}}
vrrp_script answers {{
    script "{probe}"
    interval 3
    timeout 2
    fall 2
    rise 1
    init_fail
}}
vrrp_instance entry {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id {router_id}
    priority {priority}
    advert_int 0.5
    unicast_src_ip {source}
    unicast_peer {{
{peers}    }}
    virtual_ipaddress {{
        {address}
    }}
    track_script {{
        serves
        answers
    }}
}}
"""
# The port speaks TLS, the socket does not; and every Debian has Perl, which is up in 8 ms.
SCRIPT = f"""\
#!/usr/bin/perl
{MARK}
# Whether HAProxy itself answers: for one that hangs, the kernel goes on accepting connections.
use strict;
use Socket qw(AF_UNIX SOCK_STREAM pack_sockaddr_un);
alarm 2;
my ($link, $answer);
# Another server may listen here; whether one does is asked by the other script.
exit 0 unless -S "{SOCKET}";
socket($link, AF_UNIX, SOCK_STREAM, 0) && connect($link, pack_sockaddr_un("{SOCKET}")) or exit 1;
syswrite($link, "show info\\n") && sysread($link, $answer, 64) or exit 1;
exit($answer =~ /^Name:/ ? 0 : 1);
"""
DROP_IN = """{mark}
[Unit]
# Stops first, so that the address goes before the answers do.
After={unit}
PartOf={unit}
StartLimitIntervalSec=0

[Service]
# How a process that runs is known to have been started with this file.
Environment=WINDFARM_DROP_IN={hash}
ExecStartPre=+/bin/sh -c 'sed -n "s/^# hash //p" /etc/keepalived/keepalived.conf > {loaded}'
ExecReload=+/bin/sh -c 'sed -n "s/^# hash //p" /etc/keepalived/keepalived.conf > {loaded}'
Restart=always
RestartSec=1
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SETUID CAP_SETGID CAP_KILL
ProtectSystem=strict
ReadWritePaths=/run
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
"""
# The other way round: whoever starts the one that is watched starts keepalived too.
WANTS = """{mark}
[Unit]
Wants=keepalived.service
"""


def follower(unit: str) -> str:
    """The drop-in by which a service starts keepalived, beside that of whoever manages the service."""
    return f"/etc/systemd/system/{unit}.d/91-ansible-keepalived.conf"


def check(
    address: str, router_id: int, priority: int, own: str, peers: Sequence[str], interface: str, port: int, unit: str
) -> None:
    """Refuse what would not survive in a line of the configuration, before anything is changed."""
    if as_ip(address) is None or ipaddress.ip_address(address).is_loopback:
        raise ServerError(f"keepalived_virtual_address: '{address}' is no address that a host can have; give a free one")
    if not 0 < router_id < 256:
        raise ServerError(f"keepalived_router_id: {router_id} is not between 1 and 255")
    if not 0 < priority < 255:
        raise ServerError(f"keepalived_priority: {priority} is not between 1 and 254")
    if not peers:
        raise ServerError("keepalived_peers is empty; name the other hosts that may have the address")
    for variable, text in (("keepalived_address", own), *(("keepalived_peers", peer) for peer in peers)):
        if as_ip(text) is None and not NAME.match(text):
            raise ServerError(f"{variable}: '{text}' is neither an address nor a host name")
    if interface and not INTERFACE.match(interface):
        raise ServerError(f"keepalived_interface: '{interface}' is no name of an interface")
    if not 0 < port < 65536:
        raise ServerError(f"keepalived_port: {port} is not between 1 and 65535")
    if not UNIT.match(unit):
        raise ServerError(f"keepalived_unit: '{unit}' is no name of a unit")


def interface_of(listed: str, address: str) -> str:
    """The interface that has the address, of `ip -o address`; empty where none has."""
    wanted = ipaddress.ip_address(address)
    for name, found in _ADDRESS.findall(listed):
        if ipaddress.ip_address(found) == wanted:
            return str(name)
    return ""


def of_kind(addresses: Sequence[str], like: str) -> str | None:
    """The first that is no loopback and of the same version as the virtual address: one VRRP speaks one of both."""
    version = ipaddress.ip_address(like).version
    found = (one for one in map(ipaddress.ip_address, addresses) if one.version == version and not one.is_loopback)
    return next(map(str, found), None)


def render(values: Mapping[str, object], peers: Sequence[str]) -> tuple[str, str]:
    """The configuration and its hash, which is in it."""
    prefix, own = (128, "::1") if ":" in str(values["address"]) else (32, "127.0.0.1")

    def text(value: str) -> str:
        lines = "".join(f"        {peer}\n" for peer in peers)
        filled = {**values, "mark": MARK, "hash": value, "peers": lines, "address": f"{values['address']}/{prefix}"}
        return CONFIG.format(**filled, own=own, probe=PROBE)

    value = hashlib.sha256(text("").encode()).hexdigest()[:20]
    return text(value), value


def hash_of(text: str | None) -> str:
    found = _HASH.search(text or "")
    return found[1] if found else ""


def drop_in(unit: str) -> tuple[str, str]:
    """The unit's drop-in and its hash."""
    value = hashlib.sha256((DROP_IN + unit).encode()).hexdigest()[:20]
    return DROP_IN.format(mark=MARK, hash=value, unit=unit, loaded=LOADED), value
