# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redis without redis-py: its protocol over a socket, its configuration file as text, and the comparison of both."""

from __future__ import annotations

import glob
import hashlib
import ipaddress
import os
import re
import secrets
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError, as_ip, one_line, read_text

HEADER = "# Written by Ansible (windfarm.airflow); changes made here are lost.\n"

# Their value is one word, whatever characters it has; diffs hide it.
SECRETS = ("requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass")
# One word in the file, spaces or not.
SINGLE = (*SECRETS, "tls-protocols")
# These change together, in one command, which Redis carries out as a whole or not at all.
ENTRANCE = ("port", "tls-port", "tls-cert-file", "tls-key-file", "tls-auth-clients", "tls-protocols")
# A start alone sets these; the running server refuses them, but is not asked in check mode.
AT_START = (
    *("aof_rewrite_cpulist", "aof-rewrite-cpulist", "bgsave_cpulist", "bgsave-cpulist", "bio_cpulist", "bio-cpulist"),
    *("server_cpulist", "server-cpulist", "cluster-config-file", "cluster-enabled", "cluster-port", "databases", "disable-thp"),
    *("enable-debug-command", "enable-module-command", "enable-protected-configs", "ignore-warnings", "io-threads"),
    *("io-threads-do-reads", "logfile", "pidfile", "rdbchecksum", "set-proc-title", "socket-mark-id", "syslog-enabled"),
    *("syslog-facility", "syslog-ident", "tcp-backlog", "unixsocket", "unixsocketperm", "always-show-logo"),
)
# Where the data is. A change would start Redis with an empty queue, so what is there stays.
STORAGE = ("dir", "dbfilename", "appendfilename", "appenddirname")
RESERVED = {
    "bind": "set redis_listen_addresses",
    "port": "set redis_port",
    "requirepass": "Redis' own default user is off; set redis_password or redis_users",
    "maxmemory": "set redis_maxmemory",
    "appendfsync": "set redis_appendfsync",
    "appendonly": "the queue is always kept in the append-only file",
    "daemonize": "systemd runs Redis",
    "supervised": "systemd runs Redis",
    "include": "put the parameters themselves here",
    "loadmodule": "modules are not supported",
    "rename-command": "use access control lists",
    "user": "set redis_users",
    "aclfile": "set redis_users",
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
# What a rule must not do: the module itself says who is on, and with which passwords.
NOT_RULES = ("on", "off", "reset", "resetpass", "nopass")
ACCOUNT = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
PARAMETER = re.compile(r"^[a-z0-9][a-z0-9-]*$")
HANDSHAKE = 5.0
# The state of a listening socket in /proc/net/tcp.
LISTEN = "0A"
# Redis 5 to 8 read and write these under two names.
ALIASES = {"slave": "replica"}


class RedisError(Exception):
    """An error that Redis answered."""


class Connection:
    """The Redis protocol (RESP2), as far as administration needs it."""

    def __init__(self, address: str, port: int, timeout: float = 30.0, *, tls: bool = False) -> None:
        # A server without TLS says nothing to a greeting of TLS, so that one must not last.
        self._socket = socket.create_connection((address, port), timeout=HANDSHAKE if tls else timeout)
        if tls:
            # The other end is known already, by its process; its certificate may be of any name.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            try:
                self._socket = context.wrap_socket(self._socket)
            except OSError:
                self._socket.close()
                raise
            self._socket.settimeout(timeout)
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

    def transaction(self, *commands: Sequence[str]) -> list[Any]:
        """All or nothing of it, with nobody in between, also when this process dies half-way; raises the first error."""
        parts = [("MULTI",), *commands, ("EXEC",)]
        self._socket.sendall(b"".join(encode(words) for words in parts))
        answers = [self._read() for _part in parts]
        for answer in [*answers[:-1], *(answers[-1] if isinstance(answers[-1], list) else answers[-1:])]:
            if isinstance(answer, RedisError):
                raise answer
        return list(answers[-1])

    def account(self, name: str) -> dict[str, Any] | None:
        return described(self.call("ACL", "GETUSER", name))

    def as_account(self, modifiers: Sequence[str]) -> dict[str, Any] | None:
        """What Redis makes of the rules, in its own words; told by an account that nobody ever sees."""
        name = f"ansible-{secrets.token_hex(8)}"
        answers = self.transaction(
            ("ACL", "SETUSER", name, "reset", *modifiers), ("ACL", "GETUSER", name), ("ACL", "DELUSER", name)
        )
        return described(answers[1])

    def parameters(self) -> dict[str, str]:
        flat = self.call("CONFIG", "GET", "*")
        return dict(zip(flat[::2], flat[1::2]))


def encode(words: Sequence[str]) -> bytes:
    parts = [word.encode("utf-8", "surrogateescape") for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


# The file


def quote(word: str) -> str:
    """One word of redis.conf; whatever is not plain goes into a quoted string, byte by byte where needed."""
    if re.match(r"^[A-Za-z0-9_./:*%+@,=~&|()#-]+$", word):
        return word
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:*%+@,=~&|()#- ")
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
        if name.startswith("tls-"):
            raise ServerError(f"redis_config: '{name}' cannot be set here: set redis_tls_certificate and redis_tls_key")
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
            words = [text] if name in SINGLE or text == "" else text.split()
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


# Accounts


# The first account, of clients that give no name. Redis itself calls that off and without any right.
DEFAULT_OFF = "default off"


def account_names(text: str | None) -> list[str]:
    """The accounts in a redis.conf."""
    lines = (unquote(line) for line in (text or "").splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return list(dict.fromkeys(words[1] for words in lines if words[0].lower() == "user" and len(words) > 1))


@dataclass(frozen=True)
class Account:
    """One account as it shall be; of its passwords only what Redis keeps of them."""

    name: str
    hashes: tuple[str, ...]
    rules: tuple[str, ...]

    @property
    def modifiers(self) -> tuple[str, ...]:
        return ("on", *(f"#{one}" for one in self.hashes), *self.rules)

    @property
    def line(self) -> str:
        return " ".join([self.name, *self.modifiers])


def password_hash(password: str) -> str:
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()


def administrator(name: str, password: str) -> Account:
    if not ACCOUNT.match(name) or name == "default":
        raise ServerError(f"redis_admin_user: '{name}' cannot be an account: letters, digits and _ . - only, and not 'default'")
    if not password or not one_line(password):
        raise ServerError("redis_password is empty or holds a line break; create one with playbooks/secrets.yml or set it")
    return Account(name, (password_hash(password),), ("~*", "&*", "+@all"))


def accounts(admin: Account, users: Iterable[Mapping[str, Any]]) -> list[Account]:
    """redis_users, checked as far as that goes without a server; the administrator first."""
    result = {admin.name: admin}
    for user in users:
        name = str(user["name"])
        where = f"redis_users: account '{name}'"
        if not ACCOUNT.match(name):
            raise ServerError(f"redis_users: '{name}' cannot be an account: letters, digits and _ . - only")
        if name == "default":
            raise ServerError(f"{where} is the one of clients that give no name, and always off; take another name")
        if name in result:
            cure = "choose another name, or set redis_admin_user" if name == admin.name else "keep one of its entries"
            raise ServerError(f"{where} is there twice; {cure}")
        passwords = list(user["passwords"] or [])
        if not passwords or not all(password and one_line(password) for password in passwords):
            raise ServerError(f"{where} needs passwords, none of them empty or with a line break")
        hashes = tuple(dict.fromkeys(password_hash(password) for password in passwords))
        if admin.hashes[0] in hashes:
            raise ServerError(f"{where} has the administrator's password (redis_password); give it one of its own")
        rules = tuple(word for rule in user["rules"] for word in str(rule).split())
        for rule in rules:
            # Not quoted back: somebody may have put a password there.
            if rule.lower() in NOT_RULES or rule[0] in "><#!":
                raise ServerError(f"{where}: its rules hold a password or switch the account; passwords go into 'passwords'")
        result[name] = Account(name, hashes, rules)
    return list(result.values())


def described(answer: Any) -> dict[str, Any] | None:
    """ACL GETUSER's answer in a form that can be compared."""
    if answer is None:
        return None
    result = dict(zip(answer[::2], answer[1::2]))
    # The flag for what is the rule anyway: Redis 7.0 sets it for an account made live, and not for one of its file.
    flags = sorted(set(result["flags"]) - {"sanitize-payload"})
    return {**result, "flags": flags, "passwords": sorted(result["passwords"])}


def account_differences(present: Mapping[str, Any] | None, wished: Mapping[str, Any] | None) -> str:
    """What of an account is otherwise, in words; empty when nothing is."""
    if present is None or wished is None:
        return "" if present == wished else "new"
    names = sorted(name for name in {*present, *wished} if present.get(name) != wished.get(name))
    return ", ".join(names)


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


# The process


def listening(pid: str) -> list[tuple[str, int]]:
    """Addresses and ports on which the process itself listens, this host's own loopback addresses first."""
    mine = {_link(name) for name in glob.glob(f"/proc/{pid}/fd/*")}
    try:
        tables = [read_text(f"/proc/{pid}/net/{table}") or "" for table in ("tcp", "tcp6")]
    except ProcessLookupError:
        return []
    found = []
    for line in (line for table in tables for line in table.splitlines()[1:]):
        words = line.split()
        if words[3] == LISTEN and f"socket:[{words[9]}]" in mine:
            found.append(socket_address(words[1]))
    return sorted(set(found), key=lambda one: (not ipaddress.ip_address(one[0]).is_loopback, one))


def _link(name: str) -> str:
    try:
        return os.readlink(name)
    except OSError:
        # Closed in the meantime.
        return ""


def socket_address(text: str) -> tuple[str, int]:
    """An address as the kernel writes it in /proc/net/tcp; "everywhere" as the loopback address."""
    address, port = text.split(":")
    raw = b"".join(bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8))
    if sys.byteorder == "big":
        raw = bytes.fromhex(address)
    ip = ipaddress.ip_address(raw)
    loopback = "::1" if ip.version == 6 else "127.0.0.1"
    return loopback if ip.is_unspecified else str(ip), int(port, 16)


# The certificate


def certificate(certificate_path: str, key_path: str) -> str | None:
    """Certificate and key as one text, checked to belong together; nothing when both are missing."""
    found = {}
    for variable, path in (("redis_tls_certificate", certificate_path), ("redis_tls_key", key_path)):
        try:
            found[variable] = read_text(path)
        except OSError as error:
            raise ServerError(f"{variable}: {path} cannot be read on this host: {error.strerror}") from None
    missing = [(variable, path) for (variable, text), path in zip(found.items(), (certificate_path, key_path)) if text is None]
    if len(missing) == len(found):
        return None
    if missing:
        raise ServerError(
            f"{missing[0][0]}: {missing[0][1]} does not exist on this host; put the file there, or correct the path"
        )
    try:
        # An encrypted key is refused instead of asking for its password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_path, key_path, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ServerError(
                f"redis_tls_key: {key_path} is not the key of the certificate {certificate_path}; give the right pair"
            ) from None
        raise ServerError(
            f"redis_tls_certificate: {certificate_path} with {key_path} cannot be used "
            f"({error.reason or 'not PEM, or encrypted'}); give a PEM certificate and its unencrypted key"
        ) from None
    return "".join(text.strip() + "\n" for text in found.values() if text)


class Client(NamedTuple):
    """Who is connected, and whether it waits for a message."""

    address: str
    waits: bool


def clients(text: str) -> dict[str, Client]:
    """By their ids, out of the answer to `CLIENT LIST`."""
    found = (dict(word.partition("=")[::2] for word in line.split(" ")) for line in text.splitlines())
    return {
        client["id"]: Client(
            str(as_ip(client["addr"].rpartition(":")[0].strip("[]"))),
            client.get("cmd") == "brpop" and "b" in client.get("flags", ""),
        )
        for client in found
        if "id" in client
    }
