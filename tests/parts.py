"""Run make targets one after the other and end with a table: result, time, and the closing lines of pytest."""

from __future__ import annotations

import re
import subprocess
import sys
import time

CLOSING = re.compile(r"\b\d+ (?:passed|failed|error|skipped)[^\n]* in [\d.]+s")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run(target: str) -> tuple[int, float, list[str]]:
    start = time.monotonic()
    closing = []
    with subprocess.Popen(["make", target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            found = CLOSING.search(COLOUR.sub("", line))
            if found:
                closing.append(found.group(0))
    return process.returncode, time.monotonic() - start, closing


def main() -> None:
    rows = []
    for target in sys.argv[1:]:
        print(f"\n===== make {target}", flush=True)
        rows.append((target, *run(target)))
    print("\n===== parts")
    for target, code, seconds, closing in rows:
        print(f"{'ok  ' if code == 0 else 'FAIL'} {seconds:7.1f} s  {target:22} {'; '.join(closing)}")
    print(f"     {sum(row[2] for row in rows):7.1f} s  in all")
    sys.exit(1 if any(row[1] for row in rows) else 0)


if __name__ == "__main__":
    main()
