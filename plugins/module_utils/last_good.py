# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files that a service was last proven healthy with: its folder in /etc/airflow and its unit. Runs on the host."""

from __future__ import annotations

import os
import re
import shutil

UNITS = "/etc/systemd/system"
GOOD = "/etc/airflow/.good"
UNIT = "unit.service"
_HASH = re.compile(r"^ExecStartPre=.*\becho ([0-9a-f]+) > ", re.M)
_RELEASE = re.compile(r"^ExecStart=(/.+)/bin/", re.M)


def _found(pattern: re.Pattern[str], unit: str) -> str:
    try:
        with open(unit, encoding="utf-8") as file:
            found = pattern.search(file.read())
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def unit_hash(unit: str) -> str:
    """The hash that a unit file says its process is started with; empty where there is none."""
    return _found(_HASH, unit)


def unit_release(unit: str) -> str:
    """The folder of the release that a unit file names; empty where there is none."""
    return _found(_RELEASE, unit)


class LastGood:
    """One service's copy. It holds secrets, so nobody but root enters the folder; the next healthy start replaces it."""

    def __init__(self, service: str, config: str) -> None:
        self.config = config
        self.unit = f"{UNITS}/{service}.service"
        self.path = f"{GOOD}/{service}"

    def there(self) -> bool:
        return os.path.exists(f"{self.path}/{UNIT}")

    def hash(self) -> str:
        return unit_hash(f"{self.path}/{UNIT}")

    def release(self) -> str:
        return unit_release(f"{self.path}/{UNIT}")

    def keep(self) -> None:
        """Copy what is on disk now, unless that is what the copy holds already."""
        if self.hash() == unit_hash(self.unit):
            return
        os.makedirs(GOOD, mode=0o700, exist_ok=True)
        new = f"{self.path}.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(self.config, new)
        # The unit goes last: without it the copy does not count.
        shutil.rmtree(self.path, ignore_errors=True)
        os.rename(new, self.path)
        shutil.copy2(self.unit, f"{self.path}/.{UNIT}")
        os.rename(f"{self.path}/.{UNIT}", f"{self.path}/{UNIT}")

    def put_back(self) -> None:
        shutil.copytree(self.path, self.config, dirs_exist_ok=True, ignore=shutil.ignore_patterns(UNIT))
        shutil.copy2(f"{self.path}/{UNIT}", self.unit)

    def forget(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
