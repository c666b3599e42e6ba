#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_server
short_description: Converge Debian's Redis server without losing what it holds
version_added: 1.0.0
description:
  - Installs Debian's package, brings the running server to the wanted parameters, and writes its whole configuration
    file.
  - Parameters are compared with those of the running server, never with what this run happened to write, and are set
    live. The server is
    restarted only for a parameter that Redis cannot set live. So a run after an interrupted one ends in the same state.
  - The append-only file is switched on in the running server and complete before the configuration file mentions it.
    Redis that
    finds C(appendonly yes) in its file at a start without such a file starts empty, whatever its snapshot holds.
  - Accounts are those of O(users) and one administrator, as which the module works. All others are removed, those of the
    configuration file too, and Redis' own account V(default) is off and may do nothing. The file holds hashes of
    passwords only. A server that still has one password for everybody, or none, is taken over live.
  - With a certificate the port speaks TLS only. Redis gets a copy of certificate and key in one file of its own, named
    after its content, so that at no time a key lies beside another key's certificate.
  - Connections that are open stay open when a password is taken away or TLS is switched on; those of a removed account and
    of V(default) are closed.
  - Sets C(vm.overcommit_memory=1), which Redis needs to write its files under load. In a container that value is the
    machine's,
    so it is left alone there and a warning says so.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  listen_addresses:
    description:
      - Addresses to listen on. A host name is resolved on the managed host. The first one is used to administer the
        server.
    type: list
    elements: str
    default: [127.0.0.1]
  port:
    description:
      - TCP port.
    type: int
    default: 6379
  admin_user:
    description:
      - Name of the administrator's account, which may do everything.
    type: str
    default: admin
  password:
    description:
      - Password of the administrator's account, any characters but line breaks.
      - Redis knows only hashes. Where none of the passwords that this module is given opens the running server, it is
        restarted with the new one, which keeps its data.
    type: str
    required: true
  previous_passwords:
    description:
      - Passwords that the administrator may have had before. They are tried, never set, so that a change of O(password)
        needs no restart.
    type: list
    elements: str
    default: []
  users:
    description:
      - The accounts of clients.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      passwords:
        description: Its passwords, each of which opens it.
        type: list
        elements: str
        required: true
      rules:
        description:
          - What it may do, in the words of Redis' C(ACL SETUSER), such as V(~*), V(&*), V(-@all), V(+llen). An account starts
            without any right.
          - Words that switch the account on or off or set passwords are refused.
        type: list
        elements: str
        required: true
  tls_certificate:
    description:
      - Path on the host of the server's certificate, PEM, with its intermediate certificates if there are any. Empty for no
        TLS.
    type: str
    default: ""
  tls_key:
    description:
      - Path on the host of the certificate's private key, PEM, without a password.
    type: str
    default: ""
  sandbox:
    description:
      - Whether the unit is confined beyond what Debian's own is. Takes effect at the server's next start.
    type: bool
    default: true
  maxmemory:
    description:
      - Most memory for data, a size such as V(512mb), a share of the host's memory such as V(25%), or V(0) for no
        limit.
    type: str
    default: 25%
  appendfsync:
    description:
      - When the append-only file is forced to the disk. V(everysec) may lose a second at a loss of power, V(always)
        nothing.
    type: str
    choices: [always, everysec]
    default: everysec
  config:
    description:
      - Further parameters of redis.conf by name. A list makes a line of each item.
    type: dict
    default: {}
  start_timeout:
    description:
      - How long to wait for the server to load its data after a start, and for the append-only file to be written, in
        seconds.
    type: int
    default: 600
  hold:
    description:
      - Whether the server's package is kept on hold, and needrestart from restarting the server, so that neither an upgrade
        by apt nor one of a library restarts it at a time of its own choosing. O(upgrade) upgrades it all the same.
      - V(false) releases what this module had put on hold.
    type: bool
    default: true
  upgrade:
    description:
      - Whether to upgrade the server's package to the newest of its major version that the host's package lists know, and to
        restart a server that runs with files that have been replaced since its start.
    type: bool
    default: false
  restart:
    description:
      - Whether to restart the server even if nothing asks for it.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and predict the changes, also where Redis is not installed.
    support: full
  diff_mode:
    description: Shows the configuration file; passwords in it are hidden.
    support: full
"""

EXAMPLES = r"""
- name: Have a broker
  windfarm.airflow.redis_server:
    listen_addresses: [127.0.0.1, 10.0.0.5]
    password: "{{ airflow_broker_admin_password }}"
    users:
      - name: airflow
        passwords: ["{{ airflow_broker_password }}"]
        rules: ["~*", "&*", "+@all", "-@admin", "-@dangerous"]
    maxmemory: 1gb
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["set appendonly", "write /etc/redis/redis.conf"]
restarted:
  description: Whether the server was restarted.
  returned: always
  type: bool
upgrades:
  description: Packages that were upgraded, or would be.
  returned: success
  type: list
  elements: dict
  sample: [{"package": "redis-server", "from": "5:8.0.2-3+deb13u2", "to": "5:8.0.2-3+deb13u3"}]
version:
  description: Version of the running server; empty where none runs.
  returned: always
  type: str
  sample: 7.0.15
"""

import glob
import hashlib
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    EVERYWHERE,
    File,
    Host,
    ServerError,
    file_differs,
    last_line,
    listen_addresses,
    mask,
    read_text,
    write_file,
)

UNIT = "redis-server"
# The second has the server's program.
PACKAGES = (UNIT, "redis-tools")
CONF = "/etc/redis/redis.conf"
FOLDER = "/var/lib/redis"
OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
# Redis does not start while an address that it binds is missing. Debian's unit gives up after five such starts, and
# after 90 s of
# loading data.
DROP_IN = """# Written by Ansible (windfarm.airflow); changes made here are lost.
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
RestartSec=2
TimeoutStartSec=infinity
"""
# Debian's unit confines Redis well. What it leaves open: writing its own configuration, and files that others may read.
# ProcSubset=pid would hide the kernel's overcommit setting, by which Redis' memory allocator decides how it works.
SANDBOX = """UMask=0077
ReadOnlyPaths=/etc/redis
"""
SYSCTL = """# Written by Ansible (windfarm.airflow): Redis forks to write its files, and the copy is never used in full.
vm.overcommit_memory = 1
"""
# Debian's own values where they are no default of Redis, and what a broker needs.
BASE: dict[str, str | list[str]] = {
    "protected-mode": "yes",
    "timeout": "0",
    "tcp-keepalive": "60",
    "pidfile": "/run/redis/redis-server.pid",
    "loglevel": "notice",
    "logfile": "/var/log/redis/redis-server.log",
    "databases": "16",
    "save": "3600 1 300 100 60 10000",
    "maxmemory-policy": "noeviction",
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "64mb",
    "aof-load-truncated": "yes",
}
# Seconds after which a running server without a port is not about to open one.
DEAF = 5
# Certificate and key in one file, named after its content: the one in use is never half replaced.
CERTIFICATE = "/etc/redis/tls-{}.pem"
# Redis spells "everywhere" otherwise.
BIND = dict(zip(EVERYWHERE, ("* -::*", "*", "::*")))
STORAGE_DEFAULTS = {
    "dir": FOLDER,
    "dbfilename": "dump.rdb",
    "appendfilename": "appendonly.aof",
    "appenddirname": "appendonlydir",
}


class Server:
    """Debian's one Redis server of a host."""

    def __init__(self, host: Host, params: dict[str, Any]) -> None:
        self.host = host
        self.params = params
        self.restarted = False
        self.upgrades: list[tuple[str, str, str]] = []
        self.version = ""
        self.connection: rd.Connection | None = None
        # Why the running server can only be reached by a restart.
        self.shut = ""
        self.listen: list[str] = []
        self.admin = rd.administrator(params["admin_user"], params["password"])
        self.accounts = rd.accounts(self.admin, params["users"])
        self.certificate: File | None = None

    # What is wanted

    def wanted(self, present: dict[str, str]) -> dict[str, str | list[str]]:
        params = self.params
        user = rd.user_parameters(params["config"])
        result: dict[str, str | list[str]] = {
            "bind": " ".join(BIND.get(one, one) for one in self.listen),
            **self.entrance(),
            **BASE,
            **{name: present.get(name) or value for name, value in STORAGE_DEFAULTS.items()},
            "appendonly": "yes",
            "appendfsync": params["appendfsync"],
            "maxmemory": rd.memory(params["maxmemory"], self._memory_total()),
        }
        for name in rd.STORAGE:
            if name in user and present and user[name] != result[name]:
                raise ServerError(
                    f"redis_config: '{name}' is {result[name]} on this host, where its data is; "
                    "remove the line, or move the data first"
                )
        return {**result, **user}

    def entrance(self) -> dict[str, str | list[str]]:
        port = str(self.params["port"])
        if self.certificate is None:
            return {"port": port, "tls-port": "0", "tls-cert-file": "", "tls-key-file": ""}
        return {
            "port": "0",
            "tls-port": port,
            "tls-cert-file": self.certificate.path,
            "tls-key-file": self.certificate.path,
            "tls-auth-clients": "no",
            "tls-protocols": "TLSv1.2 TLSv1.3",
        }

    def read_certificate(self) -> None:
        certificate, key = self.params["tls_certificate"], self.params["tls_key"]
        if not certificate and not key:
            return
        if not certificate or not key:
            raise ServerError("redis_tls_certificate and redis_tls_key go together; set both, or none for no TLS")
        text = rd.certificate(certificate, key)
        if text is None and not self.host.check:
            raise ServerError(
                f"redis_tls_certificate: {certificate} does not exist on this host; put it and its key there, or correct the path"
            )
        # In check mode both may be files that an earlier task would have made.
        digest = hashlib.sha256(text.encode()).hexdigest()[:16] if text else "new"
        self.certificate = File(CERTIFICATE.format(digest), text or "", 0o600, "redis", "redis")

    def put_certificate(self) -> None:
        """Redis' own copy. Not shown as a difference, for it holds the key."""
        if self.certificate is None or not file_differs(self.certificate):
            return
        self.host.note(f"write {self.certificate.path}")
        if not self.host.check:
            write_file(self.certificate)

    def drop_certificates(self) -> None:
        """What no parameter names any more: keys of certificates that were replaced."""
        for path in sorted(glob.glob(CERTIFICATE.format("*"))):
            if self.certificate is None or path != self.certificate.path:
                self.host.note(f"remove {path}")
                if not self.host.check:
                    os.unlink(path)

    @staticmethod
    def _memory_total() -> int:
        for line in (read_text("/proc/meminfo") or "").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
        raise ServerError("/proc/meminfo has no MemTotal; give redis_maxmemory as a size")

    # Talking to it

    def connect(self) -> bool:
        """Reach the unit's own server, however it is to be spoken to; false while it does not answer."""
        on_disk = rd.read_parameters(read_text(CONF))
        pid = self.host.unit(UNIT).get("MainPID", "0")
        # Its own sockets, so that no other process ever gets to see a password.
        for address, port in rd.listening(pid):
            for tls in (True, False) if on_disk.get("tls-port") == str(port) else (False, True):
                try:
                    connection = rd.Connection(address, port, tls=tls)
                    if not self._log_in(connection):
                        self.shut = "none of the passwords in the inventory opens it"
                        return True
                    info = connection.info("server")
                    if connection.info("persistence").get("loading") == "1":
                        connection.close()
                        return False
                except OSError:
                    continue
                self.connection, self.version = connection, info["redis_version"]
                return True
        return False

    def _log_in(self, connection: rd.Connection) -> bool:
        text = read_text(CONF)
        parameters = rd.read_parameters(text)
        passwords = [self.params["password"], *self.params["previous_passwords"]]
        names = [self.admin.name, *rd.account_names(text)]
        attempts: list[tuple[str, ...]] = [(name, password) for password in passwords for name in names]
        # Before there were accounts, one password was everybody's; it may be that of an account now.
        clients = [password for user in self.params["users"] for password in user["passwords"]]
        attempts += [(password,) for password in dict.fromkeys([parameters.get("requirepass", ""), *passwords, *clients, ""])]
        for words in attempts:
            try:
                if words[-1]:
                    connection.call("AUTH", *words)
                connection.call("ACL", "USERS")
                return True
            except rd.RedisError as error:
                code = str(error)
                if code.startswith(("LOADING", "MASTERDOWN")) or "called without any password configured" in code:
                    return True
        return False

    def wait(self) -> None:
        started = time.monotonic()
        while not self.connect():
            # While it loads its data it is "activating"; one that gave up waits for systemd's next attempt.
            passed = time.monotonic() - started
            if not self.host.runs(UNIT) or passed > self.params["start_timeout"]:
                raise ServerError(f"{UNIT} does not answer; its log says: {self.log_line()}")
            unit = self.host.unit(UNIT)
            if passed > DEAF and unit["ActiveState"] == "active" and not rd.listening(unit["MainPID"]):
                self.shut = "it listens nowhere"
                return
            time.sleep(0.2)

    def log_line(self) -> str:
        # What is wrong with the configuration is told to the journal, everything later to Redis' own log.
        journal = self.host.run(["journalctl", "-q", "-n", "50", "-o", "cat", f"_SYSTEMD_UNIT={UNIT}.service"])[1]
        if "CONFIG FILE ERROR" in journal:
            return " ".join(line.strip() for line in journal.rsplit("CONFIG FILE ERROR", 1)[1].splitlines()[1:4])
        return last_line(read_text("/var/log/redis/redis-server.log") or journal)

    def call(self, *words: str) -> Any:
        if self.connection is None:
            raise ServerError(f"{UNIT} is not connected")
        return self.connection.call(*words)

    def live(self) -> dict[str, str]:
        if self.connection is None:
            raise ServerError(f"{UNIT} is not connected")
        return self.connection.parameters()

    def info(self, section: str) -> dict[str, str]:
        if self.connection is None:
            raise ServerError(f"{UNIT} is not connected")
        return self.connection.info(section)

    # Steps

    def kernel(self) -> None:
        """Redis' copy of itself for writing its files must not fail for want of memory that it will not use."""
        value = (read_text(OVERCOMMIT) or "").strip()
        if os.path.exists("/run/systemd/container"):
            if value != "1":
                self.host.module.warn(f"vm.overcommit_memory is {value}; this host is a container, so set it to 1 on its machine")
            return
        self.host.put([File("/etc/sysctl.d/60-redis.conf", SYSCTL, 0o644)])
        if value == "1":
            return
        self.host.note(f"set vm.overcommit_memory from {value} to 1")
        if not self.host.check:
            try:
                with open(OVERCOMMIT, "w", encoding="ascii") as stream:
                    stream.write("1\n")
            except OSError as error:
                raise ServerError(f"vm.overcommit_memory cannot be set to 1: {error.strerror}") from error

    def conf(self, wanted: dict[str, str | list[str]]) -> File:
        lines = [rd.DEFAULT_OFF, *(account.line for account in self.accounts)]
        without = {} if self.certificate else {"tls-port", "tls-cert-file", "tls-key-file"}
        parameters = {name: value for name, value in wanted.items() if name not in without}
        return File(CONF, rd.render({**parameters, "user": lines}), 0o640, "redis", "redis")

    @staticmethod
    def _snapshot_first(wanted: dict[str, str | list[str]], on_disk: dict[str, str]) -> bool:
        """Whether a start with the append-only file on would pass over a snapshot that holds more."""
        folder = str(wanted["dir"])
        snapshot = os.path.join(folder, str(wanted["dbfilename"]))
        # One file is how releases before 7 had it; Redis takes it over into its folder.
        logs = [
            *glob.glob(os.path.join(folder, str(wanted["appenddirname"]), "*")),
            *glob.glob(os.path.join(folder, str(wanted["appendfilename"]))),
        ]
        if not os.path.exists(snapshot):
            return False
        # A file left from a time when it was on: what is younger counts.
        left_over = on_disk.get("appendonly", "no") != "yes"
        return not logs or (left_over and os.path.getmtime(snapshot) > max(os.path.getmtime(log) for log in logs))

    def start(self, wanted: dict[str, str | list[str]], on_disk: dict[str, str]) -> None:
        """Start with the wanted parameters, but load the snapshot where that is what there is to load."""
        self.put_certificate()
        first = {**wanted, "appendonly": "no"} if self._snapshot_first(wanted, on_disk) else wanted
        before = read_text(CONF)
        self.host.put([self.conf(first)])
        self.host.note(f"start {UNIT}")
        if not self.host.check:
            self._run("start", before)

    def _run(self, verb: str, before: str | None) -> None:
        """Start or restart; a file that Redis refuses is taken back, so that systemd's next attempt works."""
        try:
            self.host.run(["systemctl", verb, UNIT])
            self.wait()
        except ServerError as error:
            if before is None or before == read_text(CONF):
                raise
            write_file(File(CONF, before, 0o640, "redis", "redis"))
            raise ServerError(f"redis_config: {error}; the previous {CONF} is back") from None

    def known(self, wanted: dict[str, str | list[str]], live: dict[str, str]) -> None:
        for name in wanted:
            if name not in live:
                raise ServerError(f"redis_config: '{name}' is not a parameter of Redis {self.version}; remove it")

    def keep(self) -> None:
        """Switch the append-only file on in the running server and wait until it holds everything."""
        self.host.note("set appendonly (live: the file is written before it is relied on)")
        if self.host.check:
            return
        self.call("CONFIG", "SET", "appendonly", "yes")

    def complete(self) -> None:
        """The append-only file holds the whole data set."""
        deadline = time.monotonic() + self.params["start_timeout"]
        while True:
            state = self.info("persistence")
            busy = state["aof_rewrite_in_progress"] == "1" or state["aof_rewrite_scheduled"] == "1"
            fine = state["aof_last_bgrewrite_status"] == "ok" and state.get("aof_last_write_status", "ok") == "ok"
            if not busy and state["aof_enabled"] == "1" and fine:
                return
            if not busy and not fine:
                raise ServerError(f"Redis cannot write its append-only file: {self.log_line()}")
            if time.monotonic() > deadline:
                raise ServerError(
                    "the append-only file was not complete in time, the configuration file was left as it is; "
                    "raise redis_start_timeout"
                )
            time.sleep(0.05)

    def remember(self) -> None:
        """From here on a start must read the append-only file, also when the rest of this run fails."""
        text = read_text(CONF)
        if text is not None and rd.read_parameters(text).get("appendonly") != "yes":
            write_file(File(CONF, text.rstrip("\n") + "\nappendonly yes\n", 0o640, "redis", "redis"))

    def set_live(self, wanted: dict[str, str | list[str]], live: dict[str, str]) -> list[str]:
        """Set what differs; returns the parameters that need a restart."""
        later = []
        for name in rd.differences(wanted, live):
            if name in ("appendonly", *rd.STORAGE, *rd.ENTRANCE):
                continue
            value = wanted[name]
            if self.host.check and name in rd.AT_START:
                later.append(name)
                continue
            if self.host.check:
                self.host.note(
                    f"set {name}"
                    + ("" if name in rd.SECRETS else f" from {live[name] or 'nothing'} to {' '.join(rd.texts(value))}")
                )
                continue
            try:
                for text in rd.texts(value) if name == "client-output-buffer-limit" else [" ".join(rd.texts(value))]:
                    self.call("CONFIG", "SET", name, text)
            except rd.RedisError as error:
                if any(text in str(error) for text in ("immutable", "Unsupported CONFIG", "protected config")):
                    later.append(name)
                    continue
                variable = (
                    f"redis_{name}"
                    if name in ("maxmemory", "appendfsync")
                    else "redis_listen_addresses"
                    if name == "bind"
                    else "redis_config"
                )
                raise ServerError(f"{variable}: Redis refuses the value of '{name}': {str(error).rsplit(' - ', 1)[-1]}") from None
            after = str(dict(zip(*[iter(self.call("CONFIG", "GET", name))] * 2)).get(name, ""))
            # Redis says in its own words what it has; a value that it had already is no change.
            if after != live[name]:
                self.host.note(
                    f"set {name}" + ("" if name in rd.SECRETS else f" from {live[name] or 'nothing'} to {after or 'nothing'}")
                )
        return later

    def enter(self, wanted: dict[str, str | list[str]], live: dict[str, str]) -> None:
        """Port, TLS and certificate, at once: Redis takes all of it or stays as it is."""
        names = [name for name in rd.differences(wanted, live) if name in rd.ENTRANCE]
        if not names:
            return
        for name in names:
            self.host.note(f"set {name} from {live[name] or 'nothing'} to {wanted[name] or 'nothing'}")
        if self.host.check:
            return
        # In this order it is done: what is closed must be so before the other opens under the same number.
        order = sorted((name for name in rd.ENTRANCE if name in wanted), key=lambda name: wanted[name] != "0")
        words = [word for name in order for word in (name, str(wanted[name]))]
        try:
            self.call("CONFIG", "SET", *words)
        except rd.RedisError as error:
            variable = "redis_port" if "listen" in str(error) else "redis_tls_certificate"
            reason = str(error).rsplit(" - ", 1)[-1]
            raise ServerError(f"{variable}: Redis refuses it: {reason}; its log says: {self.log_line()}") from None

    def account_changes(self) -> list[tuple[rd.Account, str]]:
        """The accounts that the running server has otherwise, and what of them."""
        if self.connection is None:
            raise ServerError(f"{UNIT} is not connected")
        result = []
        for account in self.accounts:
            try:
                wished = self.connection.as_account(account.modifiers)
            except rd.RedisError as error:
                reason = str(error).rsplit("modifier ", 1)[-1]
                raise ServerError(
                    f"redis_users: account '{account.name}': Redis {self.version} refuses the rule {reason}"
                ) from None
            what = rd.account_differences(self.connection.account(account.name), wished)
            if what:
                result.append((account, what))
        return result

    def settle_accounts(self, changes: list[tuple[rd.Account, str]], live: dict[str, str]) -> None:
        """The administrator first, by whose account the rest is done; the one of everybody last."""
        if self.connection is None:
            raise ServerError(f"{UNIT} is not connected")
        names = [account.name for account in self.accounts]
        for account, what in changes:
            self.host.note(f"set account {account.name} ({what})")
            if not self.host.check:
                self.call("ACL", "SETUSER", account.name, "reset", *account.modifiers)
        if not self.host.check:
            self.call("AUTH", self.admin.name, self.params["password"])
        for name in self.call("ACL", "USERS"):
            if name not in (*names, "default"):
                self.host.note(f"remove account {name}")
                if not self.host.check:
                    self.call("ACL", "DELUSER", name)
        off = self.connection.as_account(())
        if live.get("requirepass") or self.connection.account("default") != off:
            self.host.note("switch account default off")
            if not self.host.check:
                # Without a password it would be open to all for a moment; so in one step. Who is logged in as it is sent away.
                self.connection.transaction(
                    ("CONFIG", "SET", "requirepass", ""),
                    ("ACL", "SETUSER", "default", "reset"),
                    ("CLIENT", "KILL", "USER", "default"),
                )

    def upgrade(self) -> None:
        """The newest packages of this major version; their scripts restart the server."""
        host, before = self.host, self.host.unit(UNIT)["MainPID"]
        if not self.params["upgrade"] or not host.updates(PACKAGES):
            return
        if not host.check:
            host.fetch(PACKAGES)
            # It stops with all that it holds on disk, or not at all.
            self.complete()
        self.upgrades = host.upgrade(PACKAGES)
        if host.check:
            self.restarted = True
            return
        # Scripts of a package that somebody has told not to start services leave it stopped.
        if not host.runs(UNIT):
            host.systemctl("start", UNIT)
        self.wait()
        self.restarted |= host.unit(UNIT)["MainPID"] != before

    def restart(self, why: list[str], before: str | None) -> None:
        self.restarted = True
        self.host.note(f"restart {UNIT} ({', '.join(why)})")
        if not self.host.check:
            self.complete()
            self._run("restart", before)

    def prove(self, names: list[str], wanted: dict[str, str | list[str]]) -> None:
        if self.host.check:
            return
        left = [name for name in names if not rd.same(name, wanted[name], self.live().get(name, ""))]
        if left:
            raise ServerError(
                f"redis_config: Redis runs with '{left[0]}' {self.live().get(left[0])} also after a restart; remove it"
            )

    def predict_bare(self) -> None:
        self.put_certificate()
        self.host.note(f"write {CONF}")
        text = mask(self.conf(self.wanted({})).text, rd.SECRETS)
        self.host.diff.append({"before_header": CONF, "after_header": CONF, "before": "", "after": text})
        self.host.note(f"start {UNIT}")

    def reopen(self, on_disk: dict[str, str]) -> None:
        """Stop a server that cannot be asked; it writes down what it holds, and its next start is with the right file."""
        self.restarted = True
        self.host.note(f"stop {UNIT} ({self.shut})")
        if not self.host.check:
            self.host.must(["systemctl", "stop", UNIT], f"stopping {UNIT}")
        self.shut = ""
        self.start(self.wanted(on_disk), on_disk)

    def converge(self) -> None:
        host = self.host
        self.listen = listen_addresses("redis_listen_addresses", self.params["listen_addresses"], host.run)
        self.read_certificate()
        self.wanted({})
        self.kernel()
        drop_in = File(
            f"/etc/systemd/system/{UNIT}.service.d/90-ansible.conf",
            DROP_IN + (SANDBOX if self.params["sandbox"] else ""),
            0o644,
        )
        if not host.installed(UNIT):
            # The package's installation starts the server, confined from the beginning.
            host.put([drop_in])
            host.install(UNIT)
            if host.check:
                self.predict_bare()
                return
        host.only_on_purpose(self.params["hold"], "redis", PACKAGES, f"{UNIT}[.]service")
        host.settle_unit(UNIT, drop_in)
        text = read_text(CONF)
        on_disk = rd.read_parameters(text)
        if on_disk.get("aclfile"):
            raise ServerError(
                f"{CONF} has accounts in {on_disk['aclfile']}; take over those you need into redis_users, remove the line "
                f"'aclfile' and restart {UNIT}"
            )
        if not host.runs(UNIT):
            self.start(self.wanted(on_disk), on_disk)
        else:
            self.wait()
            if self.shut:
                self.reopen(on_disk)
        if self.connection is None:
            # Only in check mode: what would be started cannot be asked.
            return
        live = self.live()
        wanted = self.wanted(live)
        self.known(wanted, live)
        accounts = self.account_changes()
        if live["appendonly"] != "yes":
            self.keep()
        if not host.check:
            self.complete()
            self.remember()
        later = self.set_live(wanted, live)
        self.put_certificate()
        self.enter(wanted, live)
        # After all that Redis may refuse: a failed run must not leave accounts behind that no file has.
        self.settle_accounts(accounts, live)
        before = read_text(CONF)
        host.put([self.conf(wanted)])
        self.upgrade()
        if later:
            self.restart([f"{name} changed" for name in later], before)
            self.prove(later, wanted)
        elif self.params["upgrade"] and not self.restarted:
            replaced = host.replaced_files(host.unit(UNIT)["MainPID"])
            if replaced:
                self.restart([f"{one} replaced since its start" for one in replaced], before)
        if self.params["restart"] and not self.restarted:
            self.restart(["as asked"], before)
        self.drop_certificates()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "listen_addresses": {"type": "list", "elements": "str", "default": ["127.0.0.1"]},
            "port": {"type": "int", "default": 6379},
            "admin_user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "previous_passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                # As a whole: the journal gets its text, in which a password with a quote would not be found and hidden.
                "no_log": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "passwords": {"type": "list", "elements": "str", "required": True, "no_log": True},
                    "rules": {"type": "list", "elements": "str", "required": True},
                },
            },
            "tls_certificate": {"type": "str", "default": ""},
            "tls_key": {"type": "str", "default": "", "no_log": False},
            "sandbox": {"type": "bool", "default": True},
            "maxmemory": {"type": "str", "default": "25%"},
            "appendfsync": {"type": "str", "choices": ["always", "everysec"], "default": "everysec"},
            "config": {"type": "dict", "default": {}},
            "start_timeout": {"type": "int", "default": 600},
            "hold": {"type": "bool", "default": True},
            "upgrade": {"type": "bool", "default": False},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    # From here on the passwords alone; names and rules of accounts are not secret.
    module.no_log_values = {
        password
        for password in [
            params["password"],
            *params["previous_passwords"],
            *(one for user in params["users"] for one in user["passwords"]),
        ]
        if password
    }
    host_lock.hold(module)
    host = Host(module, rd.SECRETS)
    try:
        server = Server(host, params)
        server.converge()
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    module.exit_json(
        changed=bool(host.actions),
        actions=host.actions,
        diff=host.diff,
        restarted=server.restarted,
        upgrades=[{"package": name, "from": old, "to": new} for name, old, new in server.upgrades],
        version=server.version,
    )


if __name__ == "__main__":
    main()
