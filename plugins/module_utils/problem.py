# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How every mistake of a user is told: where it is, what is wrong, and the cure, on one line."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """`where` is a variable, a host, a group or a file."""

    where: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.where} — {self.what} — {self.cure}"


class ProblemError(ValueError):
    """A problem that ends the work at once."""

    def __init__(self, where: str, what: str, cure: str) -> None:
        self.problem = Problem(where, what, cure)
        super().__init__(str(self.problem))
