#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_worker_proof
short_description: Sees that a host can do what tasks need, before its worker takes any
version_added: 0.1.0
description:
  - V(asked) sees, as the worker's user and with the worker's own credentials, that a webserver of the same version answers
    through HAProxy, that Redis and the results database let it in, that its log folder can be written, and that its DAG folder
    holds what O(dags) says, which V(folder) has read on another host.
  - V(read) sees, on a webserver's host, that the log server of the worker's host gives what V(asked) wrote. V(forgotten) removes
    that.
  - Everything that is wrong is told at once. Starts nothing of Airflow's.
options:
  state:
    description: What is wanted.
    type: str
    choices: [asked, read, forgotten, folder]
    required: true
  host:
    description: Inventory name of the worker's host, for messages.
    type: str
    default: ""
  address:
    description: How webservers reach the worker's host, for O(state=read).
    type: str
    default: ""
  port:
    description: Port of its log server, for O(state=read).
    type: int
    default: 8793
  text:
    description: What is written into the log, and read back.
    type: str
    default: ""
  config:
    description: Folder with the settings of the worker, for O(state=asked).
    type: path
    default: /etc/airflow/worker@default
  api:
    description: URL of the webservers' version by the workers' way.
    type: str
    default: http://127.0.0.1:8079/api/v2/version
  queues:
    description: Queues that the worker takes tasks from.
    type: list
    elements: str
    default: []
  servers:
    description: Names of the hosts that must admit this one, for messages.
    type: list
    elements: str
    default: []
  dags_folder:
    description: Folder of the DAG files.
    type: path
    default: /srv/airflow/dags
  dags:
    description: What RV(dags) was on a host that parses DAG files, from O(state=folder). Empty where that is not to be compared.
    type: str
    default: ""
  dags_host:
    description: The name of that host.
    type: str
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: See that the worker's host can do what tasks need
  windfarm.airflow.airflow_worker_proof:
    state: asked
    queues: [default]
"""

RETURN = r"""
dags:
  description: Identity of the DAG folder's contents; empty where there is none.
  returned: with O(state=folder) and O(state=asked)
  type: str
"""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import worker_proof_script
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_dags import DagsError, Store, revision, scan
from ansible_collections.windfarm.airflow.plugins.module_utils.release import read_manifest
from ansible_collections.windfarm.airflow.plugins.module_utils.release_script import ScriptError, run_script
from ansible_collections.windfarm.airflow.plugins.module_utils.services import read_environment

LOGS = "/var/log/airflow/worker"
FILE = "windfarm-proof.log"


def folder_revision(folder: str) -> str:
    """Equal for equal files, whoever has put them there; empty for an empty folder."""
    if not os.path.exists(folder):
        return ""
    with contextlib.suppress(DagsError):
        name, recorded, _files, drifted = Store(folder, -1).state()
        if name and recorded and not drifted:
            return recorded
    files = scan(folder)
    return revision(files) if files else ""


def ask(release_of: str, user: str, question: dict) -> list[str]:
    environment = read_environment(f"{release_of}/environment")
    if "AIRFLOW_RELEASE" not in environment:
        return [f"{release_of}/environment is missing; run site.yml"]
    release = environment["AIRFLOW_RELEASE"]
    manifest = read_manifest(release)
    if not manifest:
        return [f"the release {release} is missing; run site.yml"]
    answer = run_script(release, user, environment, worker_proof_script, {**question, "version": manifest["version"]})
    return list(answer["problems"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "read", "forgotten", "folder"], "required": True},
            "host": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 8793},
            "text": {"type": "str", "default": ""},
            "config": {"type": "path", "default": "/etc/airflow/worker@default"},
            "api": {"type": "str", "default": "http://127.0.0.1:8079/api/v2/version"},
            "queues": {"type": "list", "elements": "str", "default": []},
            "servers": {"type": "list", "elements": "str", "default": []},
            "dags_folder": {"type": "path", "default": "/srv/airflow/dags"},
            "dags": {"type": "str", "default": ""},
            "dags_host": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    state, dags = parameters["state"], ""
    if module.check_mode:
        module.exit_json(changed=False, dags=dags)
    question = {name: parameters[name] for name in ("address", "port", "text", "api", "queues")}
    servers = " and ".join(parameters["servers"])
    question |= {
        "file": FILE,
        "logs": LOGS,
        "servers": f"run site.yml with {servers} in the run" if servers else "see who may connect there",
    }
    problems: list[str] = []
    try:
        if state in ("asked", "folder"):
            dags = folder_revision(parameters["dags_folder"])
        if state == "asked":
            if parameters["dags"] and dags != parameters["dags"]:
                problems.append(
                    f"its DAG folder {parameters['dags_folder']} holds other files than that of {parameters['dags_host']}; run "
                    "playbooks/dags.yml from the folder that the cluster's DAG files come from"
                )
            problems += ask(parameters["config"], "airflow-worker", {**question, "ask": ["api", "broker", "results", "logs"]})
        elif state == "read":
            problems = ask("/etc/airflow/webserver", "airflow-webserver", {**question, "ask": ["read_back"]})
        elif state == "forgotten":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{LOGS}/{FILE}")
    except (ScriptError, DagsError, OSError, KeyError) as error:
        problems.append(f"cannot be asked: {error}")
    if problems:
        told = "; and ".join(problems)
        module.fail_json(msg=f"host {parameters['host']} — would fail tasks, so its worker is not started: {told}")
    module.exit_json(changed=False, dags=dags)


if __name__ == "__main__":
    main()
