# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which keys of Redis are a cluster's tasks; that a broker works on afterwards is tested on the lab's hosts."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from ansible_collections.windfarm.airflow.plugins.module_utils.server_host import ServerError
from ansible_collections.windfarm.airflow.plugins.modules import redis_queues as module

S = module.SEPARATOR


class Redis:
    """Keys that are lists, sets or hashes; a scan gives them in two parts."""

    def __init__(self, **keys: Any) -> None:
        self.keys = dict(keys)
        self.closed = False

    def call(self, *words: str) -> Any:
        name, key = words[0], words[1] if len(words) > 1 else ""
        value = self.keys.get(key)
        if name == "SCAN":
            pattern = words[3].replace("\\", "")
            found = sorted(one for one in self.keys if fnmatch.fnmatchcase(one, pattern))
            half = len(found) // 2
            return ["7", found[:half]] if words[1] == "0" else ["0", found[half:]]
        kinds: dict[type, str] = {list: "list", set: "set", dict: "hash"}
        answers = {
            "SMEMBERS": value,
            "TYPE": kinds.get(type(value), "none"),
            "LLEN": len(value or []),
            "HLEN": len(value or []),
            "EXISTS": int(key in self.keys),
        }
        return answers[name]

    def transaction(self, *commands: tuple[str, ...]) -> None:
        for word, key in commands:
            assert word == "DEL"
            del self.keys[key]

    def close(self) -> None:
        self.closed = True


class AnsibleModule:
    def __init__(self, state: str = "emptied", check: bool = False, **params: Any) -> None:
        self.check_mode = check
        self.params = {"state": state, "user": "admin", "password": "x", "queues": [], "prefix": "", **params}


def broker(prefix: str = "") -> Redis:
    keys = {
        f"{prefix}_kombu.binding.default": {f"default{S}{S}default", f"default{S}{S}gpu"},
        f"{prefix}_kombu.binding.celery.pidbox": {f"{S}{S}w@h.celery.pidbox"},
        f"{prefix}_kombu.binding.celeryev": {f"worker.#{S}{S}celeryev.1-2"},
        f"{prefix}default": ["a", "b"],
        f"{prefix}default{S}6": ["c"],
        f"{prefix}unacked": {"1": "x", "2": "y"},
        f"{prefix}unacked_index": {"1"},
        f"{prefix}w@h.celery.pidbox": ["letter"],
        "somebody": ["else"],
    }
    return Redis(**keys)


def work(redis: Redis, monkeypatch: pytest.MonkeyPatch, **params: Any) -> dict[str, Any]:
    monkeypatch.setattr(module, "Host", lambda _module: None)
    monkeypatch.setattr(module, "connect", lambda *_arguments: redis)
    return module.work(AnsibleModule(**params))


@pytest.mark.parametrize("prefix", ["", "wind:"])
def test_tasks_go_and_everything_else_stays(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    redis = broker(prefix)
    result = work(redis, monkeypatch, prefix=prefix, queues=["later"])
    assert result == {"changed": True, "queues": {"default": 3, "gpu": 0, "later": 0}, "unacknowledged": 2}
    assert {one for one in redis.keys if "kombu" not in one} == {f"{prefix}w@h.celery.pidbox", "somebody"}
    assert len([one for one in redis.keys if "_kombu.binding" in one]) == 3
    assert redis.closed
    assert work(redis, monkeypatch, prefix=prefix)["changed"] is False


@pytest.mark.parametrize("params", [{"state": "read"}, {"check": True}])
def test_reading_deletes_nothing(monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]) -> None:
    redis = broker()
    before = dict(redis.keys)
    result = work(redis, monkeypatch, **params)
    assert result["queues"]["default"] == 3
    assert result["changed"] is ("check" in params)
    assert redis.keys == before


def test_a_key_that_is_no_queue_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = broker()
    redis.keys["gpu"] = {"no": "list"}
    with pytest.raises(ServerError, match="'gpu' of Redis has the name of a queue and is none"):
        work(redis, monkeypatch)
    assert redis.keys["default"] == ["a", "b"]
