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
  password:
    description:
      - Password of all clients, any characters but line breaks. A change takes effect at once for new connections.
    type: str
    required: true
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
    password: "{{ airflow_broker_password }}"
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
version:
  description: Version of the running server; empty where none runs.
  returned: always
  type: str
  sample: 7.0.15
"""

import glob
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import redis_server as rd
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    EVERYWHERE,
    File,
    Host,
    ServerError,
    last_line,
    listen_addresses,
    one_line,
    read_text,
    write_file,
)

UNIT = "redis-server"
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
        self.version = ""
        self.connection: rd.Connection | None = None

    # What is wanted

    def wanted(self, present: dict[str, str]) -> dict[str, str | list[str]]:
        params = self.params
        if not params["password"] or not one_line(params["password"]):
            raise ServerError("redis_password is empty or holds a line break; create one with playbooks/secrets.yml or set it")
        user = rd.user_parameters(params["config"])
        result: dict[str, str | list[str]] = {
            "bind": " ".join(BIND.get(one, one) for one in self.listen),
            "port": str(params["port"]),
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
        # The password comes last: a value that Redis refuses must not leave a new one behind that no file has.
        return {**result, **user, "requirepass": params["password"]}

    @staticmethod
    def _memory_total() -> int:
        for line in (read_text("/proc/meminfo") or "").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
        raise ServerError("/proc/meminfo has no MemTotal; give redis_maxmemory as a size")

    # Talking to it

    def connect(self) -> bool:
        """Connect to the unit's own server, whichever of the known passwords it has; false while it does not answer."""
        on_disk = rd.read_parameters(read_text(CONF))
        addresses = dict.fromkeys(["127.0.0.1", *(one for one in self.listen if one not in EVERYWHERE)])
        ports = dict.fromkeys([self.params["port"], int(on_disk.get("port") or 6379)])
        pid = self.host.unit(UNIT).get("MainPID", "0")
        for port in ports:
            for address in addresses:
                try:
                    connection = rd.Connection(address, port)
                except OSError:
                    continue
                self._authenticate(connection, on_disk.get("requirepass", ""))
                info = connection.info("server")
                if info.get("process_id") != pid:
                    raise ServerError(
                        f"port {port} is held by another Redis than {UNIT} (process {info.get('process_id')}); "
                        "stop it, or set redis_port"
                    )
                if connection.info("persistence").get("loading") == "1":
                    connection.close()
                    return False
                self.connection, self.version = connection, info["redis_version"]
                return True
        return False

    def _authenticate(self, connection: rd.Connection, on_disk: str) -> None:
        for password in dict.fromkeys([self.params["password"], on_disk, ""]):
            try:
                if password:
                    connection.call("AUTH", password)
                connection.call("PING")
                return
            except rd.RedisError as error:
                text = str(error)
                if text.startswith(("LOADING", "MASTERDOWN")):
                    return
                if "called without any password configured" in text:
                    return
        raise ServerError(
            f"the running Redis accepts neither redis_password nor the password in {CONF}; restart {UNIT} if that file is right"
        )

    def wait(self) -> None:
        deadline = time.monotonic() + self.params["start_timeout"]
        while not self.connect():
            # While it loads its data it is "activating"; one that gave up waits for systemd's next attempt.
            if not self.host.runs(UNIT) or time.monotonic() > deadline:
                raise ServerError(f"{UNIT} does not answer; its log says: {self.log_line()}")
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
        return File(CONF, rd.render(wanted), 0o640, "redis", "redis")

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
            if not busy and state["aof_enabled"] == "1" and state["aof_last_bgrewrite_status"] == "ok":
                return
            if not busy and state["aof_last_bgrewrite_status"] != "ok":
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
            if name in ("appendonly", *rd.STORAGE):
                continue
            value = wanted[name]
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
                    if name in ("port", "maxmemory", "appendfsync")
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

    def restart(self, names: list[str], wanted: dict[str, str | list[str]], before: str | None) -> None:
        self.restarted = True
        self.host.note(f"restart {UNIT} ({', '.join(names)} changed)")
        self._run("restart", before)
        left = [name for name in names if not rd.same(name, wanted[name], self.live().get(name, ""))]
        if left:
            raise ServerError(
                f"redis_config: Redis runs with '{left[0]}' {self.live().get(left[0])} also after a restart; remove it"
            )

    def predict_bare(self) -> None:
        self.host.note(f"write {CONF}")
        text = rd.render({**self.wanted({}), "requirepass": "********"})
        self.host.diff.append({"before_header": CONF, "after_header": CONF, "before": "", "after": text})
        self.host.note(f"start {UNIT}")

    def converge(self) -> None:
        host = self.host
        self.listen = listen_addresses("redis_listen_addresses", self.params["listen_addresses"], host.run)
        self.wanted({})
        self.kernel()
        if not host.installed(UNIT):
            host.install(UNIT)
            if host.check:
                self.predict_bare()
                return
        host.settle_unit(UNIT, File(f"/etc/systemd/system/{UNIT}.service.d/90-ansible.conf", DROP_IN, 0o644))
        if not host.runs(UNIT):
            on_disk = rd.read_parameters(read_text(CONF))
            self.start(self.wanted(on_disk), on_disk)
            if host.check:
                return
        else:
            self.wait()
        live = self.live()
        wanted = self.wanted(live)
        self.known(wanted, live)
        if live["appendonly"] != "yes":
            self.keep()
        if not host.check:
            self.complete()
            self.remember()
        later = self.set_live(wanted, live)
        before = read_text(CONF)
        host.put([self.conf(wanted)])
        if later:
            self.restart(later, wanted, before)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "listen_addresses": {"type": "list", "elements": "str", "default": ["127.0.0.1"]},
            "port": {"type": "int", "default": 6379},
            "password": {"type": "str", "required": True, "no_log": True},
            "maxmemory": {"type": "str", "default": "25%"},
            "appendfsync": {"type": "str", "choices": ["always", "everysec"], "default": "everysec"},
            "config": {"type": "dict", "default": {}},
            "start_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    host = Host(module, rd.SECRETS)
    server = Server(host, module.params)
    try:
        server.converge()
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    module.exit_json(
        changed=bool(host.actions),
        actions=host.actions,
        diff=host.diff,
        restarted=server.restarted,
        version=server.version,
    )


if __name__ == "__main__":
    main()
