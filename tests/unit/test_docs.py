# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation names only what there is. Its commands stand in one of two ways: indented, then a test or a make target runs
them; or in a block marked `console`, then they are examples.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")])
TOOLS = (
    "ansible-playbook",
    "make",
    "apt-get",
    "git",
    "python3",
    "pip",
    "cp",
    "curl",
    "systemctl",
    "journalctl",
    "runuser",
    "airflow",
    "python",
)
# What an indented command is, and where something runs it: the file, and a text in it.
PROVEN = {
    r"apt-get install --yes git python3-venv": ("tests/long/test_inventories.py", "apt-get install -y -qq python3-venv"),
    # What a clone has, unpacked on a host that has nothing else.
    r"git clone … windfarm-airflow && cd windfarm-airflow": ("tests/long/test_inventories.py", '["git", "ls-files",'),
    r"python3 -m venv \.venv && \.venv/bin/pip install -r requirements\.txt": (
        "tests/long/test_inventories.py",
        "python3 -m venv .venv && {pip} .venv/bin/pip install -q -r requirements.txt",
    ),
    r"cp -r inventories/(cluster|single) inventories/production": (
        "tests/lab/test_bad_input.py",
        'shutil.copytree(ROOT / "inventories" / name, folder)',
    ),
    r"pip download --require-hashes .*": ("tests/long/test_release.py", "Fetched by the command in the documentation"),
    r"python tests/lab/secret_scan\.py .*": ("tests/lab/test_security.py", "secret_scan"),
    r"python tools/listings\.py": ("Makefile", "tools/listings.py"),
}
# Targets that no part of a test runs: the first is run below, the second would take the hosts of the tests beside it.
OTHER_TARGETS = ("help", "clean")
# What tests run a playbook by, besides its path or its name in the collection.
RUNNERS = r"\b(?:playbook|play|must|refused)\(\s*"
# Names of your own, in examples.
YOURS = ("airflow_before_", "airflow_restoring", "airflow_results_restoring", "airflow_unwanted", "airflow_2")
PLACEHOLDERS = ("NAME", "NAME.", "test_x.")
PREFIXES = "airflow|postgresql|redis|haproxy|firewall|restore|rollback|rotate|upgrade"


def numbered(page: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, line, and what it stands in: text, a marked block's mark, or indented."""
    mark = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", line)
        if fence:
            mark = "" if mark else fence[1] or "plain"
        elif mark:
            yield number, line, mark
        else:
            yield number, line, "indented" if line.startswith("    ") else "text"


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """The indented command lines, without remarks."""
    for number, line, kind in numbered(page):
        words = re.sub(r"\s+#.*", "", line).strip().removeprefix(".venv/bin/")
        if kind == "indented" and words.split(" ")[0] in TOOLS:
            yield number, words


def commands_in_other_blocks(page: Path) -> list[str]:
    """Command lines in blocks without a mark, or with another one than `console`."""
    begins = rf"\s*([A-Z_]+=\S+ +)*(\.venv/\S+|molecule/\S+|{'|'.join(map(re.escape, TOOLS))})( |$)"
    others = [(number, line) for number, line, kind in numbered(page) if kind not in ("text", "indented", "console")]
    return [f"{number}: {line}" for number, line in others if re.match(begins, line)]


@cache
def collection() -> str:
    """All that is shipped and could define a variable."""
    files = [path for folder in ("roles", "playbooks", "plugins", "inventories", "dags") for path in (ROOT / folder).rglob("*")]
    return "\n".join(path.read_text() for path in files if path.suffix in (".yml", ".py", ".j2") and path.is_file())


@cache
def variables() -> frozenset[str]:
    return frozenset(re.findall(rf"\b(?:{PREFIXES})_[a-z0-9_]+\b", collection()))


@cache
def targets_that_run() -> frozenset[str]:
    """What CI and the long proofs run, with all that these targets are made of."""
    text = re.sub(r"\\\n", " ", (ROOT / "Makefile").read_text())
    found = {"test"} if "make test" in (ROOT / ".ci/run").read_text() else set()
    for name in ("CLUSTER", "PARTS", "LONG_PARTS"):
        found |= set(" ".join(re.findall(rf"^{name} := (.*)$", text, re.M)).split())
    while True:
        needed = {
            word
            for target, needs in re.findall(r"^([\w./%-]+):([^=#\n]*)", text, re.M)
            if target in found
            for word in needs.split()
            if re.fullmatch(r"[\w./-]+", word)
        }
        if needed <= found:
            return frozenset(found)
        found |= needed


@cache
def playbooks_that_run() -> frozenset[str]:
    places = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("tests/*.sh"), *ROOT.glob("molecule/*/*.yml"), ROOT / "Makefile"]
    text = "\n".join(path.read_text() for path in places if "unit" not in path.parts)
    found = re.findall(rf"playbooks/([a-z_]+)\.yml|windfarm\.airflow\.([a-z_]+)\b|{RUNNERS}[\"']([a-z_]+)[\"']", text)
    names = {name for names in found for name in names if name}
    # f"playbooks/{name}.yml" for each of these.
    for listed in re.findall(r"f\"playbooks/\{name\}\.yml\" for name in \(([^)]*)\)", text):
        names |= set(re.findall(r"\"([a-z_]+)\"", listed))
    return frozenset(names)


@cache
def anchors(page: Path) -> frozenset[str]:
    titles = [line.lstrip("#").strip() for _n, line, kind in numbered(page) if kind == "text" and line.startswith("#")]
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_playbooks_and_files_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\b((?:playbooks|tests|roles|dags|tools|molecule|inventories/lab)/[\w/.-]+\.(?:yml|py|sh|md))\b", text)
    # `upgrade.yml` alone is a playbook too.
    named += [f"playbooks/{name}.yml" for name in re.findall(r"[`\s]([a-z_]+)\.yml -e ", text)]
    assert [name for name in named if not (ROOT / name).exists() and not any(word in name for word in PLACEHOLDERS)] == []


def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _hash, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_variables_exist(page: Path) -> None:
    named = set(re.findall(rf"`((?:{PREFIXES})_[a-z0-9_]+)(?:`|: )", page.read_text()))
    assert {name for name in named if name not in variables() and not name.startswith(YOURS)} == set()
    given = set(re.findall(r"-e ([a-z_]+)=", page.read_text()))
    assert {name for name in given if not re.search(rf"\b{name}\b", collection())} == set()


def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in re.findall(r"`make ([a-z-]+(?: [a-z-]+)*)", page.read_text()) for name in line.split()}
    named |= {words.split()[1] for _number, words in commands(page) if words.startswith("make ")}
    assert {name for name in named if name not in targets and not name.startswith("scenario-")} == set()


def test_indented_commands_are_run_by_something(page: Path) -> None:
    unproven = []
    for number, words in commands(page):
        found = re.match(r"ansible-playbook -i inventories/\w+ playbooks/([a-z_]+)\.yml\b", words)
        if found:
            # No test looks for the playbook and the option together: such a command is an example.
            proven = found[1] in playbooks_that_run() and "--check" not in words.split()
        elif words.startswith("make "):
            proven = set(re.sub(r" [A-Z]+=\S+", "", words).split()[1:]) <= targets_that_run() | set(OTHER_TARGETS)
        else:
            proven = any(re.fullmatch(pattern, words) for pattern in PROVEN)
        # A command that goes on in the next line is looked at as far as it is shown.
        if not proven and not any(re.match(pattern.removesuffix(".*"), words) for pattern in PROVEN if pattern.endswith(".*")):
            unproven.append(f"{number}: {words}")
    assert unproven == []


def test_commands_do_not_stand_in_the_text(page: Path) -> None:
    """Where nobody would look whether they are run."""
    begins = r"\s*(\.venv/|(ansible-playbook|python3 -m|pip install|cp -r|git clone|apt-get) )"
    assert [f"{number}: {line}" for number, line, kind in numbered(page) if kind == "text" and re.match(begins, line)] == []


def test_commands_in_blocks_are_marked(page: Path) -> None:
    assert commands_in_other_blocks(page) == []


def test_make_help_lists_the_targets() -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert {"demo", "test", "test-fast", "clean"} <= {line.split()[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("pattern", PROVEN)
def test_the_proofs_are_there(pattern: str) -> None:
    path, text = PROVEN[pattern]
    assert text in (ROOT / path).read_text()


def test_every_playbook_is_described() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    described = {name for heading in headings for name in heading.split(", ")}
    playbooks = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    assert playbooks - described == set()


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    """Else all of the above could be green for want of something to look at."""
    page = tmp_path / "page.md"
    page.write_text("# A b\n    make nothing\n\n```console\nmake this\n```\n`airflow_no_such_thing` [x](#a-c)\n")
    assert list(commands(page)) == [(2, "make nothing")] and anchors(page) == {"a-b"}
    with pytest.raises(AssertionError):
        test_indented_commands_are_run_by_something(page)
    page.write_text("    ansible-playbook -i inventories/x playbooks/no_such.yml\n")
    with pytest.raises(AssertionError):
        test_indented_commands_are_run_by_something(page)
    page.write_text("Text\n.venv/bin/ansible-playbook x\n")
    with pytest.raises(AssertionError):
        test_commands_do_not_stand_in_the_text(page)
    for mark in ("sh", "yaml", ""):
        page.write_text(f"```{mark}\nX=1 .venv/bin/pytest x\nmake this\nairflow: 1\n```\n")
        assert commands_in_other_blocks(page) == ["2: X=1 .venv/bin/pytest x", "3: make this"]
    page.write_text("    ansible-playbook -i inventories/x playbooks/site.yml --check\n")
    with pytest.raises(AssertionError):
        test_indented_commands_are_run_by_something(page)
    assert "airflow_no_such_thing" not in variables() and "airflow_dags_source" in variables()
    assert sum(len(list(commands(path))) for path in PAGES) > 25
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["name"] == "airflow"


def test_files_beside_an_inventory_are_no_hosts(tmp_path: Path) -> None:
    """The example names certificates in files/, which Ansible would read as lists of hosts."""
    folder = tmp_path / "cluster"
    shutil.copytree(ROOT / "inventories/cluster", folder)
    (text,) = folder.glob("group_vars/all/airflow.yml")
    named = re.findall(r"_file: (files/\S+)$", text.read_text(encoding="utf-8"), re.M)
    assert len(named) == 2
    (folder / "files").mkdir()
    for name in named:
        (folder / name).write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", encoding="utf-8")
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(folder), "--graph", "airflow_worker"]
    done = subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=True)
    assert "worker1.example.com" in done.stdout and done.stderr == ""
