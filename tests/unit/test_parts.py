# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The closing lines that the table of parts shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
if not (TESTS / "parts.py").exists():
    pytest.skip("not part of the installed collection", allow_module_level=True)
sys.path.insert(0, str(TESTS))

import parts  # noqa: E402


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("======== 3 passed, 1 skipped in 12.34s (0:00:12) ========", "3 passed, 1 skipped in 12.34s"),
        ("1 failed, 2 passed in 0.50s", "1 failed, 2 passed in 0.50s"),
        ("ansible-core 2.19.14: ok in 123s", "ansible-core 2.19.14: ok in 123s"),
        ("ansible-core 2.22.0rc1: failed in 7s", "ansible-core 2.22.0rc1: failed in 7s"),
        ("ansible-core 2.19.14, Python 3.11", ""),
    ],
)
def test_closing_lines(line: str, shown: str) -> None:
    found = parts.CLOSING.search(line)
    assert (found[0] if found else "") == shown


def test_sanity_ends_each_core_with_such_a_line() -> None:
    said = (TESTS / "sanity.sh").read_text()
    assert 'echo "ansible-core $core: $result in $((SECONDS - begin))s"' in said
