# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a script of ours with a release's Python, as an unprivileged user. Runs on the host."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class ScriptError(Exception):
    """What the script says went wrong, with the end of what it printed."""


def run_script(
    release: str, user: str, environment: Mapping[str, str], script: ModuleType, question: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer that the script writes to file descriptor 3; nothing of the question stands in argv or a file."""
    account = pwd.getpwnam(user)
    source = script.__loader__.get_source(script.__name__)  # type: ignore[union-attr]
    reading, writing = os.pipe()

    def become() -> None:
        os.dup2(writing, 3, inheritable=True)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)

    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        [os.path.join(release, "bin", "python"), "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=account.pw_dir,
        env={"PATH": f"{release}/bin:/usr/bin:/bin", "HOME": account.pw_dir, "PYTHONSAFEPATH": "1", **environment},
        preexec_fn=become,
        close_fds=False,
        pass_fds=(),
    )
    os.close(writing)
    output, _unused = process.communicate(json.dumps(question))
    with os.fdopen(reading) as answers:
        text = answers.read()
    answer = json.loads(text) if text else {"error": f"exit status {process.returncode}"}
    if "error" in answer:
        tail = "\n".join(output.strip().splitlines()[-15:])
        raise ScriptError(f"{answer['error']}\n{tail}")
    return answer
