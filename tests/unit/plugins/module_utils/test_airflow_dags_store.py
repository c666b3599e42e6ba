# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trees of DAG files on a real file system."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_dags as dags

NOW = 1_800_000_000.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "lib").mkdir(parents=True)
    (root / "a.py").write_text("a = 1\n")
    (root / "lib" / "b.py").write_text("b = 1\n")
    (root / ".airflowignore").write_text("lib/\n")
    return root


@pytest.fixture
def store(tmp_path: Path) -> dags.Store:
    return dags.Store(str(tmp_path / "srv" / "dags"), os.getgid())


def ship(source: Path, store: dags.Store, now: float = NOW, only: list[str] | None = None) -> dags.Files:
    files = dags.scan(str(source))
    archive = io.BytesIO()
    wanted = only if only is not None else [path for path, entry in files.items() if "link" not in entry]
    dags.pack(str(source), files, wanted, archive)
    archive.seek(0)
    with store.lock():
        store.switch(archive, now)
    return files


def content(store: dags.Store) -> dict[str, str]:
    root = Path(store.folder)
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def trees(store: dags.Store) -> list[str]:
    return sorted(name for name in os.listdir(store.store) if not name.endswith(".json"))


# --- the controller's side -------------------------------------------------------------------------------------------
def test_scan_lists_files_and_leaves_out_caches_and_editors_files(source: Path) -> None:
    for path in (".git/config", "lib/__pycache__/b.pyc", "a.py~", ".a.py.swp", "x.pyc", "notes.txt", "lib/skip/c.py"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    assert list(dags.scan(str(source), ["notes.*", "lib/skip"])) == [".airflowignore", "a.py", "lib/b.py"]


def test_revision_depends_on_contents_names_and_mode_only(source: Path, tmp_path: Path) -> None:
    first = dags.revision(dags.scan(str(source)))
    shutil.copytree(source, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "a.py", (1, 1))
    assert dags.revision(dags.scan(str(tmp_path / "copy"))) == first
    (tmp_path / "copy" / "a.py").chmod(0o755)
    assert dags.revision(dags.scan(str(tmp_path / "copy"))) != first
    (source / "a.py").rename(source / "c.py")
    assert dags.revision(dags.scan(str(source))) != first


def test_links_inside_the_folder_stay_links(source: Path, store: dags.Store) -> None:
    (source / "lib" / "again.py").symlink_to(source / "a.py")
    (source / "library").symlink_to("lib")
    files = ship(source, store)
    assert files["lib/again.py"] == {"link": "../a.py"}
    assert files["library"] == {"link": "lib"}
    assert (Path(store.folder) / "library" / "again.py").read_text() == "a = 1\n"
    assert store.state()[3] == []


@pytest.mark.parametrize("target", ["/etc/hostname", "nowhere", ".."])
def test_links_that_lead_away_are_refused(source: Path, target: str) -> None:
    (source / "away").symlink_to(target)
    with pytest.raises(dags.DagsError, match=r"airflow_dags_source: the symbolic link .*/away leads outside"):
        dags.scan(str(source))


def test_a_socket_or_pipe_is_refused(source: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(dags.DagsError, match="neither a file, a folder nor a link"):
        dags.scan(str(source))


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dags.DagsError, match="is no folder on the controller"):
        dags.scan(str(tmp_path / "none"))


def test_an_unreadable_file_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(dags, "_sha256", refuse)  # root may read everything, so a mode cannot show this
    with pytest.raises(dags.DagsError, match=r"cannot read .*/\.airflowignore \(Permission denied\)"):
        dags.scan(str(source))


def test_a_name_that_is_not_utf8_is_refused(source: Path) -> None:
    Path(os.fsdecode(os.fsencode(source) + b"/\xff.py")).write_text("")
    with pytest.raises(dags.DagsError, match="not UTF-8"):
        dags.scan(str(source))


def test_a_file_that_vanishes_between_listing_and_packing_is_named(source: Path) -> None:
    files = dags.scan(str(source))
    (source / "a.py").write_text("")
    with pytest.raises(dags.DagsError, match=r"a\.py changed while it was shipped"):
        dags.pack(str(source), files, ["a.py"], io.BytesIO())


# --- the host's side -------------------------------------------------------------------------------------------------
def test_first_tree(source: Path, store: dags.Store) -> None:
    assert store.state() == (None, "", {}, [])
    files = ship(source, store)
    assert content(store) == {".airflowignore": "lib/\n", "a.py": "a = 1\n", "lib/b.py": "b = 1\n"}
    name, revision, __, drifted = store.state()
    assert (revision, drifted) == (dags.revision(files), [])
    assert os.readlink(store.folder) == f"dags.revisions/{name}"
    assert name is not None and name.endswith(revision)
    assert oct(os.stat(store.folder + "/lib").st_mode)[-3:] == "750"
    assert oct(os.stat(store.folder + "/a.py").st_mode)[-3:] == "640"


def test_changes_get_a_new_time_and_the_rest_keeps_its_own(source: Path, store: dags.Store) -> None:
    ship(source, store)
    os.utime(f"{store.folder}/a.py", (5, 5))
    before = os.stat(f"{store.folder}/.airflowignore").st_mtime_ns
    (source / "lib" / "b.py").write_text("b = 2\n")
    (source / "new.py").write_text("")
    ship(source, store, NOW + 1)
    assert os.stat(f"{store.folder}/.airflowignore").st_mtime_ns == before
    for path in ("a.py", "lib/b.py", "new.py"):
        assert os.stat(f"{store.folder}/{path}").st_mtime > time.time()


def test_what_is_gone_from_the_source_is_removed(source: Path, store: dags.Store) -> None:
    ship(source, store)
    shutil.rmtree(source / "lib")
    ship(source, store, NOW + 1)
    assert content(store) == {".airflowignore": "lib/\n", "a.py": "a = 1\n"}


def test_only_missing_contents_are_needed(source: Path, store: dags.Store) -> None:
    ship(source, store)
    (source / "a.py").write_text("a = 2\n")
    ship(source, store, NOW + 1, only=["a.py"])
    assert content(store)["a.py"] == "a = 2\n"
    assert content(store)["lib/b.py"] == "b = 1\n"
    (source / "a.py").write_text("a = 3\n")
    with pytest.raises(dags.DagsError, match=r"a\.py changed on this host"):
        ship(source, store, NOW + 2, only=[])
    assert content(store)["a.py"] == "a = 2\n"
    assert not [name for name in trees(store) if name.startswith(".new")]


def test_an_edit_on_the_host_is_seen_and_restored(source: Path, store: dags.Store) -> None:
    ship(source, store)
    Path(store.folder, "a.py").write_text("a = 9\n")
    Path(store.folder, "extra.py").write_text("")
    Path(store.folder, "lib", "b.py").unlink()
    assert store.state()[3] == ["a.py", "extra.py", "lib/b.py"]
    ship(source, store, NOW)  # the same second and the same revision
    assert content(store) == {".airflowignore": "lib/\n", "a.py": "a = 1\n", "lib/b.py": "b = 1\n"}
    assert store.state()[3] == []


def test_bytecode_of_an_operators_own_run_is_no_drift(source: Path, store: dags.Store) -> None:
    ship(source, store)
    os.mkdir(f"{store.folder}/__pycache__")
    Path(store.folder, "__pycache__", "a.pyc").write_text("x")
    assert store.state()[3] == []


def test_a_wider_mode_is_drift(source: Path, store: dags.Store) -> None:
    ship(source, store)
    os.chmod(f"{store.folder}/a.py", 0o644)
    os.chmod(f"{store.folder}/lib", 0o700)
    assert store.state()[3] == ["a.py", "lib/"]
    ship(source, store, NOW + 1)
    assert store.state()[3] == []


def test_old_trees_go_an_hour_after_they_were_replaced(source: Path, store: dags.Store) -> None:
    def change(now: float) -> None:
        (source / "a.py").write_text(f"a = {now}\n")
        ship(source, store, now)

    change(NOW)
    first = trees(store)
    change(NOW + 10_000)  # the first one was in use until now
    change(NOW + 13_000)
    assert len(trees(store)) == 3
    change(NOW + 13_601)
    assert len(trees(store)) == 3 and first[0] not in trees(store)
    assert sorted(name + ".json" for name in trees(store)) == sorted(
        name for name in os.listdir(store.store) if name.endswith(".json")
    )


def test_leftovers_of_an_interrupted_run_are_cleared(source: Path, store: dags.Store) -> None:
    ship(source, store)
    os.makedirs(f"{store.store}/.new-dead/x")
    os.symlink("nowhere", f"{store.store}/.link")
    Path(store.store, "20260101T000000-dead.json").write_text("{")
    (source / "a.py").write_text("a = 2\n")
    ship(source, store, NOW + 1)
    assert len(trees(store)) == 2
    assert content(store)["a.py"] == "a = 2\n"


def test_a_lost_or_damaged_record_means_a_fresh_tree(source: Path, store: dags.Store) -> None:
    ship(source, store)
    Path(f"{store.store}/{store.current()}.json").write_text("{")
    assert store.state()[1:] == ("", {}, [])
    ship(source, store, NOW + 1)
    assert store.state()[3] == [] and content(store)["a.py"] == "a = 1\n"


def test_a_foreign_folder_file_or_link_is_refused(source: Path, store: dags.Store, tmp_path: Path) -> None:
    folder = Path(store.folder)
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text("")
    with pytest.raises(dags.DagsError, match="move it away"):
        ship(source, store)
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(dags.DagsError, match="move it away"):
        ship(source, store)
    folder.unlink()
    folder.symlink_to(tmp_path)
    with pytest.raises(dags.DagsError, match="did not make: remove the link"):
        ship(source, store)
    assert os.readlink(folder) == str(tmp_path)


def test_an_empty_folder_is_replaced(source: Path, store: dags.Store) -> None:
    os.makedirs(store.folder)
    ship(source, store)
    assert content(store)["a.py"] == "a = 1\n"


@pytest.mark.parametrize("folder", ["srv/dags", "/dags", "/", "/x/.."])
def test_a_folder_that_is_no_safe_path_is_refused(folder: str) -> None:
    with pytest.raises(dags.DagsError, match="airflow_dags_folder"):
        dags.Store(folder, 0)


def test_an_archive_cannot_write_outside(source: Path, store: dags.Store) -> None:
    archive = io.BytesIO()
    dags.pack(str(source), {"../../evil": {"sha256": "0", "size": 6, "executable": False}}, [], archive)
    archive.seek(0)
    with store.lock(), pytest.raises(dags.DagsError, match="leads outside"):
        store.switch(archive, NOW)


def test_a_reader_sees_the_old_tree_or_the_new_one(source: Path, store: dags.Store) -> None:
    """Each tree's files all hold the tree's number: a torn one would hold two."""
    for number in range(20):
        (source / f"f{number}.py").write_text("0")
    ship(source, store)
    stop = threading.Event()
    torn: list[set[str]] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            descriptor = os.open(store.folder, os.O_RDONLY)  # what a reader that began in a tree goes on reading
            try:
                seen = set()
                for number in range(20):
                    with open(os.open(f"f{number}.py", os.O_RDONLY, dir_fd=descriptor)) as handle:
                        seen.add(handle.read())
            finally:
                os.close(descriptor)
            reads += 1
            if len(seen) != 1:
                torn.append(seen)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for generation in range(1, 15):
            for number in range(20):
                (source / f"f{number}.py").write_text(str(generation))
            ship(source, store, NOW + generation)
    finally:
        stop.set()
        thread.join()
    assert torn == [] and reads > 14


# --- diffs -----------------------------------------------------------------------------------------------------------
def test_compare_and_summary(source: Path) -> None:
    before = dags.scan(str(source))
    (source / "a.py").write_text("a = 2\n")
    (source / "c.py").write_text("")
    (source / ".airflowignore").unlink()
    difference = dags.compare(before, dags.scan(str(source)))
    assert difference == {"added": ["c.py"], "changed": ["a.py"], "removed": [".airflowignore"]}
    assert dags.summary(difference, ["a.py", "lib/b.py"]) == (
        "added: c.py\nchanged: a.py\nremoved: .airflowignore\nrestored: lib/b.py\n"
    )


@pytest.mark.parametrize(("content_", "shown"), [(b"x\n", "x\n"), (b"\0", None), (b"\xff", None), (b"x" * 70_000, None)])
def test_only_small_texts_are_shown(content_: bytes, shown: str | None) -> None:
    assert dags.text(content_) == shown
