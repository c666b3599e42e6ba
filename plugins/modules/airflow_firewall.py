#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_firewall
short_description: Open each port to the hosts that need it, and go back by itself when that locks Ansible out
version_added: 1.0.0
description:
  - Converges the nftables table C(inet airflow). No other table is touched; a packet passes when every table accepts it.
  - Each port in O(ports) accepts connections from its clients and from the host itself; anyone else is answered as if
    nothing listened. Ports that are not in O(ports) are left alone.
  - Addresses are looked at for each packet, not for each connection, so a client that is taken off the list loses its
    open connections too.
  - A changed table is loaded while a timer of systemd on the host waits to bring the previous one back. Ansible then closes
    its connection and makes a new one. Only when that works the timer is stopped and the table is kept for the next boot.
  - The table is compared with what the kernel has, so one that was deleted or edited by hand is healed.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  ports:
    description:
      - TCP ports and who may connect to them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the port, for whoever reads the table.
        type: str
        required: true
      port:
        description:
          - TCP port. For another protocol, its number in the IP header.
        type: int
        required: true
      protocol:
        description:
          - V(vrrp), number 112, is what hosts tell each other that share an address; from others it is dropped.
        type: str
        choices: [tcp, vrrp]
        default: tcp
      clients:
        description:
          - Addresses, networks, or host names, which are resolved on the managed host at each run. Where that fails the last
            known addresses stay. Empty is nobody but the host itself.
        type: list
        elements: str
        default: []
  rules:
    description:
      - Rules in nftables' own language, placed before all others.
    type: list
    elements: str
    default: []
  enabled:
    description:
      - Whether the table is there. V(false) removes it and everything that belongs to it.
    type: bool
    default: true
  rollback_seconds:
    description:
      - How long the host waits for Ansible's new connection before it goes back to the previous table.
    type: int
    default: 30
  phase:
    description:
      - Set by the action of the same name. V(apply) loads the table, V(confirm) keeps it.
    type: str
    choices: [apply, confirm]
    default: apply
attributes:
  check_mode:
    description: Can run in check mode and predict the changes, also where nftables is not installed.
    support: full
  diff_mode:
    description: Shows the table.
    support: full
"""

EXAMPLES = r"""
- name: Redis for the workers only
  windfarm.airflow.airflow_firewall:
    ports:
      - name: redis
        port: 6379
        clients: [10.0.0.7, worker2.example.org, 10.1.0.0/24]
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["load table inet airflow", "write /etc/airflow-firewall.nft"]
pending:
  description: Whether the table is loaded and waits to be confirmed.
  returned: always
  type: bool
"""

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import firewall as fw
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import (
    File,
    Host,
    ServerError,
    effective,
    file_differs,
    last_line,
    lookup,
    read_text,
    write_file,
)

NFT = "/usr/sbin/nft"
TABLE = fw.FAMILY_TABLE
KEPT = "/etc/airflow-firewall.nft"
UNIT = "airflow-firewall.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
DROP_IN_FILE = "/etc/systemd/system/nftables.service.d/90-airflow.conf"
ROLLBACK = "airflow-firewall-rollback"
WAITING = "/run/airflow-firewall"
NEXT = f"{WAITING}/next.nft"
PREVIOUS = f"{WAITING}/previous.nft"
EXPECTED = f"{WAITING}/expected"

UNIT_TEXT = f"""{fw.MARK}
[Unit]
Description=Ports of Airflow's hosts (nftables table {TABLE})
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
After=nftables.service
Conflicts=shutdown.target
ConditionPathExists={KEPT}

[Service]
Type=oneshot
RemainAfterExit=yes
StandardInput=null
ProtectSystem=full
ProtectHome=true
ExecStart={NFT} -f {KEPT}
ExecReload={NFT} -f {KEPT}
ExecStop=-{NFT} delete table {TABLE}

[Install]
WantedBy=sysinit.target
"""
DROP_IN_TEXT = f"""{fw.MARK}
# Debian's own rules begin with `flush ruleset`, which also deletes this table.
[Service]
ExecStartPost=-{NFT} -f {KEPT}
ExecReload=-{NFT} -f {KEPT}
"""


class Firewall:
    def __init__(self, host: Host, params: dict[str, Any]) -> None:
        self.host = host
        self.params = params
        self.pending = False

    # What is there

    def listed(self, *options: str) -> str:
        if not os.path.exists(NFT):
            return ""
        code, out, _err = self.host.run([NFT, *options, "list", "table", *TABLE.split()])
        return out if code == 0 else ""

    def live(self) -> str:
        return fw.listing_hash(self.listed("-j"))

    def timer_runs(self) -> bool:
        return self.host.runs(f"{ROLLBACK}.timer") or self.host.runs(f"{ROLLBACK}.service")

    # Steps

    def disarm(self) -> None:
        self.host.run(["systemctl", "stop", f"{ROLLBACK}.timer"])
        # One that has begun must end: it holds the table.
        self.host.run(["systemctl", "stop", f"{ROLLBACK}.service"])
        self.host.run(["systemctl", "reset-failed", f"{ROLLBACK}.timer", f"{ROLLBACK}.service"])

    def settle(self) -> None:
        """A table that an earlier run did not live to confirm is taken back, before it becomes what we would go back to."""
        if self.timer_runs():
            self.host.note("take back a table that was never confirmed")
            if not self.host.check:
                self.disarm()
                self.load(PREVIOUS)
        if not self.host.check:
            shutil.rmtree(WAITING, ignore_errors=True)

    def load(self, path: str) -> None:
        code, out, err = self.host.run([NFT, "-f", path])
        if code:
            raise ServerError(f"nftables cannot load {path}: {reason(err or out)}")

    def validate(self, text: str) -> None:
        code, out, err = self.host.run([NFT, "-c", "-f", "-"], data=text)
        if code:
            raise ServerError(f"firewall_rules or firewall_ports: nftables refuses them: {reason(err or out)}")

    def arm(self) -> None:
        seconds = self.params["rollback_seconds"]
        undo = f"{NFT} -f {PREVIOUS} || {NFT} delete table {TABLE}"
        timer = ["--on-active", f"{seconds}s", "--timer-property=AccuracySec=100ms"]
        self.host.must(
            ["systemd-run", "--quiet", "--collect", f"--unit={ROLLBACK}", *timer, "/bin/sh", "-c", undo],
            "arming the timer that takes the firewall back",
        )

    def put(self, text: str) -> None:
        self.host.note(f"load table {TABLE}")
        if self.host.check:
            self.keep(text, "")
            return
        os.makedirs(WAITING, mode=0o700, exist_ok=True)
        write_file(File(PREVIOUS, fw.undo(self.listed("-s")), 0o600))
        write_file(File(NEXT, text, 0o600))
        self.arm()
        self.load(NEXT)
        write_file(File(EXPECTED, self.live(), 0o600))
        self.pending = True

    def keep(self, text: str, listing: str) -> None:
        """The confirmed table is what the next boot loads."""
        kept = File(KEPT, fw.with_listing(text, listing), 0o600)
        if file_differs(kept):
            self.host.note(f"write {KEPT}")
            if not self.host.check:
                write_file(kept)
        drop_in = self.host.put([File(DROP_IN_FILE, DROP_IN_TEXT, 0o644)])
        if drop_in or self.host.unit("nftables.service").get("NeedDaemonReload") == "yes":
            self.host.systemctl("daemon-reload")
        self.host.settle_unit(UNIT, File(UNIT_FILE, UNIT_TEXT, 0o644))
        if self.host.unit(UNIT)["ActiveState"] != "active":
            self.host.systemctl("start", UNIT)

    def remove(self) -> None:
        self.settle()
        present = self.host.unit(UNIT).get("UnitFileState", "") == "enabled"
        if present:
            self.host.systemctl("disable", UNIT)
        if self.host.unit(UNIT)["ActiveState"] == "active":
            self.host.systemctl("stop", UNIT)
        if self.live():
            self.host.note(f"delete table {TABLE}")
            if not self.host.check:
                self.host.must([NFT, "delete", "table", *TABLE.split()], f"deleting table {TABLE}")
        gone = [path for path in (DROP_IN_FILE, UNIT_FILE, KEPT) if os.path.lexists(path)]
        for path in gone:
            self.host.note(f"remove {path}")
            if not self.host.check:
                os.unlink(path)
        if gone:
            self.host.systemctl("daemon-reload")

    def apply(self) -> None:
        fw.check(self.params["ports"], self.params["rules"], self.params["rollback_seconds"])
        if not self.params["enabled"]:
            self.remove()
            return
        before, listing = fw.split_listing(read_text(KEPT))
        names, missing = fw.resolve(self.params["ports"], fw.known_names(before), lookup)
        for name in missing:
            self.host.module.warn(f"firewall_ports: this host cannot resolve '{name}', so it may not connect until it can")
        text = fw.render(self.params["ports"], self.params["rules"], names)
        if before != text:
            self.host.diff.append(
                {"before_header": TABLE, "after_header": TABLE, "before": effective(before or ""), "after": effective(text)}
            )
        if not os.path.exists(NFT):
            self.host.install("nftables")
            if self.host.check:
                self.put(text)
                return
        self.settle()
        self.validate(text)
        if before == text and listing and listing == self.live():
            self.keep(text, listing)
            return
        self.put(text)

    def confirm(self) -> None:
        text, expected = read_text(NEXT), read_text(EXPECTED)
        self.disarm()
        if text is None:
            raise ServerError("no new table waits to be confirmed; run the playbook again")
        if not expected or self.live() != expected:
            shutil.rmtree(WAITING, ignore_errors=True)
            raise ServerError(
                "the new table was taken back before it was confirmed; correct firewall_rules or firewall_ports, "
                "or raise firewall_rollback_seconds"
            )
        self.keep(text, expected)
        shutil.rmtree(WAITING, ignore_errors=True)


def reason(text: str) -> str:
    """nft says what is wrong first, then shows where."""
    lines = [line.strip() for line in text.splitlines() if "Error" in line]
    return lines[0].split("Error: ", 1)[-1] if lines else last_line(text)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "protocol": {"type": "str", "choices": ["tcp", "vrrp"], "default": "tcp"},
                    "clients": {"type": "list", "elements": "str", "default": []},
                },
            },
            "rules": {"type": "list", "elements": "str", "default": []},
            "enabled": {"type": "bool", "default": True},
            "rollback_seconds": {"type": "int", "default": 30},
            "phase": {"type": "str", "choices": ["apply", "confirm"], "default": "apply"},
        },
        supports_check_mode=True,
    )
    host_lock.hold(module)
    host = Host(module)
    firewall = Firewall(host, module.params)
    try:
        firewall.apply() if module.params["phase"] == "apply" else firewall.confirm()
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions, pending=False)
    module.exit_json(changed=bool(host.actions), actions=host.actions, diff=host.diff, pending=firewall.pending)


if __name__ == "__main__":
    main()
