# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import removal, services


@pytest.fixture(name="fact")
def _fact(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = tmp_path / "windfarm_airflow.fact"
    monkeypatch.setattr(removal, "FACT", str(path))
    monkeypatch.setattr(removal, "write", lambda path, text, _wanted: pathlib.Path(path).write_text(text))
    return path


def test_a_removal_is_noted_once_and_the_rest_kept(fact: pathlib.Path) -> None:
    fact.write_text('{"fingerprints": {"x": ["1"]}}')
    assert removal.mark(["worker3"], "now", True)[0] == ["note that worker3 was removed"]
    assert "removed" not in fact.read_text()
    assert removal.mark(["worker3"], "now", False)[1] == {"worker3": "now"}
    assert removal.mark(["worker3", "worker4"], "later", False) == (
        ["note that worker4 was removed"],
        {"worker3": "now", "worker4": "later"},
    )
    assert json.loads(fact.read_text()) == {"fingerprints": {"x": ["1"]}, "removed": {"worker3": "now", "worker4": "later"}}


def test_a_host_without_the_fact_gets_one(fact: pathlib.Path) -> None:
    removal.mark(["worker3"], "now", False)
    assert json.loads(fact.read_text()) == {"removed": {"worker3": "now"}}


def test_removals_that_are_over_are_forgotten(fact: pathlib.Path) -> None:
    fact.write_text('{"fingerprints": {"x": ["1"]}, "removed": {"worker3": "now", "worker4": "now"}}')
    assert removal.forget(["worker4"], True)[0] == ["forget that worker3 was removed"] and "worker3" in fact.read_text()
    assert removal.forget(["worker4"], False) == (["forget that worker3 was removed"], {"worker4": "now"})
    assert removal.forget(["worker4"], False)[0] == []
    assert removal.forget([], False)[0] == ["forget that worker4 was removed"]
    # As the role writes it, which would be a change otherwise.
    assert fact.read_text() == '{"fingerprints": {"x": ["1"]}}'


def test_a_server_that_only_had_the_note_keeps_no_file(fact: pathlib.Path) -> None:
    assert removal.forget([], False) == ([], {})
    removal.mark(["worker3"], "now", False)
    removal.forget([], False)
    assert not fact.exists()


def test_a_worker_that_runs_is_cleaned_only_on_paper(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal.drain, "look", lambda: {"units": {}})
    monkeypatch.setattr(removal.drain, "busy", lambda _seen: ["airflow-worker@default-a.service"])
    for step in ("units", "haproxy", "folders", "accounts", "remove"):
        monkeypatch.setattr(removal.Cleaning, step, lambda *_arguments: None)
    cleaning(tmp_path, check=True).clean()
    with pytest.raises(removal.RemovalError, match="has not ended; drain the host first"):
        cleaning(tmp_path).clean()


RELEASE = "opt/airflow/releases/3.3.2-0123456789"


def cleaning(tmp_path: pathlib.Path, check: bool = False) -> removal.Cleaning:
    return removal.Cleaning(
        str(tmp_path / "opt/airflow/releases"),
        str(tmp_path / "srv/airflow/dags"),
        str(tmp_path / "srv/airflow/plugins"),
        "x",
        check,
    )


def test_what_others_put_into_its_folders_stays(tmp_path: pathlib.Path) -> None:
    for path in (RELEASE, "opt/airflow/cache", "opt/airflow/uv", "srv/airflow/dags.revisions/1", "srv/airflow/plugins"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("releases/.history", "releases/.lock", "cache/CACHEDIR.TAG", f"uv/{'0' * 16}"):
        (tmp_path / "opt/airflow" / path).write_text("")
    (tmp_path / "srv/airflow/dags").symlink_to("dags.revisions/1")
    (tmp_path / "srv/airflow/plugins/own.py").write_text("")
    found = cleaning(tmp_path)
    found.folders()
    assert [path.name for path in sorted(tmp_path.glob("srv/airflow/*"))] == ["plugins"]
    assert not (tmp_path / "opt/airflow").exists()
    assert found.notes == [f"{tmp_path}/srv/airflow/plugins holds files that this collection has not put there, and stays"]
    again = cleaning(tmp_path)
    again.folders()
    assert again.actions == []


def test_what_lies_beside_the_releases_stays(tmp_path: pathlib.Path) -> None:
    for path in (RELEASE, "opt/airflow/releases/jdk-21", "opt/airflow/cache/squid", "opt/airflow/uv/bin"):
        (tmp_path / path).mkdir(parents=True)
    cleaning(tmp_path).folders()
    assert sorted(str(path.relative_to(tmp_path / "opt/airflow")) for path in tmp_path.glob("opt/airflow/*/*")) == [
        "cache/squid", "releases/jdk-21", "uv/bin",
    ]  # fmt: skip


def test_a_folder_of_dag_files_that_is_not_ours_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "srv/airflow/dags").mkdir(parents=True)
    (tmp_path / "srv/airflow/dags/own.py").write_text("")
    found = cleaning(tmp_path)
    found.folders()
    assert (tmp_path / "srv/airflow/dags/own.py").exists() and "stays" in found.notes[0]


def test_an_interrupted_trial_ends_first(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(services, "UNITS", str(tmp_path))
    monkeypatch.setattr(removal.canary, "UNIT_FILE", str(tmp_path / "trial"))
    monkeypatch.setattr(removal.canary, "clear", lambda: ended.append(True))
    cleaning(tmp_path).units()
    assert ended == []
    (tmp_path / "trial").touch()
    predicted, found = cleaning(tmp_path, check=True), cleaning(tmp_path)
    predicted.units()
    assert ended == []
    found.units()
    assert ended == [True] and found.actions == predicted.actions == ["stop airflow-canary.service"]


def test_units_of_others_stay(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(services, "UNITS", str(tmp_path))
    monkeypatch.setattr(services, "systemctl", lambda *words: said.append(words))
    monkeypatch.setattr(services, "show", lambda units: {unit: {"ActiveState": "failed"} for unit in units})
    ours, theirs = tmp_path / "airflow-logs.service", tmp_path / "airflow-exporter.service"
    ours.write_text("# Managed by windfarm.airflow: changes here are lost.\n")
    theirs.write_text("[Unit]\n")
    (tmp_path / "airflow-logs.service.d").mkdir()
    predicted = cleaning(tmp_path, check=True)
    predicted.units()
    assert said == [] and ours.exists()
    found = cleaning(tmp_path)
    found.units()
    assert found.actions == predicted.actions
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]
    assert said == [
        ("--quiet", "disable", "--now", ours.name),
        ("reset-failed", ours.name),
        ("daemon-reload",),
    ]
