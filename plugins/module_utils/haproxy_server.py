# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HAProxy's configuration as text, and what its admin socket answers. Nothing here touches a host."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import NAME, ServerError, as_ip

MARK = "# Written by Ansible (windfarm.airflow); changes made here are lost."
# In /run itself, which is root's: Debian's /run/haproxy belongs to the user that HAProxy becomes.
SOCKET = "/run/haproxy-admin.sock"
DESCRIPTION = "windfarm.airflow "
LABEL = re.compile(r"^[A-Za-z0-9_.-]{1,128}$")
PATH = re.compile(r"^/[A-Za-z0-9_./@:+-]+$")
URL = re.compile(r"^https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?$")
URI = re.compile(r"^/[!-~]*$")
BIND = re.compile(r"^(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})$")

GLOBAL = """\
{mark}
global
    description {description}
    log /dev/log local0
    chroot /var/lib/haproxy
    user haproxy
    group haproxy
    stats socket {socket} mode 600 level admin expose-fd listeners
    # The host's processors are for its tasks; connections to servers are shared within a thread only.
    nbthread 2
    maxconn {maxconn}
    # What an old process still carries after a reload, such as a log that is followed, ends then.
    hard-stop-after 1h
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option dontlog-normal
    # A request that comes while the process is being replaced is still answered.
    option idle-close-on-response
    retries 3
    option redispatch 1
    # Includes the TLS handshake. Airflow's client waits 5 s: a silent server and the next one must fit.
    timeout connect 2s
    timeout check 5s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout tunnel 1h
    # Two hundred workers ask each webserver twenty times a second. One that is gone is noticed by the first request, which goes
    # to the next; from then on it is asked every second, and its first answer brings it back: tasks wait for an only one.
    default-server inter 10s fastinter 1s downinter 1s fall 2 rise 1 init-addr none
    default-server observe layer4 error-limit 1 on-error fastinter
"""


def split_bind(variable: str, text: str) -> tuple[str, int]:
    """Host and port of ADDRESS:PORT, [ADDRESS]:PORT or *:PORT."""
    found = BIND.match(text)
    host = (found["v6"] or found["host"]) if found else ""
    port = int(found["port"]) if found else 0
    if not found or not 0 < port < 65536 or (found["v6"] and as_ip(host) is None):
        raise ServerError(f"{variable}: '{text}' is not ADDRESS:PORT, such as 127.0.0.1:8079 or [::1]:8079")
    return host, port


def check(listeners: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what would not survive in a line of HAProxy's configuration, before anything is changed."""
    names: set[str] = set()
    binds: set[str] = set()
    for listener in listeners:
        name = str(listener["name"])
        if not LABEL.match(name):
            raise ServerError(f"haproxy_listeners: '{name}' is not a name of letters, digits, . _ and -; rename it")
        where = f"haproxy_listeners: {name}"
        if name in names:
            raise ServerError(f"{where}: two listeners have this name; rename one")
        names.add(name)
        split_bind(f"{where}: bind", listener["bind"])
        if listener["bind"] in binds:
            raise ServerError(f"{where}: another listener has the bind {listener['bind']}; give each its own port")
        binds.add(listener["bind"])
        for option in ("certificate", "certificate_key", "ca_file"):
            if listener[option] and not PATH.match(listener[option]):
                raise ServerError(f"{where}: {option} '{listener[option]}' is not a plain absolute path on the host")
        for path in listener["check_path"] or [""]:
            if not URI.match(path):
                raise ServerError(f"{where}: check_path '{path}' is not a path such as /api/v2/version")
        if listener["timeout"] < 1:
            raise ServerError(f"{where}: timeout {listener['timeout']} is not a number of seconds from 1")
        if listener["certificate_key"] and not listener["certificate"]:
            raise ServerError(
                f"{where}: certificate_key without certificate; give both, or the certificate alone with its key in it"
            )
        if listener["redirect"]:
            if not URL.match(listener["redirect"]) or listener["servers"]:
                raise ServerError(f"{where}: redirect wants a URL without path, such as https://example.com, and no servers")
            continue
        if not listener["servers"]:
            raise ServerError(f"{where}: servers is empty; name at least one, or give redirect")
        servers: set[str] = set()
        for server in listener["servers"]:
            label, address, verify = str(server["name"]), str(server["address"]), str(server["verify_name"] or "")
            if not LABEL.match(label):
                raise ServerError(f"{where}: server '{label}' is not a name of letters, digits, . _ and -; rename it")
            if label in servers:
                raise ServerError(f"{where}: two servers have the name '{label}'; rename one")
            servers.add(label)
            for text in (address, verify or address):
                if as_ip(text) is None and not NAME.match(text):
                    raise ServerError(f"{where}: server {label}: '{text}' is neither an address nor a host name")
            if not 0 < server["port"] < 65536:
                raise ServerError(f"{where}: server {label}: port {server['port']} is not between 1 and 65535")


def files_of(listeners: Sequence[Mapping[str, Any]]) -> list[str]:
    """Files that HAProxy reads when it loads this configuration."""
    return sorted({listener[option] for listener in listeners for option in ("certificate", "ca_file") if listener[option]})


def known_addresses(text: str | None) -> dict[tuple[str, str], str]:
    """(listener, server): address in a configuration that was rendered here."""
    found: dict[tuple[str, str], str] = {}
    if text is None or not text.startswith(MARK):
        return found
    listener = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "backend":
            listener = words[1]
        elif len(words) > 2 and words[0] == "server":
            found[listener, words[1]] = words[2].rsplit(":", 1)[0].strip("[]")
    return found


def choose(addresses: Sequence[str], known: str | None) -> str | None:
    """One address of a server; the one in use stays while it is among the answers, or while there is no answer."""
    if not addresses or known in addresses:
        return known
    outside = [address for address in addresses if not address.startswith("127.") and address != "::1"]
    return (outside or list(addresses))[0]


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _bind(address: str, port: int, certificate: str) -> str:
    words = ["bind", {"::": f"[::]:{port} v4v6"}.get(address, endpoint(address, port))]
    if certificate:
        words.append(f"ssl crt {certificate} alpn h2,http/1.1")
    return " ".join(words)


def _server(listener: Mapping[str, Any], server: Mapping[str, Any], address: str) -> str:
    words = ["server", server["name"], endpoint(address, server["port"]), "check"]
    if listener["ca_file"]:
        # HAProxy compares with the DNS names and the common name of a certificate, never with its IP addresses.
        name = server["verify_name"] or server["address"]
        words += ["ssl", "verify required", f"ca-file {listener['ca_file']}", f"verifyhost {name}"]
        if as_ip(name) is None:
            words.append(f"sni str({name}) check-sni {name}")
    return " ".join(words)


def _section(listener: Mapping[str, Any], binds: Sequence[str], addresses: Mapping[tuple[str, str], str]) -> list[str]:
    name, timeout = listener["name"], f"{listener['timeout']}s"
    lines = ["", f"frontend {name}"]
    lines += [f"    {_bind(address, split_bind(name, listener['bind'])[1], listener['certificate'])}" for address in binds]
    lines += [f"    timeout client {timeout}"]
    if listener["redirect"]:
        return [*lines, f"    http-request redirect prefix {listener['redirect']} code 308"]
    # What a client says of other hops is its own invention.
    lines += [f"    http-request del-header {header}" for header in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host")]
    if listener["certificate"] or listener["forwarded"]:
        scheme = "https" if listener["certificate"] else "http"
        lines += ["    option forwardfor", f"    http-request set-header X-Forwarded-Proto {scheme}"]
    else:
        lines += ["    http-request del-header X-Forwarded-Proto"]
    lines += [f"    default_backend {name}", "", f"backend {name}"]
    lines += [f"    balance {listener['balance']}", f"    timeout server {timeout}"]
    lines += [
        "    option httpchk",
        *(
            line
            for path in listener["check_path"]
            for line in (
                # As the server's own line says.
                *(["    http-check connect default"] if len(listener["check_path"]) > 1 else []),
                f"    http-check send meth GET uri {_quote(path)} ver HTTP/1.1 hdr Host localhost",
                "    http-check expect status 200",
            )
        ),
        "    retry-on conn-failure empty-response",
    ]
    if listener["replay"] == "all":
        # Only a whole request can be sent again.
        lines += ["    option http-buffer-request", "    http-reuse always"]
    else:
        lines += ["    http-request disable-l7-retry unless METH_GET or { method HEAD OPTIONS }"]
        # A connection that was left open may be cut while the next request is on its way, which then must not be repeated.
        lines += ["    option http-server-close", "    http-reuse never"]
    lines += [
        f"    {_server(listener, server, addresses[name, server['name']])}"
        for server in listener["servers"]
        if (name, server["name"]) in addresses
    ]
    return lines


def _quote(text: str) -> str:
    return re.sub(r"([\\ \"'#])", r"\\\1", text)


def render(
    listeners: Sequence[Mapping[str, Any]],
    binds: Mapping[str, Sequence[str]],
    addresses: Mapping[tuple[str, str], str],
    maxconn: int,
    content: Callable[[str], str],
) -> tuple[str, str]:
    """The configuration and its hash. The hash is in the text, and covers the certificates that are loaded with it."""
    body: list[str] = []
    for listener in listeners:
        body += _section(listener, binds[listener["name"]], addresses)

    def text(description: str) -> str:
        head = GLOBAL.format(mark=MARK, description=description, socket=SOCKET, maxconn=maxconn)
        return head + "\n".join([*body, ""])

    digest = hashlib.sha256(text("").encode())
    for path in files_of(listeners):
        digest.update(f"\0{path}\0{content(path)}".encode(errors="surrogateescape"))
    value = digest.hexdigest()[:20]
    return text(DESCRIPTION + value), value


def running_hash(info: str) -> str:
    """The hash of the configuration that the running process has, out of the answer to `show info`."""
    for line in info.splitlines():
        key, _colon, value = line.partition(": ")
        if key == "description" and value.startswith(DESCRIPTION):
            return value[len(DESCRIPTION) :].strip()
    return ""


def server_states(stat: str) -> dict[str, dict[str, str]]:
    """{listener: {server: UP or what is wrong}} out of the answer to `show stat`."""
    lines = [line for line in stat.splitlines() if line]
    if not lines:
        return {}
    header = lines[0].lstrip("# ").split(",")
    result: dict[str, dict[str, str]] = {}
    for line in lines[1:]:
        row = dict(zip(header, line.split(",")))
        if row.get("svname") in ("FRONTEND", "BACKEND", None):
            continue
        state = row.get("status", "")
        reason = row.get("check_desc") or row.get("last_chk") or ""
        up = state.startswith("UP") or state == "no check"
        result.setdefault(row.get("pxname", ""), {})[row["svname"]] = "UP" if up else f"{state} ({reason})" if reason else state
    return result


def alert(text: str) -> str:
    """The line of HAProxy's output that says what is wrong."""
    every = [line.strip() for line in text.splitlines() if line.strip()]
    # That the previous process was told to end is no news.
    lines = [line for line in every if "[ALERT]" in line and "(Terminated)" not in line] or every[-1:] or ["no message"]
    return re.sub(r"^\[ALERT\]\s*\(\d+\)\s*:\s*", "", lines[0])


DROP_IN = """{mark}
[Unit]
StartLimitIntervalSec=0

[Service]
# How a process that runs is known to have been started with this file.
Environment=WINDFARM_DROP_IN={hash}
RestartSec=200ms
{sandbox}"""
# HAProxy starts as root, reads its keys, opens its sockets, and becomes the user haproxy in an empty root directory;
# its master process signals the other.
SANDBOX = """\
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SYS_CHROOT CAP_NET_BIND_SERVICE CAP_KILL
ProtectSystem=strict
ReadWritePaths=/run
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service chroot
UMask=0077
"""


def drop_in() -> tuple[str, str]:
    """The unit's drop-in and its hash."""
    value = hashlib.sha256((DROP_IN + SANDBOX).encode()).hexdigest()[:20]
    return DROP_IN.format(mark=MARK, hash=value, sandbox=SANDBOX), value
