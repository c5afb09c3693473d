"""The page in a real browser, beside a SuperLink in this process or in one of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from browsing import browsing
from message_rounds import a_message_round, place_app
from operators import a_round, watched_config
from peering.processes import CHECKOUT, free_address, launching, start_superlink

from superlink_trio import SuperLink, run_superlink

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 900}
WELL = "#health[data-state=good]"


@pytest.fixture
async def link(nursery: trio.Nursery) -> AsyncIterator[SuperLink]:
    link: SuperLink = await nursery.start(run_superlink, watched_config(port=0))
    yield link
    await link.stop()


async def browse(script: Callable[[], None]) -> None:
    with trio.fail_after(100):
        await trio.to_thread.run_sync(script)


async def test_it_shows_a_round_while_it_goes_on(link: SuperLink) -> None:
    def look() -> None:
        steps = a_round(link)
        with browsing(f"http://{link.admin_address}") as page:
            page.wait_for_selector(WELL)
            assert "No node has come yet" in page.inner_text("#nodes")
            assert "of 0 known, Flower 1.23 and later" in page.inner_text("#figures")
            next(steps)
            page.wait_for_selector("#nodes >> text=train of run")
            page.wait_for_selector("#runs p >> text=0 of 1 answered")
            page.click("#runs summary")
            assert page.is_visible("#runs >> text=under way")
            next(steps, None)
            page.wait_for_selector("#runs p >> text=1 of 1 answered")
            assert page.is_visible("#runs table"), "what was opened stays open"
            for address in link.addresses().values():
                assert page.is_visible(f"#parts >> text={address}")

    await browse(look)


async def test_what_a_driver_says_is_text(link: SuperLink) -> None:
    kind = "<img src=x onerror=alert(1)>"

    def look() -> None:
        next(a_round(link, kind))
        with browsing(f"http://{link.admin_address}") as page:
            page.wait_for_selector("#nodes >> text=of run")
            assert kind in page.inner_text("#nodes")
            assert kind in page.inner_text("#runs")
            assert page.locator("img").count() == 0

    await browse(look)


async def test_it_shows_a_run_of_todays_flower(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = place_app(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    link: SuperLink = await nursery.start(run_superlink, watched_config(port=0))

    def look() -> None:
        steps = a_message_round(link, told, kind="<img src=x onerror=alert(1)>")
        with browsing(f"http://{link.admin_address}", viewport=PHONE) as page:
            page.wait_for_selector(WELL)
            assert "No SuperNode has come yet" in page.inner_text("#supernodes")
            assert "No run was started yet" in page.inner_text("#apps")
            next(steps)
            page.wait_for_selector("#supernodes >> text=of run")
            page.wait_for_selector("#apps >> text=0 of 2 answered, 1 under way, 1 waiting")
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            next(steps)
            page.wait_for_selector("#apps >> text=1 of 2 answered, 0 under way, 1 waiting")
            next(steps)
            page.wait_for_selector("#apps >> text=no <b>such</b> model")
            assert page.locator("#apps .bad").inner_text() == "failed"
            assert page.locator("img").count() == 0
            assert faults_for_readers(page) == ""

    await browse(look)
    await link.stop()


async def test_it_comes_back_after_a_restart(nursery: trio.Nursery) -> None:
    link: SuperLink = await nursery.start(run_superlink, watched_config())
    address = link.admin_address
    start = partial(nursery.start, run_superlink, watched_config(admin_address=address))

    def look() -> None:
        with browsing(f"http://{address}") as page:
            page.wait_for_selector(WELL)
            trio.from_thread.run(link.stop)
            page.wait_for_selector("#health >> text=The SuperLink stopped at")
            assert "s old" in page.inner_text("#lost")
            again: SuperLink = trio.from_thread.run(start)
            page.wait_for_selector(WELL)
            assert page.is_hidden("#lost")
            trio.from_thread.run(again.stop)

    await browse(look)


async def test_it_says_when_the_connection_is_silent_and_since_when() -> None:
    address = free_address()
    async with launching() as launch:
        superlink = await start_superlink(launch, "--admin-address", address, PYTHONPATH=CHECKOUT)
        process = superlink.program.process

        def look() -> None:
            with browsing(f"http://{address}") as page:
                page.wait_for_selector(WELL)
                process.send_signal(signal.SIGSTOP)
                page.clock.fast_forward("00:20")
                page.wait_for_selector("#health >> text=Connection lost at")
                assert "Trying to connect again" in page.inner_text("#lost")
                assert "lost" in page.title()
                process.send_signal(signal.SIGCONT)
                page.wait_for_selector(WELL)

        await browse(look)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(link: SuperLink, size: dict[str, int], scheme: str) -> None:
    def look() -> None:
        next(a_round(link))
        with browsing(f"http://{link.admin_address}", viewport=size, color_scheme=scheme) as page:
            page.wait_for_selector("#nodes >> text=train of run")
            page.click("#runs summary")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            assert is_dark(page) == (scheme == "dark")
            assert faults_for_readers(page) == ""

    await browse(look)


async def test_the_keyboard_reaches_what_scrolls_and_opens(link: SuperLink) -> None:
    def look() -> None:
        next(a_round(link))
        with browsing(f"http://{link.admin_address}") as page:
            page.wait_for_selector("#runs p >> text=0 of 1 answered")
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            page.keyboard.press("Enter")
            assert page.is_visible("#runs table")
            page.keyboard.press("Tab")
            label = page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert label.startswith("Rounds of run")

    await browse(look)


def is_dark(page: Page) -> bool:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.strip("rgb()").split(","))) < 3 * 128


def faults_for_readers(page: Page) -> str:
    """Give what axe has found that keeps people from using the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""
