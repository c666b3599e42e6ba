# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Phases with their times, what changed, what went wrong, and what comes next
version_added: 1.0.0
description:
  - Names each play with the time since the start, and below it only the hosts where something changed or failed.
  - Ends with Ansible's own recap, the time of each play, what changed where, and what to do next.
  - Whole lines only, so a log file reads like the screen. With C(-v) it says all that the default callback says.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - stdout_callback = windfarm.airflow.progress in the section [defaults] of ansible.cfg, or ANSIBLE_STDOUT_CALLBACK
author:
  - windfarm.airflow contributors (@windfarm)
"""

from typing import Any

from ansible import constants as C
from ansible import context
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.windfarm.airflow.plugins.plugin_utils.progress import Progress, next_steps
from ansible_collections.windfarm.airflow.plugins.plugin_utils.web_page import words_of


def _result(result: Any) -> dict[str, Any]:
    """Ansible has replaced what `no_log` hides before a callback gets it."""
    found = getattr(result, "result", None)
    return found if isinstance(found, dict) else result._result


def _task(result: Any) -> Any:
    return getattr(result, "task", None) or result._task


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "windfarm.airflow.progress"

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress()
        self._playbook = ""
        self._variables: Any = None

    # With -v people want everything.

    @property
    def _verbose(self) -> bool:
        return bool(self._display.verbosity)

    def _say(self, lines: list[str], color: str | None = None) -> None:
        for line in lines:
            self._display.display(line, color=color)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = str(playbook._file_name)
        super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._variables = play.get_variable_manager()
        if self._verbose:
            super().v2_playbook_on_play_start(play)
            self._progress.phase(play.get_name().strip())
            return
        self._play = play
        name = play.get_name().strip() or "Play without a name"
        marker = " [CHECK MODE]" if play.check_mode and self.get_option("check_mode_markers") else ""
        self._say(self._progress.phase(f"{name}{marker}"))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._verbose:
            super().v2_playbook_on_no_hosts_matched()
            return
        self._say(["            no hosts"], C.COLOR_SKIP)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if self._verbose:
            super().v2_playbook_on_no_hosts_remaining()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        if self._verbose:
            super()._task_start(task, prefix)
        self._last_task_name = task.get_name().strip()
        lines = self._progress.task(self._last_task_name)
        if not self._verbose:
            self._say(lines)

    def _print_task_banner(self, task: Any) -> None:
        if self._verbose:
            super()._print_task_banner(task)
            return
        self._last_task_banner = task._uuid
        self._say(self._progress.heading())

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    # Results

    def _changed(self, result: Any, item: str = "") -> None:
        lines = self._progress.change(self.host_label(result), _result(result), item)
        if not self._verbose:
            self._say(lines, C.COLOR_CHANGED)

    def v2_runner_on_ok(self, result: Any) -> None:
        found, task = _result(result), _task(result)
        looped = bool(task.loop) and "results" in found
        if not isinstance(task, TaskInclude) and found.get("changed") and not looped:
            self._changed(result)
        if self._verbose:
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        # A task that was written to be read, such as debug.
        if found.get("_ansible_verbose_always") and "msg" in found and not looped:
            text = found["msg"] if isinstance(found["msg"], str) else self._dump_results({"msg": found["msg"]})
            lines = text.splitlines()
            self._say([*self._progress.heading(), *(f"              {line}" for line in lines)])

    def v2_runner_item_on_ok(self, result: Any) -> None:
        found = _result(result)
        if found.get("changed") and not isinstance(_task(result), TaskInclude):
            self._changed(result, str(self._get_item_label(found) or ""))
        if self._verbose:
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings_and_exception(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_skipped(result)

    def _failure(self, result: Any, word: str = "FAILED", item: str = "") -> None:
        lines = self._progress.failure(self.host_label(result), _result(result), word, item)
        if not self._verbose:
            color = C.COLOR_UNREACHABLE if word == "UNREACHABLE" else C.COLOR_ERROR
            self._say(lines, color)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        looped = bool(_task(result).loop) and "results" in _result(result)
        if not looped:
            self._failure(result, "failed, ignored:" if ignore_errors else "FAILED")
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._failure(result, item=str(self._get_item_label(_result(result)) or ""))
        if self._verbose:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._failure(result, "UNREACHABLE")
        if self._verbose:
            super().v2_runner_on_unreachable(result)

    # The end

    def v2_playbook_on_stats(self, stats: Any) -> None:
        summaries = [stats.summarize(host) for host in stats.processed]
        failed = any(one["failures"] or one["unreachable"] for one in summaries)
        super().v2_playbook_on_stats(stats)
        self._say(self._progress.closing(failed, check=bool(context.CLIARGS.get("check"))))
        words = words_of(self._variables)
        steps = next_steps(self._playbook, failed, bool(context.CLIARGS.get("check")), words)
        self._say(["", *steps] if steps else [])
