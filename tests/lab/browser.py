# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Airflow's page in a headless Chromium, logged in through its own form."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, TimeoutError, sync_playwright

# No sandbox: the tests may run as root. The rest keeps Chromium from calling its maker.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def logged_in(url: str, user: str, password: str) -> Iterator[Page]:
    """A page whose session belongs to the user."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        raise RuntimeError("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            # Chromium has its own list of authorities; the API client of the same tests verifies the certificate.
            page = browser.new_page(viewport={"width": 1400, "height": 800}, ignore_https_errors=True)
            page.set_default_timeout(60_000)
            page.goto(url)
            try:
                page.wait_for_selector("input[name=username]", timeout=30_000)
            except TimeoutError as error:
                raise RuntimeError(f"{url} leads to no login form but to {page.url}; see [api] base_url") from error
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", password)
            page.click("input[type=submit]")
            page.wait_for_url(lambda address: "/auth/login" not in address)
            yield page
        finally:
            browser.close()
