#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_database
short_description: Brings Airflow's metadata database to the schema of a release
version_added: 0.1.0
description:
  - Waits for PostgreSQL, migrates when a migration is pending (Airflow's own and FAB's), and keeps one admin user as declared.
  - Looks by SQL first and starts Airflow only when there is something to do, once for all of it.
  - Refuses a database whose schema is newer than the release and, unless O(upgrade), one that holds the schema of an older one.
options:
  release:
    description: Folder of the release on this host that the database is migrated to. Needed for O(state=migrated).
    type: path
  migrations:
    description: Return value C(migrations) of M(windfarm.airflow.airflow_release) of another host, for O(state=verified).
    type: dict
    default: {}
  state:
    description:
      - V(migrated) brings the database up to date; V(verified) only reads, and fails when it is not.
      - V(compared) only reads, and returns RV(pending) and RV(ahead).
      - V(downgraded) takes the schema back to the release's, with a newer release of this host that knows the way. It loses what
        only the newer schema can hold.
    type: str
    choices: [migrated, verified, compared, downgraded]
    default: migrated
  upgrade:
    description: Whether a schema that an older release has made may be migrated. An empty database always is.
    type: bool
    default: false
  host:
    description: Inventory name of the host that is asked, for the message of V(verified).
    type: str
    default: ""
  wait:
    description: Seconds to wait for PostgreSQL.
    type: int
    default: 120
  admin:
    description: A user with role Admin. The password is compared with its hash and only written when it differs.
    type: dict
    suboptions:
      username:
        description: Name to log in with.
        type: str
        required: true
      email:
        description: Address, unique among the users.
        type: str
        required: true
      password:
        description: Password.
        type: str
        required: true
  fernet_fingerprints:
    description:
      - Fingerprints of the Fernet keys that the services have, the one that encrypts first.
      - The filter P(windfarm.airflow.fingerprints#filter) makes them.
      - The first is recorded in the database's comment. A database that is encrypted with another key is refused.
    type: list
    elements: str
    default: []
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes, also where nothing is installed yet.
    support: full
  diff_mode:
    description: Says which schema changes and what of the admin user, never the password.
    support: full
"""

EXAMPLES = r"""
- name: Migrate the database
  windfarm.airflow.airflow_database:
    release: /opt/airflow/releases/3.3.2-1f0c2b9d4e
    admin:
      username: admin
      email: admin@example.com
      password: "{{ airflow_admin_password }}"
"""

RETURN = r"""
pending:
  description: Tables of revisions that were behind the release before this run.
  returned: success
  type: list
  elements: str
  sample: [alembic_version]
ahead:
  description: Revisions of the database, by table, that the release does not know.
  returned: success
  type: dict
admin:
  description: What of the admin user was not as declared before this run.
  returned: success
  type: list
  elements: str
  sample: [password]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.database import (
    Database,
    DatabaseError,
    admin_wrong,
    ahead,
    behind,
    fernet_comment,
    judge,
)


def unprepared(admin: dict[str, str] | None, wait: float) -> dict[str, Any]:
    """What check mode can say before the release is there: with another one of this host it can still read."""
    other = Database(None)
    if not other.prepared():
        return {"pending": ["everything"], "admin": ["user"] if admin else []}
    try:
        found = other.wait(admin, wait)
    except DatabaseError:
        return {"pending": ["everything"], "admin": ["user"] if admin else []}
    pending = ["not known before the release is installed"]
    return {"pending": pending, "admin": admin_wrong(found["admin"]) if admin else []}


def compare(module: AnsibleModule, database: Database, downgrade: bool) -> None:
    """How the database's schema stands to a release's; ends the module."""
    parameters = module.params
    try:
        migrations = parameters["migrations"] or database.migrations()
        revisions = database.wait(None, parameters["wait"])["revisions"]
        newer = ahead(revisions, migrations)
        if downgrade and newer and not module.check_mode:
            database.downgrade(revisions, migrations)
    except (DatabaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=downgrade and bool(newer),
        pending=[] if newer else behind(revisions, migrations),
        ahead=newer,
        empty=not revisions,
        diff={"before": f"{newer}\n" if downgrade and newer else "", "after": ""},
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path"},
            "migrations": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["migrated", "verified", "compared", "downgraded"], "default": "migrated"},
            "upgrade": {"type": "bool", "default": False},
            "host": {"type": "str", "default": ""},
            "wait": {"type": "int", "default": 120},
            "admin": {
                "type": "dict",
                # As a whole: the journal gets its text, in which a password with a quote would not be found and hidden.
                "no_log": True,
                "options": {
                    "username": {"type": "str", "required": True},
                    "email": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "fernet_fingerprints": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[
            ("state", "migrated", ("release",)),
            ("state", "verified", ("migrations",)),
            ("state", "compared", ("migrations",)),
            ("state", "downgraded", ("release",)),
        ],
        supports_check_mode=True,
    )
    parameters = module.params
    admin = parameters["admin"]
    module.no_log_values = {admin["password"]} if admin else set()
    database = Database(parameters["release"])
    state = parameters["state"]
    if state in ("migrated", "downgraded"):
        host_lock.hold(module)
    verified = state == "verified"
    if state in ("compared", "downgraded"):
        compare(module, database, state == "downgraded")
    if module.check_mode and not database.prepared():
        module.exit_json(changed=not verified, **unprepared(admin, parameters["wait"]))
    try:
        migrations = database.migrations()
        migrations = parameters["migrations"] or migrations
        found = database.wait(admin, parameters["wait"])
        comment = fernet_comment(found, parameters["fernet_fingerprints"])
        pending = judge(found["revisions"], migrations, verified or parameters["upgrade"])
        wrong = admin_wrong(found["admin"]) if admin else []
        if verified and pending:
            raise DatabaseError(
                f"the database does not have the schema of this release yet; add {parameters['host'] or 'this host'} to --limit"
            )
        if (pending or wrong or comment) and not verified and not module.check_mode:
            database.apply(bool(pending), admin if wrong else None, comment)
    except (DatabaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    before = "".join(f"{table} {', '.join(found['revisions'].get(table, [])) or 'absent'}\n" for table in pending)
    after = "".join(f"{table} {', '.join(migrations[table]['heads'])}\n" for table in pending)
    if comment:
        before += f"comment {found['comment']}\n"
        after += f"comment {comment}\n"
    module.exit_json(
        changed=bool(pending or wrong or (comment and not verified)),
        pending=pending,
        ahead={},
        admin=wrong,
        diff={
            "before": before + "".join(f"admin {name}: other\n" for name in wrong),
            "after": after + "".join(f"admin {name}: as declared\n" for name in wrong),
        },
    )


if __name__ == "__main__":
    main()
