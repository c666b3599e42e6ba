# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real runs of a small playbook on this machine, as a log file has them."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[4]
COLLECTIONS = ROOT / ".collections" if (ROOT / ".collections").exists() else ROOT.parents[2]
PLAYBOOK = """\
- name: First phase
  hosts: all
  gather_facts: false
  tasks:
    - name: Write a file
      ansible.builtin.copy: {content: "x\\n", dest: "{{ folder }}/{{ inventory_hostname }}", mode: "0600"}
    - name: Nothing new
      ansible.builtin.command: "true"
      changed_when: false
    - name: Pass over
      ansible.builtin.command: "false"
      when: false
    - name: Several
      ansible.builtin.copy: {content: "x\\n", dest: "{{ folder }}/{{ item }}", mode: "0600"}
      loop: [one, two]
      when: inventory_hostname == "a"
    - name: Say it
      ansible.builtin.debug: {msg: "to be read"}
      when: inventory_hostname == "a"
    - name: Hidden
      ansible.builtin.copy: {content: "sekret-7c1", dest: "{{ folder }}/sekret-{{ inventory_hostname }}", mode: "0600"}
      no_log: true
      when: inventory_hostname == "a"
- name: Second phase
  hosts: a
  gather_facts: false
  tasks:
    - name: Fail openly
      ansible.builtin.command: sh -c "echo one >&2; echo two >&2; exit 3"
      ignore_errors: true
      changed_when: false
      when: broken | default(false) | bool
    - name: Fail in secret
      ansible.builtin.command: sh -c "echo sekret-7c1; exit 4"
      no_log: true
      changed_when: false
      when: broken | default(false) | bool
"""


def run(folder: pathlib.Path, *arguments: str, callback: str = "windfarm.airflow.progress") -> tuple[int, str]:
    (folder / "site.yml").write_text(PLAYBOOK)
    (folder / "hosts.yml").write_text("all: {hosts: {a: {ansible_connection: local}, b: {ansible_connection: local}}}\n")
    (folder / "out").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_STDOUT_CALLBACK": callback, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "COLUMNS": "160"}
    tool = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    command = [tool, "-i", str(folder / "hosts.yml"), str(folder / "site.yml"), "-e", f"folder={folder}/out"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_what_changed_and_nothing_else(tmp_path: pathlib.Path) -> None:
    rc, text = run(tmp_path)
    assert rc == 0, text
    assert re.search(r"^\[ +\d+\.\d s\] First phase$", text, re.M) and re.search(r"^\[ +\d+\.\d s\] Second phase$", text, re.M)
    assert re.search(r"^            Write a file\n              changed  [ab]\n              changed  [ab]$", text, re.M)
    assert "              changed  a (one)\n              changed  a (two)\n" in text
    assert "              to be read\n" in text
    assert "Nothing new" not in text and "Pass over" not in text and "ok:" not in text
    # The recap as everybody reads it.
    assert re.search(r"^a +: ok=\d+ +changed=3 +unreachable=0 +failed=0 ", text, re.M)
    summary = text.split("What changed\n")[1]
    assert re.search(r"^  Write a file: (a, b|b, a)$", summary, re.M) and "  Several: a\n" in summary
    # Plain, also where nobody looks on.
    assert "\r" not in text and "\x1b" not in text and "sekret" not in text

    rc, text = run(tmp_path)
    assert rc == 0 and "Nothing has changed." in text and "changed  " not in text


def test_what_went_wrong(tmp_path: pathlib.Path) -> None:
    rc, text = run(tmp_path, "-e", "broken=true")
    assert rc == 2
    assert re.search(
        r"^              failed, ignored:  a: .*non-zero return code\.?\n                one\n                two$", text, re.M
    ), text
    assert re.search(r"^            Fail in secret\n              FAILED  a: the output has been hidden", text, re.M), text
    assert "sekret" not in text
    assert "Next: mend what is told above, then give the same command again" in text


def test_a_prediction_and_its_diff(tmp_path: pathlib.Path) -> None:
    rc, text = run(tmp_path, "--check", "--diff")
    assert rc == 0 and "+x" in text and "this was a prediction" in text and "sekret" not in text
    assert not list((tmp_path / "out").iterdir())


def test_verbose_says_all_that_the_default_says(tmp_path: pathlib.Path) -> None:
    _rc, text = run(tmp_path, "-v")
    assert "TASK [Nothing new]" in text and "PLAY [First phase]" in text and "What changed" in text and "sekret" not in text


def test_the_default_callback_works_too(tmp_path: pathlib.Path) -> None:
    rc, text = run(tmp_path, callback="default")
    assert rc == 0 and "PLAY RECAP" in text and "sekret" not in text
