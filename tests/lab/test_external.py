# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL, a broker and users that are not this collection's: the cluster is described anew, with servers that it finds there.

The servers are those that it had; the inventory no longer has their groups. The steps go on from each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import BIN, smoke
from inventory import Inventory
from upgrading import SITE, Run, stream

Describe = Callable[..., Run]


@pytest.fixture(scope="module")
def describe(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Describe]:
    """Runs site.yml with other variables, on an inventory without the servers' groups; `folder` is that inventory."""
    folder = tmp_path_factory.mktemp("external") / "inventory"
    shutil.copytree(inventory.path, folder)
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    # The first host's address stands there.
    hosts["all"] = {"hosts": {**hosts.pop("postgresql")["hosts"], **{}}}
    hosts.pop("redis")
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    dags = str(inventory.common("airflow_dags_source"))
    source = str(Path(inventory.path).resolve().joinpath(dags)) if not Path(dags).is_absolute() else dags

    def site(**variables: Any) -> Run:
        text = json.dumps({"airflow_dags_source": source, **variables})
        (folder / "group_vars" / "all" / "zz_external.yml").write_text(text)
        return stream([str(BIN / "ansible-playbook"), "-i", str(folder), SITE], folder.parent / "site.log")

    site.folder = folder  # type: ignore[attr-defined]
    yield site
    # As it was.
    run = stream([str(BIN / "ansible-playbook"), "-i", str(inventory.path), SITE], folder.parent / "site.log")
    assert run.rc == 0, run.output[-6000:]


def servers(inventory: Inventory) -> dict[str, Any]:
    """The servers by their addresses: of two, the first is none that could be used."""
    first, *others = inventory.groups["airflow"]
    here, nobody = inventory.plan["addresses"][first], inventory.plan["addresses"][others[0]]
    password = inventory.common("airflow_broker_password")
    return {
        "airflow_database_host": f"{nobody}:5432,{here}",
        "airflow_database_sslmode": "verify-full",
        "airflow_broker_url": f"rediss://airflow:{password}@{here}:6379/0",
    }


def test_servers_of_others(inventory: Inventory, describe: Describe) -> None:
    variables = servers(inventory)
    run = describe(**variables)
    assert run.rc == 0, run.output[-6000:]
    print(run.table())
    assert str(inventory.common("airflow_broker_password")) not in run.output
    environment = inventory.run(inventory.groups["airflow"][0], "cat", "/etc/airflow/webserver/environment")
    assert "target_session_attrs=read-write" in environment and "sslmode=verify-full" in environment
    smoke(describe.folder)  # type: ignore[attr-defined]
    assert describe(**variables).changed == 0


@pytest.mark.long
def test_users_of_a_directory(inventory: Inventory, describe: Describe, tmp_path: Path) -> None:
    config = tmp_path / "webserver_config.py"
    config.write_text("from flask_appbuilder.const import AUTH_REMOTE_USER\nAUTH_TYPE = AUTH_REMOTE_USER\n# hush-7f3a\n")
    users = [{"username": "eve", "email": "eve@example.com", "roles": ["Viewer"], "password": "x" * 20}]
    roles = [{"name": "Mapped", "permissions": [{"action": "can_read", "resource": "DAGs"}]}]
    variables = {**servers(inventory), "airflow_webserver_config": str(config), "airflow_users": users, "airflow_roles": roles}
    before = inventory.sql("SELECT username, password FROM ab_user ORDER BY 1")
    run = describe(**variables, airflow_admin_password="another-Kx9-qq17-Zt55")
    assert run.rc == 0, run.output[-6000:]
    assert "airflow_users is left out: webserver_config.py has users of another place" in run.said
    assert "hush-7f3a" not in run.output
    assert inventory.sql("SELECT username, password FROM ab_user ORDER BY 1") == before
    assert inventory.sql("SELECT name FROM ab_role WHERE name = 'Mapped'") == [["Mapped"]]
    host = inventory.members["webserver"][0]
    for path, group in (("webserver", "airflow-webserver"), ("cli", "airflow-cli")):
        shown = inventory.run(host, "stat", "-c", "%a %U %G", f"/etc/airflow/{path}/webserver_config.py")
        assert shown == f"640 root {group}"
    assert describe(**variables, airflow_admin_password="another-Kx9-qq17-Zt55").changed == 0
    inventory.sql("DELETE FROM ab_permission_view_role WHERE role_id = (SELECT id FROM ab_role WHERE name = 'Mapped')")
    inventory.sql("DELETE FROM ab_role WHERE name = 'Mapped'")
