#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_certificate
short_description: A server's key and certificate, signed by the cluster's own authority
version_added: 0.1.0
description:
  - Keeps C(ca.pem), a certificate and its key in a folder of the host.
  - The key is made on the host and never leaves it. The authority's key never leaves the controller, which signs.
  - A new certificate is made when there is none, when it ends soon, when it is for other names or another key, and when it is
    not signed by the authority that O(ca_key) belongs to. A usable key is kept; for a new one, remove the file and run again.
  - With O(certificate_file) and O(key_file), both come from the controller instead, and must fit each other, the authority and
    the first of O(names).
  - Installs the package C(openssl) where the command is missing.
  - Whoever serves with the files must notice that they have changed; this module restarts nothing.
options:
  name:
    description: Name of the files, without extension.
    type: str
    required: true
  directory:
    description: Folder of the files; it is created, for everyone to read, while the key is for root alone.
    type: path
    default: /etc/airflow/tls
  ca_certificate:
    description: Certificates of the authorities that are trusted (PEM), which makes up C(ca.pem).
    type: str
    required: true
  ca_key:
    description: Key of one of these authorities (PEM). Not needed with O(certificate_file).
    type: str
    default: ""
  names:
    description: Addresses and host names that the certificate is for, first the one by which other hosts reach this one.
    type: list
    elements: str
    required: true
  certificate_file:
    description:
      - Certificate on the controller (PEM), with intermediate ones after it. It may be encrypted with Ansible Vault.
      - A relative path starts at the inventory's folder.
    type: str
    default: ""
  key_file:
    description: Key on the controller (PEM), like O(certificate_file).
    type: str
    default: ""
  public:
    description:
      - O(certificate_file) is for clients that have authorities of their own, such as browsers. It must be for the first of
        O(names), but need not be signed by one in O(ca_certificate), which then may be empty.
    type: bool
    default: false
  days:
    description: For how long a certificate is made.
    type: int
    default: 365
  renew_days:
    description: A certificate that ends in fewer days is made anew. Less than O(days).
    type: int
    default: 90
  issuer:
    description: Certificate of the authority that signs. Set by the action plugin.
    type: str
  certificate:
    description: The certificate itself. Set by the action plugin.
    type: str
  private_key:
    description: The key itself, where it comes from the controller. Set by the action plugin.
    type: str
attributes:
  check_mode:
    description: Says what it would make and why, also on a host that has nothing yet.
    support: full
  diff_mode:
    description: Shows why there is a new certificate, and nothing of a key.
    support: full
  action:
    description: The authority's key and the user's own files are used on the controller.
    support: full
author:
  - windfarm.airflow contributors (@windfarm)
"""

EXAMPLES = r"""
- name: Keep the certificate of the database
  windfarm.airflow.airflow_certificate:
    name: postgresql
    ca_certificate: "{{ airflow_ca_certificate }}"
    ca_key: "{{ airflow_ca_key }}"
    names: [192.0.2.11, db1.example.org]
"""

RETURN = r"""
certificate:
  description: Path of the certificate.
  returned: success
  type: str
  sample: /etc/airflow/tls/postgresql.pem
key:
  description: Path of its key.
  returned: success
  type: str
  sample: /etc/airflow/tls/postgresql.key
ca:
  description: Path of the authorities' certificates.
  returned: success
  type: str
  sample: /etc/airflow/tls/ca.pem
fingerprint:
  description: SHA-256 of the certificate; empty where check mode finds none.
  returned: success
  type: str
not_after:
  description: When the certificate ends; empty where check mode finds none.
  returned: success
  type: str
  sample: "2027-11-22T08:00:00Z"
public_key:
  description: The public key to sign, told to the action plugin alone.
  returned: when a certificate must be made
  type: str
"""

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils import host_lock
from ansible_collections.windfarm.airflow.plugins.module_utils.certificate import Certificate, CertificateError
from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import HostFilesError
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import Host, ServerError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "default": "/etc/airflow/tls"},
            "ca_certificate": {"type": "str", "required": True},
            "ca_key": {"type": "str", "default": "", "no_log": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "certificate_file": {"type": "str", "default": ""},
            "key_file": {"type": "str", "default": "", "no_log": False},
            "public": {"type": "bool", "default": False},
            "days": {"type": "int", "default": 365},
            "renew_days": {"type": "int", "default": 90},
            "issuer": {"type": "str"},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if not (wanted["issuer"] or wanted["private_key"]):
        module.fail_json(msg="this module works only through its action plugin, which is in the same collection")
    host_lock.hold(module)
    # Hardened hosts give root another one, and the folders on the way would be closed to the services.
    os.umask(0o022)
    host = Certificate(wanted["directory"], wanted["name"], module.check_mode)
    answer: dict[str, Any] = {}
    packages = Host(module)
    try:
        # A minimal installation lacks it; without one, check mode can tell that everything is to be made.
        if not shutil.which("openssl") and not module.check_mode:
            packages.install("openssl")
        # Only a public certificate does without an authority of ours.
        if wanted["ca_certificate"].strip():
            host.trust(wanted["ca_certificate"])
        if wanted["private_key"]:
            host.take(wanted["certificate"], wanted["private_key"])
        else:
            public = host.converge(wanted["names"], wanted["issuer"], wanted["renew_days"], wanted["certificate"])
            answer = {"public_key": public} if public else {}
        answer.update(host.described())
    except (CertificateError, HostFilesError, ServerError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(host.diffs or packages.actions), diff=host.diffs, **answer)


if __name__ == "__main__":
    main()
