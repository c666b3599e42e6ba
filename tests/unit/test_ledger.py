# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the ledger judges, without a cluster: a judge that overlooks something makes every test of an upgrade worthless."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "tests" / "lab"
if not LAB.exists():
    pytest.skip("not part of the installed collection", allow_module_level=True)
sys.path.insert(0, str(LAB))

import ledger  # noqa: E402
from ledger import Instance, Report, Row, Task  # noqa: E402

RUN = Task("ledger_long", "load-1")
LONG, BASH, WAIT = (Task("ledger_long", "load-1", name) for name in ("long", "bash", "wait"))
PULSE = Task("ledger_pulse", "scheduled__2026-11-22T05:00:05+00:00", "pulse")


def done(task: Task, number: int = 1, at: float = 10) -> list[Row]:
    """A try from its start to its end."""
    return [Row(task, number, "start", at), Row(task, number, "end", at + 5)]


def good(*tasks: Task) -> tuple[list[Row], list[Instance]]:
    return [row for task in tasks for row in done(task)], [Instance(task, 1, "success") for task in tasks]


def judged(
    rows: Sequence[Row], instances: Sequence[Instance], state: str = "success", accepted: Sequence[Task] = (RUN,)
) -> Report:
    return ledger.judge("case", rows, instances, {RUN: state} if state else {}, accepted)


def findings(report: Report) -> dict[str, list[str]]:
    return {name: found for name in ledger.KINDS if (found := getattr(report, name))}


def test_a_run_in_which_all_succeeded_is_clean() -> None:
    report = judged(*good(LONG, BASH, WAIT))
    assert (report.tasks, report.succeeded, findings(report)) == (3, 3, {})
    ledger.assert_clean(report)


# --- lost ----------------------------------------------------------------------------------------------------------------
def test_a_success_without_an_end_row_is_lost() -> None:
    rows, instances = good(BASH, WAIT)
    report = judged([*rows, Row(LONG, 1, "start", 1)], [*instances, Instance(LONG, 1, "success")])
    assert findings(report) == {"lost": ["ledger_long/load-1/long"]}
    assert report.succeeded == 2


def test_a_success_whose_end_row_is_of_another_try_is_lost() -> None:
    rows, instances = good(BASH, WAIT)
    report = judged([*rows, *done(LONG, 1)], [*instances, Instance(LONG, 2, "success")])
    assert report.lost == [str(LONG)]


def test_an_accepted_run_that_is_forgotten_is_lost_once() -> None:
    rows, _instances = good(LONG)
    report = judged(rows, [], state="")
    assert findings(report) == {"lost": ["ledger_long/load-1"]}
    assert (report.tasks, report.succeeded) == (3, 0)


def test_a_run_whose_trigger_was_not_answered_is_judged_if_it_is_there_and_else_not_missed() -> None:
    rows, instances = good(LONG, BASH, WAIT)
    assert judged(rows, instances, accepted=()).succeeded == 3
    assert findings(judged([], [], state="", accepted=())) == {}


def test_a_task_that_ran_and_is_not_known_is_lost() -> None:
    rows, instances = good(LONG, BASH, WAIT)
    report = judged([*rows, *done(PULSE)], instances)
    assert report.lost == [str(PULSE)]


def test_a_task_that_an_ended_run_lacks_is_lost_and_in_a_running_one_still_to_come() -> None:
    rows, instances = good(LONG, BASH)
    assert judged(rows, instances).lost == [str(WAIT)]
    assert judged(rows, instances, state="running").lost == []


@pytest.mark.parametrize("state", ["", "scheduled", "queued", "running", "deferred", "skipped", "removed", "up_for_retry"])
@pytest.mark.parametrize("run_state", ["success", "failed"])
def test_a_task_without_an_end_in_an_ended_run_is_lost(state: str, run_state: str) -> None:
    rows, instances = good(BASH, WAIT)
    report = judged(rows, [*instances, Instance(LONG, 1, state)], state=run_state)
    assert findings(report) == {"lost": [str(LONG)]}


# --- duplicated ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "more",
    [
        pytest.param([Row(LONG, 1, "start", 11)], id="one try started twice"),
        pytest.param([Row(LONG, 1, "end", 16)], id="one try ended twice"),
        pytest.param([Row(LONG, 2, "start", 20), Row(LONG, 2, "end", 25)], id="done again after it was done"),
        pytest.param([Row(LONG, 2, "start", 12)], id="two tries at a time"),
    ],
)
def test_work_done_twice_is_duplicated(more: list[Row]) -> None:
    rows, instances = good(LONG, BASH, WAIT)
    assert judged([*rows, *more], instances).duplicated == [str(LONG)]


def test_a_second_try_after_the_first_was_killed_is_retried_not_duplicated() -> None:
    rows, instances = good(BASH, WAIT)
    rows += [Row(LONG, 1, "start", 1), *done(LONG, 2, 20)]
    report = judged(rows, [*instances, Instance(LONG, 2, "success")])
    assert findings(report) == {"retried": [str(LONG)]}
    assert report.succeeded == 3
    ledger.assert_clean(report, retried=True)
    with pytest.raises(AssertionError, match=r"^retried\n.*CASE"):
        ledger.assert_clean(report)


def test_mapped_tasks_and_runs_are_told_apart() -> None:
    one, other = Task("ledger", "load-1", "short", 1), Task("ledger", "load-1", "short", 2)
    again = Task("ledger", "load-2", "short", 1)
    report = ledger.judge("case", [row for task in (one, other, again) for row in done(task)], [], {}, [])
    assert report.duplicated == []
    assert str(one) == "ledger/load-1/short[1]"


# --- failed, stuck -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_a_failure_is_the_clusters(state: str) -> None:
    rows, instances = good(BASH, WAIT)
    report = judged(rows, [*instances, Instance(LONG, 1, state)], state="failed")
    assert findings(report) == {"failed": [str(LONG)]}


@pytest.mark.parametrize("state", ["", "scheduled", "queued", "running", "deferred", "up_for_retry", "restarting"])
def test_a_task_without_an_end_at_the_bound_is_stuck(state: str) -> None:
    rows, instances = good(BASH, WAIT)
    report = judged(rows, [*instances, Instance(LONG, 1, state)], state="running")
    assert findings(report) == {"stuck": [str(LONG)]}


def test_a_run_that_never_got_a_task_is_stuck() -> None:
    assert findings(judged([], [], state="queued")) == {"stuck": [str(RUN)]}


def test_nothing_at_all_is_not_clean() -> None:
    with pytest.raises(AssertionError):
        ledger.assert_clean(Report("case"))


@pytest.mark.parametrize("kind", ledger.KINDS)
def test_each_finding_is_refused(kind: str) -> None:
    with pytest.raises(AssertionError, match=f"^{kind}\n"):
        ledger.assert_clean(Report("case", tasks=1, succeeded=1, **{kind: ["a task"]}))


# --- seconds -------------------------------------------------------------------------------------------------------------
def test_seconds_without_an_answer_go_from_the_first_bad_question_to_the_next_good_one() -> None:
    samples = [(0.0, True), (1.0, False), (6.0, False), (11.0, True), (12.0, True), (13.0, False), (14.5, True)]
    assert ledger.silence(samples) == pytest.approx(10 + 1.5)
    assert ledger.silence([(0.0, True), (1.0, False), (6.0, False)]) == pytest.approx(5)
    assert ledger.silence([(0.0, True), (1.0, True)]) == ledger.silence([]) == 0


def test_seconds_that_nobody_asked_in_are_told() -> None:
    samples = [(float(second), True) for second in (*range(10), *range(40, 50))]
    assert ledger.unseen(samples, 0, 50) == pytest.approx(31)
    assert ledger.unseen([], 0, 50) == 50
    assert ledger.unseen([(0.0, True), (6.0, False), (12.0, True)], 2, 13) == 0


def test_a_gap_between_starts_is_less_the_pulse() -> None:
    starts = [0.0, 5.0, 10.0, 31.0, 36.0]
    assert ledger.longest_gap(starts, 4, 38) == pytest.approx(16)
    assert ledger.longest_gap([0.0, 5.0, 9.0], 0, 10) == 0
    assert ledger.longest_gap([0.0, 30.0, 33.0], 28, 35) == 0, "what was before is not looked at"


def test_a_gap_goes_on_to_the_first_start_after_the_end_or_to_the_end() -> None:
    assert ledger.longest_gap([0.0, 25.0, 60.0], 0, 20) == pytest.approx(20)
    assert ledger.longest_gap([0.0], 0, 20) == pytest.approx(15)


def test_a_run_that_nobody_triggered_says_when_it_was_due() -> None:
    assert ledger.due(PULSE.run).isoformat() == "2026-11-22T05:00:05+00:00"
    assert ledger.due("scheduled__2026-11-22T05:00:05.250000+00:00").microsecond == 250000


# --- table ---------------------------------------------------------------------------------------------------------------
def test_the_table_has_a_line_for_each_case() -> None:
    one = Report("restart of Redis", tasks=110, succeeded=109, lost=["a"], api_seconds=1.25, scheduling_seconds=12)
    lines = ledger.table([one, Report("none")]).splitlines()
    assert lines[0].split() == [
        "CASE", "TASKS", "SUCCEEDED", "LOST", "DUPLICATED", "FAILED", "RETRIED", "STUCK", "API", "s", "SCHEDULING", "s",
    ]  # fmt: skip
    assert lines[1].split()[-9:] == ["110", "109", "1", "0", "0", "0", "0", "1.2", "12.0"]
    assert len({len(line) for line in lines}) == 1
    assert "lost: a" in one.remarks()


def test_every_task_of_the_load_is_one_that_the_judge_waits_for() -> None:
    """dags/ledger.py needs Airflow to be read, so only its words are."""
    text = (LAB / "dags" / "ledger.py").read_text()
    assert {name for name in ledger.TASKS if f"def {name}()" in text} == set(ledger.TASKS)
    assert "range(12)" in text and sum(name == "short" for name, _index in ledger.TASKS["ledger"]) == 12
    assert f"timedelta(seconds={ledger.PULSE_SECONDS})" in text
