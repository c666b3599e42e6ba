# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetches what Flower shows, on Flower's host; sent through ssh's standard input with the password. Standard library only."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.parse
import urllib.request


def main() -> None:
    order = json.loads(sys.stdin.read())
    base = f"http://127.0.0.1:{order['port']}"
    word = base64.b64encode(f"{order['user']}:{order['password']}".encode()).decode()

    def get(path: str) -> str:
        request = urllib.request.Request(base + path, headers={"Authorization": f"Basic {word}"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode(errors='replace')}"

    pages = {path: get(path) for path in ("/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks?limit=200")}
    for path, key, page in (("/api/workers?refresh=1", "worker", "/worker/"), ("/api/tasks?limit=200", "task", "/task/")):
        try:
            names = list(dict(json.loads(pages[path])))[:50]
        except (TypeError, ValueError):
            raise SystemExit(f"Flower: {path} is no JSON: {pages[path][:80]}") from None
        for name in names:
            pages[page + name] = get(page + urllib.parse.quote(name))
            if key == "task":
                pages["/api/task/info/" + name] = get("/api/task/info/" + urllib.parse.quote(name))
    print(json.dumps(pages))


if __name__ == "__main__":
    main()
