# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small client of Airflow's REST API."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

FINISHED = ("success", "failed")


class ApiError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TimedOut(Exception):
    """Something did not come true in time."""


def wait(what: str, seconds: float, probe: Callable[[], Any], interval: float = 0.5) -> Any:
    """The first true answer of the probe."""
    end = time.monotonic() + seconds
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > end:
            raise TimedOut(f"{what}: not within {seconds:.0f} s")
        time.sleep(interval)


def told(line: dict[str, Any]) -> list[str]:
    """What a line of a task's log says, and the errors that came with it."""
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in line.get("error_detail") or []]
    return [str(line.get("event", "")), *errors]


class Airflow:
    """One webserver and one user."""

    def __init__(self, url: str, user: str, password: str, ca: str = "") -> None:
        self.url = url.rstrip("/")
        self.user = user
        self._password = password
        self._token = ""
        self._verifying = ssl.create_default_context(cadata=ca) if ca else None

    def _send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._verifying) as answer:  # noqa: S310
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise ApiError(0, f"{method} {self.url}{path}: {getattr(error, 'reason', error)}") from None
        return json.loads(text) if text else None

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """A call below /api/v2 with a token, which is fetched when there is none or it is no longer accepted."""
        for fresh in (False, True):
            if fresh or not self._token:
                credentials = {"username": self.user, "password": self._password}
                self._token = self._send("POST", "/auth/token", credentials)["access_token"]
            try:
                return self._send(method, f"/api/v2/{path}", body, {"Authorization": f"Bearer {self._token}"})
            except ApiError as error:
                if error.status != 401 or fresh:
                    raise
        raise AssertionError

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def token(self) -> str:
        """A new one, for requests that are not made here."""
        return str(self._send("POST", "/auth/token", {"username": self.user, "password": self._password})["access_token"])

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """The DAG, or None while the webserver knows none of that name."""
        try:
            found: dict[str, Any] = self.get(f"dags/{dag_id}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def source(self, dag_id: str) -> str:
        """The DAG's code as the page shows it."""
        return str(self.get(f"dagSources/{dag_id}")["content"])

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        run: dict[str, Any] = self.request("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return str(run["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}")
        return found

    def end(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run's final state by hand."""
        self.request("PATCH", f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}", {"state": state})

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.get(path)["task_instances"]
        return sorted(found, key=lambda task: (task["start_date"] or "~", task["task_id"], task["map_index"]))

    def log(self, task: dict[str, Any]) -> str:
        """The text of the task's last try, read by the webserver wherever it lies."""
        run_id = urllib.parse.quote(task["dag_run_id"])
        path = f"dags/{task['dag_id']}/dagRuns/{run_id}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        content = self.get(f"{path}?full_content=true&map_index={task['map_index']}")["content"]
        return "\n".join(line if isinstance(line, str) else "\n".join(told(line)) for line in content)

    def wait_for_dag(self, dag_id: str, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = wait(f"DAG {dag_id} is known", seconds, lambda: self.dag(dag_id))
        return found

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float) -> str:
        """The final state of a run."""

        def finished() -> str:
            state = str(self.run(dag_id, run_id)["state"])
            return state if state in FINISHED else ""

        return str(wait(f"run {run_id} of {dag_id} has ended", seconds, finished))
