# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Celery at work on a broker, with the shipped versions: run by test_redis.py in an environment of its own.

Reads {"url": ..., "ca": ...} from the environment variable BROKER. Without arguments it drives workers that it starts, and
writes what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

BROKER = json.loads(os.environ["BROKER"])
TASKS = 200
# Seconds: so short that a killed worker's messages come back while we look, so long that a slow machine has killed it before.
REDELIVERED = 10
TLS = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": BROKER["ca"]} if BROKER["ca"] else None

app = Celery("celery_broker", broker=BROKER["url"], backend=BROKER["url"])
app.conf.update(
    broker_use_ssl=TLS,
    redis_backend_use_ssl=TLS,
    task_default_queue="default",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": REDELIVERED, "priority_steps": [0, 9]},
)


@app.task(name="double")
def double(number: int) -> int:
    return 2 * number


@app.task(name="long")
def long(folder: str) -> str:
    """Tells of each of its attempts; only the first one takes long."""
    attempts = len(os.listdir(folder))
    Path(folder, str(attempts)).touch()
    if not attempts:
        time.sleep(60)
    return "done"


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return found


def worker(name: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", "celery_broker", "worker", "-c", "2", "-n", f"{name}@lab", "-l", "INFO"]
    with log.open("ab") as stream:
        return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=stream, stderr=stream, start_new_session=True)


def watch(seen: Counter[str], stop: threading.Event) -> None:
    """What Flower does."""
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.update([event["type"]])})
        for _event in receiver.itercapture(limit=None, timeout=None, wakeup=True):
            if stop.is_set():
                return


def drive(folder: Path) -> dict[str, Any]:
    log = folder / "worker.log"
    attempts = folder / "attempts"
    attempts.mkdir()
    seen: Counter[str] = Counter()
    stop = threading.Event()
    threading.Thread(target=watch, args=(seen, stop), daemon=True).start()
    running = worker("one", log)
    try:
        inspect = app.control.inspect(timeout=2)

        def ask(name: str) -> Any:
            """What the only worker answers; on a slow machine after several time limits."""
            return next(iter(until(getattr(inspect, name), 60, f"the worker answers {name}").values()))

        ask("ping")
        results = [double.apply_async((number,), priority=9 * (number % 2)) for number in range(TASKS)]
        sums = [result.get(timeout=60) for result in results]
        answers = {name: bool(ask(name)) for name in ("active_queues", "stats", "registered")}
        app.control.cancel_consumer("default", reply=True)
        until(lambda: not ask("active_queues"), 30, "the queue is cancelled")
        waiting = double.delay(21)
        time.sleep(1)
        cancelled = waiting.state
        app.control.add_consumer("default", reply=True)
        added = waiting.get(timeout=60)
        app.control.revoke(double.apply_async((1,), countdown=60).id)
        redelivered = long.delay(str(attempts))
        until(lambda: list(attempts.iterdir()), 60, "the long task runs")
        active = bool(ask("active"))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        time.sleep(REDELIVERED)
        running = worker("two", log)
        second = redelivered.get(timeout=60)
        return {
            "tasks": sum(value == 2 * number for number, value in enumerate(sums)),
            "answers": answers,
            "cancelled": cancelled,
            "added": added,
            "active": active,
            "redelivered": second,
            "attempts": len(list(attempts.iterdir())),
            "events": dict(seen),
            "refusals": log.read_text().count("NOPERM") + log.read_text().count("NoPermission"),
        }
    except BaseException:
        print(log.read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        stop.set()
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(drive(Path(name))))
