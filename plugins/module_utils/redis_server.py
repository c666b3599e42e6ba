# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redis without redis-py: its protocol over a socket, its configuration file as text, and the comparison of both."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError, one_line

HEADER = "# Written by Ansible (windfarm.airflow); changes made here are lost.\n"

# Their value is one word, whatever characters it has; diffs hide it.
SECRETS = ("requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass")
# Where the data is. A change would start Redis with an empty queue, so what is there stays.
STORAGE = ("dir", "dbfilename", "appendfilename", "appenddirname")
RESERVED = {
    "bind": "set redis_listen_addresses",
    "port": "set redis_port",
    "requirepass": "set redis_password",
    "maxmemory": "set redis_maxmemory",
    "appendfsync": "set redis_appendfsync",
    "appendonly": "the queue is always kept in the append-only file",
    "daemonize": "systemd runs Redis",
    "supervised": "systemd runs Redis",
    "include": "put the parameters themselves here",
    "loadmodule": "modules are not supported",
    "rename-command": "use access control lists",
    "user": "accounts are not set here",
    "aclfile": "accounts are not set here",
}
UNITS = {
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
    "b": 1,
}
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}
SIZE = re.compile(r"^(\d+)([a-z]*)$")
PARAMETER = re.compile(r"^[a-z0-9][a-z0-9-]*$")
# Redis 5 to 8 read and write these under two names.
ALIASES = {"slave": "replica"}


class RedisError(Exception):
    """An error that Redis answered."""


class Connection:
    """The Redis protocol (RESP2), as far as administration needs it."""

    def __init__(self, address: str, port: int, timeout: float = 30.0) -> None:
        self._socket = socket.create_connection((address, port), timeout=timeout)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        self._socket.sendall(encode(words))
        answer = self._read()
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def _read(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2].decode("utf-8", "surrogateescape")
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self._stream.read(int(rest) + 2)[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            return None if int(rest) < 0 else [self._read() for _item in range(int(rest))]
        raise ConnectionError("this is not Redis' protocol")

    def info(self, section: str) -> dict[str, str]:
        return dict(line.split(":", 1) for line in str(self.call("INFO", section)).splitlines() if ":" in line)

    def parameters(self) -> dict[str, str]:
        flat = self.call("CONFIG", "GET", "*")
        return dict(zip(flat[::2], flat[1::2]))


def encode(words: Sequence[str]) -> bytes:
    parts = [word.encode("utf-8", "surrogateescape") for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


# The file


def quote(word: str) -> str:
    """One word of redis.conf; whatever is not plain goes into a quoted string, byte by byte where needed."""
    if re.match(r"^[A-Za-z0-9_./:*%+@,=-]+$", word):
        return word
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:*%+@,=- ")
    return (
        '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogateescape")) + '"'
    )


def unquote(line: str) -> list[str]:
    """The words of a line of redis.conf."""
    words: list[str] = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\\')*)\'|(\S+)', line):
        double, single, bare = match.groups()
        if double is not None:
            value = re.sub(
                rb"\\(x[0-9a-fA-F]{2}|.)",
                lambda one: bytes([int(one[1][1:], 16)]) if len(one[1]) == 3 else ESCAPES.get(one[1].decode(), one[1]),
                double.encode("utf-8", "surrogateescape"),
            )
            words.append(value.decode("utf-8", "surrogateescape"))
        elif single is not None:
            words.append(single.replace("\\'", "'"))
        else:
            words.append(bare)
    return words


def read_parameters(text: str | None) -> dict[str, str]:
    """The parameters in a redis.conf, the last line of each."""
    result = {}
    for line in (text or "").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            words = unquote(line)
            result[words[0].lower()] = words[1] if words[0].lower() in SECRETS and len(words) > 1 else " ".join(words[1:])
    return result


def parameter_text(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def user_parameters(config: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """redis_config as text, refused where it cannot be."""
    result: dict[str, str | list[str]] = {}
    for given, value in config.items():
        name = str(given).lower()
        if not PARAMETER.match(name):
            raise ServerError(f"redis_config: '{given}' is not a name of a Redis parameter")
        if name in RESERVED:
            raise ServerError(f"redis_config: '{name}' cannot be set here: {RESERVED[name]}")
        if value is None or isinstance(value, Mapping):
            raise ServerError(f"redis_config: '{name}' needs a value; remove the line for the default")
        result[name] = [parameter_text(item) for item in value] if isinstance(value, (list, tuple)) else parameter_text(value)
        if not all(one_line(text) for text in texts(result[name])):
            raise ServerError(f"redis_config: the value of '{name}' holds a line break")
    return result


def texts(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def render(parameters: Mapping[str, str | list[str]]) -> str:
    lines = []
    for name, value in parameters.items():
        for text in texts(value):
            words = [text] if name in SECRETS or text == "" else text.split()
            lines.append(" ".join([name, *(quote(word) for word in words)]) + "\n")
    return HEADER + "".join(lines)


def memory(text: str, total: int) -> str:
    """redis_maxmemory in bytes: a size, or a share of the host's memory."""
    value = text.strip().lower()
    if re.match(r"^\d{1,2}%$|^100%$", value):
        # Whole megabytes, so that a kernel update does not change it.
        return str(total * int(value[:-1]) // 100 // 1024**2 * 1024**2)
    match = SIZE.match(value)
    if not match or (match.group(2) and match.group(2) not in UNITS):
        raise ServerError(
            f"redis_maxmemory: '{text}' is neither a size such as 512mb, nor a share such as 25%, nor 0 for no limit"
        )
    return str(int(match.group(1)) * UNITS.get(match.group(2), 1))


# Comparison


def canonical(name: str, text: str) -> list[str]:
    """A value in the form that CONFIG GET has."""
    if name in SECRETS:
        return [text]
    words = []
    for word in text.split():
        match = SIZE.match(word.lower())
        unit = match.group(2) if match else ""
        if match and unit in UNITS:
            words.append(str(int(match.group(1)) * UNITS[unit]))
        else:
            words.append(ALIASES.get(word, word))
    return words


def same(name: str, wanted: str | list[str], live: str) -> bool:
    """Whether the running server has the wanted value; of a list each line must be in it."""
    present = canonical(name, live)
    if isinstance(wanted, str):
        present_set, wished = present, canonical(name, wanted)
        if name in ("notify-keyspace-events",):
            return sorted("".join(present_set)) == sorted("".join(wished))
        if name == "client-output-buffer-limit":
            return _contains(present, wished)
        return present_set == wished
    return all(_contains(present, canonical(name, line)) for line in wanted)


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return any(list(words[start : start + len(part)]) == list(part) for start in range(len(words) - len(part) + 1))


def differences(wanted: Mapping[str, str | list[str]], live: Mapping[str, str]) -> Iterator[str]:
    """Names of the parameters that the running server has otherwise, in the order of `wanted`."""
    for name, value in wanted.items():
        if not same(name, value, live.get(name, "")):
            yield name
