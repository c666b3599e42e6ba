# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils import workers
from ansible_collections.windfarm.airflow.plugins.module_utils.cluster import setting


def of(**variables: Any) -> list[dict[str, Any]]:
    given = {f"airflow_worker_{key}": value for key, value in variables.items()}
    return workers.instances(lambda name: setting(given, name))


def test_a_host_without_instances_has_one() -> None:
    assert of() == [
        {
            "name": "default",
            "queues": ["default"],
            "concurrency": 16,
            "autoscale": "",
            "environment": {},
            "memory_high": "",
            "memory_max": "",
            "derived": True,
        }
    ]


def test_what_an_instance_does_not_say_the_host_says() -> None:
    io, etl = of(
        instances=[
            {"name": "io", "concurrency": 32},
            {"name": "etl", "queues": ["etl"], "environment": None, "memory_max": "4G"},
        ],
        queues=["default", "fast"],
        concurrency="4",
        environment={"A": 1},
        memory_high="50%",
    )
    assert (io["name"], io["queues"], io["concurrency"], io["memory_max"]) == ("io", ["default", "fast"], 32, "")
    assert (etl["queues"], etl["concurrency"], etl["environment"], etl["memory_max"]) == (["etl"], 4, {"A": 1}, "4G")
    assert etl["memory_high"] == "50%" and not io["derived"] and not etl["derived"]


def test_autoscale_counts_with_its_larger_number() -> None:
    host, own = of(autoscale="12, 3", concurrency=4, instances=[{"name": "x"}, {"name": "y", "concurrency": 5}])
    assert (host["autoscale"], host["concurrency"]) == ("12,3", 12)
    # Its own number is not overruled by what the host says of all.
    assert (own["autoscale"], own["concurrency"]) == ("", 5)


def test_every_queue_is_known() -> None:
    assert workers.queues({"w1": of(queues=["b", "a"]), "w2": of(queues=["b"])}) == ["a", "b"]


@pytest.mark.parametrize(
    ("memory", "processors", "neighbours", "expected"),
    [
        (8, 2, 0, 16),  # (8192 - 1024) / 350 = 20, 2 x 8 = 16
        (4, 2, 0, 8),
        (4, 1, 0, 8),
        (4, 4, 6, 3),  # (4096 - 1024 - 1800) / 350
        (1, 1, 0, 1),
        (64, 32, 0, 16),
    ],
)
def test_a_number_that_nobody_gave_comes_from_the_machine(memory: int, processors: int, neighbours: int, expected: int) -> None:
    (one,) = workers.sized(of(), {"memory": memory, "processors": processors}, neighbours)
    assert one["concurrency"] == expected


def test_a_large_machine_may_have_more() -> None:
    (one,) = workers.sized(of(concurrency_max=64), {"memory": 64, "processors": 32}, 0)
    assert one["concurrency"] == 64


def test_instances_share_what_the_others_leave() -> None:
    given = of(instances=[{"name": "a", "concurrency": 6}, {"name": "b"}, {"name": "c"}])
    found = workers.sized(given, {"memory": 8, "processors": 2}, 0)
    assert [one["concurrency"] for one in found] == [6, 5, 5]
    # Never none, and never more than the connections of PostgreSQL were counted with.
    assert [one["concurrency"] for one in workers.sized(given, {"memory": 1, "processors": 1}, 0)] == [6, 1, 1]
    assert workers.sized(given, {}, 0) == given


def test_the_command_line() -> None:
    fixed, scaled = of(instances=[{"name": "a", "concurrency": 6, "queues": ["x", "y"]}, {"name": "b", "autoscale": "8,2"}])
    assert workers.words(fixed) == {"@INSTANCE@": "a", "@QUEUES@": "x,y", "@POOL@": "-c 6"}
    assert workers.words(scaled)["@POOL@"] == "--autoscale 8,2"


def test_names_alone() -> None:
    assert [one["name"] for one in workers.named(None)] == ["default"]
    assert [one["name"] for one in workers.named([{"name": "a", "queues": ["x"]}, {"name": "b"}])] == ["a", "b"]
