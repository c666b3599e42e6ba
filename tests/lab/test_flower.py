# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flower shows what runs, to those who have its password, and neither shows a token nor changes anything."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api import Airflow, wait
from conftest import Shipment
from inventory import Inventory

HIDDEN = "(hidden)"
# The first part of every JSON web token is a JSON object, in base64.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{16,}\.")
TABLE = "/tasks/datatable?draw=1&start=0&length=1000&order[0][column]=0&columns[0][data]=name"
PAGES = ("/", "/workers", "/tasks", "/broker", TABLE, "/api/workers?refresh=1", "/api/tasks?limit=1000", "/api/queues/length")
CHANGES = (
    "/api/worker/shutdown/{worker}",
    "/api/worker/pool/restart/{worker}",
    "/api/worker/pool/grow/{worker}?n=1",
    "/api/worker/pool/shrink/{worker}?n=1",
    "/api/worker/pool/autoscale/{worker}?min=1&max=2",
    "/api/worker/queue/add-consumer/{worker}?queue=flower",
    "/api/worker/queue/cancel-consumer/{worker}?queue=default",
    "/api/task/apply/execute_workload",
    "/api/task/async-apply/execute_workload",
    "/api/task/send-task/execute_workload",
    "/api/task/abort/{task}",
    "/api/task/timeout/execute_workload?hard=1&workername={worker}",
    "/api/task/rate-limit/execute_workload?ratelimit=1&workername={worker}",
    "/api/task/revoke/{task}?terminate=true",
)
FETCH = """
import base64, json, sys, urllib.error, urllib.request
port, credentials, method, paths = json.loads({arguments!r})
headers = dict(Authorization="Basic " + base64.b64encode(credentials.encode()).decode()) if credentials else dict()
answers = dict()
for path in paths:
    url = f"http://127.0.0.1:{{port}}" + path.replace("[", "%5B").replace("]", "%5D")
    request = urllib.request.Request(url, method=method, headers=headers, data=b"" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answers[path] = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        answers[path] = error.code, error.read().decode()
json.dump(answers, sys.stdout)
"""


class Flower:
    def __init__(self, inventory: Inventory) -> None:
        self.host = inventory.members["flower"][0]
        self._inventory = inventory
        self._port = inventory.common("airflow_flower_port", 5555)
        self._credentials = f"{inventory.common('airflow_flower_user', 'airflow')}:{inventory.common('airflow_flower_password')}"

    def fetch(self, *paths: str, method: str = "GET", login: bool = True) -> dict[str, tuple[int, str]]:
        arguments = json.dumps([self._port, self._credentials if login else "", method, paths])
        answers = json.loads(self._inventory.run(self.host, "python3", "-", stdin=FETCH.format(arguments=arguments)))
        return {path: (answer[0], answer[1]) for path, answer in answers.items()}

    def json(self, path: str) -> Any:
        status, text = self.fetch(path)[path]
        assert status == 200, f"{path}: {status} {text[:200]}"
        return json.loads(text)


@pytest.fixture(scope="module")
def flower(inventory: Inventory) -> Flower:
    if not inventory.members["flower"]:
        pytest.skip("no host runs Flower")
    return Flower(inventory)


def celery_name(inventory: Inventory, worker: str) -> str:
    return inventory.worker_unit(worker).split("@")[1].removesuffix(".service") + f"@{worker}"


@pytest.fixture(scope="module")
def running(flower: Flower, shipment: Shipment, airflow: Airflow, inventory: Inventory) -> Iterator[tuple[str, dict[str, Any]]]:
    """The Celery name of a worker that has a task, and what it tells of the task."""
    shipment.ship("flower")
    wait("the shipped DAG is known", 60, lambda: airflow.dag("life_cycle") and shipment.marker in airflow.source("life_cycle"))
    run_id = airflow.trigger("life_cycle", {"seconds": 120})
    task_of = (
        f"select external_executor_id from task_instance where run_id = '{run_id}' and task_id = 'slow' and state = 'running'"
    )
    workers = [celery_name(inventory, name) for name in inventory.members["worker"]]

    def active() -> tuple[str, dict[str, Any]] | None:
        wanted = inventory.sql(task_of)
        for worker in workers if wanted else []:
            for task in flower.json(f"/api/workers?refresh=1&workername={worker}")[worker].get("active") or []:
                if [task["id"]] in wanted:
                    return worker, task
        return None

    yield wait("Flower shows a task that runs", 60, active)
    airflow.end("life_cycle", run_id, "success")


def test_no_page_shows_a_token_while_a_task_runs(flower: Flower, running: tuple[str, dict[str, Any]]) -> None:
    worker, task = running
    assert task["args"] == task["kwargs"] == HIDDEN
    wait("the event of the task has arrived", 30, lambda: task["id"] in flower.json("/api/tasks?limit=1000"))
    pages = flower.fetch(
        *PAGES, f"/worker/{worker}", f"/api/workers?workername={worker}", f"/task/{task['id']}", f"/api/task/info/{task['id']}"
    )
    for path, (status, text) in pages.items():
        assert status == 200, f"{path}: {status}"
        assert not TOKEN.search(text), f"{path} shows a token"
    # Otherwise the pages would prove nothing.
    for path in (TABLE, f"/worker/{worker}", f"/task/{task['id']}", f"/api/task/info/{task['id']}"):
        assert task["id"] in pages[path][1], f"{path} does not show the task"
        assert HIDDEN in pages[path][1]


def test_nobody_on_the_broker_is_told_the_arguments(
    running: tuple[str, dict[str, Any]], inventory: Inventory, airflow: Airflow
) -> None:
    """Who inspects a worker sees no argument, whichever way it asks."""
    worker, task = running
    operator = inventory.members["scheduler"][0]
    script = (
        "import json, sys\n"
        "from airflow.providers.celery.executors.celery_executor_utils import app\n"
        "worker, task = sys.argv[1:]\n"
        "ask = app.control.inspect(destination=[worker], timeout=5)\n"
        "told = [ask.active(), ask.active(safe=True), ask.reserved(), ask.scheduled(), ask.query_task(task)]\n"
        "told += [ask.conf(), ask.stats(), ask.report()]\n"
        "print(json.dumps(told, default=str))\n"
    )
    start = 'set -a; . /etc/airflow/cli/environment; cd /usr/local/lib/airflow/empty; exec "$AIRFLOW_RELEASE/bin/python" - "$@"'
    told = inventory.run(operator, "bash", "-c", start, "-", worker, task["id"], stdin=script)
    assert told.count(task["id"]) >= 3, told
    assert not TOKEN.search(told)


def test_only_the_body_of_a_message_holds_the_token(running: object, inventory: Inventory, airflow: Airflow) -> None:
    run_id = airflow.trigger("life_cycle_queues")
    workers = {f"test-{name}": celery_name(inventory, name) for name in inventory.members["worker"]}
    operator = inventory.members["scheduler"][0]
    wait("a message is in each queue", 60, lambda: {inventory.redis("LLEN", queue) for queue in workers} == {"1"})
    try:
        for queue in workers:
            message = json.loads(inventory.redis("LINDEX", queue, "0"))
            arguments, _options, _embed = json.loads(base64.b64decode(message.pop("body")))
            assert json.loads(arguments[0])["token"]
            assert not TOKEN.search(json.dumps(message)), "a header holds the token"
    finally:
        for queue, worker in workers.items():
            inventory.run(operator, "airflow", "celery", "add-queue", "-H", worker, "-q", queue)
        # The worker finds the token in the body all the same.
        state = airflow.wait_for_run("life_cycle_queues", run_id, 120)
        for queue, worker in workers.items():
            inventory.run(operator, "airflow", "celery", "remove-queue", "-H", worker, "-q", queue)
    assert state == "success"


def test_nothing_can_be_changed(flower: Flower, running: tuple[str, dict[str, Any]]) -> None:
    worker, task = running
    seen = f"/api/workers?refresh=1&workername={worker}"
    before = flower.json(seen)[worker]
    answers = flower.fetch(*(path.format(worker=worker, task=task["id"]) for path in CHANGES), method="POST")
    assert {path: status for path, (status, _text) in answers.items() if status != 403} == {}
    after = flower.json(seen)[worker]
    for what in ("active_queues", "revoked"):
        assert after[what] == before[what]
    assert after["stats"]["pool"]["max-concurrency"] == before["stats"]["pool"]["max-concurrency"]
    assert task["id"] in {one["id"] for one in after["active"]}, "the task was ended"


def test_without_the_password_there_is_nothing(flower: Flower, running: tuple[str, dict[str, Any]]) -> None:
    worker, task = running
    answers = flower.fetch(*PAGES, f"/worker/{worker}", f"/task/{task['id']}", login=False)
    assert {status for status, _text in answers.values()} == {401}
    answers = flower.fetch(*(path.format(worker=worker, task=task["id"]) for path in CHANGES), method="POST", login=False)
    assert {status for status, _text in answers.values()} == {401}


def test_only_this_host_reaches_it(flower: Flower, inventory: Inventory) -> None:
    port = inventory.get(flower.host, "airflow_flower_port", 5555)
    listening = inventory.run(flower.host, "ss", "-Hltn", f"sport = :{port}")
    assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{port}"]


def test_the_broker_page_counts_the_queues(flower: Flower) -> None:
    lengths = {one["name"]: one["messages"] for one in flower.json("/api/queues/length")["active_queues"]}
    assert isinstance(lengths.get("default"), int), lengths
