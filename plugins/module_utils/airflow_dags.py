# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ship a folder of DAG files as numbered, complete trees behind one symbolic link.

On the controller: `scan` lists the source, `pack` makes the archive. On the host: `Store` builds a new tree beside
the old one and renames the link, so that a reader sees either the old tree or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

MANIFEST = "manifest.json"
# What editors, interpreters and version control leave in a folder and no Airflow process needs.
EXCLUDED = (
    "__pycache__", "*.pyc", "*.pyo", ".git", ".hg", ".svn", ".idea", ".vscode", ".mypy_cache", ".pytest_cache",
    ".ruff_cache", ".DS_Store", "*~", "*.swp", "*.swo", ".#*", "#*#", "*.orig", "*.rej",
)  # fmt: skip
FOLDER_MODE, FILE_MODE, PARENT_MODE = 0o750, 0o640, 0o755
DIFF_FILE_BYTES = 64 * 1024
DIFF_FILES = 200

Files = dict[str, dict[str, Any]]


class DagsError(Exception):
    """One line for the user: what is wrong and what cures it."""


def _sha256(path: str) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _excluded(relative: str, patterns: tuple[str, ...]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(relative, each) for each in patterns)


def _raise(error: OSError) -> None:
    raise error


def scan(source: str, exclude: list[str] | None = None) -> Files:
    """Every file to ship: relative path -> {sha256, size, executable} or {link}."""
    root = os.path.realpath(source)
    if not os.path.isdir(root):
        raise DagsError(f"airflow_dags_source: {source} is no folder on the controller: create it or correct the path")
    patterns = (*EXCLUDED, *(exclude or []))
    files: Files = {}
    try:
        for parent, folders, names in os.walk(root, onerror=_raise):
            prefix = "" if parent == root else os.path.relpath(parent, root) + "/"
            links = [each for each in folders if os.path.islink(os.path.join(parent, each))]
            folders[:] = sorted(each for each in folders if each not in links and not _excluded(prefix + each, patterns))
            for name in names + links:
                if not _excluded(prefix + name, patterns):
                    files[prefix + name] = _entry(root, prefix + name)
    except OSError as error:
        raise DagsError(
            f"airflow_dags_source: cannot read {error.filename} ({error.strerror}): make it readable for the user "
            "who runs ansible-playbook, or name it in airflow_dags_exclude"
        ) from error
    return dict(sorted(files.items()))


def _entry(root: str, relative: str) -> dict[str, Any]:
    path = os.path.join(root, relative)
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise DagsError(f"airflow_dags_source: the name of {path!a} is not UTF-8: rename the file") from None
    if os.path.islink(path):
        target = os.path.realpath(path)
        if not os.path.exists(target) or os.path.commonpath([root, target]) != root:
            raise DagsError(
                f"airflow_dags_source: the symbolic link {path} leads outside the folder or nowhere: replace it by the "
                "file itself, or name it in airflow_dags_exclude"
            )
        return {"link": os.path.relpath(target, os.path.dirname(path))}
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise DagsError(
            f"airflow_dags_source: {path} is neither a file, a folder nor a link: remove it, or name it in airflow_dags_exclude"
        )
    digest, size = _sha256(path)
    return {"sha256": digest, "size": size, "executable": bool(mode & stat.S_IXUSR)}


def revision(files: Files) -> str:
    """The name of a tree: equal for equal contents, whatever the time or the controller."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def pack(source: str, files: Files, wanted: list[str], target: IO[bytes]) -> None:
    """Write a gzipped tar: the manifest of all files, then the contents of the wanted ones."""
    root = os.path.realpath(source)
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        manifest = json.dumps(files).encode()
        header = tarfile.TarInfo(MANIFEST)
        header.size = len(manifest)
        archive.addfile(header, io.BytesIO(manifest))
        for relative in wanted:
            header = tarfile.TarInfo(f"files/{relative}")
            header.size = files[relative]["size"]
            try:
                with open(os.path.join(root, relative), "rb") as handle:
                    archive.addfile(header, handle)
            except OSError as error:
                raise DagsError(
                    f"airflow_dags_source: {os.path.join(root, relative)} changed while it was shipped "
                    f"({error.strerror or error}): run again"
                ) from error


def unpack(archive: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """The members of `pack`, in order: the manifest first."""
    with tarfile.open(fileobj=archive, mode="r|gz") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None:
                yield member.name, content


def contents(files: Files) -> dict[str, str]:
    """What of a file counts in a comparison of two trees."""
    return {path: json.dumps(_wanted(entry), sort_keys=True) for path, entry in files.items()}


def _wanted(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("sha256", "size", "executable", "link") if key in entry}


def compare(before: Files, after: Files) -> dict[str, list[str]]:
    """Paths that are new, differ and are gone."""
    old, new = contents(before), contents(after)
    return {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(path for path in new.keys() & old.keys() if new[path] != old[path]),
        "removed": sorted(old.keys() - new.keys()),
    }


class Store:
    """The trees of one host: FOLDER -> FOLDER.revisions/TIME-REVISION, with TIME-REVISION.json beside each tree."""

    def __init__(self, folder: str, gid: int, keep_seconds: int = 3600) -> None:
        self.folder = os.path.normpath(folder)
        self.gid = gid
        self.keep_seconds = keep_seconds
        self.store = f"{self.folder}.revisions"
        if not os.path.isabs(folder) or self.folder.count("/") < 2:
            raise DagsError(f"airflow_dags_folder: {folder!r} must be an absolute path below a folder, such as /srv/airflow/dags")

    # --- reading -----------------------------------------------------------------------------------------------------
    def current(self) -> str | None:
        """The tree that the link names; refuses what this store did not make."""
        try:
            target = os.readlink(self.folder)
        except FileNotFoundError:
            return None
        except OSError:
            if os.path.isdir(self.folder) and not os.listdir(self.folder):
                return None
            raise DagsError(
                f"{self.folder} on this host is not the link that airflow_dags makes: move it away after checking "
                "that its files are in airflow_dags_source, or set airflow_dags_folder to another path"
            ) from None
        parent, name = os.path.split(os.path.join(os.path.dirname(self.folder), target))
        if parent != self.store:
            raise DagsError(
                f"{self.folder} on this host is a link to {target}, which airflow_dags did not make: remove the link, "
                "or set airflow_dags_folder to another path"
            )
        return name

    def recorded(self, name: str | None) -> dict[str, Any]:
        """What was written about a tree when it was made; empty where that is unknown."""
        try:
            with open(f"{self.store}/{name}.json", encoding="utf-8") as handle:
                record = json.load(handle)
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def drift(self, name: str, files: Files) -> list[str]:
        """Paths of a tree that are no longer as they were made (judged by stat, as git does, so it is cheap)."""
        found = set()
        drifted = []
        tree = f"{self.store}/{name}"
        for parent, folders, names in os.walk(tree):
            folders[:] = [each for each in folders if each != "__pycache__"]
            prefix = "" if parent == tree else parent[len(tree) + 1 :] + "/"
            if self._drifted_folder(parent):
                drifted.append(prefix or "./")
            for each in names + [each for each in folders if os.path.islink(os.path.join(parent, each))]:
                path = prefix + each
                found.add(path)
                if path not in files or self._stat(f"{tree}/{path}") != files[path].get("stat"):
                    drifted.append(path)
        return sorted({*drifted, *(files.keys() - found)})

    def _drifted_folder(self, path: str) -> bool:
        info = os.lstat(path)
        return (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) != (FOLDER_MODE, os.geteuid(), self.gid)

    @staticmethod
    def _stat(path: str) -> list[Any]:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return [os.readlink(path)]
        return [info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns]

    def state(self) -> tuple[str | None, str, Files, list[str]]:
        """(tree, its revision, its files, those that drifted)."""
        name = self.current()
        record = self.recorded(name)
        files = record.get("files", {})
        if name is None or not record:
            return name, "", {}, []
        return name, record.get("revision", ""), files, self.drift(name, files)

    # --- writing -----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer per host; also makes the store's own folder."""
        parent = os.path.dirname(self.folder)
        if not os.path.isdir(parent):
            os.makedirs(parent)
            # Whatever the umask is, the components' users must get through.
            os.chmod(parent, PARENT_MODE)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.store, mode=FOLDER_MODE)
        os.chown(self.store, -1, self.gid)
        os.chmod(self.store, FOLDER_MODE)
        # Not the store itself: whoever may read it, such as a task, could hold it and so stop every delivery.
        descriptor = os.open(f"{self.store}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def switch(self, archive: IO[bytes], now: float | None = None) -> None:
        """Build the tree of the archive (unchanged files come from the current tree), then rename the link."""
        now = time.time() if now is None else now
        old_name, __, old_files, drifted = self.state()
        stage = tempfile.mkdtemp(prefix=".new-", dir=self.store)
        try:
            members = unpack(archive)
            files: Files = json.load(next(members)[1])
            name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{revision(files)}"
            self._fill(stage, files, members, old_name, {k: v for k, v in old_files.items() if k not in drifted})
            self._seal(stage, files, kept=set(old_files) - set(drifted) - set(compare(old_files, files)["changed"]))
            while os.path.lexists(f"{self.store}/{name}"):
                name += "+"
            self._record(name, files, now)
            os.rename(stage, f"{self.store}/{name}")
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        self._point(name)
        if old_name is not None:
            with contextlib.suppress(FileNotFoundError):
                # From here on this time says when the tree was replaced: prune counts from it.
                os.utime(f"{self.store}/{old_name}", (now, now))
        self.prune(now)

    def _fill(
        self, stage: str, files: Files, members: Iterator[tuple[str, IO[bytes]]], old_name: str | None, old_files: Files
    ) -> None:
        for member, content in members:
            path = member.partition("/")[2]
            if old_files.get(path, {}).get("sha256") == files[path]["sha256"]:
                continue
            target = self._place(stage, path)
            with open(target, "xb") as handle:
                shutil.copyfileobj(content, handle, 1 << 20)
            if _sha256(target)[0] != files[path]["sha256"]:
                raise DagsError(f"airflow_dags_source: {path} changed while it was shipped: run again")
        for path, entry in files.items():
            target = self._place(stage, path)
            if "link" in entry:
                os.symlink(entry["link"], target)
            elif not os.path.lexists(target):
                source = f"{self.store}/{old_name}/{path}"
                if path not in old_files or old_files[path].get("sha256") != entry["sha256"]:
                    raise DagsError(f"airflow_dags: {path} changed on this host while it was shipped: run again")
                # A hard link keeps the time of an unchanged file, so the dag processor has no reason to parse it again.
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copy2(source, target)

    @staticmethod
    def _place(stage: str, path: str) -> str:
        target = os.path.normpath(f"{stage}/{path}")
        if not target.startswith(f"{stage}/"):
            raise DagsError(f"airflow_dags: {path} leads outside the folder")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return target

    def _seal(self, stage: str, files: Files, kept: set[str]) -> None:
        """Owner, modes and times; then what drift compares with."""
        for parent, __, __ in os.walk(stage):
            os.chown(parent, -1, self.gid)
            os.chmod(parent, FOLDER_MODE)
        # A parser that reads the old file just now may finish after the rename: its end must not look later than this.
        changed = time.time() + 2
        for path, entry in files.items():
            target = f"{stage}/{path}"
            if "link" not in entry:
                os.chown(target, os.geteuid(), self.gid)
                os.chmod(target, FOLDER_MODE if entry["executable"] else FILE_MODE)
                if path not in kept:
                    os.utime(target, (changed, changed))
            entry["stat"] = self._stat(target)

    def _record(self, name: str, files: Files, now: float) -> None:
        record = {
            "revision": revision({k: _wanted(v) for k, v in files.items()}),
            "shipped": round(now),
            "files": files,
        }
        with open(f"{self.store}/{name}.json", "w", encoding="utf-8") as handle:
            os.fchmod(handle.fileno(), FILE_MODE)
            os.fchown(handle.fileno(), -1, self.gid)
            json.dump(record, handle)

    def _point(self, name: str) -> None:
        link = f"{self.store}/.link"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(f"{os.path.basename(self.store)}/{name}", link)
        if not os.path.islink(self.folder) and os.path.isdir(self.folder):
            os.rmdir(self.folder)
        os.rename(link, self.folder)

    def prune(self, now: float) -> None:
        """Remove what interrupted runs left, and trees that were replaced long ago."""
        current = self.current()
        names = sorted(os.listdir(self.store))
        for name in names:
            path = f"{self.store}/{name}"
            if name.startswith(".new-"):
                shutil.rmtree(path)
            elif name.endswith(".json") and name[:-5] not in names and name[:-5] != current:
                os.unlink(path)
            elif os.path.isdir(path) and name != current and os.stat(path).st_mtime < now - self.keep_seconds:
                shutil.rmtree(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}.json")


def summary(difference: dict[str, list[str]], drifted: list[str]) -> str:
    """The list that `--diff` shows before the texts."""
    lines = [f"{kind}: {path}" for kind, paths in difference.items() for path in paths]
    seen = {path for paths in difference.values() for path in paths}
    return "".join(f"{line}\n" for line in lines + [f"restored: {path}" for path in drifted if path not in seen])


def text(content: bytes | None) -> str | None:
    """What a diff can show of a file."""
    if content is None or len(content) > DIFF_FILE_BYTES or b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
