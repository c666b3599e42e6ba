# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's side of a certificate, with the openssl of this machine."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import certificate as tls
from ansible_collections.windfarm.airflow.plugins.module_utils import host_files, pki
from ansible_collections.windfarm.airflow.plugins.module_utils.certificate import Certificate, CertificateError

KEY = pki.new_key()
CA = pki.new_ca(KEY, "lab")
AUTHORITY = pki.load_authority(CA, KEY)
NAMES = ["192.0.2.1", "DB1", "::1"]

Run = Callable[..., "list[tuple[str, str, str]]"]


@pytest.fixture(name="run")
def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Both calls of the module, and what they changed: file, before, after."""
    if os.geteuid() != 0:
        monkeypatch.setattr(host_files, "_owner", lambda name: os.geteuid())
        monkeypatch.setattr(host_files, "_group", lambda name: os.getegid())

    def run(
        names: list[str] | None = None,
        renew: int = 90,
        days: int = 365,
        check: bool = False,
        die: bool = False,
        authority: pki.Authority = AUTHORITY,
        bundle: str = CA,
    ) -> list[tuple[str, str, str]]:
        wanted = names or NAMES
        host = Certificate(str(tmp_path / "tls"), "db", check)
        host.trust(bundle)
        public = host.converge(wanted, authority.pem(), renew, None)
        if public and not die:
            Certificate(str(tmp_path / "tls"), "db", check).converge(
                wanted, authority.pem(), renew, authority.sign(public, wanted, days)
            )
        return [(os.path.basename(diff["after_header"]), diff["before"].strip(), diff["after"].strip()) for diff in host.diffs]

    return run


def later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    monkeypatch.setattr(tls.time, "time", moment.timestamp)


def mode(path: pathlib.Path) -> int:
    return path.stat().st_mode & 0o777


def test_makes_all_once(run: Run, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "tls"
    assert [name for name, _before, _after in run(check=True)] == ["tls", "ca.pem", "db.key", "db.pem"]
    assert not folder.exists()
    first = run()
    assert first[2:] == [("db.key", "absent", "a new key"), ("db.pem", "absent", "for 192.0.2.1, DB1, ::1")]
    assert {path.name: mode(path) for path in folder.iterdir()} == {"ca.pem": 0o644, "db.pem": 0o644, "db.key": 0o600}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run() == run(check=True) == []
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    (found,) = pki.load_certificates((folder / "db.pem").read_text())
    described = Certificate(str(folder), "db", True).described()
    assert described["fingerprint"] == pki.fingerprint(found)
    assert described["not_after"] == f"{found.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert described["certificate"] == str(folder / "db.pem") and described["key"] == str(folder / "db.key")


def test_names_may_come_in_any_order_and_form(run: Run) -> None:
    run()
    assert run(["0:0:0:0:0:0:0:1", "db1", "192.0.2.1"]) == []
    assert run(["192.0.2.1"]) == [("db.pem", "for 192.0.2.1, ::1, db1", "for 192.0.2.1")]
    assert run(["192.0.2.1"]) == []


def damage_key(folder: pathlib.Path) -> None:
    (folder / "db.key").write_text("half")


def damage_certificate(folder: pathlib.Path) -> None:
    (folder / "db.pem").write_bytes((folder / "db.pem").read_bytes()[:99])


def other_key(folder: pathlib.Path) -> None:
    (folder / "db.key").write_text(pki.new_key())


def remove_all(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def leave_half(folder: pathlib.Path) -> None:
    """What a run leaves that died while it wrote."""
    for name in (".db.key.new", ".db.pem.new", ".ca.pem.new"):
        (folder / name).write_text("half")
    (folder / "db.pem").unlink()


@pytest.mark.parametrize("damage", [damage_key, damage_certificate, other_key, remove_all, leave_half])
def test_heals(run: Run, tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], None]) -> None:
    run()
    folder = tmp_path / "tls"
    damage(folder)
    predicted = run(check=True)
    assert predicted and run() == predicted
    assert run() == []
    assert mode(folder / "db.key") == 0o600
    assert tls.public_key(str(folder / "db.key")) == tls.read(str(folder / "db.pem")).public_key  # type: ignore[union-attr]


def test_heals_after_it_died_between_key_and_certificate(run: Run, tmp_path: pathlib.Path) -> None:
    run(die=True)
    key = (tmp_path / "tls/db.key").read_bytes()
    assert [name for name, _before, _after in run()] == ["db.pem"]
    assert (tmp_path / "tls/db.key").read_bytes() == key
    assert run() == []


def test_renews_in_time_and_keeps_the_key(run: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    key, old = ((tmp_path / "tls" / name).read_bytes() for name in ("db.key", "db.pem"))
    later(monkeypatch, 274)
    assert run() == []
    later(monkeypatch, 276)
    (changed,) = run(check=True)
    assert changed == ("db.pem", "ends in 89 days", "for 192.0.2.1, DB1, ::1")
    later(monkeypatch, 366)
    assert run(check=True)[0][1] == "expired"
    later(monkeypatch, 0)
    assert run(renew=366, days=400)[0][0] == "db.pem"
    assert (tmp_path / "tls/db.key").read_bytes() == key and (tmp_path / "tls/db.pem").read_bytes() != old


def test_changes_to_the_authority_that_signs(run: Run, tmp_path: pathlib.Path) -> None:
    run()
    key = pki.new_key()
    ca = pki.new_ca(key, "lab")
    new = pki.load_authority(ca + CA, key)
    # Trusted first, with nothing signed anew; then it signs, while the old one is still trusted.
    assert [name for name, _before, _after in run(bundle=ca + CA)] == ["ca.pem"]
    changed = run(authority=new, bundle=ca + CA)
    assert [name for name, _before, _after in changed] == ["db.pem"]
    assert changed[0][1] == "not to be trusted: unable to get local issuer certificate"
    assert run(authority=new, bundle=ca + CA) == []


def test_mends_modes(run: Run, tmp_path: pathlib.Path) -> None:
    run()
    (tmp_path / "tls/db.key").chmod(0o644)
    (tmp_path / "tls").chmod(0o700)
    assert run() == [("tls", "other mode", "0755 root"), ("db.key", "other mode", "0600 root")]
    assert mode(tmp_path / "tls/db.key") == 0o600 and mode(tmp_path / "tls") == 0o755


def test_a_clock_that_is_wrong_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 4000)
    with pytest.raises(CertificateError, match=r"not good here \(expired\); is the host's clock right\?"):
        run()


def test_takes_what_the_user_brings(tmp_path: pathlib.Path, run: Run) -> None:
    run()
    key = pki.new_key()
    text = AUTHORITY.sign(pki.public_pem(pki.load_private_key(key).public_key()), ["db1"], 30)

    def take(check: bool = False) -> list[dict[str, Any]]:
        host = Certificate(str(tmp_path / "tls"), "db", check)
        host.trust(CA)
        host.take(text, key)
        return host.diffs

    predicted = take(check=True)
    assert (tmp_path / "tls/db.key").read_text() != key
    diffs = take()
    assert diffs == predicted and diffs[0]["before"] == "another key\n"
    assert not [line for line in key.splitlines() if line in str(diffs) and "BEGIN" not in line and "END" not in line]
    assert take() == []
    assert mode(tmp_path / "tls/db.key") == 0o600


def test_without_openssl(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(check=True)
    with pytest.raises(CertificateError, match="install the package openssl"):
        run()
