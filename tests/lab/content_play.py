# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs module airflow_content on a cluster, as a user's playbook would, and reads what Airflow then has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inventory import ROOT, Inventory

PLAY = """
- hosts: "{{ target }}"
  gather_facts: false
  become: true
  tasks:
    - name: Converge
      windfarm.airflow.airflow_content: "{{ content }}"
      register: answer
    - name: Look
      windfarm.airflow.airflow_info:
      register: info
      when: look
    - name: Keep the answer
      ansible.builtin.copy:
        content: "{{ {'content': answer, 'info': info if look else {}} | to_json }}"
        dest: "{{ answer_file }}"
        mode: "0600"
      delegate_to: localhost
      become: false
      check_mode: false
      vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
"""


@dataclass
class Answer:
    """What the module said, and everything that Ansible printed."""

    rc: int
    seconds: float
    output: str
    content: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return " ".join(self.output.split())

    @property
    def changes(self) -> dict[tuple[str, str], tuple[str, list[str]]]:
        return {(one["kind"], one["name"]): (one["what"], one["fields"]) for one in self.content["changes"]}


class Content:
    """The module on one host of the cluster."""

    def __init__(self, inventory: Inventory, folder: Path) -> None:
        self.inventory = inventory
        self.folder = folder
        self.host = inventory.members["scheduler"][0]
        folder.joinpath("play.yml").write_text(PLAY)

    def command(
        self, declared: dict[str, Any], check: bool = False, host: str = "", verbose: bool = False, look: bool = False
    ) -> list[str]:
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        variables = self.folder / "content.json"
        # What is marked so is taken as it is: a value may look like a template.
        variables.write_text(
            json.dumps({"content": declared, "target": host or self.host, "answer_file": str(answer), "look": look})
        )
        words = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(Path(self.inventory.path).resolve())]
        words += [str(self.folder / "play.yml"), "-e", f"@{variables}", "--diff"]
        return [*words, *(["--check"] if check else []), *(["-vvv"] if verbose else [])]

    def run(
        self, declared: dict[str, Any], check: bool = False, host: str = "", verbose: bool = False, look: bool = False
    ) -> Answer:
        command = self.command(declared, check, host, verbose, look)
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"}, check=False
        )
        answer = Answer(done.returncode, time.monotonic() - began, done.stdout + done.stderr)
        kept = self.folder / "answer.json"
        if kept.exists():
            found = json.loads(kept.read_text())
            answer.content, answer.info = found["content"], found["info"]
        return answer

    def must(
        self, declared: dict[str, Any], check: bool = False, host: str = "", verbose: bool = False, look: bool = False
    ) -> Answer:
        answer = self.run(declared, check, host, verbose, look)
        assert answer.rc == 0, answer.output[-6000:]
        return answer

    def export(self, what: str) -> dict[str, Any]:
        """What Airflow itself reads: `variables` or `connections`, by its own command."""
        words = ("airflow", what, "export", "-", *(["--file-format", "json"] if what == "connections" else []))
        text = self.inventory.run(self.host, *words)
        found: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
        return found

    def count(self, kind: str) -> int:
        return int(self.inventory.sql(f"SELECT count(*) FROM {kind}")[0][0])
