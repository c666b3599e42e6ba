# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signs on the controller what the module of this name asks for on the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.windfarm.airflow.plugins.module_utils import pki
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError
from ansible_collections.windfarm.airflow.plugins.plugin_utils.own_certificate import own_certificate

MODULE = "windfarm.airflow.airflow_certificate"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(
            {
                "name": {"type": "str", "required": True},
                "directory": {"type": "str", "default": "/etc/airflow/tls"},
                "ca_certificate": {"type": "str", "required": True},
                "ca_key": {"type": "str", "default": "", "no_log": True},
                "names": {"type": "list", "elements": "str", "required": True},
                "certificate_file": {"type": "str", "default": ""},
                "key_file": {"type": "str", "default": "", "no_log": False},
                "public": {"type": "bool", "default": False},
                "days": {"type": "int", "default": 365},
                "renew_days": {"type": "int", "default": 90},
            }
        )
        variables = task_vars or {}
        # Named one by one: whatever else is given, the authority's key is not sent.
        sent = {name: wanted[name] for name in ("name", "directory", "names")}
        sent["ca_certificate"] = wanted["ca_certificate"].strip() + "\n"
        try:
            if wanted["certificate_file"] or wanted["key_file"]:
                result.update(self._execute(sent | self._own(wanted, variables), variables))
            else:
                result.update(self._signed(sent, wanted, variables))
        except ProblemError as exc:
            result.update(failed=True, msg=str(exc))
        return result

    def _execute(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=variables)

    def _own(self, wanted: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """The user's certificate and key, which must fit before anything is changed."""
        authority = None if wanted["public"] else pki.load_authority(wanted["ca_certificate"])
        variable = "airflow_entry_certificate" if wanted["public"] else "airflow_certificate"
        files = (wanted["certificate_file"], wanted["key_file"])
        own = own_certificate(self._loader, *files, variables.get("inventory_dir"), variable)
        pki.check_own_certificate(*own, authority, wanted["names"][0], variable)
        return {"certificate": own[0], "private_key": own[1]}

    def _signed(self, sent: dict[str, Any], wanted: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        if not wanted["ca_key"]:
            cure = "give the host its own certificate in airflow_certificate_file, or the key"
            raise ProblemError("airflow_ca_key", "is not defined, so no certificate can be made", cure)
        authority = pki.load_authority(wanted["ca_certificate"], wanted["ca_key"])
        if wanted["renew_days"] >= wanted["days"]:
            what = f"is {wanted['renew_days']}, so that each run makes a new certificate"
            raise ProblemError("airflow_certificate_renew_days", what, "set it to less than airflow_certificate_days")
        # An authority that ends soon signs for as long as it lasts; nothing is gained by signing that anew in each run.
        sent |= {"issuer": authority.pem(), "renew_days": min(wanted["renew_days"], max(0, authority.days_left() - 1))}
        first = self._execute(sent, variables)
        public_key = first.pop("public_key", None)
        if first.get("failed") or not public_key:
            return first
        try:
            certificate = authority.sign(public_key, wanted["names"], wanted["days"])
        except ValueError as exc:
            raise ProblemError("the names of the certificate", str(exc), "correct the inventory") from None
        second = self._execute({**sent, "certificate": certificate}, variables)
        return {**second, "changed": True, "diff": first["diff"]}
