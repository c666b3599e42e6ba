#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_dag_check
short_description: Parses the DAG files of a host with another release
version_added: 0.1.0
description:
  - Parses every DAG file of a dag processor's host with a release that is not used yet, as its user and with its environment, and
    fails when a file has an error that it does not have in the release that is used now.
  - Shows what C(airflow config lint) of that release says of the configuration.
  - Changes nothing. Where no dag processor has run yet, there is nothing to compare, and it does nothing.
options:
  release:
    description: Folder of the release.
    type: path
    required: true
  errors:
    description: What new errors lead to.
    type: str
    choices: [fail, warn]
    default: fail
author:
  - windfarm.airflow contributors (@windfarm)
extends_documentation_fragment: windfarm.airflow.reads
"""

EXAMPLES = r"""
- name: See that the DAG files parse in the next release
  windfarm.airflow.airflow_dag_check:
    release: /opt/airflow/releases/3.3.2-1f0c2b9d4e
"""

RETURN = r"""
errors:
  description: New errors, by file.
  returned: success
  type: dict
dags:
  description: How many DAGs there are in the files.
  returned: success
  type: int
lint:
  description: What the release says of the configuration.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import dag_check_script
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import read_environment

ENVIRONMENT = "/etc/airflow/dag-processor/environment"
USER = "airflow-dag-processor"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path", "required": True},
            "errors": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
        },
        supports_check_mode=True,
    )
    release = module.params["release"]
    environment = read_environment(ENVIRONMENT)
    now = environment.get("AIRFLOW_RELEASE", "")
    answer: dict[str, Any] = {"errors": {}, "dags": 0, "lint": []}
    if not now or now == release or not read_manifest(release):
        module.exit_json(changed=False, **answer)
    try:
        answer = run_script(release, USER, {**environment, "AIRFLOW_RELEASE": release}, dag_check_script, {"lint": True})
        if answer["errors"] and read_manifest(now):
            known = run_script(now, USER, environment, dag_check_script, {"lint": False})["errors"]
            answer["errors"] = {path: text for path, text in answer["errors"].items() if path not in known}
    except (ScriptError, OSError, KeyError) as error:
        module.fail_json(msg=f"the DAG files cannot be parsed with {release}: {error}")
    if answer["lint"]:
        module.warn(f"airflow config lint of the new release: {' '.join(answer['lint'])}. Correct airflow_config")
    told = "; ".join(f"{path}: {text}" for path, text in sorted(answer["errors"].items()))
    if told and module.params["errors"] == "fail":
        module.fail_json(
            msg=f"DAG files that parse now have errors in the new release: {told}. Correct them and ship them with dags.yml, "
            "or go on with -e airflow_upgrade_dag_errors=warn",
            **answer,
        )
    if told:
        module.warn(f"DAG files with errors in the new release: {told}")
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
