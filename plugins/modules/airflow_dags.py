#!/usr/bin/python
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_dags
short_description: Ship a folder of DAG files to a host atomically
version_added: 1.0.0
description:
  - Makes O(folder) a symbolic link to a complete copy of the folder O(source) of the control node.
  - A change builds a new tree beside the present one and then renames the link, so a reader never sees half a tree.
  - Unchanged files keep their time of modification, new and changed files get the present one, so that the DAG
    processor parses exactly those at once. Nothing is restarted.
  - What is in the present tree is compared by stat with what was shipped, so a file edited on the host is restored.
  - C(__pycache__), version control folders and files of editors are left out.
author:
  - windfarm.airflow contributors (@windfarm)
options:
  source:
    description:
      - Absolute path of the folder on the control node.
    type: path
    required: true
  folder:
    description:
      - Path of the link on the host. The trees lie beside it, in a folder of the same name with C(.revisions) added.
      - A real folder that holds something, or a link that this module did not make, is refused.
    type: path
    default: /srv/airflow/dags
  group:
    description:
      - Group that may read the files. They belong to the user who runs the module.
    type: str
    default: airflow
  exclude:
    description:
      - Patterns of further files and folders to leave out, matched against the name and the path below O(source).
    type: list
    elements: str
    default: []
  allow_empty:
    description:
      - Whether a O(source) without any file may be shipped, which removes every DAG file from the host.
    type: bool
    default: false
  keep_seconds:
    description:
      - How long a replaced tree is kept, in seconds, for readers that are still in it.
    type: int
    default: 3600
  revision:
    description:
      - Used between the action and the module; the name of the tree to have.
    type: str
  payload:
    description:
      - Used between the action and the module; the archive of a small folder.
    type: str
  payload_path:
    description:
      - Used between the action and the module; the archive of a large folder on the host.
    type: path
attributes:
  check_mode:
    description: Can run in check mode and predict the change.
    support: full
  diff_mode:
    description: Lists added, changed and removed files, and shows the text of small ones.
    support: full
  action:
    description: Has an action plugin of the same name on the control node.
    support: full
"""

EXAMPLES = r"""
- name: Ship the DAG files
  windfarm.airflow.airflow_dags:
    source: "{{ inventory_dir }}/dags"
"""

RETURN = r"""
revision:
  description: Name of the shipped contents, equal on every host that holds the same files.
  returned: always
  type: str
  sample: 3f2a90bb1c44de07
tree:
  description: Path that the link leads to. Beside it lies a file of the same name with C(.json) added, which records
    the revision, the time and every file.
  returned: always
  type: str
  sample: /srv/airflow/dags.revisions/20261121T221500-3f2a90bb1c44de07
added:
  description: Number of files that are new.
  returned: always
  type: int
  sample: 1
updated:
  description: Number of files that changed or were restored.
  returned: always
  type: int
  sample: 0
removed:
  description: Number of files that are gone.
  returned: always
  type: int
  sample: 0
"""

import base64
import grp
import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.windfarm.airflow.plugins.module_utils.airflow_dags import (
    DIFF_FILES,
    DagsError,
    Files,
    Store,
    compare,
    summary,
    text,
    unpack,
)


def diffs(store: Store, tree: str | None, before: Files, archive: IO[bytes], drifted: list[str]) -> list[dict[str, Any]]:
    """The list of files, then the texts that are small enough to read."""
    members = unpack(archive)
    after: Files = json.load(next(members)[1])
    difference = compare(before, after)
    shown: list[dict[str, Any]] = [{"prepared": summary(difference, drifted)}]
    wanted = {*difference["added"], *difference["changed"], *drifted}

    def old(path: str) -> bytes | None:
        if path not in before and path not in drifted:
            return b""
        try:
            with open(f"{store.store}/{tree}/{path}", "rb") as handle:
                return handle.read()
        except OSError:
            return b""

    def show(path: str, was: str | None, becomes: str | None) -> None:
        if was is not None and becomes is not None and was != becomes and len(shown) <= DIFF_FILES:
            shown.append({"before_header": path, "after_header": path, "before": was, "after": becomes})

    for member, content in members:
        path = member.partition("/")[2]
        if path in wanted:
            show(path, text(old(path)), text(content.read()))
    for path in difference["removed"]:
        show(path, text(old(path)), "")
    return shown


def run(module: AnsibleModule, store: Store, opened: Callable[[], IO[bytes]] | None) -> dict[str, Any]:
    """Compare, and switch when an archive is at hand; without one say what the host already holds."""
    with nullcontext() if module.check_mode or opened is None else store.lock():
        tree, revision, files, drifted = store.state()
        if revision == module.params["revision"] and not drifted:
            return {"changed": False, "revision": revision, "tree": f"{store.store}/{tree}", **_counts({}, [])}
        if opened is None:
            known = {path: entry.get("sha256", "") for path, entry in files.items() if path not in drifted}
            return {"changed": False, "known": known}
        with opened() as archive:
            after: Files = json.load(next(unpack(archive))[1])
        result: dict[str, Any] = {"changed": True, "revision": module.params["revision"]}
        if module._diff:
            with opened() as archive:
                result["diff"] = diffs(store, tree, files, archive, drifted)
        if not module.check_mode:
            with opened() as archive:
                store.switch(archive)
        return {**result, "tree": f"{store.store}/{store.current()}", **_counts(compare(files, after), drifted)}


def _counts(difference: dict[str, list[str]], drifted: list[str]) -> dict[str, int]:
    return {
        "added": len(difference.get("added", [])),
        "updated": len({*difference.get("changed", []), *drifted}),
        "removed": len(difference.get("removed", [])),
    }


def opener(params: dict[str, Any]) -> Callable[[], IO[bytes]] | None:
    """How to open the archive anew; None when there is none."""
    if not params["payload"] and not params["payload_path"]:
        return None
    content = base64.b64decode(params["payload"] or "")

    def opened() -> IO[bytes]:
        return open(params["payload_path"], "rb") if params["payload_path"] else io.BytesIO(content)

    return opened


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "folder": {"type": "path", "default": "/srv/airflow/dags"},
            "group": {"type": "str", "default": "airflow"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "allow_empty": {"type": "bool", "default": False},
            "keep_seconds": {"type": "int", "default": 3600},
            "revision": {"type": "str"},
            # no_log keeps the archive out of the host's journal.
            "payload": {"type": "str", "no_log": True},
            "payload_path": {"type": "path"},
        },
        supports_check_mode=True,
        mutually_exclusive=[("payload", "payload_path")],
    )
    try:
        gid = grp.getgrnam(module.params["group"]).gr_gid
    except KeyError:
        if not module.check_mode:
            module.fail_json(
                msg=f"the group {module.params['group']} does not exist on this host: run playbooks/site.yml or "
                "playbooks/airflow.yml first"
            )
        gid = -1

    try:
        store = Store(module.params["folder"], gid, module.params["keep_seconds"])
        result = run(module, store, opener(module.params))
    except DagsError as error:
        module.fail_json(msg=str(error))
    except PermissionError as error:
        module.fail_json(msg=f"airflow_dags: {error}: run this play with become, as root")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
