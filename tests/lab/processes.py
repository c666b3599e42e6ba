# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run of Ansible that dies, whole and at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any


def descendants(process: int) -> list[int]:
    """The process and its children: Ansible's workers are sessions of their own, so its process group is not all."""
    found = [process]
    for one in found:
        done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(one)], capture_output=True, text=True, check=False)
        found += [int(word) for word in done.stdout.split()]
    return found


def kill(process: subprocess.Popen[Any]) -> None:
    for pid in reversed(descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
