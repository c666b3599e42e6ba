# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Code of a DAG's author in the triggerer, which imports from the folder of plugins: the test puts it there, as root."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class HostileTrigger(BaseTrigger):
    def __init__(self, program: str, order: str) -> None:
        super().__init__()
        self.program, self.order = program, order

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "hostile_trigger.HostileTrigger", {"program": self.program, "order": self.order}

    async def run(self) -> Any:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, self.program, stdin=pipe, stdout=pipe, stderr=pipe)
        out, problems = await process.communicate(self.order.encode())
        yield TriggerEvent(json.loads(out) if process.returncode == 0 else {"error": problems.decode()[-2000:]})
