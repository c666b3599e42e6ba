#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_packages
short_description: Find out what an upgrade of server packages would change, and fetch it
version_added: 0.1.0
description:
  - Fetches the package lists and the packages that an upgrade of the named ones needs. Upgrades nothing and restarts nothing.
  - Another major version than the installed one is refused.
options:
  packages:
    description: Packages, or patterns such as V(postgresql-[0-9][0-9]). What is not installed is left out.
    type: list
    elements: str
    required: true
author:
  - windfarm.airflow contributors (@windfarm)
attributes:
  check_mode:
    description: Fetches nothing then, and tells what the host's package lists know.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: See what waits
  windfarm.airflow.server_packages:
    packages: [redis-server, "postgresql-[0-9][0-9]"]
"""

RETURN = r"""
packages:
  description: What is installed of the named packages, with its version.
  returned: success
  type: dict
  sample: {"redis-server": "5:8.0.2-3+deb13u2"}
upgrades:
  description: Packages that an upgrade would change, a line each.
  returned: success
  type: list
  elements: str
  sample: ["redis-server from 5:8.0.2-3+deb13u2 to 5:8.0.2-3+deb13u3"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError


def installed(host: Host, patterns: list[str]) -> dict[str, str]:
    """Version of each installed package that a pattern stands for."""
    out = host.run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Package} ${Version}\n", *patterns])[1]
    words = [line.split() for line in out.splitlines()]
    return {line[1]: line[2] for line in words if len(line) == 3 and line[0] == "installed"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"packages": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    host = Host(module)
    try:
        found = installed(host, module.params["packages"]) if module.params["packages"] else {}
        if found and not host.check:
            host.configure_packages()
            host.fetch_package_lists()
        upgrades = host.updates(list(found)) if found else []
        if upgrades and not host.check:
            host.fetch(list(found))
    except (ServerError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, packages=found, upgrades=[f"{name} from {old} to {new}" for name, old, new in upgrades])


if __name__ == "__main__":
    main()
