#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Converge Debian's HAProxy in front of a set of web servers
version_added: 1.0.0
description:
  - Installs Debian's package, writes its whole configuration file once HAProxy has accepted it, and reloads the running
    process without losing a connection.
  - The configuration carries a hash of itself and of the certificates that it loads. The running process is asked for
    it, so a run after an interrupted one ends in the same state, and a renewed certificate is loaded.
  - Servers are checked. A request that meets a server that is gone goes to another one.
  - Without any listener HAProxy is stopped, and the configuration of this module removed.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  listeners:
    description:
      - What to listen on, and which servers answer. An empty list takes away what this module has made, except for the package.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the listener.
        type: str
        required: true
      bind:
        description:
          - Address and port to listen on, such as V(127.0.0.1:8079), V([::1]:8079) or V(*:443). A host name is resolved on
            the managed host.
        type: str
        required: true
      certificate:
        description:
          - File on the managed host with a certificate, its chain and its key. Clients then speak TLS.
        type: path
        default: ""
      certificate_key:
        description:
          - File on the managed host with the key, where it is not in O(listeners[].certificate). HAProxy finds it by a link
            beside the certificate.
        type: path
        default: ""
      forwarded:
        description:
          - Tell the servers the client's address and protocol in C(X-Forwarded-For) and C(X-Forwarded-Proto). With
            O(listeners[].certificate) they are told in any case. What a client sends under these names is dropped.
        type: bool
        default: false
      redirect:
        description:
          - URL without path, such as V(https://example.com). Every request is answered with the way there; there are no servers.
        type: str
        default: ""
      servers:
        description:
          - The servers that answer. Not with O(listeners[].redirect).
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description:
              - Name of the server.
            type: str
            required: true
          address:
            description:
              - Address or host name. A name is resolved on the managed host at each run; where that fails the last known
                address stays, and a server without one is left out with a warning.
            type: str
            required: true
          port:
            description:
              - TCP port.
            type: int
            required: true
          verify_name:
            description:
              - Name that the server's certificate must have, as a DNS name or as its common name. HAProxy does not look at
                the IP addresses of a certificate. Default is O(listeners[].servers[].address).
            type: str
            default: ""
      ca_file:
        description:
          - File on the managed host with the certificates of the authorities that the servers' certificates may come from.
            The servers then are spoken to by TLS and verified.
        type: path
        default: ""
      check_path:
        description:
          - Paths that a server answers with status 200, one after the other, when it works.
        type: list
        elements: str
        default: [/api/v2/version]
      balance:
        description:
          - How a server is chosen.
        type: str
        choices: [leastconn, roundrobin, source, first]
        default: leastconn
      replay:
        description:
          - Which requests are sent to another server when one went away without an answer. V(safe) are those that only
            read. V(all) is for clients that would repeat every request themselves, as Airflow's workers do. Connections to
            the servers are kept open with V(all) only.
        type: str
        choices: [safe, all]
        default: safe
      timeout:
        description:
          - How long a server or a client may be silent, in seconds.
        type: int
        default: 60
  keep_while:
    description:
      - Name or pattern of a systemd unit. With an empty O(listeners), everything stays as it is while such a unit runs.
    type: str
    default: ""
  maxconn:
    description:
      - Most connections of clients at the same time.
    type: int
    default: 4096
  replace:
    description:
      - Replace a configuration file that is neither the package's nor of this module. It is kept beside the new one as
        C(haproxy.cfg.replaced).
    type: bool
    default: false
  start_timeout:
    description:
      - How long to wait until the process has the new configuration, in seconds.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and predict the changes, also where HAProxy is not installed.
    support: full
  diff_mode:
    description: Shows the configuration file and the unit's drop-in.
    support: full
"""

EXAMPLES = r"""
- name: One address for all webservers
  windfarm.airflow.haproxy_server:
    listeners:
      - name: webserver
        bind: 127.0.0.1:8079
        ca_file: /etc/airflow/tls/ca.pem
        servers:
          - {name: web1, address: 10.0.0.5, port: 8080}
          - {name: web2, address: 10.0.0.6, port: 8080}
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["write /etc/haproxy/haproxy.cfg", "reload haproxy"]
restarted:
  description: Whether the process was started or restarted, not only reloaded.
  returned: always
  type: bool
followed:
  description: Whether M(windfarm.airflow.keepalived_server) has tied keepalived to the service.
  returned: success
  type: bool
servers:
  description: State of each server, by listener. Empty in check mode.
  returned: success
  type: dict
  sample: {"webserver": {"web1": "UP", "web2": "DOWN (Layer4 connection problem)"}}
"""

import hashlib
import os
import socket
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import haproxy_server as ha
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.keepalived_server import follower
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    File,
    Host,
    ServerError,
    accepts,
    as_ip,
    effective,
    listen_addresses,
    own_addresses_of,
    read_text,
    write_file,
)

UNIT = "haproxy"
CONF = "/etc/haproxy/haproxy.cfg"
FOLLOWER = follower(f"{UNIT}.service")


class Server:
    def __init__(self, host: Host, params: dict[str, Any]) -> None:
        self.host = host
        self.params = params
        self.restarted = False
        self.states: dict[str, dict[str, str]] = {}

    # What is wanted

    def binds(self) -> dict[str, list[str]]:
        result = {}
        for listener in self.params["listeners"]:
            variable = f"haproxy_listeners: {listener['name']}: bind"
            address, _port = ha.split_bind(variable, listener["bind"])
            result[listener["name"]] = listen_addresses(variable, [address], self.host.run)
        return result

    def addresses(self) -> dict[tuple[str, str], str]:
        known = ha.known_addresses(read_text(CONF))
        result = {}
        for listener in self.params["listeners"]:
            for server in listener["servers"]:
                key = (listener["name"], server["name"])
                address = as_ip(server["address"])
                if address is None:
                    address = ha.choose(own_addresses_of(server["address"], self.host.run), known.get(key))
                if address is None:
                    self.host.module.warn(
                        f"haproxy_listeners: {key[0]}: this host cannot resolve '{server['address']}', "
                        f"so server {key[1]} is left out"
                    )
                    continue
                result[key] = address
            if listener["servers"] and not any(key[0] == listener["name"] for key in result):
                raise ServerError(
                    f"haproxy_listeners: {listener['name']}: this host cannot resolve any of its servers' names; "
                    "give addresses, or names that the host knows"
                )
        return result

    def _content(self, path: str) -> str:
        text = read_text(path)
        if text is None and not self.host.check:
            raise ServerError(f"haproxy_listeners: {path} does not exist on this host; create it first")
        return text or ""

    def wanted(self) -> tuple[File, str]:
        ha.check(self.params["listeners"])
        text, value = ha.render(self.params["listeners"], self.binds(), self.addresses(), self.params["maxconn"], self._content)
        return File(CONF, text, 0o644), value

    # What is there

    def own_file(self) -> None:
        """The configuration file may be replaced: it is absent, ours, or what the package brought."""
        text = read_text(CONF)
        if text is None or text.startswith(ha.MARK) or text == read_text(f"{CONF}.replaced"):
            return
        packaged = self.host.run(["dpkg-query", "-W", "-f=${Conffiles}", "haproxy"])[1]
        digest = hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
        if any(line.split()[:2] == [CONF, digest] for line in packaged.splitlines()):
            return
        if not self.params["replace"]:
            raise ServerError(
                f"{CONF} on this host is somebody's own configuration; move what it serves elsewhere, "
                "or set haproxy_replace to replace it"
            )
        self.host.put([File(f"{CONF}.replaced", text, 0o644)])

    def ask(self, command: str) -> str:
        """Answer of the running process, empty while there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5)
                link.connect(ha.SOCKET)
                link.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: link.recv(65536), b"")).decode(errors="replace")
        except OSError:
            return ""

    def started_with(self) -> str:
        """The hash of the drop-in that the unit's process was started with."""
        pid = self.host.unit(UNIT).get("MainPID", "0")
        text = read_text(f"/proc/{pid}/environ") if pid != "0" else None
        name = "WINDFARM_DROP_IN="
        return next((word[len(name) :] for word in (text or "").split("\0") if word.startswith(name)), "")

    def log_line(self, since: float) -> str:
        out = self.host.run(["journalctl", "-q", "-o", "cat", "--since", f"@{since:.3f}", "-u", UNIT])[1]
        return ha.alert(out)

    # Steps

    def link_keys(self) -> None:
        """HAProxy looks for the key of NAME.pem in NAME.pem.key."""
        for listener in self.params["listeners"]:
            link, key = f"{listener['certificate']}.key", listener["certificate_key"]
            if not key or (os.path.islink(link) and os.readlink(link) == key):
                continue
            self.host.note(f"link {link} to {key}")
            if not self.host.check:
                if os.path.lexists(link):
                    os.unlink(link)
                os.symlink(key, link)

    def remove(self) -> None:
        """Nothing is listened on any more. Somebody's own HAProxy is left alone."""
        text = read_text(CONF)
        if text is None or not text.startswith(ha.MARK):
            return
        pattern = self.params["keep_while"]
        if pattern:
            states = ("active", "activating", "reloading", "deactivating")
            out = self.host.must(
                ["systemctl", "list-units", "--plain", "--no-legend", f"--state={','.join(states)}", pattern],
                f"asking systemd for {pattern}",
            )
            if out.strip():
                return
        if self.host.runs(UNIT):
            self.host.systemctl("stop", UNIT)
        if self.host.unit(UNIT).get("UnitFileState") == "enabled":
            self.host.systemctl("disable", UNIT)
        # Last: an interrupted run finds it and goes on.
        self.host.note(f"remove {CONF}")
        if not self.host.check:
            os.unlink(CONF)

    def validate(self, file: File) -> None:
        if self.host.check and any(not os.path.exists(path) for path in ha.files_of(self.params["listeners"])):
            return
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(CONF), prefix=".ansible-", encoding="utf-8") as candidate:
            candidate.write(file.text)
            candidate.flush()
            code, out, err = self.host.run(["haproxy", "-c", "-f", candidate.name])
        if code:
            raise ServerError(f"haproxy_listeners: HAProxy refuses it: {ha.alert(out + err).replace(candidate.name, CONF)}")

    def wait(self, value: str) -> bool:
        """The running process has the configuration and listens."""
        deadline = time.monotonic() + self.params["start_timeout"]
        while ha.running_hash(self.ask("show info")) != value:
            if not self.host.runs(UNIT) or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return all(
            accepts(address, ha.split_bind("", listener["bind"])[1])
            for listener in self.params["listeners"]
            for address in self.binds()[listener["name"]]
        )

    def load(self, verb: str, value: str, before: str | None) -> None:
        """Reload or restart; a configuration with which HAProxy does not run is taken back."""
        self.restarted = verb == "restart"
        self.host.note(f"{verb} {UNIT}")
        if self.host.check:
            return
        since = time.time()
        self.host.run(["systemctl", verb, UNIT])
        if self.wait(value):
            return
        line = self.log_line(since)
        back = ""
        # The package's own does not run in the sandbox, and serves nothing.
        if before is not None and before.startswith(ha.MARK) and before != read_text(CONF):
            write_file(File(CONF, before, 0o644))
            # Not reloaded: a process that refused the new configuration still has the old one.
            if not self.host.runs(UNIT) or not self.ask("show info"):
                self.host.run(["systemctl", "restart", UNIT])
            else:
                self.host.run(["systemctl", "reload", UNIT])
            back = f"; the previous {CONF} is back"
        raise ServerError(f"haproxy_listeners: {UNIT} does not run with the new configuration: {line}{back}")

    def predict_bare(self, file: File) -> None:
        self.host.note(f"write {CONF}")
        self.host.diff.append({"before_header": CONF, "after_header": CONF, "before": "", "after": effective(file.text)})
        self.host.note(f"restart {UNIT}")
        self.restarted = True

    def converge(self) -> None:
        host = self.host
        if not self.params["listeners"]:
            self.remove()
            return
        file, value = self.wanted()
        if not host.installed("haproxy"):
            self.own_file()
            host.install("haproxy")
            if host.check:
                self.predict_bare(file)
                return
        self.own_file()
        self.link_keys()
        self.validate(file)
        text, drop_in_hash = ha.drop_in()
        host.settle_unit(UNIT, File(f"/etc/systemd/system/{UNIT}.service.d/90-ansible.conf", text, 0o644))
        before = read_text(CONF)
        host.put([file])
        info = self.ask("show info")
        if not host.runs(UNIT) or not info or self.started_with() != drop_in_hash:
            self.load("restart", value, before)
        elif ha.running_hash(info) != value:
            self.load("reload", value, before)
        if not host.check:
            self.states = ha.server_states(self.ask("show stat"))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "listeners": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "bind": {"type": "str", "required": True},
                    "certificate": {"type": "path", "default": ""},
                    "certificate_key": {"type": "path", "default": "", "no_log": False},
                    "forwarded": {"type": "bool", "default": False},
                    "redirect": {"type": "str", "default": ""},
                    "servers": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "name": {"type": "str", "required": True},
                            "address": {"type": "str", "required": True},
                            "port": {"type": "int", "required": True},
                            "verify_name": {"type": "str", "default": ""},
                        },
                    },
                    "ca_file": {"type": "path", "default": ""},
                    "check_path": {"type": "list", "elements": "str", "default": ["/api/v2/version"]},
                    "balance": {
                        "type": "str",
                        "choices": ["leastconn", "roundrobin", "source", "first"],
                        "default": "leastconn",
                    },
                    "replay": {"type": "str", "choices": ["safe", "all"], "default": "safe"},
                    "timeout": {"type": "int", "default": 60},
                },
            },
            "keep_while": {"type": "str", "default": ""},
            "maxconn": {"type": "int", "default": 4096},
            "replace": {"type": "bool", "default": False},
            "start_timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    host_lock.hold(module)
    host = Host(module)
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
        followed=os.path.exists(FOLLOWER),
        servers=server.states,
    )


if __name__ == "__main__":
    main()
