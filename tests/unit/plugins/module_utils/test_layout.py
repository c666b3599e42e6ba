# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from configparser import ConfigParser
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import layout, services

DEFAULT = {"name": "default", "queues": ["default"], "autoscale": "", "concurrency": 4}
ETL = {"name": "etl", "queues": ["etl", "slow"], "autoscale": "8,2", "concurrency": 8, "environment": {"A": "@QUEUES@"}}
CATALOG: dict[str, dict[str, Any]] = {
    "scheduler": {"groups": ["airflow_scheduler"], "exec": "airflow scheduler", "description": "s", "health": {}},
    "dag_processor": {"groups": ["airflow_dag_processor"], "exec": "airflow dag-processor", "description": "d", "health": {}},
    "worker": {
        "groups": ["airflow_worker"],
        "exec": "airflow celery worker -q @QUEUES@ @POOL@ -H @INSTANCE@-@COLOUR@@here",
        "instances": [DEFAULT],
        "description": "w",
        "health": {"kind": "celery", "name": "@INSTANCE@-@COLOUR@@here"},
        "files": [{"path": "/etc/systemd/system/airflow-worker.target"}],
    },
    "cli": {"groups": ["airflow"], "description": "c", "health": {}},
}
NASTY = "p@ss:/?#[]%$\"' \\`ü"


def components(*groups: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in layout.components_of(CATALOG, groups)}


def test_a_host_runs_what_its_groups_say() -> None:
    assert list(components("airflow", "airflow_worker")) == ["worker", "cli"]


def test_names_follow_from_the_component() -> None:
    one = components("airflow_dag_processor")["dag_processor"]
    assert (one["user"], one["service"]) == ("airflow-dag-processor", "airflow-dag-processor")
    assert one["unit"] == "/etc/systemd/system/airflow-dag-processor.service"


def test_a_unit_with_colours_is_not_where_systemd_looks() -> None:
    one = components("airflow_worker")["worker"]
    assert one["service"] == "airflow-worker@default"
    assert one["unit"] == "/etc/airflow/worker@default/unit"


def test_each_instance_has_a_unit_and_a_name_of_its_own() -> None:
    catalog = {**CATALOG, "worker": {**CATALOG["worker"], "instances": [DEFAULT, ETL]}}
    default, etl = layout.components_of(catalog, ["airflow_worker"])
    assert default["exec"] == "airflow celery worker -q default -c 4 -H default-@COLOUR@@here"
    assert etl["exec"] == "airflow celery worker -q etl,slow --autoscale 8,2 -H etl-@COLOUR@@here"
    assert etl["health"]["name"] == "etl-@COLOUR@@here"
    assert etl["settings"] == ETL, "the user's own text is left as it is"
    assert {default["user"], etl["user"]} == {"airflow-worker"} and {default["logs"], etl["logs"]} == {"/var/log/airflow/worker"}
    made = layout.component_layout([default, etl])
    assert [one["service"] for one in made["services"]] == ["airflow-worker@default", "airflow-worker@etl"]
    assert [one["name"] for one in made["users"]] == ["airflow-worker"]
    assert [one["path"] for one in made["directories"]] == [
        "/etc/airflow/worker@default",
        "/var/lib/airflow/worker",
        "/var/log/airflow/worker",
        "/etc/airflow/worker@etl",
    ]
    shared = [one["part_of"] for one in made["files"] if one["path"].endswith(".target")]
    assert shared == ["airflow-worker@default", "airflow-worker@etl"]


def test_the_command_has_no_service() -> None:
    made = layout.component_layout(layout.components_of(CATALOG, ["airflow", "airflow_scheduler"]))
    assert [service["name"] for service in made["services"]] == ["scheduler"]
    assert not [file for file in made["files"] if file["path"].endswith("airflow-cli.service")]


def test_environment_files_are_for_root_alone() -> None:
    made = layout.component_layout(layout.components_of(CATALOG, ["airflow", "airflow_scheduler", "airflow_worker"]))
    modes = {file["mode"] for file in made["files"] if file["path"].endswith("/environment")}
    assert modes == {"0600"}


def test_only_the_log_server_reads_task_logs() -> None:
    made = layout.component_layout(layout.components_of(CATALOG, ["airflow_scheduler", "airflow_worker"]))
    groups = {one["path"]: one["group"] for one in made["directories"] if one["path"].startswith("/var/log")}
    assert groups == {"/var/log/airflow/scheduler": "airflow-scheduler", "/var/log/airflow/worker": "airflow-logs"}


def test_a_url_keeps_every_character_of_a_password() -> None:
    text = layout.url({"host": "db1", "port": 5432, "user": "a@b", "name": "airflow"}, "postgresql+psycopg2", NASTY)
    parts = urlsplit(text)
    assert unquote(parts.password or "") == NASTY
    assert (unquote(parts.username or ""), parts.hostname, parts.port, parts.path) == ("a@b", "db1", 5432, "/airflow")
    # Airflow expands $NAME in values that come from the environment.
    assert "$" not in text


def test_a_url_with_an_ipv6_address() -> None:
    text = layout.url({"host": "fd00::1", "port": 6379, "user": "default", "name": "0"}, "redis", "x")
    assert urlsplit(text).hostname == "fd00::1"


def test_a_url_of_several_hosts() -> None:
    target = {"host": "db1, db2:5433,[fd00::1]:5434,fd00::2", "port": 5432, "user": "u", "name": "n"}
    text = layout.url(target, "postgresql+psycopg2", NASTY, {"sslmode": "verify-full"})
    parts = urlsplit(text)
    assert unquote(parts.password or "") == NASTY and not parts.hostname and parts.path == "/n"
    assert dict(parse_qsl(parts.query)) == {
        "host": "db1,db2,fd00::1,fd00::2",
        "port": "5432,5433,5434,5432",
        "target_session_attrs": "read-write",
        "sslmode": "verify-full",
    }


def test_airflow_cfg_is_read_as_it_was_meant() -> None:
    sections: dict[str, dict[str, Any]] = {
        "core": {"parallelism": 8, "load_examples": False},
        "logging": {"log_format": "%(message)s 100%"},
    }
    parser = ConfigParser()
    parser.read_string(layout.airflow_cfg(sections, components("airflow_scheduler")["scheduler"]))
    assert parser["logging"]["log_format"] == "%(message)s 100%"
    assert (parser["core"]["parallelism"], parser["core"]["load_examples"]) == ("8", "False")


def test_airflow_cfg_leaves_out_what_a_component_does_not_read() -> None:
    text = layout.airflow_cfg({"celery": {"a": 1}}, components("airflow_scheduler")["scheduler"], {"celery": ["worker"]})
    assert "celery" not in text


def test_airflow_cfg_leaves_out_a_key_that_a_component_does_not_read() -> None:
    sections, readers = {"core": {"parallelism": 64, "x": 1}}, {"core.parallelism": ["scheduler"]}
    assert "parallelism" in layout.airflow_cfg(sections, components("airflow_scheduler")["scheduler"], readers)
    assert layout.airflow_cfg(sections, components("airflow_worker")["worker"], readers) == "[core]\nx = 1\n"


def test_airflow_cfg_refuses_a_line_break() -> None:
    with pytest.raises(ValueError, match=r"airflow_config\[core\]\[x\] holds a line break"):
        layout.airflow_cfg({"core": {"x": "a\nb"}}, components("airflow_scheduler")["scheduler"])


def test_an_environment_file_keeps_every_character(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "environment"
    file.write_text(layout.environment_file({"B": NASTY, "A": 1}), encoding="utf-8")
    assert services.read_environment(str(file)) == {"A": "1", "B": NASTY}


@pytest.mark.parametrize(("name", "value"), [("A-B", "x"), ("1A", "x"), ("A", "x\ny")])
def test_an_environment_file_refuses_what_systemd_cannot_read(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="environment variable"):
        layout.environment_file({name: value})


def test_a_component_gets_only_the_secrets_that_it_may() -> None:
    known = {"broker": {"BROKER": "b"}, "database": {"DATABASE": "d"}}
    found = layout.secret_environment(known, ["broker"], {"smtp": {"smtp_password": "p"}})
    assert found == {"BROKER": "b", "AIRFLOW__SMTP__SMTP_PASSWORD": "p"}


def test_a_component_s_own_settings_win_over_all() -> None:
    given: dict[str, dict[str, Any]] = {
        "all": {"smtp": {"a": 1, "b": 1}},
        "worker": {"smtp": {"b": 2}},
        "scheduler": {"x": {"y": 1}},
    }
    assert layout.for_component(given, "worker") == {"smtp": {"a": 1, "b": 2}}
