# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tries what a host on the network could try; sent through ssh's standard input. Standard library only, any Debian host.

Order (JSON): a list of [operation, arguments]. Answer: a list of texts or lists, one for each."""

from __future__ import annotations

import concurrent.futures
import errno
import http.client
import json
import resource
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS = 3.0
SCAN_SECONDS = 2.0
AT_ONCE = 512
VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def said(error: OSError) -> str:
    """One word for how a connection failed."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    return {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset"}.get(error.errno or 0, str(error))


def connect(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as error:
        return said(error)
    return "open"


def scan(host: str, first: int = 1, last: int = 65535) -> list[int]:
    """Every open port: half a thousand connections at a time, each given two seconds."""
    address = socket.gethostbyname(host)
    waiting: dict[int, tuple[socket.socket, int, float]] = {}
    poll = select.poll()
    found, port = [], first
    while port <= last or waiting:
        while port <= last and len(waiting) < AT_ONCE:
            link = socket.socket()
            link.setblocking(False)
            code = link.connect_ex((address, port))
            if code == errno.EINPROGRESS:
                waiting[link.fileno()] = (link, port, time.monotonic() + SCAN_SECONDS)
                poll.register(link, select.POLLOUT)
            else:
                if code == 0:
                    found.append(port)
                link.close()
            port += 1
        for number, _event in poll.poll(50):
            link, done, _end = waiting.pop(number)
            poll.unregister(number)
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(done)
            link.close()
        now = time.monotonic()
        for number in [number for number, (_link, _port, end) in waiting.items() if end < now]:
            link = waiting.pop(number)[0]
            poll.unregister(number)
            link.close()
    return sorted(found)


def context(ca: str | None, version: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
    if not ca:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if version:
        # OpenSSL itself refuses the old ones unless told otherwise; the server is to do so.
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = VERSIONS[version]
    return made


def tls(
    host: str, port: int, ca: str | None = None, name: str | None = None, version: str | None = None, postgresql: bool = False
) -> str:
    """The version that was agreed on, or why there was none."""
    try:
        with socket.create_connection((host, port), SECONDS) as link:
            if postgresql and not ask_for_tls(link):
                return "no TLS"
            with context(ca, version).wrap_socket(link, server_hostname=name or host) as wrapped:
                return str(wrapped.version())
    except OSError as error:
        return said(error)


def http_(
    host: str,
    port: int,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: str | None = None,
    secure: bool = False,
    ca: str | None = None,
) -> str:
    """Status and the beginning of the answer."""
    link = (
        http.client.HTTPSConnection(host, port, timeout=10, context=context(ca, None))
        if secure
        else http.client.HTTPConnection(host, port, timeout=10)
    )
    try:
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        return f"{answer.status} {answer.read(300).decode(errors='replace')}"
    except OSError as error:
        return said(error)
    except http.client.HTTPException as error:
        return f"no HTTP: {type(error).__name__}"
    finally:
        link.close()


def ask_for_tls(link: socket.socket) -> bool:
    link.sendall(struct.pack("!ii", 8, 80877103))
    return link.recv(1) == b"S"


def exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        data += more
    return data


def pg(host: str, port: int, user: str, database: str, secure: bool = True) -> str:
    """PostgreSQL's first answer: `asks for a password` means that pg_hba.conf lets this user of this address in."""
    try:
        with socket.create_connection((host, port), SECONDS) as plain:
            link: socket.socket = plain
            if secure:
                if not ask_for_tls(plain):
                    return "no TLS"
                link = context(None, None).wrap_socket(plain, server_hostname=host)
            words = b"".join(text.encode() + b"\0" for text in ("user", user, "database", database)) + b"\0"
            link.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
            kind, size = struct.unpack("!ci", exactly(link, 5))
            text = exactly(link, size - 4)
            if kind == b"R":
                method = struct.unpack("!i", text[:4])[0]
                return "lets in" if method == 0 else f"asks for a password ({'SCRAM' if method == 10 else method})"
            fields = {chunk[:1]: chunk[1:] for chunk in text.split(b"\0") if chunk}
            return f"{fields.get(b'C', b'').decode()} {fields.get(b'M', b'').decode(errors='replace')}"
    except OSError as error:
        return said(error)


def redis(host: str, port: int, commands: list[list[str]], secure: bool = True, ca: str | None = None) -> list[str]:
    """The first line of each answer."""
    try:
        with socket.create_connection((host, port), SECONDS) as plain:
            link = context(ca, None).wrap_socket(plain, server_hostname=host) if secure else plain
            answers = []
            for words in commands:
                parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
                link.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
                text = link.recv(65536)
                answers.append(text.split(b"\r\n")[0].decode(errors="replace") or "closed")
            return answers
    except OSError as error:
        return [said(error)] * len(commands)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "connect": connect,
    "scan": scan,
    "tls": tls,
    "http": http_,
    "pg": pg,
    "redis": redis,
}


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    order: list[tuple[str, dict[str, Any]]] = json.loads(sys.stdin.read())
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        running = [pool.submit(OPERATIONS[name], **arguments) for name, arguments in order]
        print(json.dumps([one.result() for one in running]))


if __name__ == "__main__":
    main()
