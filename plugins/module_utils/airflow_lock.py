# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks: complete lists of hash-pinned packages, one file per Airflow release and Python version."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.windfarm.airflow.plugins.module_utils.problem import Problem, ProblemError

MARK = "# windfarm.airflow lock: "
SHIPPED = os.path.join("roles", "airflow", "files", "locks")
LOCK_PLAYBOOK = "run the playbook windfarm.airflow.lock (playbooks/lock.yml) with this inventory"
_NAME = re.compile(r"airflow-(?P<version>[0-9][^-]*)-py(?P<python>[0-9]+\.[0-9]+)(?:-[0-9a-f]{8})?\.txt")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?:==(?P<version>[^\s;]+)| @ (?P<url>\S+))")
_DIRECT = re.compile(r"@\s*(?P<url>[A-Za-z][A-Za-z0-9+.-]*://\S+|\S+)")


class LockError(ProblemError):
    """A lock is missing, stale or impossible."""


def lock_name(version: str, python: str, requirements: Iterable[str] = ()) -> str:
    """With requirements: of a further list beside the first one, whose lock has the plain name."""
    mark = f"-{digest(json.dumps(normalised(requirements)))[:8]}" if requirements else ""
    return f"airflow-{version}-py{python}{mark}.txt"


def shipped_lock(collection_path: str, version: str, python: str) -> str:
    return os.path.join(collection_path, SHIPPED, lock_name(version, python))


def user_lock(inventory_dir: str, version: str, python: str, requirements: Iterable[str] = ()) -> str:
    return os.path.join(inventory_dir, "locks", lock_name(version, python, requirements))


def user_locks(inventory_dir: str, version: str, python: str, wanted: Sequence[Sequence[str]]) -> list[str]:
    """A path for the lock of each list of requirements. One of them has the plain name, and keeps it while it does not change."""
    paths = [user_lock(inventory_dir, version, python, requirements) for requirements in wanted]
    plain = user_lock(inventory_dir, version, python)
    text = _read(plain) if os.path.isfile(plain) else ""
    free = [number for number, path in enumerate(paths) if not os.path.isfile(path)]
    kept = [number for number in free if lock_matches(text, version, python, wanted[number])]
    for number in (kept or free)[:1]:
        paths[number] = plain
    return paths


def available_locks(folder: str) -> dict[str, list[str]]:
    """Airflow version -> Python versions of the locks in a folder."""
    found: dict[str, set[str]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        match = _NAME.fullmatch(name)
        if match:
            found.setdefault(match["version"], set()).add(match["python"])
    return {version: sorted(found[version], key=_numbers) for version in sorted(found, key=_numbers)}


def describe_locks(folder: str) -> str:
    """The locks of a folder in words: `3.2.2 (Python 3.11, 3.13), 3.3.2 (Python 3.11)`."""
    locks = available_locks(folder)
    return ", ".join(f"{version} (Python {', '.join(pythons)})" for version, pythons in locks.items()) or "none"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"[0-9]+", version)]


def canonical(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def normalised(requirements: Iterable[str]) -> list[str]:
    """Requirements without differences that mean nothing: order, repetition, blanks."""
    return sorted({" ".join(str(requirement).split()) for requirement in requirements})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def render_header(lines: Iterable[str], facts: Mapping[str, object]) -> str:
    """Comment lines for people, then one line that `parse_header` reads."""
    return "".join(f"# {line}\n" for line in lines) + MARK + json.dumps(facts, sort_keys=True) + "\n"


def parse_header(text: str) -> dict[str, object]:
    """What the lock says about itself; empty when it says nothing."""
    for line in text.splitlines():
        if line.startswith(MARK):
            try:
                facts = json.loads(line[len(MARK) :])
            except ValueError:
                return {}
            return facts if isinstance(facts, dict) else {}
        if not line.startswith("#"):
            break
    return {}


def blocks(text: str) -> dict[str, str]:
    """Package -> its lines in the lock: the pin and the hashes that follow."""
    found: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            match = _PIN.match(line)
            if not match:
                raise LockError(f"line {line!r}", "is no pin", "write lines like `name==1.2.3 --hash=sha256:…`")
            current = canonical(match["name"])
            found[current] = ""
        found[current] += line.rstrip() + "\n"
    return found


def pins(text: str) -> dict[str, str]:
    """Package -> version (or address) of every pin."""
    found: dict[str, str] = {}
    for name, block in blocks(text).items():
        match = _PIN.match(block)
        if match:
            found[name] = match["version"] or match["url"]
    return found


def unhashed(text: str) -> list[str]:
    """Pins without a hash."""
    return [name for name, block in blocks(text).items() if "--hash=sha256:" not in block]


def combine(resolved: Mapping[str, str]) -> str:
    """One lock from one per machine type: what only some need gets a marker."""
    found = {machine: blocks(text) for machine, text in resolved.items()}
    lines = []
    for name in sorted({name for packages in found.values() for name in packages}):
        where = {machine: packages[name] for machine, packages in found.items() if name in packages}
        block = next(iter(where.values()))
        if len({_first_line(text) for text in where.values()}) != 1:
            raise LockError(
                "airflow_requirements",
                f"{name} has different versions for {' and '.join(where)}",
                "ask for a version that has wheels for each",
            )
        if len(where) < len(found):
            marker = " or ".join(f"platform_machine == '{machine}'" for machine in where)
            pin, rest = block.split(" ", 1)
            block = f"{pin} ; {marker} {rest}"
        lines.append(block)
    return "".join(lines)


def _first_line(block: str) -> str:
    return block.splitlines()[0]


def merge(shipped: str, resolved: str) -> str:
    """The user's complete lock, without header: what the collection ships stays as it is to the letter."""
    merged = {**blocks(resolved), **blocks(shipped)}
    return "".join(merged[name] for name in sorted(merged))


def lock_matches(text: str, version: str, python: str, requirements: Sequence[str], shipped: str | None = None) -> bool:
    """Whether the lock was made for these; with `shipped`, also whether that lock is the one it was resolved under."""
    facts = parse_header(text)
    wanted: dict[str, object] = {"airflow": version, "python": python, "requirements": normalised(requirements)}
    if shipped is not None:
        wanted["base"] = digest(shipped)
    return all(facts.get(key) == value for key, value in wanted.items())


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def find_lock(
    collection_path: str,
    inventory_dir: str | None,
    version: str,
    python: str,
    requirements: Sequence[str] | None = None,
    lock_file: str | None = None,
) -> str:
    """The lock that a host with this Python installs: `lock_file`, else the inventory's, else the shipped one."""
    if lock_file:
        return _given_lock(lock_file, version, python, requirements or [])
    shipped = shipped_lock(collection_path, version, python)
    if not os.path.isfile(shipped):
        raise LockError(
            "airflow_version",
            f"there is no lock for Airflow {version} on Python {python}",
            f"set one of {describe_locks(os.path.dirname(shipped))}, or run `make lock AIRFLOW={version}` in a checkout",
        )
    if not requirements:
        return shipped
    # For a list of hosts (`-i db1,`) Ansible says "None", a text.
    if not inventory_dir or not os.path.isabs(inventory_dir):
        raise LockError(
            "airflow_requirements",
            "the lock belongs beside the inventory, and this inventory has no folder",
            "set airflow_lock_file to a complete lock",
        )
    path = user_lock(inventory_dir, version, python, requirements)
    if not os.path.isfile(path):
        path = user_lock(inventory_dir, version, python)
    if not os.path.isfile(path):
        raise LockError("airflow_requirements", f"not resolved yet, {path} is missing", LOCK_PLAYBOOK)
    text = _read(path)
    if not lock_matches(text, version, python, requirements):
        raise LockError("airflow_requirements", f"{path} was resolved for other requirements", LOCK_PLAYBOOK)
    if not lock_matches(text, version, python, requirements, _read(shipped)):
        raise LockError("airflow_requirements", f"{path} was resolved under another shipped lock", LOCK_PLAYBOOK)
    return path


def _given_lock(path: str, version: str, python: str, requirements: Sequence[str]) -> str:
    where = "airflow_lock_file"
    if not os.path.isfile(path):
        raise LockError(where, f"{path} does not exist on the controller", "correct the path or unset it")
    text = _read(path)
    try:
        found, bare = pins(text).get("apache-airflow"), unhashed(text)
    except LockError as exc:
        raise LockError(where, f"{path}, {exc.problem.where} {exc.problem.what}", exc.problem.cure) from exc
    if found != version:
        raise LockError(
            where,
            f"{path} pins apache-airflow {found or 'not at all'}, airflow_version is {version}",
            "make the two equal",
        )
    if bare:
        raise LockError(where, f"{path} has no hash for {', '.join(bare[:5])}", "make it with `uv pip compile --generate-hashes`")
    facts = parse_header(text)
    if facts and (facts.get("python") != python or not set(normalised(requirements)) <= set(_strings(facts))):
        raise LockError(
            where,
            f"{path} is for Python {facts.get('python')} and {_strings(facts) or 'no requirements'}, "
            f"not for Python {python} and {normalised(requirements) or 'no requirements'}",
            LOCK_PLAYBOOK,
        )
    return path


def _strings(facts: Mapping[str, object]) -> list[str]:
    found = facts.get("requirements")
    return [str(item) for item in found] if isinstance(found, list) else []


def requirement_problem(requirement: object) -> Problem | None:
    """What is wrong with one of `airflow_requirements`, as far as it can be told without resolving."""
    where = "airflow_requirements"
    if not isinstance(requirement, str) or not requirement.strip():
        return Problem(where, f"{requirement!r} is no requirement", 'write a text like "pandas>=3"')
    text = requirement.strip()
    if text.startswith("-") or "\n" in text:
        return Problem(where, f"{text!r} is an option or several lines", "write one requirement per list item")
    direct = _DIRECT.search(text.split(";")[0])
    if direct:
        url = direct["url"]
        if "@" in url.split("://", 1)[-1].split("/", 1)[0]:
            name = text.split("@")[0].strip()
            return Problem(where, f"the address of {name!r} holds a login", "put it into airflow_index_url or a netrc file")
        if not url.startswith("https://") or not url.split("#")[0].endswith((".whl", ".tar.gz", ".zip")):
            return Problem(
                where,
                f"{text!r} cannot be pinned by a hash",
                "give the https address of a wheel, or put the wheel into your index",
            )
    return None


def find_uv(given: str | None = None) -> str:
    """A uv that runs here: beside this Python, else on PATH, else the given one, which is for the hosts' architecture."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    for path in (beside, shutil.which("uv"), given):
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise LockError("uv", "is not on the controller", "install it where ansible-core is: pip install uv")


def contradiction(requirements: Iterable[str], shipped: Mapping[str, str]) -> Problem | None:
    """A requirement that excludes the version in the shipped lock."""
    from packaging.requirements import InvalidRequirement, Requirement  # ansible-core brings it to every controller

    where = "airflow_requirements"
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return Problem(where, f"{text!r} is no requirement", "write it like pandas>=3 or pandas[aws]==3.0.1")
        pin = shipped.get(canonical(requirement.name))
        if pin and not requirement.specifier.contains(pin, prereleases=True):
            return Problem(
                where,
                f"{text!r} excludes {requirement.name} {pin}, which Airflow is locked to",
                f"admit {pin}, or leave the requirement out",
            )
    return None


def explanation(stderr: str) -> str:
    """What uv says of a failure, on one line and without logins."""
    text = " ".join(stderr.split("hint:")[0].split()).removeprefix("error: ")
    return re.sub(r"//[^/@\s]+@", "//***@", text.replace("No solution found when resolving dependencies cause: ", ""))


def environment(index: str, extra_index: str, ca_bundle: str, proxy: str) -> dict[str, str]:
    """What tells uv where packages come from; not arguments, since an address may hold a login."""
    found = {"UV_DEFAULT_INDEX": index, "UV_INDEX": extra_index, "SSL_CERT_FILE": ca_bundle}
    found.update(dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), proxy))
    return {name: value for name, value in found.items() if value}


def compile_command(
    uv: str,
    inputs: Sequence[str],
    output: str,
    python: str,
    platform: str,
    constraints: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """The call of uv that resolves; no option of it depends on the machine that runs it."""
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--no-progress", "--color=never", "--upgrade"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--generate-hashes"]
    # Without --python uv asks every interpreter that it finds for the one version.
    command += ["--python", sys.executable, "--python-version", python, "--python-platform", platform]
    command += ["--output-file", output]
    for constraint in constraints:
        command += ["--constraints", constraint]
    return command + list(options) + list(inputs)
