#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_content
short_description: Brings roles, users, pools, variables and connections of a cluster to what is declared
version_added: 0.1.0
description:
  - Creates what is missing, updates what differs, and with O(purge) removes what is not declared.
  - Reads by SQL, and starts Airflow once if anything is to be written, however much that is; otherwise not at all.
  - An entry is the whole of its object. What it does not name has Airflow's default, which mostly is empty. Only a user's
    password and a role's permissions are left as they are where they are not named. Other objects are left alone.
  - Each kind is written in one transaction. A run that was interrupted is completed by the next.
  - Runs on a host with a scheduler or a webserver that role C(airflow) has prepared.
options:
  roles:
    description: Roles of FAB.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role. V(Admin) cannot be declared, as Airflow gives it every permission.
        type: str
        required: true
      permissions:
        description:
          - What its users may do. Not given, they are left as they are.
          - To C(Op), C(User) and C(Viewer) permissions are added only, as Airflow gives them back those that are its own. Every
            other role can also read C(Website), which Airflow gives to all.
          - Those on single DAGs, C(DAG:NAME) and C(DAG Run:NAME), are added only, as a DAG's C(access_control) gives them, too.
        type: list
        elements: dict
        suboptions:
          action:
            description: What may be done.
            type: str
            required: true
            choices: [can_create, can_read, can_edit, can_delete, menu_access]
          resource:
            description: With what, in Airflow's words, such as V(Connections), V(DAGs) or V(DAG:NAME).
            type: str
            required: true
      state:
        description: Whether it exists.
        type: str
        choices: [present, absent]
        default: present
  users:
    description: Users of FAB's database.
    type: list
    elements: dict
    default: []
    suboptions:
      username:
        description: Name to log in with. Capitals do not tell one from another.
        type: str
        required: true
      email:
        description: Address, unique among the users. Needed for V(present).
        type: str
      first_name:
        description: First name. By default the name to log in with.
        type: str
      last_name:
        description: Last name.
        type: str
      roles:
        description: All roles of the user. Needed for V(present).
        type: list
        elements: str
      password:
        description:
          - Compared with its hash, and written only when it differs; the user's sessions then end.
          - Needed for a user who does not exist yet. Not given, the user's password is left as it is.
        type: str
      active:
        description: Whether the user may log in.
        type: bool
        default: true
      state:
        description: Whether the user exists. The last active user with role Admin cannot be absent.
        type: str
        choices: [present, absent]
        default: present
  pools:
    description: Pools.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the pool.
        type: str
        required: true
      slots:
        description: Number of slots; V(-1) for no limit. Needed for V(present).
        type: int
      description:
        description: Description.
        type: str
      include_deferred:
        description: Whether deferred tasks take a slot.
        type: bool
        default: false
      state:
        description: Whether it exists. C(default_pool) always does.
        type: str
        choices: [present, absent]
        default: present
  variables:
    description: Variables.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: Name of the variable.
        type: str
        required: true
      value:
        description:
          - A text is stored as it is. Anything else is stored, and compared, as JSON.
          - Needed for V(present).
        type: raw
      description:
        description: Description.
        type: str
      state:
        description: Whether it exists.
        type: str
        choices: [present, absent]
        default: present
  connections:
    description: Connections, by their fields or by a URI. An empty text is the same as a field that is not given.
    type: list
    elements: dict
    default: []
    suboptions:
      conn_id:
        description: Name of the connection.
        type: str
        required: true
      conn_type:
        description: Type, such as V(postgres). Needed for V(present) without O(connections[].uri).
        type: str
      host:
        description: Host.
        type: str
      login:
        description: Login.
        type: str
      password:
        description: Password.
        type: str
      port:
        description: Port.
        type: int
      schema:
        description: Schema, of many types the database.
        type: str
      extra:
        description: Further settings, a dictionary or a text that is JSON of one.
        type: raw
      uri:
        description: All of these in Airflow's URI format, instead of them. It is compared by what it means.
        type: str
      description:
        description: Description.
        type: str
      state:
        description: Whether it exists.
        type: str
        choices: [present, absent]
        default: present
  purge:
    description:
      - Kinds of which everything that is not declared is removed. C(--check --diff) shows it first.
      - Never removed are C(default_pool), the built-in roles, O(protected_users), and the last active user with role Admin.
    type: list
    elements: str
    choices: [roles, users, pools, variables, connections]
    default: []
  protected_users:
    description: Names of users that a purge leaves alone though they are not declared.
    type: list
    elements: str
    default: []
  users_managed:
    description: Whether users are FAB's own. V(false), for those of a directory (LDAP, OAuth), leaves O(users) out, and says so.
    type: bool
    default: true
  default_connections:
    description: Whether upstream's default connections are created where they are missing. V(false) does not remove them.
    type: bool
    default: false
  variable_prefix:
    description: What stands before the names of the lists in messages, where they come from variables of an inventory.
    type: str
    default: ""
  release:
    description: Folder of the release that is used. By default the one of the host's C(airflow) command.
    type: path
  wait:
    description: Seconds to wait for PostgreSQL.
    type: int
    default: 120
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes, also where nothing is installed yet.
    support: full
  diff_mode:
    description: Shows every field that differs; of passwords, variables' values and connections' extra only that they do.
    support: full
  action:
    description: Judges the lists on the controller, before the host is asked for anything.
    support: full
"""

EXAMPLES = r"""
- name: Keep a pool, a variable and a connection
  windfarm.airflow.airflow_content:
    pools:
      - name: warehouse
        slots: 4
        description: Queries of the warehouse at a time
    variables:
      - key: thresholds
        value: {low: 0.2, high: 0.8}
    connections:
      - conn_id: warehouse
        conn_type: postgres
        host: db.example.com
        login: loader
        password: "{{ vault_warehouse_password }}"
        schema: market
        extra: {sslmode: verify-full}

- name: Keep the users, and nobody else
  windfarm.airflow.airflow_content:
    roles:
      - name: Analyst
        permissions:
          - {action: can_read, resource: DAGs}
          - {action: menu_access, resource: DAGs}
    users:
      - username: ada
        email: ada@example.com
        roles: [Analyst]
        password: "{{ vault_ada_password }}"
      - username: root
        email: root@example.com
        roles: [Admin]
        password: "{{ vault_root_password }}"
    purge: [users]
"""

RETURN = r"""
changes:
  description: What was, or would be, done.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: Which list it belongs to.
      type: str
      sample: pools
    name:
      description: Name of the object.
      type: str
      sample: warehouse
    what:
      description: V(created), V(updated) or V(removed).
      type: str
      sample: updated
    fields:
      description: The fields that were not as declared.
      type: list
      elements: str
      sample: [slots]
"""

import json
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, remove_values
from ansible_collections.windfarm.airflow.plugins.module_utils import content_rules, content_script, host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.content_rules import KINDS
from ansible_collections.windfarm.airflow.plugins.module_utils.database import USER, Database, DatabaseError, judge
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script

ELSEWHERE = "webserver_config.py has users of another place than FAB's database"
LIST: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
NAME = {"type": "str", "required": True}
TEXT = {"type": "str"}
SECRET = {"type": "str", "no_log": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "roles": {
        "name": NAME,
        "permissions": {
            "type": "list",
            "elements": "dict",
            "options": {
                "action": {"type": "str", "required": True, "choices": list(content_rules.ACTIONS)},
                "resource": {"type": "str", "required": True},
            },
        },
        "state": STATE,
    },
    "users": {
        "username": NAME,
        "email": TEXT,
        "first_name": TEXT,
        "last_name": TEXT,
        "roles": {"type": "list", "elements": "str"},
        "password": SECRET,
        "active": {"type": "bool", "default": True},
        "state": STATE,
    },
    "pools": {
        "name": NAME,
        "slots": {"type": "int"},
        "description": TEXT,
        "include_deferred": {"type": "bool", "default": False},
        "state": STATE,
    },
    "variables": {
        "key": {**NAME, "no_log": False},
        "value": {"type": "raw", "no_log": True},
        "description": TEXT,
        "state": STATE,
    },
    "connections": {
        "conn_id": NAME,
        "conn_type": TEXT,
        "host": TEXT,
        "login": TEXT,
        "password": SECRET,
        "port": {"type": "int"},
        "schema": TEXT,
        "extra": {"type": "raw", "no_log": True},
        "uri": SECRET,
        "description": TEXT,
        "state": STATE,
    },
}


def line(field: str, value: Any) -> str:
    hidden = isinstance(value, str) and value.startswith("(hidden")
    return f"  {field}: {value if hidden else json.dumps(value, ensure_ascii=False)}\n"


def listed(fields: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """A line for each field; of permissions only those that the other side lacks."""
    text = ""
    for field, value in fields.items():
        if field == "permissions":
            lacking = [pair for pair in value if pair not in others.get(field, [])]
            text += "".join(f"  may {action} on {resource}\n" for action, resource in lacking)
        else:
            text += line(field, value)
    return text


def diffs(changes: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One diff a kind; what is not in it is as declared."""
    found = []
    for kind in KINDS:
        before = after = ""
        for one in (one for one in changes if one["kind"] == kind):
            if one["what"] != "created":
                before += f"{one['name']}:\n{listed(one['before'], one['after'])}"
            if one["what"] != "removed":
                after += f"{one['name']}:\n{listed(one['after'], one['before'])}"
        if before or after:
            found.append({"before_header": kind, "after_header": kind, "before": before, "after": after})
    return found


def finish(module: AnsibleModule, changes: list[dict[str, Any]]) -> None:
    # No secret is in what is told now. A variable's value such as `updated` would make stars of the word.
    module.no_log_values = set()
    told = [
        {"kind": one["kind"], "name": one["name"], "what": one["what"], "fields": sorted({**one["before"], **one["after"]})}
        for one in changes
    ]
    module.exit_json(changed=bool(changes), changes=told, diff=diffs(changes))


def everything(wanted: Mapping[str, list[dict[str, Any]]], defaults: bool) -> list[dict[str, Any]]:
    """The changes of a cluster that is not there yet."""
    changes = []
    if defaults:
        # Which they are, the release alone knows.
        changes.append({"kind": "connections", "name": "upstream's defaults", "what": "created", "before": {}, "after": {}})
    for kind, entries in wanted.items():
        for entry in entries:
            if entry["present"]:
                after = content_script.all_fields(kind, entry["fields"])
                changes.append({"kind": kind, "name": entry["name"], "what": "created", "before": {}, "after": after})
    return changes


def schema_is_there(module: AnsibleModule, database: Database, stand_in: bool) -> None:
    """Ends the module where the database is another release's."""
    found = database.wait(None, module.params["wait"])
    # In check mode nobody has migrated it yet, and a release that stands in for the one to come only reads.
    if not stand_in and judge(found["revisions"], database.migrations()) and not module.check_mode:
        raise DatabaseError("the database does not have the schema of this release yet; run playbooks/site.yml first")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **{
                # As a whole: the journal gets its text, in which a value with a quote would not be found and hidden.
                kind: {**LIST, "no_log": kind in content_rules.SECRETS, "options": options}
                for kind, options in OPTIONS.items()
            },
            "purge": {"type": "list", "elements": "str", "choices": list(KINDS), "default": []},
            "protected_users": {"type": "list", "elements": "str", "default": []},
            "users_managed": {"type": "bool", "default": True},
            "default_connections": {"type": "bool", "default": False},
            "variable_prefix": {"type": "str", "default": ""},
            "release": {"type": "path"},
            "wait": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    parameters = dict(module.params)
    # From here on the secrets alone: a variable with the value 1 would hide every 1. For that, -vvv does not get the lists.
    module.no_log_values = content_rules.secrets_of(parameters)
    module.params.update(dict.fromkeys(content_rules.SECRETS, "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"))
    prefix = parameters["variable_prefix"]
    wrong = content_rules.problems(parameters, prefix, known_roles=False)
    if wrong:
        module.fail_json(msg="\n".join(map(str, wrong)))
    if not parameters["users_managed"] and (parameters["users"] or "users" in parameters["purge"]):
        module.warn(f"{prefix}users is left out: {ELSEWHERE}")
        parameters.update(users=[], purge=[kind for kind in parameters["purge"] if kind != "users"])
    elif not parameters["users_managed"] and prefix:
        module.warn(f"neither users nor the admin user are kept: {ELSEWHERE}")
    wanted = content_rules.wanted(parameters, prefix)
    if not (any(wanted.values()) or parameters["purge"] or parameters["default_connections"]):
        finish(module, [])
    host_lock.hold(module)
    database, stand_in = Database(parameters["release"]), False
    if module.check_mode and not database.prepared():
        # The release is only to come; the one that the host has reads as well.
        database, stand_in = Database(None), True
        if not database.prepared():
            finish(module, everything(wanted, parameters["default_connections"]))
    question = {
        "wanted": wanted,
        "purge": parameters["purge"],
        "protected": parameters["protected_users"],
        "kept": [],
        "default_connections": parameters["default_connections"],
        "check": module.check_mode,
    }
    try:
        schema_is_there(module, database, stand_in)
        answer = run_script(database.release, USER, database.environment, content_script, question)
    except (DatabaseError, ScriptError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    if "refused" in answer:
        module.fail_json(msg="\n".join(answer["refused"]))
    for warning in answer["warnings"]:
        module.warn(remove_values(warning, module.no_log_values))
    finish(module, answer["changes"])


if __name__ == "__main__":
    main()
