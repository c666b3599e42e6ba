# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Variables that name those of another host, in everything that reads the whole inventory."""

from __future__ import annotations

import pathlib
from typing import Any

from ansible.vars.hostvars import HostVars
from ansible_collections.windfarm.airflow.plugins.filter.cluster import cluster
from ansible_collections.windfarm.airflow.plugins.plugin_utils.host_variables import whole

FIRST = "{{ hostvars[groups['airflow_webserver'][0]].ansible_host }}"


def test_a_variable_may_name_those_of_another_host(folder: pathlib.Path, controller: Any, write: Any) -> None:
    write(folder, {"group_vars/all.yml": f'airflow_base_url: "https://{FIRST}:8443"\nairflow_broker_host: "{FIRST}"\n'})
    found = controller([str(folder / "hosts.yml")])
    hostvars = HostVars(found.inventory, found.variables, found.loader)
    assert whole(hostvars)["worker1"]["airflow_base_url"] == "https://192.0.2.2:8443"
    assert len(whole(hostvars)) == 4 and "worker1" in whole(hostvars)
    planned = cluster(hostvars, found.inventory.get_groups_dict())
    assert planned["broker"]["host"] == "192.0.2.2"
    assert "192.0.2.2" in planned["certificate_names"]["control1"]


def test_anything_else_is_as_it_was() -> None:
    plain = {"one": {"a": 1}}
    assert whole(plain) is plain
