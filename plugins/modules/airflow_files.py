#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_files
short_description: Users, directories and rendered files of a host in one step
version_added: 0.1.0
description:
  - Renders templates on the controller and brings users, directories and files of the host to what is wanted, in one call.
  - A file is replaced at once or not at all, and has its mode from the start.
  - Files that belong to one service make up a hash, which replaces the text C(@HASH@) in them. A unit that writes it down when
    it starts shows what its process was started with.
options:
  groups:
    description: System groups that must exist.
    type: list
    elements: str
    default: []
  users:
    description: System users without login that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user; its own group has the same name.
        type: str
        required: true
      comment:
        description: The user's description.
        type: str
        default: ""
      home:
        description: Home directory, which is not created by this.
        type: path
        required: true
      groups:
        description: Groups of which the user is a member; other memberships are left alone.
        type: list
        elements: str
        default: []
  directories:
    description: Directories that must exist, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the directory.
        type: path
        required: true
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      keep:
        description: Leave a directory that exists as it is, with its owner and mode.
        type: bool
        default: false
      mode:
        description: Mode as an octal string.
        type: str
        default: "0755"
  files:
    description: Files that must exist with this content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file; its folder is created when it is missing.
        type: path
        required: true
      template:
        description: Template in the role's folder C(templates) that makes the content. Needs the action plugin of this name.
        type: str
      src:
        description: File in the role's folder C(files) that is the content. Needs the action plugin of this name.
        type: str
      vars:
        description: Variables for this template alone.
        type: dict
      content:
        description: The content itself, instead of O(files[].template).
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode as an octal string.
        type: str
        default: "0644"
      secret:
        description: Values are shown as hidden in a diff.
        type: bool
        default: false
      part_of:
        description: Name of the service that must notice when this file changes.
        type: str
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes.
    support: full
  diff_mode:
    description: Returns what changed, values of secret files hidden.
    support: full
"""

EXAMPLES = r"""
- name: Write the configuration of two services
  windfarm.airflow.airflow_files:
    users:
      - name: airflow-scheduler
        home: /var/lib/airflow/scheduler
    directories:
      - path: /var/lib/airflow/scheduler
        owner: airflow-scheduler
        group: airflow-scheduler
        mode: "0750"
    files:
      - path: /etc/airflow/scheduler/environment
        template: environment.j2
        mode: "0600"
        secret: true
        part_of: airflow-scheduler
"""

RETURN = r"""
hashes:
  description: Hash of what each service is made of, by service.
  returned: always
  type: dict
  sample: {"airflow-scheduler": "d1c2"}
paths:
  description: What changed.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import HostFilesError, converge


def main() -> None:
    place = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
    module = AnsibleModule(
        argument_spec={
            "groups": {"type": "list", "elements": "str", "default": []},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "comment": {"type": "str", "default": ""},
                    "home": {"type": "path", "required": True},
                    "groups": {"type": "list", "elements": "str", "default": []},
                },
            },
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "default": "0755"},
                    "keep": {"type": "bool", "default": False},
                    **place,
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                # On the whole list: in its text, as the journal gets it, no single content would be found and hidden.
                "no_log": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "template": {"type": "str"},
                    "src": {"type": "str"},
                    "vars": {"type": "dict"},
                    "content": {"type": "str"},
                    "mode": {"type": "str", "default": "0644"},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                    "part_of": {"type": "str"},
                    **place,
                },
            },
        },
        supports_check_mode=True,
    )
    # no_log has kept the contents out of the journal. In the answer it would black out all that equals a file, so from here
    # mask() hides what is secret in a diff, and the arguments do not go back at all.
    module.no_log_values = set()
    host_lock.hold(module)
    answer: dict[str, Any] = {"invocation": {"module_args": {}}}
    for file in module.params["files"]:
        if file["content"] is None:
            module.fail_json(msg=f"{file['path']}: neither content nor a rendered template", **answer)
    try:
        diffs = converge(
            module.params["groups"],
            module.params["users"],
            module.params["directories"],
            module.params["files"],
            module.check_mode,
        )
    except (HostFilesError, OSError) as error:
        module.fail_json(msg=str(error), **answer)
    module.exit_json(changed=bool(diffs), diff=diffs, paths=[diff["after_header"] for diff in diffs], **answer)


if __name__ == "__main__":
    main()
