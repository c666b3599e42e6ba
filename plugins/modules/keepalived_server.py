#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: keepalived_server
short_description: Converge Debian's keepalived, which keeps one address on one of several hosts
version_added: 1.0.0
description:
  - Installs Debian's package, writes its whole configuration once keepalived has accepted it, and reloads the running process.
  - The host that has the address gives it away when its service is stopped, no longer accepts connections, or is gone with the
    host. A host that comes back does not take it from the other.
  - Advertisements (VRRP 3) go from host to host, not to a multicast group, and are taken from O(peers) only.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  address:
    description:
      - The address that moves. Empty stops keepalived and removes the configuration of this module.
    type: str
    default: ""
  router_id:
    description:
      - Number from 1 to 255 that all hosts of the address have, and no other VRRP of the network.
    type: int
    default: 51
  own_address:
    description:
      - Address or name of this host, by which the others know it. A name is resolved on the managed host.
    type: str
    default: ""
  peers:
    description:
      - Addresses or names of the other hosts.
    type: list
    elements: str
    default: []
  priority:
    description:
      - Which host takes the address when none has it, from 1 to 254; the largest number does.
    type: int
    default: 100
  interface:
    description:
      - Where the address goes. Empty takes the interface that has O(own_address).
    type: str
    default: ""
  port:
    description:
      - TCP port that must accept connections on this host, or the address goes to another one.
      - The HAProxy of this collection must answer, too, as the kernel accepts for one that hangs.
    type: int
    default: 443
  unit:
    description:
      - The service that listens there. Its stop takes the address away first, its start brings keepalived back.
    type: str
    default: haproxy.service
  replace:
    description:
      - Replace a configuration that is not of this module. It is kept beside the new one as C(keepalived.conf.replaced).
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and predict the changes, also where keepalived is not installed.
    support: full
  diff_mode:
    description: Shows the configuration file and the drop-ins of the units.
    support: full
"""

EXAMPLES = r"""
- name: An address that is on one of two hosts
  windfarm.airflow.keepalived_server:
    address: 10.0.0.100
    own_address: 10.0.0.5
    peers: [10.0.0.6]
    port: 443
    unit: haproxy.service
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["write /etc/keepalived/keepalived.conf", "reload keepalived"]
has_address:
  description: Whether this host has the address now.
  returned: success
  type: bool
"""

import os
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils import keepalived_server as ka
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    File,
    Host,
    ServerError,
    as_ip,
    effective,
    last_line,
    own_addresses_of,
    read_text,
)

UNIT = "keepalived"
CONF = "/etc/keepalived/keepalived.conf"
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d/90-ansible.conf"
START_SECONDS = 15


class Server:
    def __init__(self, host: Host, params: dict[str, Any]) -> None:
        self.host = host
        self.params = params

    def resolve(self, variable: str, text: str) -> str:
        found = [text] if as_ip(text) else own_addresses_of(text, self.host.run)
        address = ka.of_kind(found, self.params["address"])
        if address is None:
            kind = "IPv6" if ":" in self.params["address"] else "IPv4"
            raise ServerError(
                f"{variable}: this host knows no {kind} address of '{text}'; give an address of the virtual one's kind"
            )
        return address

    def listed(self) -> str:
        return self.host.must(["ip", "-o", "address", "show"], "asking for the interfaces")

    def wanted(self) -> tuple[File, str]:
        given = self.params
        ka.check(
            given["address"],
            given["router_id"],
            given["priority"],
            given["own_address"],
            given["peers"],
            given["interface"],
            given["port"],
            given["unit"],
        )
        source = self.resolve("keepalived_address", given["own_address"])
        interface = given["interface"] or ka.interface_of(self.listed(), source)
        if not interface:
            raise ServerError(
                f"keepalived_interface: no interface of this host has {source}; name the one for {given['address']}"
            )
        values = {**given, "source": source, "interface": interface}
        text, value = ka.render(values, [self.resolve("keepalived_peers", peer) for peer in given["peers"]])
        return File(CONF, text, 0o644), value

    def wants(self) -> File:
        return File(ka.follower(self.params["unit"]), ka.WANTS.format(mark=ka.MARK), 0o644)

    def own_file(self) -> None:
        text = read_text(CONF)
        if text is None or text.startswith(ka.MARK) or text == read_text(f"{CONF}.replaced"):
            return
        if not self.params["replace"]:
            raise ServerError(
                f"{CONF} on this host is somebody's own configuration; move what it does elsewhere, "
                "or set keepalived_replace to replace it"
            )
        self.host.put([File(f"{CONF}.replaced", text, 0o644)])

    def validate(self, file: File) -> None:
        folder = os.path.dirname(CONF)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".ansible-", encoding="utf-8") as candidate:
            candidate.write(file.text)
            candidate.flush()
            code, out, err = self.host.run(["keepalived", "-t", "-f", candidate.name])
        if code:
            raise ServerError(f"keepalived refuses its configuration: {last_line(err or out).replace(candidate.name, CONF)}")

    def started_with(self) -> str:
        """The hash of the drop-in that the unit's process was started with."""
        pid = self.host.unit(UNIT).get("MainPID", "0")
        text = read_text(f"/proc/{pid}/environ") if pid != "0" else None
        name = "WINDFARM_DROP_IN="
        return next((word[len(name) :] for word in (text or "").split("\0") if word.startswith(name)), "")

    def load(self, verb: str) -> None:
        self.host.note(f"{verb} {UNIT}")
        if self.host.check:
            return
        self.host.must(["systemctl", verb, UNIT], f"systemctl {verb} {UNIT}")
        deadline = time.monotonic() + START_SECONDS
        while not self.host.runs(UNIT):
            if time.monotonic() > deadline:
                line = last_line(self.host.run(["journalctl", "-q", "-o", "cat", "-n", "20", "-u", UNIT])[1])
                raise ServerError(f"{UNIT} does not run with its configuration: {line}")
            time.sleep(0.1)

    def remove(self) -> None:
        """Somebody's own keepalived is left alone."""
        text = read_text(CONF)
        if text is None or not text.startswith(ka.MARK):
            return
        if self.host.runs(UNIT):
            self.host.systemctl("stop", UNIT)
        if self.host.unit(UNIT).get("UnitFileState") == "enabled":
            self.host.systemctl("disable", UNIT)
        # The configuration last: an interrupted run finds it and goes on.
        for path in (self.wants().path, DROP_IN, ka.PROBE, CONF):
            if os.path.exists(path):
                self.host.note(f"remove {path}")
                if not self.host.check:
                    os.unlink(path)
        self.host.systemctl("daemon-reload")

    def converge(self) -> None:
        host = self.host
        if not self.params["address"]:
            self.remove()
            return
        file, value = self.wanted()
        self.own_file()
        text, drop_in_hash = ka.drop_in(self.params["unit"])
        if not host.installed(UNIT):
            # The package starts it, with nothing in its hands.
            host.install(UNIT)
            if host.check:
                host.note(f"write {CONF}")
                host.diff.append({"before_header": CONF, "after_header": CONF, "before": "", "after": effective(file.text)})
                host.note(f"restart {UNIT}")
                return
        # First, as keepalived looks whether its script can be run.
        host.put([File(ka.PROBE, ka.SCRIPT, 0o755)])
        self.validate(file)
        host.put([file, self.wants()])
        host.settle_unit(UNIT, File(DROP_IN, text, 0o644))
        if not host.runs(UNIT) or self.started_with() != drop_in_hash:
            self.load("restart")
        elif (read_text(ka.LOADED) or "").strip() != value:
            self.load("reload")

    def has_address(self) -> bool:
        return bool(self.params["address"]) and bool(ka.interface_of(self.listed(), self.params["address"]))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": ""},
            "router_id": {"type": "int", "default": 51},
            "own_address": {"type": "str", "default": ""},
            "peers": {"type": "list", "elements": "str", "default": []},
            "priority": {"type": "int", "default": 100},
            "interface": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 443},
            "unit": {"type": "str", "default": "haproxy.service"},
            "replace": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    host_lock.hold(module)
    host = Host(module)
    server = Server(host, module.params)
    has_address = False
    try:
        server.converge()
        has_address = server.has_address()
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    module.exit_json(changed=bool(host.actions), actions=host.actions, diff=host.diff, has_address=has_address)


if __name__ == "__main__":
    main()
