# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import database, release


def migration(folder: pathlib.Path, name: str, revision: str, down: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f'"""Text with revision = "no"."""\n\nrevision = "{revision}"\ndown_revision = {down}\n')


def test_heads_are_what_nothing_follows(tmp_path: pathlib.Path) -> None:
    core = tmp_path / release.MIGRATIONS["alembic_version"]
    migration(core, "1.py", "aaaaaaaaaaaa", "None")
    # One of Airflow's own revisions has 13 characters, and one that is no hexadecimal digit.
    migration(core, "2.py", "ab6dc0c82d0eg", '"aaaaaaaaaaaa"')
    migration(core, "3.py", "cccccccccccc", '("ab6dc0c82d0eg",)')
    found = release.heads(str(tmp_path))
    assert found["alembic_version"] == {
        "heads": ["cccccccccccc"],
        "revisions": ["aaaaaaaaaaaa", "ab6dc0c82d0eg", "cccccccccccc"],
    }
    assert found["alembic_version_fab"]["heads"] == []


def test_a_missing_interpreter_is_named() -> None:
    with pytest.raises(release.ReleaseError, match=r"airflow_python: there is no python9\.9"):
        release.describe_python("python9.9")


def test_an_incomplete_release_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    assert release.read_manifest(str(tmp_path)) is None


KNOWN = {"alembic_version": {"heads": ["b"], "revisions": ["a", "b"]}}


def test_judge() -> None:
    assert database.judge({"alembic_version": ["b"]}, KNOWN) == []
    assert database.judge({"alembic_version": ["a"]}, KNOWN) == ["alembic_version"]
    assert database.judge({}, KNOWN) == ["alembic_version"]


def test_judge_refuses_a_newer_database() -> None:
    with pytest.raises(database.DatabaseError, match="newer than this release"):
        database.judge({"alembic_version": ["z"]}, KNOWN)


def test_admin_wrong() -> None:
    assert database.admin_wrong(None) == ["user"]
    assert database.admin_wrong({"exists": False}) == ["user"]
    right = {"exists": True, "role": True, "password": True, "active": True, "email": True}
    assert database.admin_wrong(right) == []
    for name in ("role", "password", "active", "email"):
        assert database.admin_wrong({**right, name: False}) == [name]


def test_a_database_remembers_the_key_that_it_is_encrypted_with() -> None:
    found = {"name": "airflow", "comment": "", "owner": True}
    assert database.fernet_comment(found, ["aa11"]) == "fernet:aa11"
    assert database.fernet_comment({**found, "comment": "ours"}, ["aa11"]) == "ours fernet:aa11"
    assert database.fernet_comment({**found, "comment": "fernet:aa11"}, ["aa11", "bb22"]) == ""
    # Which key is written first says nothing of what is stored, but its re-encryption does.
    both = {**found, "comment": "ours fernet:aa11"}
    assert database.fernet_comment(both, ["bb22", "aa11"]) == ""
    assert database.fernet_comment(both, ["bb22", "aa11"], reencrypted=True) == "ours fernet:bb22"
    assert database.fernet_comment(both, ["aa11"], reencrypted=True) == ""
    # The new key encrypts, the old one still decrypts: until all is re-encrypted, the old one must not be forgotten.
    assert database.fernet_comment({**found, "comment": "x fernet:aa11"}, ["bb22", "aa11"]) == ""
    assert database.fernet_comment({**found, "owner": False}, ["aa11"]) == ""


def test_a_database_of_another_key_is_refused() -> None:
    with pytest.raises(database.DatabaseError, match="database airflow is encrypted with another airflow_fernet_key"):
        database.fernet_comment({"name": "airflow", "comment": "fernet:aa11", "owner": True}, ["bb22"])
