# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys and certificates on the controller: made, read, checked and told apart. No message holds any part of a key."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import ProblemError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    # Every controller has it with ansible-core. Hosts may lack it and never come here.
    pass

CA_DAYS = 3650
# Clocks differ: what was signed a moment ago is valid on a host whose clock is behind.
BACKDATED = datetime.timedelta(hours=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


# Keys


def new_key() -> str:
    """P-256: libpq cannot bind SCRAM to a certificate that is signed with Ed25519."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def new_jwt_key() -> str:
    return private_pem(ed25519.Ed25519PrivateKey.generate())


def private_pem(key: Any) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def public_pem(key: Any) -> str:
    """Of a public key."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _bytes(text: object) -> bytes:
    return (text if isinstance(text, bytes) else str(text).encode()).strip() + b"\n"


def load_private_key(text: object) -> Any:
    try:
        return serialization.load_pem_private_key(_bytes(text), password=None)
    except TypeError:
        raise ValueError("is a private key with a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no private key (PEM)") from None


def load_public_key(text: object) -> Any:
    """Of a public key, a private key or a certificate."""
    data = _bytes(text)
    if b"PRIVATE KEY" in data:
        return load_private_key(text).public_key()
    if b"BEGIN CERTIFICATE" in data:
        return load_certificates(text)[0].public_key()
    try:
        return serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no key (PEM)") from None


def load_jwt_key(text: object) -> Any:
    key = load_private_key(text)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("is no Ed25519 private key (PEM)")
    return key


# JSON web keys


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwk(text: object) -> dict[str, str]:
    key = load_public_key(text)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ValueError("is no Ed25519 key (PEM)")
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638."""
    text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(text.encode()).digest())


def jwt_kid(key: object) -> str:
    return _thumbprint(_jwk(key))


def jwks(key: object, trusted: Iterable[object] = ()) -> dict[str, list[dict[str, str]]]:
    """The public halves of the key and of further keys whose tokens are accepted, the signing key first."""
    found: dict[str, dict[str, str]] = {}
    for one in (key, *trusted):
        jwk = _jwk(one)
        kid = _thumbprint(jwk)
        found.setdefault(kid, {**jwk, "kid": kid, "alg": "EdDSA", "use": "sig"})
    return {"keys": list(found.values())}


# Fingerprints


@functools.cache
def _slow_hash(name: str, value: str) -> str:
    """Slow, so that nobody finds a value that can be guessed from what every user of a host may read."""
    return hashlib.scrypt(value.encode(), salt=name.encode(), n=2**12, r=8, p=1, dklen=6).hex()


def _secret_fingerprints(name: str, value: str) -> list[str]:
    return [_slow_hash(name, part.strip()) for part in value.split(",") if part.strip()]


def _plain_fingerprints(name: str, value: str) -> list[str]:
    return [_slow_hash(name, value)]


def _jwt_fingerprints(name: str, value: str) -> list[str]:
    return [jwt_kid(value)]


def _certificate_fingerprints(name: str, value: str) -> list[str]:
    return [fingerprint(certificate)[:12] for certificate in load_certificates(value)]


FINGERPRINTS = {
    "airflow_fernet_key": _secret_fingerprints,
    "airflow_api_secret_key": _plain_fingerprints,
    "airflow_jwt_private_key": _jwt_fingerprints,
    "airflow_ca_certificate": _certificate_fingerprints,
}


def fingerprints(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """What tells whether two hosts have the same keys, and tells nothing of the keys. Whatever else is given is left out."""
    found = {}
    for name, make in FINGERPRINTS.items():
        value = values.get(name)
        if value is None or not str(value).strip():
            continue
        try:
            found[name] = make(name, str(value))
        except ValueError as exc:
            raise ValueError(f"{name} {exc}") from None
    return found


# Certificates


def load_certificates(text: object) -> list[Any]:
    """All certificates of a PEM text, in its order."""
    try:
        found = x509.load_pem_x509_certificates(_bytes(text))
        for certificate in found:
            # Some of a certificate is read only when it is asked for.
            certificate.public_key()
            list(certificate.extensions)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no certificate (PEM)") from None
    return found


def pem(certificate: Any) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: Any) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def matches(key: Any, certificate: Any) -> bool:
    return public_pem(key.public_key()) == public_pem(certificate.public_key())


def is_ca(certificate: Any) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as exc:
        return exc.oid == x509.KeyUsage.oid
    return usage.key_cert_sign


def validity_problem(certificate: Any) -> str | None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end <= now():
        return f"has expired on {end:%Y-%m-%d}"
    if start > now():
        return f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
    return None


def alternative_names(certificate: Any) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def is_for(certificate: Any, name: str) -> bool:
    """Whether a client that asks for the name or address accepts the certificate."""
    found = alternative_names(certificate)
    try:
        return str(ipaddress.ip_address(name)) in found
    except ValueError:
        wanted = name.lower()
        parent = "*." + wanted.partition(".")[2]
        return any(known.lower() in (wanted, parent) for known in found)


def is_signed_by(certificate: Any, trusted: Sequence[Any], between: Sequence[Any] = ()) -> bool:
    """Whether a chain leads from the certificate, over those between, to a self-signed one that is trusted."""
    current = certificate
    for _step in range(len(between) + len(trusted) + 1):
        issuer = next((one for one in (*trusted, *between) if _issued(current, one)), None)
        if issuer is None:
            return False
        if issuer in trusted and issuer.subject == issuer.issuer:
            return True
        current = issuer
    return False


def _issued(certificate: Any, issuer: Any) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _subject(name: str) -> Any:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*names: str) -> Any:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def new_ca(key_text: object, cluster: str) -> str:
    """A self-signed certificate for the key, good for host certificates only, not for further authorities."""
    key = load_private_key(key_text)
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # 64 bytes are all that a common name may have.
    short = cluster.encode()[:40].decode(errors="ignore")
    # The key is in the name: while one authority replaces another, both are known by their names.
    name = _subject(f"Airflow {short} CA {identity.digest.hex()[:8]}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - BACKDATED)
        .not_valid_after(now() + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identity, critical=False)
        .sign(key, _hash(key))
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _hash(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def issuer_of(ca_certificates: Sequence[Any], ca_key: Any) -> Any:
    """The one that the key belongs to."""
    found = next((one for one in ca_certificates if matches(ca_key, one)), None)
    if found is None:
        raise ValueError("does not belong to any certificate in airflow_ca_certificate")
    return found


def sign(public_key: object, names: Sequence[str], issuer: Any, ca_key: Any, days: int) -> str:
    """A server's certificate; it ends with its issuer's at the latest."""
    key = load_public_key(public_key)
    alternatives: list[Any] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                alternatives.append(x509.DNSName(name))
            except ValueError:
                raise ValueError(f"{name} cannot stand in a certificate: use letters, digits, dots and dashes") from None
    subject = x509.SubjectKeyIdentifier.from_public_key(key)
    certificate = (
        x509.CertificateBuilder()
        # What clients look at are the alternative names.
        .subject_name(_subject(names[0][:64]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now() - BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(min(now() + datetime.timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(subject, critical=False)
        .add_extension(_authority(issuer), critical=False)
        .sign(ca_key, _hash(ca_key))
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _authority(issuer: Any) -> Any:
    try:
        identity = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity)


class Authority(NamedTuple):
    """The cluster's authorities, and the one that signs; without a key nobody does."""

    certificates: Sequence[Any]
    issuer: Any = None
    key: Any = None

    def pem(self) -> str:
        return self.issuer.public_bytes(serialization.Encoding.PEM).decode()

    def days_left(self) -> int:
        return (self.issuer.not_valid_after_utc - now()).days

    def sign(self, public_key: object, names: Sequence[str], days: int) -> str:
        return sign(public_key, names, self.issuer, self.key, days)


def load_authority(ca_certificate: object, ca_key: object = None) -> Authority:
    """Both as the inventory has them, checked."""
    where, cure = "airflow_ca_certificate", "give the certificates (PEM) of the authorities that the cluster trusts"
    try:
        certificates = load_certificates(ca_certificate)
    except ValueError as exc:
        raise ProblemError(where, str(exc), cure) from None
    if not all(is_ca(certificate) for certificate in certificates):
        raise ProblemError(where, "holds a certificate that is no authority's", cure)
    ended = [validity_problem(certificate) for certificate in certificates]
    if all(ended):
        raise ProblemError(where, str(ended[0]), cure)
    if not ca_key:
        return Authority(certificates)
    where, cure = "airflow_ca_key", "give the key (PEM) of the authority in airflow_ca_certificate that signs"
    try:
        key = load_private_key(ca_key)
        issuer = issuer_of(certificates, key)
    except ValueError as exc:
        raise ProblemError(where, str(exc), cure) from None
    problem = validity_problem(issuer)
    if problem:
        raise ProblemError(where, f"belongs to an authority that {problem}", cure)
    if issuer.subject != issuer.issuer:
        cure = "give that of a self-signed one, or sign yourself and set airflow_certificate_file, with the chain, for each host"
        raise ProblemError(where, "belongs to an intermediate authority, which clients do not trust by itself", cure)
    return Authority(certificates, issuer, key)


def check_own_certificate(
    certificate: object, key: object, authority: Authority | None, name: str, variable: str = "airflow_certificate"
) -> None:
    """What a user brings for a host must fit together before it is sent there; without authority it is for others' browsers."""
    where, cure = f"{variable}_file", "give a certificate that fits, or leave it empty, so that one is made"
    by_whom = "by which other hosts reach this one" if authority else "which users type"
    try:
        first, *between = load_certificates(certificate)
    except ValueError as exc:
        raise ProblemError(where, str(exc), cure) from None
    try:
        own = load_private_key(key)
    except ValueError as exc:
        raise ProblemError(f"{variable}_key_file", str(exc), "give the certificate's key (PEM)") from None
    problem = validity_problem(first)
    if not matches(own, first):
        problem = f"does not match the key in {variable}_key_file"
    elif not problem and not is_for(first, name):
        names = ", ".join(alternative_names(first)) or "no name"
        problem = f"is not for {name}, {by_whom}, but for {names}"
    elif not problem and authority and not is_signed_by(first, authority.certificates, between):
        problem = "is not signed by an authority in airflow_ca_certificate"
    if problem:
        raise ProblemError(where, problem, cure)
