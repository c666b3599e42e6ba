# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is decided about a restore without a server; restoring is tested on the lab's hosts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import postgresql_restore as pr
from ansible_collections.windfarm.airflow.plugins.module_utils.postgresql_backup import BackupError

ID = "20261122T051500Z"
DATABASES = [{"name": "airflow", "owner": "airflow_owner"}, {"name": "results", "owner": "results_owner"}]
MANIFEST: dict[str, Any] = {
    "id": ID,
    "fernet": "aaaa",
    "server": {"version_num": 170006},
    "databases": {
        "airflow": {"revisions": {"alembic_version": ["two"], "alembic_version_fab": ["f"]}, "grants": [], "roles": []},
        "results": {"revisions": {}, "grants": [], "roles": []},
    },
}
MIGRATIONS = {
    "alembic_version": {"heads": ["two"], "revisions": ["one", "two"]},
    "alembic_version_fab": {"heads": ["f"], "revisions": ["f"]},
}


def facts(**comments: str) -> dict[str, Any]:
    """A server with these databases; underscores in their names as they are."""
    found = {name: {"comment": text, "connections": True, "bytes": 1} for name, text in comments.items()}
    return {"version_num": 170009, "roles": ["airflow_owner", "results_owner"], "databases": found, "wal": 0}


def judge(manifest: dict[str, Any] | None = None, keys: tuple[str, ...] = ("bbbb", "aaaa"), **more: Any) -> bool:
    state = {**facts(), **more}
    return pr.judge(MANIFEST if manifest is None else manifest, DATABASES, state, keys, state.pop("migrations", MIGRATIONS))


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MANIFEST), **changes}


def test_what_fits_is_taken() -> None:
    assert judge() is False
    # More in it than is asked for does no harm, and without a key on record nothing can be said.
    more = {**MANIFEST["databases"], "extra": {"revisions": {}}}
    assert judge(changed(databases=more, fernet="")) is False
    assert judge(version_num=150001, manifest=changed(server={"version_num": 150010})) is False


def test_an_older_schema_is_migrated() -> None:
    assert judge(migrations={**MIGRATIONS, "alembic_version": {"heads": ["three"], "revisions": ["one", "two", "three"]}}) is True


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"manifest": changed(databases={"other": {}})}, "of other databases"),
        ({"manifest": changed(databases={"airflow": MANIFEST["databases"]["airflow"]})}, "of other databases"),
        ({"version_num": 160004}, "this server is 16, which cannot read it"),
        ({"keys": ("bbbb",)}, r"another airflow_fernet_key \(fingerprint aaaa\)"),
        ({"roles": ["airflow_owner"]}, "the role results_owner does not exist"),
        ({"migrations": {"alembic_version": {"heads": ["one"], "revisions": ["one"]}}}, "newer schema"),
        ({"migrations": {**MIGRATIONS, "alembic_version_fab": {"heads": ["e"], "revisions": ["e"]}}}, "newer schema"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], word: str) -> None:
    with pytest.raises(BackupError, match=word):
        judge(**given)


def test_names_fit_postgresql() -> None:
    assert pr.beside("airflow", pr.STAGED) == "airflow_restoring"
    long = "ä" * 31
    assert len(pr.beside(long, "_before_20261122T051500Z").encode()) <= 63


def test_marks_replace_each_other_and_leave_the_rest() -> None:
    comment = pr.mark("mine fernet:aaaa", "restoring", ID)
    assert comment == f"mine fernet:aaaa restoring:{ID}"
    assert pr.mark(comment, "restored", ID) == f"mine fernet:aaaa restored:{ID}"
    assert pr.mark(comment, "", "") == "mine fernet:aaaa"
    assert pr.mark("", "restored", ID) == f"restored:{ID}"
    assert pr.marked({"comment": f"x restored:{ID}"}, "restored") == ID
    assert pr.marked({"comment": f"x restoring:{ID}"}, "restored") == ""
    assert pr.marked(None, "restored") == ""


class Restore(pr.Restore):
    def __init__(self, found: dict[str, Any]) -> None:
        self.databases = DATABASES
        self.manifest = MANIFEST
        self.facts = found


PAUSED = f"restore {ID}"


@pytest.mark.parametrize(
    ("comments", "paused", "phase"),
    [
        ({"airflow": "", "results": ""}, "", "new"),
        ({"airflow": "", "results": "", "airflow_restoring": f"restoring:{ID}"}, "", "new"),
        ({"airflow": "", "airflow_restoring": f"restored:{ID}", "results_restoring": f"restoring:{ID}"}, PAUSED, "new"),
        ({"airflow": "", "airflow_restoring": f"restored:{ID}", "results_restoring": f"restored:{ID}"}, "", "staged"),
        # The live ones are gone: what waits may still take its place.
        ({"airflow_restoring": f"restored:{ID}", "results_restoring": f"restored:{ID}"}, PAUSED, "staged"),
        ({"airflow": "", "airflow_restoring": "restored:other", "results_restoring": "restored:other"}, PAUSED, "new"),
        ({"airflow": f"restored:{ID}", "results": f"restored:{ID}"}, PAUSED, "swapped"),
        # Restored once before and running since; or paused by somebody for another reason.
        ({"airflow": f"restored:{ID}", "results": f"restored:{ID}"}, "", "new"),
        ({"airflow": f"restored:{ID}", "results": f"restored:{ID}"}, "restore another", "new"),
        ({"airflow": f"restored:{ID}", "results": f"restored:{ID}", "results_restoring": f"restoring:{ID}"}, PAUSED, "new"),
    ],
)
def test_how_far_it_has_come_is_derived(comments: dict[str, str], paused: str, phase: str) -> None:
    assert Restore(facts(**comments)).phase(paused) == phase


def test_the_swap_is_one_transaction_that_drops_nothing() -> None:
    restore = Restore(facts(airflow="fernet:aaaa", airflow_restoring="", results_restoring=""))
    text = restore._renames(["airflow", "results"], ["airflow"], "20261123T000000Z")
    assert text.startswith("BEGIN;\n")
    assert text.endswith("COMMIT;\n")
    assert text.count("BEGIN") == text.count("COMMIT") == 1
    assert "DROP" not in text
    assert 'ALTER DATABASE "airflow" RENAME TO "airflow_before_20261123T000000Z";' in text
    assert f"IS 'fernet:aaaa replaced:{ID}'" in text
    assert text.index('"airflow" RENAME') < text.index('"airflow_restoring" RENAME TO "airflow"')
    assert "results_before" not in text


def test_the_newest_replaced_database_of_this_restore_is_found() -> None:
    state = facts(
        airflow_before_20261121T000000Z=f"replaced:{ID}",
        airflow_before_20261123T000000Z=f"fernet:a replaced:{ID}",
        airflow_before_20261124T000000Z="replaced:other",
        airflow_before_today=f"replaced:{ID}",
    )
    assert pr.kept(state, "airflow", ID) == "airflow_before_20261123T000000Z"
    assert pr.kept(state, "results", ID) == ""


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (facts(airflow="", results=f"restored:{ID}"), ""),
        (facts(airflow="", results="", results_restoring=f"restored:{ID}"), f"the restore of {ID} has not taken its place"),
        (facts(airflow=""), "results does not exist"),
    ],
)
def test_schedulers_wait_for_a_restore_that_is_half_done(state: dict[str, Any], word: str) -> None:
    why = pr.unfinished(state, ["airflow", "results"])
    assert word in why
    assert bool(why) == bool(word)
    if not word:
        state["databases"]["airflow"]["connections"] = False
        assert "admits nobody" in pr.unfinished(state, ["airflow", "results"])


def test_what_differs_is_found_in_two_sorted_streams() -> None:
    before = [["a", "1", "x"], ["a", "2", "x"], ["b", "1", "x"], ["d", "1", "x"]]
    now = [["a", "1", "x"], ["a", "2", "y"], ["b", "0", "x"], ["c", "1", "x"]]
    found = list(pr.differing(iter(before), iter(now), 2))
    assert found == [(before[1], now[1]), (before[2], None), (before[3], None)]


def test_numbers_are_compared_as_numbers() -> None:
    before = [["a", "-1", "x"], ["a", "2", "x"], ["a", "10", "x"]]
    now = [["a", "2", "x"], ["a", "10", "y"]]
    assert list(pr.differing(iter(before), iter(now), 2, 1)) == [(before[0], None), (before[2], now[1])]


def test_the_report_is_bounded() -> None:
    runs = [["run", "d", f"r{number:03}", "", "", "success", "unknown"] for number in range(60)]
    tasks = [["task", "d", "r000", "t", "-1", "success try 1", "unknown"], ["task", "e", "r", "t", "-1", "none try 0", "x"]]
    lines = pr.report(runs, tasks, most=10)
    assert lines[0] == "d r000: was success, is unknown now, 1 task"
    assert lines[-1] == "… and 51 more runs"
    assert len(lines) == 11
    assert pr.report([], tasks[1:]) == ["e r: 1 task went on since the backup"]


def test_a_backup_is_located(tmp_path: Any) -> None:
    (tmp_path / ID).mkdir()
    assert pr.locate(ID, str(tmp_path)) == str(tmp_path / ID)
    assert pr.locate(f"{tmp_path}/{ID}/", "/nowhere") == str(tmp_path / ID)
    for source, word in (
        ("", "restore_from is missing"),
        ("../x", "neither the id"),
        ("20200101T000000Z", f"the last ones are: {ID}"),
        ("/no/such", "there is no backup /no/such"),
    ):
        with pytest.raises(BackupError, match=word):
            pr.locate(source, str(tmp_path))
