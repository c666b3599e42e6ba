# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From which release to which, what a service goes back to, and which releases may go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import database, last_good, release, upgrade

UNIT = "ExecStartPre=+/bin/sh -c 'umask 077; echo {hash} > /run/airflow/%n'\nExecStart={release}/bin/airflow scheduler\n"


@pytest.mark.parametrize(
    ("state", "now", "wanted", "refused"),
    [
        ("same", "", "3.3.2", ""),
        ("same", "3.3.2", "3.3.2", ""),
        ("same", "3.2.2", "3.3.2", "run playbooks/upgrade.yml"),
        ("same", "3.3.2", "3.2.2", "run playbooks/rollback.yml"),
        ("upgrade", "3.2.2", "3.3.2", ""),
        ("upgrade", "3.3.2", "3.3.2", ""),
        ("upgrade", "3.9.1", "3.10.0", ""),
        ("upgrade", "", "3.3.2", "run playbooks/site.yml"),
        ("upgrade", "3.3.2", "3.2.2", "rollback.yml"),
        ("upgrade", "2.11.0", "3.3.2", "another major version"),
        ("rollback", "3.3.2", "3.2.2", ""),
        ("rollback", "3.2.2", "3.2.2", ""),
        ("rollback", "3.2.2", "3.3.2", "run playbooks/upgrade.yml"),
        ("rollback", "3.0.0", "2.11.0", "another major version"),
        ("rollback", "", "3.2.2", "run playbooks/site.yml"),
    ],
)
def test_refuse(state: str, now: str, wanted: str, refused: str) -> None:
    if not refused:
        upgrade.refuse(state, now, wanted, "control1")
        return
    with pytest.raises(upgrade.UpgradeError, match=refused) as raised:
        upgrade.refuse(state, now, wanted, "control1")
    assert "\n" not in str(raised.value)


def test_release_of_a_process() -> None:
    maps = "7f0 r-xp 0 08:01 1 /usr/lib/libc.so.6\n7f1 r-xp 0 08:01 2 /opt/airflow/releases/3.2.2-0a/lib/python3.11/x.so\n"
    assert upgrade.release_of(maps, "/opt/airflow/releases") == "/opt/airflow/releases/3.2.2-0a"
    assert upgrade.release_of(maps, "/srv/releases") == ""


def test_version_of_a_release(tmp_path: Path) -> None:
    folder = tmp_path / "mine-0a1b"
    folder.mkdir()
    assert upgrade.version_of(str(tmp_path / "3.2.2-0a1b")) == "3.2.2"
    (folder / release.MANIFEST).write_text(json.dumps({"version": "3.3.2"}))
    assert upgrade.version_of(str(folder)) == "3.3.2"


@pytest.fixture()
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> last_good.LastGood:
    monkeypatch.setattr(last_good, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(last_good, "GOOD", str(tmp_path / "good"))
    (tmp_path / "units").mkdir()
    (tmp_path / "config").mkdir()
    write(tmp_path, "aa11", "old")
    return last_good.LastGood("airflow-scheduler", str(tmp_path / "config"))


def write(root: Path, digest: str, content: str) -> None:
    (root / "units/airflow-scheduler.service").write_text(UNIT.format(hash=digest, release=f"/opt/r/{content}"))
    (root / "config/environment").write_text(content)
    (root / "config/environment").chmod(0o600)


def test_last_good_comes_back(service: last_good.LastGood, tmp_path: Path) -> None:
    assert not service.there()
    service.keep()
    write(tmp_path, "bb22", "new")
    assert service.hash() == "aa11"
    assert service.release() == "/opt/r/old"
    service.put_back()
    assert (tmp_path / "config/environment").read_text() == "old"
    assert not (tmp_path / "config" / last_good.UNIT).exists()
    assert last_good.unit_hash(str(tmp_path / "units/airflow-scheduler.service")) == "aa11"
    assert (tmp_path / "good").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "good/airflow-scheduler/environment").stat().st_mode & 0o777 == 0o600


def test_last_good_is_replaced_by_what_is_proven(service: last_good.LastGood, tmp_path: Path) -> None:
    service.keep()
    write(tmp_path, "bb22", "new")
    service.keep()
    assert service.hash() == "bb22"
    assert (tmp_path / "good/airflow-scheduler/environment").read_text() == "new"
    service.forget()
    assert not service.there()


def test_an_interrupted_copy_does_not_count(service: last_good.LastGood, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(last_good.shutil, "copy2", die)
    with pytest.raises(KeyboardInterrupt):
        service.keep()
    assert not service.there()


@pytest.fixture()
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("3.1.0-aaaaaaaaaa", "3.2.2-bbbbbbbbbb", "3.3.2-cccccccccc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / release.MANIFEST).write_text("{}")
    monkeypatch.setattr(release, "in_use", lambda _directory: set())
    # Somebody's own, whatever we do.
    for name in ("jdk-21", "work", "2024-1.0", ".cache"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_history(releases: Path) -> None:
    assert release.previous(str(releases), "3.3.2-cccccccccc") == ""
    for name in ("3.1.0-aaaaaaaaaa", "3.2.2-bbbbbbbbbb", "3.2.2-bbbbbbbbbb", "3.3.2-cccccccccc"):
        release.remember(str(releases / name))
    assert release.history(str(releases)) == ["3.1.0-aaaaaaaaaa", "3.2.2-bbbbbbbbbb", "3.3.2-cccccccccc"]
    assert release.previous(str(releases), "3.3.2-cccccccccc") == "3.2.2-bbbbbbbbbb"


def test_what_may_go(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("3.1.0-aaaaaaaaaa", "3.2.2-bbbbbbbbbb", "3.3.2-cccccccccc"):
        release.remember(str(releases / name))
    assert release.superfluous(str(releases), "3.3.2-cccccccccc") == ["3.1.0-aaaaaaaaaa"]
    # One that is asked for, while the one before still serves.
    (releases / "3.4.0-dddddddddd").mkdir()
    assert release.superfluous(str(releases), "3.4.0-dddddddddd") == ["3.1.0-aaaaaaaaaa"]
    monkeypatch.setattr(release, "in_use", lambda _directory: {"3.1.0-aaaaaaaaaa"})
    assert release.superfluous(str(releases), "3.3.2-cccccccccc") == ["3.4.0-dddddddddd"]
    release.prune(str(releases), ["3.4.0-dddddddddd"])
    assert not (releases / "3.4.0-dddddddddd").exists()
    assert release.superfluous(str(releases), "3.3.2-cccccccccc") == []


def test_a_process_keeps_its_release(tmp_path: Path) -> None:
    (tmp_path / "3.1.0-aaaaaaaaaa").mkdir()
    with subprocess.Popen(["sleep", "30"], env={"PATH": f"{tmp_path}/3.1.0-aaaaaaaaaa/bin:/usr/bin:/bin"}) as process:
        assert release.in_use(str(tmp_path)) == {"3.1.0-aaaaaaaaaa"}
        process.kill()
    assert release.in_use(str(tmp_path)) == set()


KNOWN = {
    "alembic_version": {"heads": ["c"], "revisions": ["a", "b", "c"]},
    "alembic_version_fab": {"heads": ["f"], "revisions": ["f"]},
}


def test_a_schema_is_migrated_only_when_asked() -> None:
    old = {"alembic_version": ["b"], "alembic_version_fab": ["f"]}
    assert database.judge(old, KNOWN, upgrade=True) == ["alembic_version"]
    with pytest.raises(database.DatabaseError, match=r"run playbooks/upgrade\.yml"):
        database.judge(old, KNOWN, upgrade=False)
    # An empty database, and one whose first migration was interrupted.
    assert database.judge({}, KNOWN, upgrade=False) == ["alembic_version", "alembic_version_fab"]
    assert database.judge({"alembic_version": ["c"]}, KNOWN, upgrade=False) == ["alembic_version_fab"]


def test_ahead() -> None:
    assert database.ahead({"alembic_version": ["z"]}, KNOWN) == {"alembic_version": ["z"]}
    with pytest.raises(database.DatabaseError, match="newer than this release"):
        database.judge({"alembic_version": ["z"]}, KNOWN)


def test_newer_release(tmp_path: Path) -> None:
    (tmp_path / "3.3.2-cccccccccc").mkdir()
    (tmp_path / "3.3.2-cccccccccc" / release.MANIFEST).write_text(json.dumps({"migrations": KNOWN}))
    revisions = {"alembic_version": ["c"], "alembic_version_fab": ["f"]}
    assert database.newer_release(str(tmp_path), revisions) == str(tmp_path / "3.3.2-cccccccccc")
    with pytest.raises(database.DatabaseError, match="no release in"):
        database.newer_release(str(tmp_path), {"alembic_version": ["z"]})
