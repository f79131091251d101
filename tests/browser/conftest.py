"""A real Chromium, one for each worker, and pages in it that may do nothing that they should not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import pytest_asyncio
from browsing import PICTURES, line
from harness import free_port, wait_for
from homes import a_home
from playwright.async_api import Browser, Page, async_playwright
from webclient import ASSETS, CONSOLE, bundled

from natsproc.server import embedded
from natsproc.server.home import Home

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-features=LocalNetworkAccessChecks",
)  # fmt: skip
_LOST = re.compile(r"WebSocket connection to .* failed")  # what Chromium says of a server that is away

Opener = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if not program:
        assert not os.environ.get("NATSPROC_NEED_BROWSER"), (
            "Chromium is needed here: apt-get install chromium"
        )
        pytest.skip("NOT TESTED: no Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def shipped() -> None:
    """What is served is what is committed, but where its sources were broken on purpose."""
    if os.environ.get("NATSPROC_MUTANT"):
        bundled(CONSOLE, ASSETS / "console")


@pytest.fixture(scope="session")
def origin() -> str:
    """Of pages that are somebody's own."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str) -> Iterator[Home]:
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home, embedded.Wishes(origins=(origin,)))
        wait_for(lambda: _answers(address_of(home)), what="the pages are served")
        yield home


def _answers(url: str) -> bool:
    with suppress(OSError), urlopen(url, timeout=5):
        return True
    return False


def address_of(home: Home) -> str:
    """Where the pages of that home are."""
    state = home.load()
    assert state
    return state.pages_url_at(state.near)


@pytest_asyncio.fixture(loop_scope="session")
async def console(
    browser: Browser, shipped: None, home: Home, request: pytest.FixtureRequest
) -> AsyncIterator[Opener]:
    """Opens the console: `await console(place, credential=…, size=…)`. At the end each page must have behaved."""
    pages: list[tuple[Page, list[str]]] = []
    base = address_of(home)
    state = home.load()
    assert state
    reached = {urlsplit(base).netloc, f"{state.near}:{state.ws_port}"}

    async def open(
        place: str = "",
        *,
        credential: str | None = None,
        link: str = "",
        size: tuple[int, int] = (1280, 800),
        **options: Any,
    ) -> Page:
        context = await browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        page = await context.new_page()
        page.set_default_timeout(60_000)
        wrong: list[str] = []
        pages.append((page, wrong))

        def reach(url: str) -> None:
            if urlsplit(url).netloc not in reached and not url.startswith("data:"):
                wrong.append(f"it went to {url}")

        page.on("request", lambda asked: reach(asked.url))
        page.on("websocket", lambda asked: reach(asked.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: (
                said.type in ("error", "warning") and not _LOST.match(said.text) and wrong.append(said.text)
            ),
        )
        given = line() if credential is None else credential
        fragment = "&".join(
            part for part in (f"c={given}" if given else "", f"p={place}" if place else "") if part
        )
        await page.goto(link or f"{base}/#{fragment}")
        return page

    yield open
    PICTURES.mkdir(parents=True, exist_ok=True)
    for number, (page, _) in enumerate(pages):
        if not page.is_closed():
            await page.screenshot(path=PICTURES / f"{request.node.name}-{number}.png")
            await page.context.close()
    assert [wrong for _, wrong in pages] == [[] for _ in pages]
