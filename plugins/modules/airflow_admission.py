#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_admission
short_description: Find out whether PostgreSQL, Redis and webservers admit this host
version_added: 0.1.0
description:
  - Connects to each as far as the server asks for a password, and no further, so it needs no client and no secret.
  - Changes nothing.
options:
  targets:
    description: Servers to ask. Of several of a kind, one that admits the host is enough.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: What it is.
        type: str
        choices: [postgresql, redis, webserver]
        required: true
      host:
        description: Its address.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        required: true
      tls:
        description: Whether it speaks TLS.
        type: bool
        default: false
      user:
        description: PostgreSQL's user.
        type: str
        default: ""
      database:
        description: PostgreSQL's database.
        type: str
        default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: See whether Redis admits this host
  windfarm.airflow.airflow_admission:
    targets:
      - {kind: redis, host: 10.0.0.11, port: 6379, tls: true}
"""

RETURN = r"""
refused:
  description: What does not admit this host, and why, by its kind.
  returned: always
  type: dict
  sample: {redis: "Connection refused"}
"""

import socket
import ssl
import struct
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SECONDS = 5
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def wrapped(plain: socket.socket) -> socket.socket:
    """Whose certificate it is does not matter here: nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise OSError("it closes the connection")
        data += part
    return data


def ask_redis(target: dict[str, Any]) -> str:
    with socket.create_connection((target["host"], target["port"]), SECONDS) as plain:
        connection = wrapped(plain) if target["tls"] else plain
        connection.sendall(b"PING\r\n")
        answer = read(connection, 1)
    # An error is an answer too: it asks for a password.
    return "" if answer in (b"+", b"-") else "what answers there is not Redis"


def ask_postgresql(target: dict[str, Any]) -> str:
    with socket.create_connection((target["host"], target["port"]), SECONDS) as plain:
        connection = plain
        if target["tls"]:
            plain.sendall(SSL_REQUEST)
            if read(plain, 1) != b"S":
                return "it speaks no TLS"
            connection = wrapped(plain)
        words = b"user\0" + target["user"].encode() + b"\0database\0" + target["database"].encode() + b"\0\0"
        connection.sendall(struct.pack("!ii", 8 + len(words), 196608) + words)
        kind, size = struct.unpack("!ci", read(connection, 5))
        body = read(connection, min(size - 4, 4096))
    if kind == b"R":
        return ""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return fields.get(b"M", "it refuses")


def ask_webserver(target: dict[str, Any]) -> str:
    """Any client is admitted or none: the firewall alone decides."""
    with socket.create_connection((target["host"], target["port"]), SECONDS):
        return ""


def ask(target: dict[str, Any]) -> str:
    try:
        return {"redis": ask_redis, "postgresql": ask_postgresql, "webserver": ask_webserver}[target["kind"]](target)
    except OSError as error:
        return str(error.strerror or error)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "kind": {"type": "str", "choices": ["postgresql", "redis", "webserver"], "required": True},
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "tls": {"type": "bool", "default": False},
                    "user": {"type": "str", "default": ""},
                    "database": {"type": "str", "default": ""},
                },
            },
        },
        supports_check_mode=True,
    )
    answers: dict[str, list[str]] = {}
    for target in module.params["targets"]:
        answers.setdefault(target["kind"], []).append(ask(target))
    module.exit_json(changed=False, refused={kind: whys[0] for kind, whys in answers.items() if all(whys)})


if __name__ == "__main__":
    main()
