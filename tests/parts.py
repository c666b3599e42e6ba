"""Run make targets and end with a table: result, time, and the closing lines of pytest and of each ansible-core.

parts.py TARGET… [-- TARGET…]: each list one after the other, the lists side by side; failures are said again before the table.
Hosts wait for each other most of the time, so two lists keep two processors busy; what a target says is shown when it has ended.
"""

from __future__ import annotations

import concurrent.futures
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

# pytest's, and those of tests/sanity.sh.
CLOSING = re.compile(r"(?:\b\d+ (?:passed|failed|error|skipped)[^\n]*|\bansible-core \S+: \w+) in [\d.]+s")
# What pytest says of a failure: its summary and the lines that it marks. Said again before the table: a log is read from its end.
FAILURE = re.compile(r"^\s*((?:FAILED|ERROR) tests/.*|E {3,}.*|make(?:\[\d\])?: \*\*\* .*)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
speaking = threading.Lock()


class Part(NamedTuple):
    target: str
    code: int
    seconds: float
    closing: list[str]
    failures: list[str]


def run(target: str, alone: bool) -> Part:
    start = time.monotonic()
    lines = [f"\n===== make {target}\n"]
    with speaking:
        print(lines[0].strip() + ("" if alone else " begins"), flush=True)
    with subprocess.Popen(["make", target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            lines.append(line)
            if alone:
                print(line, end="", flush=True)
    if not alone:
        with speaking:
            print("".join(lines), end="", flush=True)
    plain = [COLOUR.sub("", line) for line in lines]
    closing = [found[0] for line in plain for found in [CLOSING.search(line)] if found]
    failures = [found[1][:300] for line in plain for found in [FAILURE.match(line)] if found]
    return Part(target, process.returncode, time.monotonic() - start, closing, failures)


def split(words: Sequence[str]) -> list[list[str]]:
    lists: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            lists.append([])
        else:
            lists[-1].append(word)
    return [targets for targets in lists if targets]


def main() -> None:
    start = time.monotonic()
    lists = split(sys.argv[1:])
    with concurrent.futures.ThreadPoolExecutor(len(lists)) as pool:
        done = pool.map(lambda targets: [run(target, len(lists) == 1) for target in targets], lists)
        parts = [part for results in done for part in results]
    for part in parts:
        if part.code:
            print(f"\n===== {part.target}", *part.failures[-40:], sep="\n  ")
    print("\n===== parts")
    for part in parts:
        print(f"{'FAIL' if part.code else 'ok  '} {part.seconds:7.1f} s  {part.target:22} {'; '.join(part.closing)}")
    print(f"     {time.monotonic() - start:7.1f} s  in all")
    sys.exit(1 if any(part.code for part in parts) else 0)


if __name__ == "__main__":
    main()
