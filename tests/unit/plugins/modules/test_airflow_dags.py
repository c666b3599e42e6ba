# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module in this process, on a real file system."""

from __future__ import annotations

import base64
import grp
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.windfarm.airflow.plugins.module_utils import airflow_dags as dags
from ansible_collections.windfarm.airflow.plugins.modules import airflow_dags as module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    (root / "a.py").write_text("a = 1\n")
    (root / "logo.png").write_bytes(b"\0\1")
    return root


@pytest.fixture
def call(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(payload: bool = True, only: list[str] | None = None, path: bool = False, **options: Any) -> dict[str, Any]:
        files = dags.scan(str(source))
        arguments = {
            "source": str(source),
            "folder": str(tmp_path / "srv" / "dags"),
            "group": grp.getgrgid(os.getgid()).gr_name,
            "revision": dags.revision(files),
            **options,
        }
        archive = io.BytesIO()
        dags.pack(str(source), files, list(files) if only is None else only, archive)
        if path:
            (tmp_path / "archive").write_bytes(archive.getvalue())
            arguments["payload_path"] = str(tmp_path / "archive")
        elif payload:
            arguments["payload"] = base64.b64encode(archive.getvalue()).decode()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_first_second_and_changed_run(call: Any, source: Path) -> None:
    first = call()
    assert (first["changed"], first["added"], first["updated"], first["removed"]) == (True, 2, 0, 0)
    assert json.loads(Path(first["tree"] + ".json").read_text())["revision"] == first["revision"]
    second = call()
    assert (second["changed"], second["tree"]) == (False, first["tree"])
    (source / "a.py").write_text("a = 2\n")
    (source / "logo.png").unlink()
    third = call(path=True)
    assert (third["changed"], third["added"], third["updated"], third["removed"]) == (True, 0, 1, 1)
    assert third["tree"] != first["tree"]


def test_without_an_archive_it_says_what_the_host_holds(call: Any, source: Path) -> None:
    assert {**call(payload=False), "invocation": None} == {"changed": False, "known": {}, "invocation": None}
    first = call()
    assert call(payload=False)["changed"] is False and "known" not in call(payload=False)
    (source / "a.py").write_text("a = 2\n")
    Path(first["tree"], "logo.png").write_bytes(b"\2")
    assert list(call(payload=False)["known"]) == ["a.py"]


def test_check_mode_predicts_and_writes_nothing(call: Any, source: Path, tmp_path: Path) -> None:
    predicted = call(_ansible_check_mode=True, _ansible_diff=True)
    assert predicted["changed"] and not (tmp_path / "srv").exists()
    assert predicted["diff"][0] == {"prepared": "added: a.py\nadded: logo.png\n"}
    assert [(each["before"], each["after"]) for each in predicted["diff"][1:]] == [("", "a = 1\n")]
    call()
    (source / "a.py").write_text("a = 2\n")
    (source / "logo.png").unlink()
    predicted = call(_ansible_check_mode=True, _ansible_diff=True, only=[])
    assert predicted["diff"] == [{"prepared": "changed: a.py\nremoved: logo.png\n"}]
    done = call(_ansible_diff=True)
    assert [(each["before"], each["after"]) for each in done["diff"][1:]] == [("a = 1\n", "a = 2\n")]


def test_check_mode_works_before_the_group_exists(call: Any) -> None:
    assert call(group="no-such-group", _ansible_check_mode=True)["changed"] is True
    assert "run playbooks/site.yml" in call(group="no-such-group")["msg"]


def test_a_foreign_folder_fails_with_the_cure(call: Any, tmp_path: Path) -> None:
    (tmp_path / "srv" / "dags").mkdir(parents=True)
    (tmp_path / "srv" / "dags" / "mine.py").write_text("")
    result = call()
    assert result["failed"] and "move it away" in result["msg"]
    assert "move it away" in call(_ansible_check_mode=True)["msg"]


def test_the_archive_is_nowhere_in_the_output(call: Any, source: Path) -> None:
    (source / "a.py").write_text(os.urandom(2000).hex())
    assert len(json.dumps(call(_ansible_verbosity=3))) < 1200
