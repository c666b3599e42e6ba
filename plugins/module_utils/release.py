# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases of Airflow on one host: root-owned virtual environments side by side. Runs on the host."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Written last: a directory without it is what an interrupted run left.
MANIFEST = "release.json"
# 375 MB of a compiled release (3.3.2, measured), which uv's cache shares where it can link, and as much for what users add.
NEEDED_MB = 800
# Beside the releases: the names of those that were proven to serve, the newest last.
HISTORY = ".history"
# VERSION-HASH: action plugin airflow_release gives it.
NAME = re.compile(r"[0-9]+(\.[0-9]+)+[a-z0-9.]*-[0-9a-f]{10}")
# Table of the revision in the database -> folder of the migrations in site-packages.
MIGRATIONS = {
    "alembic_version": "airflow/migrations/versions",
    "alembic_version_fab": "airflow/providers/fab/migrations/versions",
}
_REVISION = re.compile(r"^revision\s*(?::[^=]+)?=\s*[\"']([^\"']+)[\"']", re.M)
_DOWN = re.compile(r"^down_revision\s*(?::[^=]+)?=\s*(.+)$", re.M)


class ReleaseError(Exception):
    """What could not be done, in one line that ends with the cure."""


def describe_python(python: str) -> dict[str, str]:
    """Path, minor version and architecture of the interpreter that the release is built with."""
    path = shutil.which(python)
    if not path:
        raise ReleaseError(f"airflow_python: there is no {python} on this host; install it or name another interpreter")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()  # pylint: disable=ansible-bad-function
    return {"path": path, "version": version, "architecture": platform.machine()}


def read_manifest(path: str) -> dict[str, Any] | None:
    """What the release says about itself; None where there is no complete release."""
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None


def history(directory: str) -> list[str]:
    """Names of the releases that have served on this host, the newest last."""
    try:
        with open(os.path.join(directory, HISTORY), encoding="utf-8") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def remember(path: str) -> None:
    """Note that a release serves."""
    directory, name = os.path.split(path)
    known = history(directory)
    if not name or not os.path.isdir(directory) or known[-1:] == [name]:
        return
    new = os.path.join(directory, f"{HISTORY}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.writelines(f"{one}\n" for one in [*known, name][-20:])
    os.rename(new, os.path.join(directory, HISTORY))


def previous(directory: str, name: str) -> str:
    """The release that served before this one; empty where none is known."""
    return next((one for one in reversed(history(directory)) if one != name), "")


def in_use(directory: str) -> set[str]:
    """Names of the releases that a process runs from, or that a unit on the disk names."""
    pattern = re.compile(re.escape(directory.rstrip("/")).encode() + rb"/([A-Za-z0-9][^/\0\s:\"']*)")
    found: set[bytes] = set()
    patterns = ("/etc/systemd/system/airflow-*.service", "/etc/airflow/*/unit", "/etc/airflow/.good/*/unit.service")
    units = [path for one in patterns for path in glob.glob(one)]
    processes = [f"/proc/{pid}/{name}" for pid in os.listdir("/proc") if pid.isdigit() for name in ("cmdline", "environ", "maps")]
    for path in units + processes:
        try:
            with open(path, "rb") as file:
                found.update(pattern.findall(file.read()))
        # Processes end while they are looked at; kernel threads have no maps.
        except OSError:
            continue
    return {name.decode(errors="replace") for name in found}


def present_in(directory: str) -> list[str]:
    """Names of the releases in a folder, also of those that an interrupted run left; whatever else is there is somebody's own."""
    found = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [name for name in found if NAME.fullmatch(name) and os.path.isdir(os.path.join(directory, name))]


def superfluous(directory: str, name: str) -> list[str]:
    """Releases that nothing needs: not the one that is asked for, nor the one before it, nor any that runs."""
    present = present_in(directory)
    # Two are always kept, so the processes need not be looked at.
    if len(present) <= 2:
        return []
    # What serves now is the newest of the history: a release that is only asked for does not push out the one before it.
    now = next(iter(history(directory)[-1:]), name)
    kept = {name, previous(directory, name), now, previous(directory, now)} | in_use(directory)
    return [one for one in present if one not in kept]


def prune(directory: str, names: Sequence[str]) -> None:
    with exclusive(directory):
        for name in names:
            path = os.path.join(directory, name)
            # Without it the rest is what an interrupted run left.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, MANIFEST))
            shutil.rmtree(path)


def heads(site_packages: str) -> dict[str, dict[str, list[str]]]:
    """Revisions and heads of each migration table, read from the files: importing them would start Airflow."""
    tables = {}
    for table, folder in MIGRATIONS.items():
        known, followed = set(), set()
        for name in glob.glob(os.path.join(site_packages, folder, "*.py")):
            with open(name, encoding="utf-8") as file:
                text = file.read()
            revision, down = _REVISION.search(text), _DOWN.search(text)
            if revision and down:
                known.add(revision[1])
                followed.update(re.findall(r"[\"']([^\"']+)[\"']", down[1]))
        tables[table] = {"heads": sorted(known - followed), "revisions": sorted(known)}
    return tables


@contextlib.contextmanager
def exclusive(directory: str) -> Iterator[None]:
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open(os.path.join(directory, ".lock"), "w", encoding="utf-8") as file:
        # Reading it is enough to hold it.
        os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_uv(arguments: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(arguments, env=dict(environment), capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
    if done.returncode:
        words = " ".join(done.stderr.split())
        for secret in (environment.get("UV_DEFAULT_INDEX"), environment.get("UV_INDEX"), environment.get("HTTPS_PROXY")):
            if secret and "@" in secret:
                words = words.replace(secret, "<hidden>")
        raise ReleaseError(f"uv {arguments[1]} failed: {words[-1500:]}")


def uv_environment(parameters: Mapping[str, Any], cache: str) -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": cache,
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_TIMEOUT": "120",
    }
    # In the environment, not in argv: an index address may hold a password.
    for variable, parameter in (
        ("UV_DEFAULT_INDEX", "index_url"),
        ("UV_INDEX", "extra_index_url"),
        ("SSL_CERT_FILE", "ca_bundle"),
        ("HTTPS_PROXY", "proxy"),
        ("HTTP_PROXY", "proxy"),
    ):
        if parameters.get(parameter):
            environment[variable] = parameters[parameter]
    return environment


def build(path: str, python: str, parameters: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """A complete release at `path`, or none: bytecode compiled, hashes verified, dependencies checked."""
    releases = os.path.dirname(path)
    root = os.path.dirname(releases)
    uv = os.path.join(root, "uv", parameters["uv_digest"])
    os.umask(0o022)
    with exclusive(releases):
        if read_manifest(path):
            return
        shutil.rmtree(path, ignore_errors=True)
        free = shutil.disk_usage(releases).free // 2**20
        if free < NEEDED_MB:
            raise ReleaseError(
                f"{releases} has {free} MB left, a release and the packages that it is made of need {NEEDED_MB}; make room, "
                "or set airflow_releases_directory"
            )
        if parameters["uv_upload"]:
            os.makedirs(os.path.dirname(uv), exist_ok=True)
            shutil.copyfile(parameters["uv_upload"], f"{uv}.new")
            os.chmod(f"{uv}.new", 0o755)  # noqa: S103  (a public program)
            os.rename(f"{uv}.new", uv)
        # On the file system of the releases, so that packages are linked, not copied.
        cache = os.path.join(root, "cache")
        # Whoever may open uv's lock files can hold them, and stop every later build.
        os.makedirs(cache, exist_ok=True)
        os.chmod(cache, 0o700)
        environment = uv_environment(parameters, cache)
        run_uv([uv, "venv", "--quiet", "--python", python, path], environment)
        interpreter = os.path.join(path, "bin", "python")
        sync = [uv, "pip", "sync", "--quiet", "--python", interpreter, "--require-hashes", "--compile-bytecode"]
        if parameters["wheels_upload"]:
            wheels = os.path.join(path, "wheels")
            with tarfile.open(parameters["wheels_upload"]) as archive:
                for member in archive.getmembers():
                    if not member.isfile() or "/" in member.name:
                        raise ReleaseError(f"airflow_wheel_directory: {member.name} is not a plain file")
                archive.extractall(wheels)  # noqa: S202  (plain files without a folder, checked above)
            sync += ["--no-index", "--find-links", wheels]
        run_uv([*sync, parameters["lock_upload"]], environment)
        run_uv([uv, "pip", "check", "--quiet", "--python", interpreter], environment)
        shutil.rmtree(os.path.join(path, "wheels"), ignore_errors=True)
        (site_packages,) = glob.glob(os.path.join(path, "lib", "python*", "site-packages"))
        shutil.copyfile(parameters["module_upload"], os.path.join(site_packages, "windfarm_airflow.py"))
        # uv makes it writable for everybody, and nothing changes a release.
        for lock in glob.glob(os.path.join(releases, "*", ".lock")):
            os.unlink(lock)
        tables = heads(site_packages)
        if not all(table["heads"] for table in tables.values()):
            raise ReleaseError("the lock holds no apache-airflow or no apache-airflow-providers-fab; add both")
        # Before the file that calls it complete: a power loss must not leave one with empty files.
        os.sync()
        handle = os.path.join(path, f".{MANIFEST}")
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({**manifest, "migrations": tables}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.rename(handle, os.path.join(path, MANIFEST))
