# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.windfarm.airflow.plugins.action import airflow_certificate
from ansible_collections.windfarm.airflow.plugins.module_utils import pki

KEY = pki.new_key()
CA = pki.new_ca(KEY, "lab")
AUTHORITY = pki.load_authority(CA, KEY)
HOST_KEY = pki.new_key()
PUBLIC = pki.public_pem(pki.load_private_key(HOST_KEY).public_key())

Act = Callable[..., "tuple[dict[str, Any], list[dict[str, Any]]]"]


@pytest.fixture(name="act")
def _act(folder: pathlib.Path, controller: Any, monkeypatch: pytest.MonkeyPatch) -> Act:
    """The action's result, and what it has sent to the host."""

    def act(answers: list[dict[str, Any]] | None = None, **arguments: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        sent: list[dict[str, Any]] = []
        waiting = list(answers or [{"changed": False}])

        def execute(self: Any, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
            sent.append(module_args)
            return dict(waiting.pop(0))

        monkeypatch.setattr(airflow_certificate.ActionModule, "_execute_module", execute)
        given = {"name": "db", "ca_certificate": CA, "ca_key": KEY, "names": ["192.0.2.1", "db1"], **arguments}
        found = controller([str(folder / "hosts.yml")], {"default": "pass"})
        return found.run(airflow_certificate.ActionModule, given, inventory_dir=str(folder)), sent

    return act


def test_one_call_when_nothing_is_to_be_done(act: Act) -> None:
    result, sent = act()
    assert result["changed"] is False and len(sent) == 1
    assert sent[0]["renew_days"] == 90 and sent[0]["issuer"] == AUTHORITY.pem()


def test_signs_what_the_host_asks_for(act: Act) -> None:
    first = {"changed": True, "public_key": PUBLIC, "diff": ["why"]}
    result, sent = act([first, {"changed": False, "fingerprint": "f", "diff": []}], days=200)
    assert result["changed"] and result["fingerprint"] == "f" and result["diff"] == ["why"] and "public_key" not in result
    (made,) = pki.load_certificates(sent[1]["certificate"])
    assert pki.alternative_names(made) == ["db1", "192.0.2.1"]
    assert (made.not_valid_after_utc - pki.now()).days in (199, 200)
    # The authority's key stays here.
    secret = KEY.splitlines()[1]
    assert secret not in str(sent) and secret not in str(result)


def test_a_failure_of_the_host_is_the_result(act: Act) -> None:
    assert act([{"failed": True, "msg": "no openssl"}])[0]["msg"] == "no openssl"
    first = {"changed": True, "public_key": PUBLIC, "diff": []}
    assert act([first, {"failed": True, "msg": "clock"}])[0]["msg"] == "clock"


def test_an_authority_that_ends_soon_is_not_asked_each_time(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki.Authority, "days_left", lambda self: 40)
    assert act()[1][0]["renew_days"] == 39


def test_the_users_own_files(act: Act, folder: pathlib.Path, write: Any) -> None:
    certificate = AUTHORITY.sign(PUBLIC, ["192.0.2.1"], 30)
    write(folder, {"tls/own.pem": certificate})
    # Vaulted, as it may lie in the repository of the inventory.
    secret = VaultSecret(b"pass")
    (folder / "tls/own.key").write_bytes(VaultLib([("default", secret)]).encrypt(HOST_KEY, secret=secret))
    files = {"certificate_file": "tls/own.pem", "key_file": str(folder / "tls/own.key")}
    _result, sent = act(ca_key="", **files)
    assert (sent[0]["certificate"], sent[0]["private_key"]) == (certificate, HOST_KEY) and len(sent) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ca_key": ""}, "airflow_ca_key — is not defined, so no certificate can be made — give the host its own"),
        ({"ca_key": pki.new_key()}, "airflow_ca_key — does not belong to any certificate in airflow_ca_certificate — "),
        ({"ca_certificate": "x"}, "airflow_ca_certificate — is no certificate (PEM) — "),
        ({"renew_days": 365}, "airflow_certificate_renew_days — is 365, so that each run makes a new certificate — set it"),
        ({"certificate_file": "none.pem"}, "airflow_certificate_file — {folder}/none.pem does not exist on this machine — "),
        ({"certificate_file": "own.pem"}, "airflow_certificate_key_file — is empty, but airflow_certificate_file is not — "),
        ({"key_file": "own.pem"}, "airflow_certificate_file — is empty, but airflow_certificate_key_file is not — "),
        ({"certificate_file": "own.pem", "key_file": "own.pem"}, "airflow_certificate_key_file — is no private key (PEM) — "),
        ({"certificate_file": "vaulted", "key_file": "own.pem"}, "airflow_certificate_file — {folder}/vaulted cannot be read — "),
    ],
)
def test_refuses(act: Act, folder: pathlib.Path, write: Any, arguments: dict[str, Any], expected: str) -> None:
    write(folder, {"own.pem": AUTHORITY.sign(PUBLIC, ["192.0.2.1"], 30)})
    (folder / "vaulted").write_bytes(VaultLib([("default", VaultSecret(b"another"))]).encrypt("x"))
    result, sent = act(**arguments)
    assert result["failed"] and sent == []
    assert result["msg"].startswith(expected.format(folder=folder)) and "\n" not in result["msg"]


def test_a_name_that_no_certificate_can_have(act: Act) -> None:
    result, sent = act([{"changed": True, "public_key": PUBLIC}], names=["höst"])
    assert result["failed"] and "höst cannot stand in a certificate" in result["msg"] and len(sent) == 1
