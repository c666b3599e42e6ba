"""Run the given commands side by side; print each one's output and time when it ends; fail when one fails."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed


def run(command: str) -> tuple[str, int, float, str]:
    start = time.monotonic()
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return command, done.returncode, time.monotonic() - start, done.stdout


def main() -> None:
    failed = []
    with ThreadPoolExecutor() as pool:
        for future in as_completed([pool.submit(run, command) for command in sys.argv[1:]]):
            command, code, seconds, output = future.result()
            print(f"{'ok  ' if code == 0 else 'FAIL'} {seconds:5.1f} s  {command}", flush=True)
            if code or command.startswith("pytest"):
                print(output.rstrip(), flush=True)
            if code:
                failed.append(command)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
