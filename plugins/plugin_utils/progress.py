# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run of a playbook has to say: phases with their times, what changed, what went wrong, what comes next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# A phase that was as quick as this says nothing by its time.
QUICK = 1.0
# Lines of a result's details.
DETAILS = 12
# After so many seconds without a word the next task is named, so that nobody takes the run for a dead one.
SILENT = 15.0


class Phase(NamedTuple):
    name: str
    start: float


class Progress:
    """Collects what happens; each method returns the lines to print for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = self._spoke = clock()
        self._phases: list[Phase] = []
        self._task = ""
        self._shown = ""
        # Task -> hosts, in the order in which it happened.
        self.changed: dict[str, dict[str, None]] = {}
        self.failed: dict[str, str] = {}

    def _said(self, lines: list[str]) -> list[str]:
        if lines:
            self._spoke = self._clock()
        return lines

    def _since_start(self) -> str:
        return f"[{self._clock() - self._start:7.1f} s]"

    def phase(self, name: str) -> list[str]:
        self._phases.append(Phase(name, self._clock()))
        self._shown = ""
        return self._said(["", f"{self._since_start()} {name}"])

    def task(self, name: str) -> list[str]:
        self._task = name
        if self._clock() - self._spoke < SILENT:
            return []
        return self._said(self.heading())

    def heading(self) -> list[str]:
        """The task's name, once, in front of the first thing that there is to say of it."""
        if self._shown == self._task:
            return []
        self._shown = self._task
        return [f"            {self._task}"]

    def change(self, host: str, result: Mapping[str, Any], item: str = "") -> list[str]:
        self.changed.setdefault(self._task, {})[host] = None
        lines = [f"              changed  {host}{f' ({item})' if item else ''}"]
        return self._said([*self.heading(), *lines, *(f"                         {line}" for line in details(result))])

    def failure(self, host: str, result: Mapping[str, Any], word: str = "FAILED", item: str = "") -> list[str]:
        message = why(result)
        self.failed[host] = self._task
        first, *rest = message or ["no message"]
        head = f"              {word}  {host}{f' ({item})' if item else ''}: {first}"
        return self._said([*self.heading(), head, *(f"                {line}" for line in rest)])

    def closing(self, failed: bool, check: bool = False) -> list[str]:
        """What changed, or would have, and how long it took; who is in order, the recap says."""
        now = self._clock()
        ends = [phase.start for phase in self._phases[1:]] + [now]
        spent = [(end - phase.start, phase.name) for phase, end in zip(self._phases, ends)]
        slow = [f"  {seconds:7.1f} s  {name}" for seconds, name in spent if seconds >= QUICK]
        lines = ["", "Time", *slow, f"  {now - self._start:7.1f} s  in all"]
        if self.changed:
            title = "What would change" if check else "What changed"
            lines += ["", title, *(f"  {name}: {_hosts(list(hosts))}" for name, hosts in self.changed.items())]
        elif not failed:
            lines += ["", "Nothing would change." if check else "Nothing has changed."]
        return lines


def _hosts(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def details(result: Mapping[str, Any]) -> list[str]:
    """What a module of ours says that it did."""
    found = result.get("changes")
    lines = [str(line) for line in found] if isinstance(found, (list, tuple)) else []
    return lines if len(lines) <= DETAILS else [*lines[: DETAILS - 1], f"and {len(lines) - DETAILS + 1} more"]


def why(result: Mapping[str, Any]) -> list[str]:
    """The reason of a failure, on as many lines as it has."""
    if "censored" in result:
        return [str(result["censored"])]
    text = str(result.get("msg") or "").strip()
    lines = text.splitlines()
    for name in ("stderr", "module_stderr"):
        more = str(result.get(name) or "").strip()
        if more and more not in text:
            lines += more.splitlines()[-DETAILS:]
    return lines


def next_steps(playbook: str, failed: bool, check_mode: bool, words: Mapping[str, str]) -> list[str]:
    """What people do after this playbook. `words` are the web page's url, user and file of secrets, where they are known."""
    name = os.path.basename(playbook).removesuffix(".yml")
    command = f"ansible-playbook -i {words.get('inventory') or 'INVENTORY'} {os.path.dirname(playbook) or 'playbooks'}"
    if failed:
        return ["Next: mend what is told above, then give the same command again; it goes on where it stopped."]
    if check_mode:
        return ["Nothing was changed: this was a prediction (--check)."]
    if name == "secrets":
        return [f"Next: {command}/site.yml"]
    if name not in ("site", "airflow", "upgrade", "rollback") or not words.get("url"):
        return []
    lines = [f"Web page: {words['url']}"]
    if words.get("user"):
        place = words.get("secrets") or "the file of secrets"
        lines.append(f"User {words['user']}; the password is airflow_admin_password in {place}")
    return [*lines, f"Next: {command}/status.yml"]
