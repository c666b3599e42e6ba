#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_secrets
short_description: Create the secrets of an Airflow cluster that are missing
version_added: 1.0.0
description:
  - Writes each shared secret that no host of the inventory defines into one file of variables on the controller.
    It never changes or removes what is there.
  - A secret counts as present wherever the inventory defines it, encrypted or not.
  - An existing file that is encrypted stays encrypted with the same vault ID. A new file is encrypted when a vault
    password is configured. To an unencrypted file, values are then added as C(!vault) texts.
  - Values appear in no output, diff or log.
options:
  file:
    description:
      - The file of variables. A relative path starts at the inventory's folder, or at the current folder where the
        inventories are in several.
      - By default C(group_vars/all/vault.yml) beside the inventory, which Ansible loads by itself.
    type: path
attributes:
  check_mode:
    description: Says which secrets it would create.
    support: full
  diff_mode:
    description: Shows the names of the secrets.
    support: full
  action:
    description: Runs on the controller, without a connection.
    support: full
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Create the secrets that are missing
  windfarm.airflow.airflow_secrets:
"""

RETURN = r"""
file:
  description: The file of variables.
  returned: success
  type: str
  sample: /srv/inventories/production/group_vars/all/vault.yml
created:
  description: Names of the secrets that were created.
  returned: success
  type: list
  elements: str
  sample: [airflow_fernet_key]
encrypted:
  description: Whether no secret in the file is in plain text.
  returned: success
  type: bool
"""
