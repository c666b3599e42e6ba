#!/usr/bin/env python3
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the shipped locks of one Airflow release: `make lock AIRFLOW=x.y.z`."""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_lock  # noqa: E402

LOCKS = ROOT / "roles/airflow/files/locks"
DATA = LOCKS / "locks.yml"
_PUBLISHED = re.compile(r"was published at (\d{4}-\d{2}-\d{2})T")


def cut_off(day: datetime.date) -> str:
    """The end of a day, in a form that does not depend on the machine's time zone."""
    return f"{day + datetime.timedelta(days=1)}T00:00:00Z"


def as_of(released: datetime.date) -> datetime.date:
    return released + datetime.timedelta(days=1)


def later_exceptions(exceptions: Iterable[Mapping[str, Any]], day: datetime.date) -> list[Mapping[str, Any]]:
    """Those that make a package newer than the lock's day; the others would make it older."""
    return [exception for exception in exceptions if exception["until"] > day]


def resolve_options(exceptions: Iterable[Mapping[str, Any]], day: datetime.date) -> list[str]:
    options = ["--exclude-newer", cut_off(day), "--only-binary", ":all:"]
    for exception in later_exceptions(exceptions, day):
        options += ["--exclude-newer-package", f"{exception['package']}={cut_off(exception['until'])}"]
    return options


def requirement_lines(data: Mapping[str, Any], airflow: str) -> str:
    wanted = [requirement.format(airflow=airflow) for requirement in data["requirements"]]
    return "\n".join(wanted + [exception["requirement"] for exception in data["exceptions"]]) + "\n"


def header(data: Mapping[str, Any], airflow: str, python: str, day: datetime.date) -> str:
    newer = [f"{item['package']} as of {item['until']}" for item in later_exceptions(data["exceptions"], day)]
    return airflow_lock.render_header(
        [
            f"Packages of Apache Airflow {airflow} for Python {python} on Linux (x86_64, aarch64), every file hashed.",
            f"Written by `make lock AIRFLOW={airflow}` from locks.yml: change that file, not this one.",
            f"The newest packages as of {day}, the day after the release{', but '.join(['', *newer])}.",
        ],
        {"airflow": airflow, "as_of": str(day), "python": python, "requirements": []},
    )


def with_release(text: str, airflow: str, day: datetime.date) -> str:
    """locks.yml with one more release, comments and order kept."""
    lines = text.splitlines(keepends=True)
    last = lines.index("released:\n") + 1
    while lines[last].strip():
        last += 1
    lines.insert(last, f"  {airflow}: {day}\n")
    return "".join(lines)


def release_day(uv: str, airflow: str) -> datetime.date:
    """Asks the index: for a date that is too early, uv names the day of publication."""
    command = [
        uv,
        "pip",
        "compile",
        "--no-config",
        "--no-deps",
        "--color=never",
        "--exclude-newer",
        "2020-01-01T00:00:00Z",
        "-",
    ]
    answer = subprocess.run(command, input=f"apache-airflow=={airflow}\n", text=True, capture_output=True, check=False)
    match = _PUBLISHED.search(answer.stderr)
    if not match:
        raise airflow_lock.LockError(
            f"AIRFLOW={airflow}",
            "the index does not tell when this release was published",
            "correct the version, or give the day with --date",
        )
    return datetime.date.fromisoformat(match[1])


def resolve(uv: str, data: Mapping[str, Any], airflow: str, python: str, day: datetime.date) -> str:
    """The pins and hashes for one Python version, the same on every platform."""
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "requirements.in")
        source.write_text(requirement_lines(data, airflow), encoding="utf-8")
        for platform in data["platforms"]:
            output = Path(folder, "lock.txt")
            command = airflow_lock.compile_command(
                uv,
                [str(source)],
                str(output),
                data["pythons"][python],
                platform,
                options=resolve_options(data["exceptions"], day),
            )
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            results[platform] = output.read_text(encoding="utf-8")
    if len(set(results.values())) != 1:
        raise airflow_lock.LockError(
            f"AIRFLOW={airflow}", f"the packages differ between {' and '.join(results)}", "make locks per platform"
        )
    return next(iter(results.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--airflow", required=True, metavar="X.Y.Z", help="the Airflow release")
    parser.add_argument(
        "--date",
        type=datetime.date.fromisoformat,
        metavar="YYYY-MM-DD",
        help="its day of release (default: ask the index)",
    )
    arguments = parser.parse_args()
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    known: datetime.date | None = data["released"].get(arguments.airflow)
    try:
        uv = airflow_lock.find_uv()
        released = known or arguments.date or release_day(uv, arguments.airflow)
        if arguments.date and arguments.date != released:
            raise airflow_lock.LockError(f"--date {arguments.date}", f"{DATA.name} says {released}", "change it there")
        texts = {
            LOCKS / airflow_lock.lock_name(arguments.airflow, python): header(data, arguments.airflow, python, as_of(released))
            + resolve(uv, data, arguments.airflow, python, as_of(released))
            for python in data["pythons"]
        }
    except airflow_lock.LockError as exc:
        print(f"lock: {exc}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as exc:
        return exc.returncode
    for path, text in texts.items():
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        count = len(airflow_lock.pins(text))
        print(f"{'written' if changed else 'unchanged'}: {path.relative_to(ROOT)}, {count} packages")
    if not known:
        DATA.write_text(with_release(DATA.read_text(encoding="utf-8"), arguments.airflow, released), encoding="utf-8")
        print(f"added to {DATA.name}: {arguments.airflow}, released {released}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
