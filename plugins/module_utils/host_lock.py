# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One module at a time changes a host. Runs on the host.

A controller that is killed, or loses its connection, leaves its module running: the next run would look at what that one is about
to change, and both would write the same files.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

LOCK = "/run/windfarm-airflow.lock"
# Seconds: longer than a component's start may take (`airflow_health_timeout`, 180), shorter than somebody waits without a word.
PATIENCE = 600.0


def hold(module: Any, patience: float = PATIENCE, path: str = "") -> None:
    """Wait until no other process changes this host, and keep others away until this one ends; in check mode nobody waits."""
    if module.check_mode:
        return
    try:
        # Never closed: the lock goes with the process, however that ends, and no child inherits it.
        lock = os.open(path or LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        module.fail_json(msg=f"{path or LOCK}: {error.strerror}; this module changes the host, as root: give its task become")
        raise
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(lock, 200, 0).decode() or "another process"
                module.fail_json(
                    msg=f"{holder} still changes this host, for an earlier run that was interrupted or for another controller; "
                    "run again when it has ended, or end it there"
                )
            time.sleep(0.2)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} ({module._name})".encode(), 0)  # pylint: disable=protected-access
