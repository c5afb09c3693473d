"""A real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
MISSING = [
    name
    for name, found in (("chromium", CHROMIUM), ("playwright", find_spec("playwright")))
    if found is None
]
"""What a test that browses needs and is not installed."""

_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PATIENCE = 20_000  # milliseconds


@contextmanager
def browsing(url: str, **options: Any) -> Iterator[Page]:
    """Open a page for as long as the block, in a thread of its own.

    Raises AssertionError when the page wrote an error to its console, but for those about
    connections, which a browser writes by itself.
    """
    from playwright.sync_api import sync_playwright

    # trio-asyncio keeps a policy for each thread; Playwright's loop must be none of its.
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        page = browser.new_page(**options)
        page.set_default_timeout(_PATIENCE)
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
        page.clock.install()
        page.goto(url)
        try:
            yield page
        finally:
            browser.close()
        assert [line for line in said if "net::ERR" not in line] == []
