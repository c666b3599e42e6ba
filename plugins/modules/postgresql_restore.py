#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_restore
short_description: Put a backup in the place of live databases, which are kept
version_added: 0.1.0
description:
  - Works in steps, so that what nobody can work without stops as late and as shortly as possible. Each can be repeated; how far
    a restore has come stands in the server itself.
  - V(verified) refuses a backup that is damaged, belongs to another cluster, or does not fit this server or release.
  - V(staged) restores it into databases named C(NAME_restoring) and compares the numbers of rows.
  - V(swapped) gives these the names of the live ones, all in one transaction, and keeps what had the names as
    C(NAME_before_TIME), closed to everybody but superusers. Nothing is ever dropped but an unfinished C(NAME_restoring).
  - V(compared) says which runs of Airflow the replaced database had and the restored one has not.
  - V(finished) refuses while a restore is half done, and otherwise forgets that there was one.
options:
  state:
    description: The step.
    type: str
    choices: [verified, staged, swapped, compared, finished]
    required: true
  source:
    description: Id of a backup in the folder of M(windfarm.airflow.postgresql_backup), or absolute path of one on this host.
    type: str
    default: ""
  databases:
    description: The databases to restore.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description: Role that it and all in it shall belong to, whoever owned it when it was backed up.
        type: str
        required: true
  fernet_fingerprints:
    description: Fingerprints of the Fernet keys at hand. A backup that needs another one is refused.
    type: list
    elements: str
    default: []
  migrations:
    description: Return value C(migrations) of M(windfarm.airflow.airflow_release_info). A backup with a newer schema is refused.
    type: dict
    default: {}
  paused:
    description: What the file that keeps the schedulers from starting says, for it tells which restore stopped them.
    type: str
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: V(verified) and V(compared) work as usual; the others predict.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: See whether the backup can be restored
  windfarm.airflow.postgresql_restore:
    state: verified
    source: 20261122T051500Z
    databases:
      - {name: airflow, owner: airflow_owner}
      - {name: airflow_results, owner: airflow_results_owner}
    fernet_fingerprints: "{{ ({'airflow_fernet_key': airflow_fernet_key} | windfarm.airflow.fingerprints).airflow_fernet_key }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done, in order.
  returned: always
  type: list
  elements: str
id:
  description: The backup's id.
  returned: success, with O(source)
  type: str
phase:
  description: V(new), V(staged), or V(swapped) when it has taken its place and the schedulers are still paused.
  returned: O(state=verified) and success
  type: str
pending:
  description: Whether the release migrates the restored schema.
  returned: O(state=verified) and success
  type: bool
absent:
  description: Databases that do not exist now, so that there is nothing to keep of them.
  returned: O(state=verified) and success
  type: list
  elements: str
kept:
  description: Names under which the replaced databases are kept.
  returned: O(state=compared) and success
  type: list
  elements: str
runs:
  description: How many runs are unknown or in another state now.
  returned: O(state=compared) and success
  type: int
tasks:
  description: How many task instances are unknown or in another state now.
  returned: O(state=compared) and success
  type: int
file:
  description: The whole list on this host, readable by root and PostgreSQL's user alone. Empty when it has no lines.
  returned: O(state=compared) and success
  type: str
message:
  description: Lines for people.
  returned: success
  type: list
  elements: str
"""

import os
import pwd
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_backup as pb
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_restore as pr


def read_config() -> dict[str, Any]:
    try:
        return pb.read_config()
    except FileNotFoundError:
        raise pb.BackupError("this host has no backups set up; run playbooks/site.yml, or postgresql.yml, first") from None


def verified(restore: pr.Restore, params: dict[str, Any]) -> dict[str, Any]:
    pending = pr.judge(restore.manifest, params["databases"], restore.facts, params["fernet_fingerprints"], params["migrations"])
    restore.check_archives()
    phase = restore.phase(params["paused"])
    if phase == "new":
        restore.require_space()
    manifest, absent, lost = restore.manifest, restore.absent(), restore.lost_roles()
    lines = [f"{pb.summary(manifest)}; made {manifest['time']} on {manifest['host']}, PostgreSQL {manifest['server']['version']}"]
    if phase != "new":
        lines.append(
            "an earlier run has restored it beside the live databases"
            if phase == "staged"
            else "an earlier run has put it in its place; what is left is to start what was stopped"
        )
    if pending:
        lines.append("its schema is older than the release, which will migrate it")
    if absent and phase != "swapped":
        lines.append(
            f"{', '.join(absent)} does not exist now: there is nothing to keep, and which runs are forgotten cannot be known"
        )
    if lost:
        lines.append(f"rights inside the databases are not restored, because these roles do not exist here: {', '.join(lost)}")
    if not manifest["fernet"]:
        lines.append("it does not record its Fernet key, so whether the stored connections can be read shows only afterwards")
    return {"phase": phase, "pending": pending, "absent": absent, "message": lines}


def compared(server: pb.Server, config: dict[str, Any], backup: str, names: list[str], check: bool) -> dict[str, Any]:
    facts = server.facts()
    found = {name: pr.kept(facts, name, backup) for name in names}
    keeps = [one for one in found.values() if one]
    lines: list[str] = []
    runs: list[list[str]] = []
    tasks: list[list[str]] = []
    for name, before in found.items():
        if before:
            more = pr.forgotten(server, before, name)
            runs, tasks = runs + more[0], tasks + more[1]
    path = ""
    if not keeps:
        lines.append("nothing was replaced, so which runs are forgotten is not known")
    else:
        lines.append(f"forgotten: {len(runs)} DAG runs and {len(tasks)} task instances, unknown now or in another state")
        lines += pr.report(runs, tasks)
        if runs or tasks:
            path = os.path.join(config["directory"], f"forgotten-{backup}.tsv")
            lines.append(f"the whole list is {path} on this host")
            if not check:
                write(path, [["kind", "dag", "run", "task", "map_index", "was", "is"], *runs, *tasks])
        lines.append("the replaced databases are kept; when nobody needs them any more, on this host as root:")
        lines += [f"runuser -u postgres -- dropdb -p {server.port} {one}" for one in keeps]
    return {"id": backup, "kept": keeps, "runs": len(runs), "tasks": len(tasks), "file": path, "message": lines}


def write(path: str, table: list[list[str]]) -> None:
    account = pwd.getpwnam("postgres")
    temporary = f"{path}.{time.time_ns()}"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), account.pw_uid, account.pw_gid)
        file.writelines("\t".join(row) + "\n" for row in table)
    os.replace(temporary, path)


def finished(server: pb.Server, names: list[str], check: bool) -> list[str]:
    facts = server.facts()
    why = pr.unfinished(facts, names)
    if why:
        raise pb.BackupError(why)
    actions = []
    for name in names:
        comment = facts["databases"][name]["comment"]
        if pr.marked(facts["databases"][name], "restored"):
            actions.append(f"{name} is no longer marked as just restored")
            if not check:
                text = pb.literal(pr.mark(comment, "", ""))
                server.run(
                    "unmarking", "psql", "-Xq", "-d", "postgres", stdin=f"COMMENT ON DATABASE {pb.identifier(name)} IS {text};"
                )
    return actions


def work(params: dict[str, Any], check: bool, actions: list[str]) -> dict[str, Any]:
    config = read_config()
    server = pb.Server(config["version"], config["port"])
    names = [one["name"] for one in params["databases"]]
    state = params["state"]
    if state == "finished":
        actions += finished(server, names, check)
        return {"message": []}
    path = pr.locate(params["source"], config["directory"])
    if state == "compared":
        return compared(server, config, str(pb.read_manifest(path)["id"]), names, check)
    restore = pr.Restore(server, path, params["databases"], whole=state != "swapped")
    if state == "verified":
        return {"id": restore.id, **verified(restore, params)}
    if check:
        phase = restore.phase(params["paused"])
        if phase == "new" or (phase == "staged" and state == "swapped"):
            actions.append("restore beside the live databases" if state == "staged" else "swap the databases")
        return {"id": restore.id, "message": []}
    with pb.lock():
        phase = restore.phase(params["paused"])
        if state == "staged" and phase == "new":
            restore.require_space()
            actions += restore.stage()
        elif state == "swapped" and phase == "new":
            raise pb.BackupError(f"backup {restore.id} is not restored beside the live databases; run restore.yml again")
        elif state == "swapped" and phase == "staged":
            actions += restore.swap()
    return {"id": restore.id, "message": list(actions)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["verified", "staged", "swapped", "compared", "finished"], "required": True},
            "source": {"type": "str", "default": ""},
            "databases": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "owner": {"type": "str", "required": True}},
            },
            "fernet_fingerprints": {"type": "list", "elements": "str", "default": []},
            "migrations": {"type": "dict", "default": {}},
            "paused": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    actions: list[str] = []
    try:
        result = work(module.params, module.check_mode, actions)
    except (pb.BackupError, OSError) as error:
        module.fail_json(msg=str(error), changed=bool(actions), actions=actions)
    module.exit_json(changed=bool(actions), actions=actions, **result)


if __name__ == "__main__":
    main()
