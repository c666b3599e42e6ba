# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import pathlib
import subprocess
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import pki
from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError
from cryptography.hazmat.primitives.asymmetric import rsa

CA_KEY = pki.new_key()
CA = pki.new_ca(CA_KEY, "production")
AUTHORITY = pki.load_authority(CA, CA_KEY)
NAMES = ["192.0.2.1", "db1", "::1", "*.example.org"]


def public(key: str) -> str:
    return pki.public_pem(pki.load_private_key(key).public_key())


def at(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Time passes, or has not yet."""
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    monkeypatch.setattr(pki, "now", lambda: moment)


def host(names: list[str] | None = None, authority: pki.Authority = AUTHORITY, days: int = 365) -> tuple[str, str]:
    key = pki.new_key()
    return authority.sign(public(key), names or NAMES, days), key


def test_openssl_accepts_the_chain_as_strictly_as_it_can(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").write_text(CA)
    (tmp_path / "host.pem").write_text(host()[0])
    options = ["-x509_strict", "-no-CApath", "-no-CAstore", "-purpose", "sslserver", "-verify_ip", "192.0.2.1"]
    command = ["openssl", "verify", *options, "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "host.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "ca.pem"), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "CA:TRUE, pathlen:0" in text and "Certificate Sign, CRL Sign" in text and "Airflow production CA " in text
    assert "NIST CURVE: P-256" in text and "ecdsa-with-SHA256" in text


def test_a_certificate_says_what_it_is_for() -> None:
    (found,) = pki.load_certificates(host()[0])
    assert pki.alternative_names(found) == ["db1", "*.example.org", "192.0.2.1", "::1"]
    for name in ("192.0.2.1", "DB1", "0:0:0:0:0:0:0:1", "a.example.org"):
        assert pki.is_for(found, name), name
    for name in ("192.0.2.2", "db2", "example.org", "a.b.example.org"):
        assert not pki.is_for(found, name), name
    assert found.not_valid_before_utc < pki.now() - datetime.timedelta(minutes=59)
    with pytest.raises(ValueError, match="cannot stand in a certificate"):
        host(["höst"])


def test_a_long_name_and_an_authority_that_ends_soon() -> None:
    (found,) = pki.load_certificates(host(["a" * 60 + ".example.org"], days=9999)[0])
    assert found.not_valid_after_utc == AUTHORITY.issuer.not_valid_after_utc
    assert AUTHORITY.days_left() in (pki.CA_DAYS, pki.CA_DAYS - 1)
    # Also in letters of two bytes.
    assert pki.load_certificates(pki.new_ca(CA_KEY, "ü" * 80))


def test_two_authorities_have_two_names() -> None:
    other_key = pki.new_key()
    other = pki.new_ca(other_key, "production")
    assert pki.load_certificates(other)[0].subject != AUTHORITY.issuer.subject
    both = pki.load_authority(other + CA, CA_KEY)
    assert both.issuer == AUTHORITY.issuer and len(both.certificates) == 2
    assert pki.load_authority(other + CA, other_key).issuer != AUTHORITY.issuer


def test_the_users_own_authority_with_one_between() -> None:
    """A root, which signs another authority, which signs the host."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    def authority(name: str, key: Any, issuer: str, issuer_key: Any) -> Any:
        made = x509.CertificateBuilder().subject_name(pki._subject(name)).issuer_name(pki._subject(issuer))
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(pki.now()).not_valid_after(pki.now() + datetime.timedelta(days=9))
        return made.add_extension(x509.BasicConstraints(True, None), True).sign(issuer_key, hashes.SHA256())

    root_key, between_key = (rsa.generate_private_key(65537, 2048) for _number in range(2))
    root = authority("root", root_key, "root", root_key)
    between = authority("between", between_key, "root", root_key)
    pem = {name: one.public_bytes(serialization.Encoding.PEM).decode() for name, one in (("root", root), ("between", between))}
    key = pki.new_key()
    leaf = pki.sign(public(key), ["db1"], between, between_key, 9)
    trusted = pki.load_authority(pem["root"])
    pki.check_own_certificate(leaf + pem["between"], key, trusted, "db1")
    # libpq and others want the chain up to a self-signed one.
    for chain, roots in ((leaf, trusted), (leaf, pki.load_authority(pem["between"])), (leaf + pem["between"], AUTHORITY)):
        with pytest.raises(ProblemError, match="is not signed by an authority in airflow_ca_certificate"):
            pki.check_own_certificate(chain, key, roots, "db1")


def test_own_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = host(["db1"])
    pki.check_own_certificate(certificate, key, AUTHORITY, "db1")
    other = host(["db1"])
    foreign = host(["db1"], pki.load_authority(*reversed([made := pki.new_key(), pki.new_ca(made, "x")])))
    for given, name, expected in (
        ((certificate, other[1]), "db1", "airflow_certificate_file — does not match the key in airflow_certificate_key_file — "),
        ((certificate, key), "192.0.2.7", "is not for 192.0.2.7, by which other hosts reach this one, but for db1 — "),
        (foreign, "db1", "is not signed by an authority in airflow_ca_certificate — "),
        (("x", key), "db1", "airflow_certificate_file — is no certificate (PEM) — "),
        ((certificate, certificate), "db1", "airflow_certificate_key_file — is no private key (PEM) — "),
    ):
        with pytest.raises(ProblemError) as caught:
            pki.check_own_certificate(*given, AUTHORITY, name)
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    at(monkeypatch, -2)
    with pytest.raises(ProblemError, match="is not valid before 2"):
        pki.check_own_certificate(certificate, key, AUTHORITY, "db1")
    at(monkeypatch, 366)
    with pytest.raises(ProblemError, match="has expired on 2"):
        pki.check_own_certificate(certificate, key, AUTHORITY, "db1")


def test_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, leaf_key = host()
    for certificate, key, expected in (
        ("x", CA_KEY, "airflow_ca_certificate — is no certificate (PEM) — give"),
        (leaf, leaf_key, "airflow_ca_certificate — holds a certificate that is no authority's — "),
        (CA, "x", "airflow_ca_key — is no private key (PEM) — "),
        (CA, pki.new_key(), "airflow_ca_key — does not belong to any certificate in airflow_ca_certificate — "),
        (CA.replace("MII", "MIJ", 1), CA_KEY, "airflow_ca_certificate — is no certificate (PEM)"),
    ):
        with pytest.raises(ProblemError) as caught:
            pki.load_authority(certificate, key)
        assert expected in str(caught.value)
    new_key = pki.new_key()
    at(monkeypatch, -100)
    new = pki.new_ca(new_key, "later")
    at(monkeypatch, pki.CA_DAYS - 50)
    later_key = pki.new_key()
    later = pki.new_ca(later_key, "later still")
    with pytest.raises(ProblemError, match="airflow_ca_certificate — has expired on 2"):
        pki.load_authority(new)
    # An old one may stay beside the one that signs.
    assert pki.load_authority(new + later, later_key)
    with pytest.raises(ProblemError, match="airflow_ca_key — belongs to an authority that has expired on 2"):
        pki.load_authority(new + later, new_key)


def test_a_key_with_a_passphrase() -> None:
    done = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret"],
        input=CA_KEY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="is a private key with a passphrase"):
        pki.load_private_key(done.stdout)


# JSON web keys and fingerprints


def test_the_kid_of_rfc_8037() -> None:
    """Its appendix A.3."""
    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    der = bytes.fromhex("302a300506032b6570032100") + raw
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
    assert pki.jwt_kid(pem) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_key_set_has_every_key_once_and_nothing_private() -> None:
    key, old = pki.new_jwt_key(), pki.new_jwt_key()
    found = pki.jwks(key, [public(old), old, public(key)])
    assert [one["kid"] for one in found["keys"]] == [pki.jwt_kid(key), pki.jwt_kid(public(old))]
    assert all(set(one) == {"kty", "crv", "x", "kid", "alg", "use"} for one in found["keys"])
    from cryptography.hazmat.primitives import serialization

    raw = pki.load_jwt_key(key).private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() not in json.dumps(found)


@pytest.mark.parametrize("key", [CA_KEY, CA, "x", ""])
def test_another_kind_of_key(key: str) -> None:
    with pytest.raises(ValueError, match=r"is no( Ed25519)? key \(PEM\)"):
        pki.jwks(key)


def test_fingerprints() -> None:
    jwt = pki.new_jwt_key()
    values = {
        "airflow_fernet_key": "bmV3, b2xk",
        "airflow_api_secret_key": "a,b",
        "airflow_jwt_private_key": jwt,
        "airflow_ca_certificate": CA + CA,
        "airflow_admin_password": "not a shared key",
    }
    found = pki.fingerprints(values)
    assert list(found) == list(values)[:4]
    slow = hashlib.scrypt(b"b2xk", salt=b"airflow_fernet_key", n=2**12, r=8, p=1).hex()[:12]
    assert found["airflow_fernet_key"][1] == pki.fingerprints({"airflow_fernet_key": "b2xk"})["airflow_fernet_key"][0] == slow
    assert [len(one) for one in found.values()] == [2, 1, 1, 2]
    assert found["airflow_jwt_private_key"] == [pki.jwt_kid(jwt)]
    assert found["airflow_ca_certificate"][0] == pki.fingerprint(AUTHORITY.issuer)[:12]
    assert pki.fingerprints({"airflow_fernet_key": "", "airflow_ca_certificate": None}) == {}
    with pytest.raises(ValueError, match=r"^airflow_jwt_private_key is no key"):
        pki.fingerprints({"airflow_jwt_private_key": "secret-text"})


def test_fingerprints_are_cached() -> None:
    pki._slow_hash.cache_clear()
    for _time in range(3):
        pki.fingerprints({"airflow_fernet_key": "a", "airflow_api_secret_key": "b"})
    assert pki._slow_hash.cache_info().misses == 2
