# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proofs that take minutes. Each boots the hosts that it needs, one at a time, and removes them again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

# What the tests read is Ansible's own output, not the checkout's.
os.environ["ANSIBLE_STDOUT_CALLBACK"] = "default"

# Makes the checkout an installed collection, before a test imports from it.
import inventory  # noqa: F401
