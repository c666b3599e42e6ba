#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_backup
short_description: Verified backups of PostgreSQL databases, on a schedule and now
version_added: 0.1.0
description:
  - V(scheduled) installs C(postgresql-backup.service) and its timer. V(made) runs that service now and waits for its end.
  - One backup is one folder with a dump of each database, the roles without passwords, a manifest and checksums. It gets its
    name only after every dump was restored into a database of its own and had the rows that the manifest says.
options:
  state:
    description: What to have afterwards.
    type: str
    choices: [scheduled, made]
    default: scheduled
  enabled:
    description: Whether the timer runs. Without it, backups are made when they are asked for.
    type: bool
    default: true
  version:
    description: Major version of the server. Needed for O(state=scheduled).
    type: str
  port:
    description: TCP port of the server, by which its socket is named.
    type: int
    default: 5432
  databases:
    description: Databases that belong together in one backup. Needed for O(state=scheduled).
    type: list
    elements: str
    default: []
  directory:
    description: Folder of the backups on the host. It is made, and nobody but the server's user can look into it.
    type: path
    default: /var/backups/postgresql
  schedule:
    description: When, as systemd's C(OnCalendar) has it, in the host's time zone.
    type: str
    default: "*-*-* 02:30:00"
  retention_days:
    description: Backups that are older are deleted when a new one is good.
    type: int
    default: 14
  retention_least:
    description: So many of the newest are kept however old they are. The last one always is.
    type: int
    default: 3
  copy_to:
    description: C(USER@HOST:/FOLDER) that each backup is copied to by ssh. Empty for none.
    type: str
    default: ""
  copy_port:
    description: Port of the ssh server there.
    type: int
    default: 22
  copy_key_file:
    description: Path on this host of the private key, without a passphrase, that opens O(copy_to). Root's alone is enough.
    type: path
    default: ""
  copy_host_keys:
    description: Lines of a known_hosts file for the host in O(copy_to). No other key is accepted.
    type: list
    elements: str
    default: []
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Predicts the changes, also where PostgreSQL is not installed. No backup is made.
    support: full
  diff_mode:
    description: Shows the files.
    support: full
"""

EXAMPLES = r"""
- name: Back up two databases each night
  windfarm.airflow.postgresql_backup:
    version: "17"
    databases: [airflow, airflow_results]

- name: Make a backup now
  windfarm.airflow.postgresql_backup:
    state: made
  register: backup
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
id:
  description: The backup that was made; empty in check mode.
  returned: O(state=made) and success
  type: str
  sample: 20261122T051500Z
path:
  description: Its folder.
  returned: O(state=made) and success
  type: str
bytes:
  description: Size of its dumps.
  returned: O(state=made) and success
  type: int
seconds:
  description: How long making and verifying it took.
  returned: O(state=made) and success
  type: float
fernet:
  description: Fingerprint of the Fernet key that is needed to read the connections in it; empty where none is recorded.
  returned: O(state=made) and success
  type: str
message:
  description: All of that in one line.
  returned: O(state=made) and success
  type: str
"""

import json
import os
import pwd
import re
import stat
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_backup as pb
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import File, Host, ServerError, last_line, one_line

SERVICE = "postgresql-backup.service"
TIMER = "postgresql-backup.timer"
PROGRAM = "/usr/local/lib/postgresql-backup/postgresql_backup.py"
HEADER = "# Written by Ansible (windfarm.airflow); changes made here are lost.\n"
# What a unit file can hold without quoting.
PLAIN_PATH = re.compile(r"^/[A-Za-z0-9_.@+/-]*[A-Za-z0-9_@+-]$")
COPY_TO = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_]?[A-Za-z0-9_.:-]*[A-Za-z0-9_]:(/[^\s'\"]*)$")
# In the folder of the backups besides them.
OWN = re.compile(r"^(forgotten-.+\.tsv|lost\+found|\..*)$")
SANDBOX = """CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
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
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=no
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
"""


def service(params: dict[str, Any]) -> str:
    copy = bool(params["copy_to"])
    home = any(params["directory"].startswith(folder) for folder in ("/home/", "/root/", "/run/user/"))
    credential = f"LoadCredential=ssh_key:{params['copy_key_file']}\n" if copy else ""
    return (
        f"{HEADER}[Unit]\nDescription=Verified backup of PostgreSQL's databases\nAfter=postgresql.service network-online.target\n"
        f"RequiresMountsFor={params['directory']}\nStartLimitIntervalSec=0\n\n"
        "[Service]\nType=oneshot\nUser=postgres\nGroup=postgres\n"
        f"ExecStart=/usr/bin/python3 -I {PROGRAM}\n"
        # What has been begun is removed on the way out.
        "KillMode=mixed\nTimeoutStopSec=120\n"
        f"StateDirectory=postgresql-backup\nStateDirectoryMode=0700\nReadWritePaths={params['directory']}\n{credential}"
        "Nice=10\nIOSchedulingPriority=7\n"
        f"RestrictAddressFamilies=AF_UNIX{' AF_INET AF_INET6' if copy else ''}\n{SANDBOX}ProtectHome={'no' if home else 'yes'}\n"
    )


def timer(params: dict[str, Any]) -> str:
    return (
        f"{HEADER}[Unit]\nDescription=Backups of PostgreSQL's databases on schedule\n\n"
        f"[Timer]\nOnCalendar={params['schedule']}\nRandomizedDelaySec=15min\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def config(params: dict[str, Any]) -> str:
    found = {key: params[key] for key in ("version", "port", "databases", "directory", "retention_days", "retention_least")}
    found |= {"schedule": params["schedule"] if params["enabled"] else ""}
    if params["copy_to"]:
        found["copy"] = {"target": params["copy_to"], "port": params["copy_port"]}
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def check(params: dict[str, Any], host: Host) -> None:
    """Refuse what cannot work, before anything is changed."""
    directory = params["directory"]
    if not PLAIN_PATH.fullmatch(directory) or os.path.normpath(directory) != directory or directory.count("/") < 2:
        raise ServerError(
            f"postgresql_backup_directory: {directory!r} is not a folder below the top, of letters, digits and _ . - + @; "
            "such as /var/backups/postgresql"
        )
    if not params["databases"]:
        raise ServerError("postgresql_backup_databases is empty; name at least one database, or set postgresql_databases")
    for name in ("retention_days", "retention_least"):
        if params[name] < 1:
            raise ServerError(f"postgresql_backup_{name}: {params[name]} is less than 1, which would delete every backup at once")
    if not one_line(params["schedule"]):
        raise ServerError("postgresql_backup_schedule holds a line break; one line, such as daily")
    code, _out, err = host.run(["systemd-analyze", "calendar", "--", params["schedule"]])
    if code:
        raise ServerError(
            f"postgresql_backup_schedule: systemd does not understand '{params['schedule']}' ({last_line(err)}); "
            "try `systemd-analyze calendar daily`"
        )
    if not params["copy_to"]:
        return
    if not COPY_TO.fullmatch(params["copy_to"]):
        raise ServerError(f"postgresql_backup_copy_to: '{params['copy_to']}' is not USER@HOST:/FOLDER")
    if not PLAIN_PATH.fullmatch(params["copy_key_file"]):
        raise ServerError(
            "postgresql_backup_copy_key_file is needed with postgresql_backup_copy_to: the private key's path on this host"
        )
    if not params["copy_host_keys"]:
        raise ServerError(
            "postgresql_backup_copy_host_keys is needed with postgresql_backup_copy_to: what `ssh-keyscan HOST` says, compared "
            "with the host's own keys"
        )
    if not os.path.exists(params["copy_key_file"]) and not host.check:
        raise ServerError(
            f"postgresql_backup_copy_key_file: {params['copy_key_file']} does not exist on this host; put the key there"
        )


def have_directory(path: str, host: Host) -> None:
    try:
        account: pwd.struct_passwd | None = pwd.getpwnam("postgres")
    except KeyError:
        account = None
    wanted = (0o700, account.pw_uid, account.pw_gid) if account else None
    if os.path.isdir(path):
        state = os.stat(path)
        if (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == wanted:
            return
        # A folder that others use as well must not be closed to them.
        others = [name for name in os.listdir(path) if not pb.ID.match(name.removesuffix(pb.PARTIAL)) and not OWN.match(name)]
        if others:
            raise ServerError(
                f"postgresql_backup_directory: {path} holds other files ({others[0]}) and is not postgres' alone; name an empty "
                f"folder, or run `chown postgres: {path} && chmod 700 {path}`"
            )
    host.note(f"folder {path}")
    if host.check:
        return
    if wanted is None:
        raise ServerError("this host has no user postgres; run playbooks/postgresql.yml")
    os.makedirs(path, mode=0o755, exist_ok=True)
    os.chown(path, wanted[1], wanted[2])
    os.chmod(path, wanted[0])


def schedule(params: dict[str, Any], host: Host) -> None:
    check(params, host)
    if params["copy_to"] and not host.installed("openssh-client"):
        host.install("openssh-client")
    source = pb.__loader__.get_source(pb.__name__)  # type: ignore[union-attr]
    for folder in (os.path.dirname(pb.STATE), params["directory"]):
        have_directory(folder, host)
    files = [
        File(PROGRAM, source or "", 0o644),
        File(pb.CONFIG, config(params), 0o640, "root", "postgres"),
        File(f"/etc/systemd/system/{SERVICE}", service(params), 0o644),
        File(f"/etc/systemd/system/{TIMER}", timer(params), 0o644),
    ]
    if params["copy_to"]:
        keys = "".join(f"{line.strip()}\n" for line in params["copy_host_keys"])
        files.append(File(pb.KNOWN_HOSTS, HEADER + keys, 0o644))
    changed = host.put(files)
    # Asked of systemd too, so a run that died between writing and reloading is made good.
    if any(file.path.startswith("/etc/systemd/") for file in changed) or any(
        host.unit(name).get("NeedDaemonReload") == "yes" for name in (SERVICE, TIMER)
    ):
        host.systemctl("daemon-reload")
    state = host.unit(TIMER)
    if state.get("UnitFileState") == "masked":
        raise ServerError(
            f"the unit {TIMER} is masked on this host; run `systemctl unmask {TIMER}`, or set postgresql_backup_enabled: false"
        )
    runs = state.get("ActiveState") == "active"
    if params["enabled"]:
        if state.get("UnitFileState") != "enabled":
            host.systemctl("enable", TIMER)
        if not runs:
            host.systemctl("start", TIMER)
    else:
        if runs:
            host.systemctl("stop", TIMER)
        if state.get("UnitFileState") == "enabled":
            host.systemctl("disable", TIMER)


def make(host: Host) -> dict[str, Any]:
    """Run the unit, and tell how that ended."""
    host.note(f"start {SERVICE}")
    if host.check:
        return {"id": "", "path": "", "bytes": 0, "seconds": 0.0, "fernet": "", "message": "a backup would be made"}
    if not os.path.exists(PROGRAM):
        raise ServerError("backups are not set up on this host; run playbooks/postgresql.yml")
    # To join one that has begun would be to get the state of then.
    while host.runs(SERVICE):
        time.sleep(1)
    code = host.run(["systemctl", "start", SERVICE])[0]
    properties = host.must(["systemctl", "show", "-p", "InvocationID,Result", SERVICE], f"asking systemd for {SERVICE}")
    unit = dict(line.split("=", 1) for line in properties.splitlines() if "=" in line)
    state = last_run()
    mine = state.get("invocation") == unit.get("InvocationID") and state.get("invocation")
    if code or not mine or state.get("failure"):
        why = state.get("failure") if mine else f"{SERVICE} ended with {unit.get('Result')}, which says nothing"
        raise ServerError(f"backup failed: {why}; see journalctl -u {SERVICE}")
    path = os.path.join(pb.read_config()["directory"], state["id"])
    manifest = pb.read_manifest(path)
    return {
        "id": state["id"],
        "path": path,
        "bytes": manifest["bytes"],
        "seconds": round(manifest["dump_seconds"] + manifest["verify_seconds"], 1),
        "fernet": manifest["fernet"],
        "message": pb.summary(manifest),
    }


def last_run() -> dict[str, Any]:
    try:
        with open(pb.STATE, encoding="utf-8") as file:
            return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["scheduled", "made"], "default": "scheduled"},
            "enabled": {"type": "bool", "default": True},
            "version": {"type": "str"},
            "port": {"type": "int", "default": 5432},
            "databases": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "/var/backups/postgresql"},
            "schedule": {"type": "str", "default": "*-*-* 02:30:00"},
            "retention_days": {"type": "int", "default": 14},
            "retention_least": {"type": "int", "default": 3},
            "copy_to": {"type": "str", "default": ""},
            "copy_port": {"type": "int", "default": 22},
            # A path, not a key; and public keys.
            "copy_key_file": {"type": "path", "default": "", "no_log": False},
            "copy_host_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
        required_if=[("state", "scheduled", ("version", "databases"))],
        supports_check_mode=True,
    )
    host = Host(module)
    result: dict[str, Any] = {}
    try:
        if module.params["state"] == "made":
            result = make(host)
        else:
            # A backup may take hours, keeps others away by itself and changes nothing that the modules change.
            host_lock.hold(module)
            schedule(module.params, host)
    except (ServerError, pb.BackupError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(host.actions), actions=host.actions)
    module.exit_json(changed=bool(host.actions), actions=host.actions, diff=host.diff, **result)


if __name__ == "__main__":
    main()
