#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_release
short_description: Installs a release of Airflow from a complete lock
version_added: 0.1.0
description:
  - Builds a virtual environment from a hash-pinned lock, beside the releases that are there; never changes one that is complete.
  - The release is named after the version, the lock and the host's Python, so the same inventory always means the same release.
  - The lock, uv and wheels come from the controller, and only when the release is missing.
  - An interrupted build is begun anew by the next run.
  - Removes releases that nothing needs any more. It keeps the one that is asked for, the one that served before it, and each that
    a process still runs from.
options:
  version:
    description: Airflow version.
    type: str
    required: true
  python:
    description: Interpreter of the host that the environment is built with.
    type: str
    default: python3
  packages:
    description: Debian packages that the host needs; apt is asked only for what is missing.
    type: list
    elements: str
    default: []
  requirements:
    description: The user's own packages, which the lock must have been resolved for.
    type: list
    elements: str
    default: []
  lock_file:
    description: Own complete lock on the controller instead of the shipped one.
    type: str
    default: ""
  inventory_directory:
    description: Folder beside which C(locks/) is looked for when O(requirements) is not empty.
    type: str
    default: ""
  directory:
    description: Folder of the releases.
    type: path
    default: /opt/airflow/releases
  index_url:
    description: Package index instead of PyPI.
    type: str
    default: ""
  extra_index_url:
    description: A second package index.
    type: str
    default: ""
  ca_bundle:
    description: CA bundle on the host that the index is verified with.
    type: str
    default: ""
  proxy:
    description: HTTP proxy on the way to the index.
    type: str
    default: ""
  wheel_directory:
    description: Folder of wheels on the controller; the host then needs no network.
    type: str
    default: ""
  uv:
    description: uv binary on the controller that runs on the host; empty takes the controller's own.
    type: str
    default: ""
  candidates:
    description: Filled in by the action plugin, name of the release by Python version.
    type: dict
    default: {}
  uv_digest:
    description: Filled in by the action plugin.
    type: str
    default: ""
  build:
    description: Filled in by the action plugin; without it the module only looks.
    type: bool
    default: false
  uv_upload:
    description: Filled in by the action plugin.
    type: str
    default: ""
  lock_upload:
    description: Filled in by the action plugin.
    type: str
    default: ""
  module_upload:
    description: Filled in by the action plugin.
    type: str
    default: ""
  wheels_upload:
    description: Filled in by the action plugin.
    type: str
    default: ""
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Can run in check mode and predict changes.
    support: full
  diff_mode:
    description: Shows the name of the release that is added.
    support: full
"""

EXAMPLES = r"""
- name: Install Airflow
  windfarm.airflow.airflow_release:
    version: 3.3.2
  register: airflow_release
"""

RETURN = r"""
name:
  description: Name of the release.
  returned: success
  type: str
  sample: 3.3.2-1f0c2b9d4e
path:
  description: Folder of the release.
  returned: success
  type: str
  sample: /opt/airflow/releases/3.3.2-1f0c2b9d4e
machine:
  description: Memory (C(memory), whole GiB) and C(processors) of the host.
  returned: success
  type: dict
  sample: {memory: 8, processors: 4}
migrations:
  description: Heads and revisions of each table of schema revisions that this release knows; empty while it is missing.
  returned: success
  type: dict
previous:
  description: Name of the release that served on this host before this one; empty where none is known.
  returned: success
  type: str
  sample: 3.2.2-0d54cb98aa
python:
  description: Minor version of the Python that it is built with.
  returned: success
  type: str
  sample: "3.11"
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils.release import (
    ReleaseError,
    build,
    describe_python,
    previous,
    prune,
    read_manifest,
    superfluous,
)
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError


def main() -> None:
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "python": {"type": "str", "default": "python3"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "/opt/airflow/releases"},
            "lock_file": text,
            "inventory_directory": text,
            "index_url": {**text, "no_log": True},
            "extra_index_url": {**text, "no_log": True},
            "ca_bundle": text,
            "proxy": {**text, "no_log": True},
            "wheel_directory": text,
            "uv": text,
            "candidates": {"type": "dict", "default": {}},
            "uv_digest": text,
            "build": {"type": "bool", "default": False},
            "uv_upload": text,
            "lock_upload": text,
            "module_upload": text,
            "wheels_upload": text,
        },
        supports_check_mode=True,
    )
    parameters = module.params
    host = Host(module)
    try:
        for package in parameters["packages"]:
            if not host.installed(package):
                host.install(package)
        python = describe_python(parameters["python"])
        name = parameters["candidates"].get(python["version"])
        if not name:
            known = ", ".join(sorted(parameters["candidates"])) or "none"
            raise ReleaseError(
                f"airflow_version {parameters['version']} has no lock for Python {python['version']} (has: {known}); "
                "set airflow_python or airflow_lock_file"
            )
        path = os.path.join(parameters["directory"], name)
        manifest = read_manifest(path)
        present = manifest is not None
        if parameters["build"] and not present:
            described = {"name": name, "version": parameters["version"], "python": python["version"]}
            build(path, python["path"], parameters, described)
            manifest = read_manifest(path)
        old = superfluous(parameters["directory"], name) if manifest else []
        if old and not module.check_mode:
            prune(parameters["directory"], old)
    except (ReleaseError, ServerError, OSError) as error:
        module.fail_json(msg=str(error))
    actions = host.actions + ([] if present else [f"build {path}"])
    actions += [f"remove {os.path.join(parameters['directory'], one)}" for one in old]
    uv = os.path.join(os.path.dirname(parameters["directory"]), "uv", parameters["uv_digest"])
    module.exit_json(
        changed=bool(actions),
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
        name=name,
        path=path,
        python=python["version"],
        architecture=python["architecture"],
        # Whole GiB: what a kernel keeps for itself differs by some MB from version to version.
        machine={"memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30), "processors": os.cpu_count()},
        migrations=(manifest or {}).get("migrations", {}),
        previous=previous(parameters["directory"], name),
        present=present,
        uv_present=bool(parameters["uv_digest"]) and os.path.exists(uv),
    )


if __name__ == "__main__":
    main()
