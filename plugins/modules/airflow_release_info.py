#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_release_info
short_description: Tell what a release on a host is, which schemas it knows, and whether its scheduler is paused
version_added: 0.1.0
description:
  - Reads the description that M(windfarm.airflow.airflow_release) has left in the release. Changes nothing, starts nothing.
options:
  path:
    description: Folder of the release. By default the one that the C(airflow) command of this host uses.
    type: path
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
extends_documentation_fragment: windfarm.airflow.reads
"""

EXAMPLES = r"""
- name: Find out which release the airflow command uses
  windfarm.airflow.airflow_release_info:
  register: airflow_release
"""

RETURN = r"""
path:
  description: Its folder.
  returned: success
  type: str
  sample: /opt/airflow/releases/3.3.2-1f0c2b9d4e
migrations:
  description: For each table of revisions in the database, the revisions that the release knows and those it wants.
  returned: success
  type: dict
  sample:
    alembic_version: {heads: [d2f4e1b3c5a7], revisions: [d2f4e1b3c5a7]}
paused:
  description: What the file says that keeps a scheduler of this host from starting; empty without one.
  returned: success
  type: str
  sample: restore 20261122T051500Z
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils.database import Database, DatabaseError
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import read_text
from ansible_collections.windfarm.airflow.plugins.module_utils.services import PAUSED


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "default": ""}}, supports_check_mode=True)
    database = Database(module.params["path"] or None)
    try:
        migrations = database.migrations()
    except (DatabaseError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, path=database.release, migrations=migrations, paused=(read_text(PAUSED) or "").strip())


if __name__ == "__main__":
    main()
