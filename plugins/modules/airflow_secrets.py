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
  - A certificate authority is a pair. A certificate without a key is the user's own authority, to which nothing is added;
    to a key without a certificate, the certificate is made.
  - It makes no Fernet key while a host says that it belongs to a cluster, which has connections that a new key cannot read.
    The return value RV(asks) names the hosts that must be asked for the file
    C(/etc/ansible/facts.d/windfarm_airflow.fact) before; there are none where the Fernet key is not missing.
options:
  file:
    description:
      - The file of variables. A relative path starts at the inventory's folder, or at the current folder where the
        inventories are in several.
      - By default C(group_vars/all/vault.yml) beside the inventory, which Ansible loads by itself.
    type: path
  answers:
    description: Name of the variable that each host's content of the fact file is registered in, as RV(ignore:stdout).
    type: str
    default: __airflow_secrets_answers
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
asks:
  description: Hosts that must be asked whether they belong to a cluster already.
  returned: success
  type: list
  elements: str
  sample: [db1]
encrypted:
  description: Whether no secret in the file is in plain text.
  returned: success
  type: bool
"""
