# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server's key and certificate on its host, judged with what every host has: openssl and Python's own library."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ansible_collections.windfarm.airflow.plugins.module_utils.host_files import (
    attributes,
    ensure_directory,
    ensure_file,
    set_attributes,
)

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.S)
DAY = 86400


class CertificateError(Exception):
    """What could not be done, in one line."""


class Paths(NamedTuple):
    certificate: str
    key: str
    ca: str


class Found(NamedTuple):
    """What a certificate says of itself."""

    public_key: str
    names: frozenset[str]
    end: float
    fingerprint: str


def paths(directory: str, name: str) -> Paths:
    return Paths(f"{directory}/{name}.pem", f"{directory}/{name}.key", f"{directory}/ca.pem")


def openssl(*arguments: str, stdin: str = "") -> tuple[bool, str]:
    """Whether it went well, and what it printed or, if not, the last line of its complaints."""
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            ["openssl", *arguments], input=stdin, text=True, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise CertificateError("the command openssl is missing on this host; install the package openssl") from None
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("error ")] or done.stderr.strip().splitlines()
        return False, (reasons or ["no reason"])[0]
    return True, done.stdout


def same_names(names: Iterable[str]) -> frozenset[str]:
    """Names and addresses in one form, in which they can be compared."""
    found = set()
    for name in names:
        try:
            found.add(str(ipaddress.ip_address(name)))
        except ValueError:
            found.add(name.lower())
    return frozenset(found)


def read(path: str) -> Found | None:
    """None where there is no readable certificate."""
    if not os.path.isfile(path):
        return None
    good, text = openssl("x509", "-in", path, "-noout", "-enddate", "-ext", "subjectAltName", "-pubkey")
    if not good:
        return None
    with open(path, encoding="utf-8", errors="replace") as file:
        body = _BLOCK.search(file.read())
    end = re.search(r"^notAfter=(.*)$", text, re.M)
    key = re.search(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", text, re.S)
    if not (body and end and key):
        return None
    return Found(
        key[0],
        same_names(re.findall(r"(?:DNS|IP Address):([^,\s]+)", text)),
        ssl.cert_time_to_seconds(end[1].strip()),
        hashlib.sha256(base64.b64decode(body[1])).hexdigest(),
    )


def public_key(path: str) -> str | None:
    """The public half of the key in the file; None where there is no usable key."""
    if not os.path.isfile(path):
        return None
    # An empty passphrase: a key that has one is unusable, and nobody is there to be asked.
    good, text = openssl("pkey", "-in", path, "-passin", "pass:", "-pubout")
    return text.strip() if good else None


def chain_problem(path: str, issuer: str) -> str | None:
    """Why a client that trusts only this authority would refuse the certificate."""
    good, text = openssl(
        "verify", "-no-CApath", "-no-CAstore", "-purpose", "sslserver", "-CAfile", "/dev/stdin", path, stdin=issuer
    )
    return None if good else f"not to be trusted: {text.rpartition(': ')[2]}"


def problem(place: Paths, names: Sequence[str], issuer: str, renew_days: int) -> str | None:
    """Why there must be another certificate; None if what is there is good."""
    found = read(place.certificate)
    if found is None:
        return "unreadable" if os.path.exists(place.certificate) else "absent"
    if found.public_key != public_key(place.key):
        return "for another key"
    if found.names != same_names(names):
        return f"for {', '.join(sorted(found.names)) or 'no name'}"
    left = (found.end - time.time()) / DAY
    if left < renew_days:
        return f"ends in {left:.0f} days" if left > 0 else "expired"
    return chain_problem(place.certificate, issuer)


def new_key() -> str:
    good, text = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    if not good:
        raise CertificateError(f"openssl cannot make a key: {text}")
    return text


def ensure_key(path: str, text: str, check: bool) -> dict[str, Any] | None:
    known = os.path.exists(path)
    diff = ensure_file({"path": path, "content": text, "mode": "0600"}, check)
    if diff is None or diff["before"].startswith("other "):
        return diff
    # Nothing of a key may be seen, not even that it is the same.
    return {**diff, "before": "another key\n" if known else "absent\n", "after": "a new key\n"}


class Certificate:
    """One run of the module; `diffs` tells what was, or in check mode would be, changed."""

    def __init__(self, directory: str, name: str, check: bool) -> None:
        self.place = paths(directory, name)
        self.check = check
        self.diffs: list[dict[str, Any]] = []

    def _note(self, diff: dict[str, Any] | None) -> None:
        self.diffs += [diff] if diff else []

    def trust(self, ca_certificate: str) -> None:
        self._note(ensure_directory({"path": os.path.dirname(self.place.ca), "mode": "0755"}, self.check))
        self._note(ensure_file({"path": self.place.ca, "content": ca_certificate, "mode": "0644"}, self.check))

    def take(self, certificate: str, key: str) -> None:
        """The user's own files."""
        self._note(ensure_key(self.place.key, key, self.check))
        self._note(ensure_file({"path": self.place.certificate, "content": certificate, "mode": "0644"}, self.check))

    def converge(self, names: Sequence[str], issuer: str, renew_days: int, certificate: str | None) -> str | None:
        """Brings key and certificate to what is wanted, or returns the public key that a certificate is needed for."""
        reason = problem(self.place, names, issuer, renew_days)
        if reason and certificate:
            ensure_file({"path": self.place.certificate, "content": certificate, "mode": "0644"}, self.check)
            found = problem(self.place, names, issuer, 0)
            if found:
                raise CertificateError(f"the new {self.place.certificate} is not good here ({found}); is the host's clock right?")
            return None
        self._keep_modes()
        if reason is None:
            return None
        after = f"for {', '.join(names)}"
        public = public_key(self.place.key)
        if public is None:
            # A usable key stays: certificate and key then change in one step, also for those that read them meanwhile.
            self._note(ensure_key(self.place.key, "" if self.check else new_key(), self.check))
        self._note(_state(self.place.certificate, reason, after))
        return None if self.check else public_key(self.place.key)

    def _keep_modes(self) -> None:
        for path, mode in ((self.place.key, "0600"), (self.place.certificate, "0644")):
            if os.path.isfile(path):
                wanted = {"path": path, "mode": mode}
                differing = attributes(path, wanted)
                if differing:
                    self._note(_state(path, f"other {', '.join(differing)}", f"{mode} root"))
                    if not self.check:
                        set_attributes(path, wanted)

    def described(self) -> dict[str, str]:
        found = read(self.place.certificate)
        end = datetime.datetime.fromtimestamp(found.end, datetime.timezone.utc) if found else None
        return {
            **self.place._asdict(),
            "fingerprint": found.fingerprint if found else "",
            "not_after": f"{end:%Y-%m-%dT%H:%M:%SZ}" if end else "",
        }


def _state(path: str, before: str, after: str) -> dict[str, Any]:
    return {"before_header": path, "after_header": path, "before": f"{before}\n", "after": f"{after}\n"}
