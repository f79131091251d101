"""The React hooks and the AI SDK's transport, in pages of somebody's own, over real servers and processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from browsing import PICTURES, line
from harness import wait_for
from homes import servers_of
from link import Link
from owners import owner
from playwright.async_api import Browser, Locator, Page, Route, expect
from serving import serving
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from webclient import AI_SDK, REACT, pages_of

import natsproc as sdk
from natsproc.server.home import Home

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
expect.set_options(timeout=60_000)

LOST = re.compile(r"WebSocket|net::ERR_")  # what Chromium says of a server that is away
TYPES = {".js": "text/javascript", ".html": "text/html", ".css": "text/css"}

AGENT = """
    if proc.state is None:
        await proc.checkpoint({})
    async for message in proc.inbox():
        said, _, count = str(message.data).partition(" ")
        try:
            async with proc.turn(message) as turn:
                async with proc.stream("answer") as stream:
                    for n in range(int(count or 0)):
                        await stream.token(f"{n} ")
                        await asyncio.sleep(0.03)
                if said == "tool":
                    await proc.emit("tool_call", {"id": "t1", "name": "weather", "arguments": {"city": "Ulm"}})
                    await proc.emit("tool_result", {"id": "t1", "name": "weather", "result": "rain", "status": "success"})
                if said == "ask":
                    await proc.message("It is " + await proc.ask("Deploy?", choices=["yes", "no"]))
        except natsproc.Interrupted as stop:
            await proc.emit("kept", {"text": stop.partial.text, "by": stop.sender})
        await proc.checkpoint({})
"""
COUNTS = """
    for n in range(2000):
        await proc.emit("count", {"n": n})
    async for message in proc.inbox():
        for n in range(int(message.data)):
            await proc.emit("count", {"n": n})
            await asyncio.sleep(0.002)
        await proc.emit("said", message.data)
"""


class Site:
    """Somebody's own site, with one of the built pages and a back end that grants."""

    def __init__(self, browser: Browser, origin: str) -> None:
        self.wrong: list[str] = []
        self._browser = browser
        self._origin = origin
        self._pages: list[Page] = []

    async def open(self, package: Path, place: str = "") -> Page:
        built = await asyncio.to_thread(pages_of, package)
        context = await self._browser.new_context(viewport={"width": 800, "height": 600})
        page = await context.new_page()
        self._pages.append(page)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and not LOST.search(said.text) and self.wrong.append(said.text),
        )

        async def answer(route: Route) -> None:
            path = route.request.url.removeprefix(self._origin).partition("#")[0]
            if path == "/grant":
                await route.fulfill(body=await asyncio.to_thread(line))
                return
            file = built / (path.strip("/") or "index.html")
            await route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])

        await page.route(f"{self._origin}/**", answer)
        await page.goto(place if "://" in place else f"{self._origin}/{place}")
        return page

    async def close(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(self._pages):
            await page.screenshot(path=PICTURES / f"{name}-{number}.png")
            await page.context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    browser: Browser, home: Home, origin: str, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    site = Site(browser, origin)
    yield site
    await site.close(request.node.name)
    assert site.wrong == []


async def log_of(id: str, *types: str) -> list[Any]:
    """The data of its events of those types."""
    async with sdk.connect() as mesh:
        tail = mesh.process(id).tail(run="all", follow=False)
        return [item.data async for item in tail if isinstance(item, sdk.Event) and item.type in types]


async def interrupted(id: str) -> None:
    async with sdk.connect() as mesh:
        await mesh.process(id).interrupt(reason="from elsewhere")


async def is_gone(id: str) -> bool:
    async with sdk.connect() as mesh:
        return (await mesh.process(id).info()).gone is not None


def kill_server(home: Home) -> None:
    (pid,) = servers_of(home)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: servers_of(home) not in ([], [pid]), what="another nats-server")


def numbers(count: int) -> str:
    return "".join(f"{n} " for n in range(count))


# React


async def test_the_hooks_show_a_process_and_steer_it(site: Site, home: Home, tmp_path: Path) -> None:
    with owner(tmp_path, "agent", AGENT):
        page = await site.open(REACT)
        await page.get_by_role("button", name="agent").click()
        async with sdk.connect() as mesh:
            handle = mesh.process("agent")
            await handle.send("ask 20")
            await page.get_by_role("button", name="yes").click()
            await expect(page.locator("output")).to_have_text(numbers(20).strip())
            await expect(page.locator("ol")).to_contain_text('message "It is yes"')
            await expect(page.get_by_role("button", name="yes")).to_have_count(0)
            await expect(page.locator("h1")).to_have_text("agent is running, live, watched by ann")
            await handle.send("count 100000")
        await expect(page.locator("output")).to_contain_text("0 1 2 3")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_text("applied")).to_be_visible()
        await expect(page.locator("ol")).to_contain_text("kept")
    (kept,) = await log_of("agent", "kept")
    await expect(page.locator("output")).to_have_text(kept["text"].strip())
    await expect(page.locator("h1")).to_contain_text("agent is unreachable")


async def told(page: Page) -> Any:
    return json.loads(await page.locator("pre").text_content() or "")


async def until(page: Page, last: int) -> Any:
    await expect(page.locator("pre")).to_contain_text(f'"last":{last},')
    return await told(page)


async def test_a_component_reads_each_event_once_and_renders_seldom(
    site: Site, home: Home, tmp_path: Path
) -> None:
    """Under StrictMode, when it is mounted again, and while the server is killed."""
    with owner(tmp_path, "build", COUNTS):
        page = await site.open(REACT, "#counted")
        await expect(page.locator("pre")).to_contain_text('"caughtUp":true')
        state = await until(page, 2001)
        assert (state["first"], state["count"]) == (1902, 100)
        seen = await page.evaluate("seen")
        assert seen["tails"] == 1
        assert seen["commits"] < 500
        await page.get_by_role("button", name="hide").click()
        async with sdk.connect() as mesh:
            sent = await mesh.process("build").send("50")
            await sent.consumed(timeout=60)
        await page.get_by_role("button", name="show").click()
        state = await until(page, 2053)
        assert (state["first"], state["count"]) == (1954, 100)
        assert (await page.evaluate("seen"))["tails"] == 2
        assert await page.evaluate("after"), "it goes on behind its cursor"
        async with sdk.connect() as mesh:
            await mesh.process("build").send("500")
        await expect(page.locator("pre")).not_to_contain_text('"last":2053,')
        await asyncio.to_thread(kill_server, home)
        state = await until(page, 2555)
        assert (state["first"], state["count"], state["connected"]) == (2456, 100, True)
        assert (await page.evaluate("seen"))["tails"] == 2


# The AI SDK


def answers(page: Page) -> Locator:
    return page.locator("article.assistant")


async def say(page: Page, text: str) -> None:
    await page.locator("input").fill(text)
    await page.locator("input").press("Enter")


async def ready(page: Page) -> None:
    await expect(page.get_by_text("ready", exact=True)).to_be_visible()


async def test_an_answer_streams_and_a_reload_misses_and_repeats_nothing(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with owner(tmp_path, "agent", AGENT):
        page = await site.open(AI_SDK)
        await say(page, "count 150")
        await expect(answers(page)).to_contain_text("0 1 2 3 4 5")
        await expect(page.get_by_text("streaming")).to_be_visible()
        await page.reload()
        await expect(answers(page)).to_contain_text("0 1 2 3 4 5")
        await asyncio.to_thread(kill_server, home)
        await ready(page)
        await expect(answers(page)).to_have_text(numbers(150).strip())
        await say(page, "tool 3")
        await expect(answers(page).nth(1)).to_have_text('0 1 2 weather: "rain"')
        await ready(page)
        before = await page.locator("main").inner_text()
        await page.reload()
        await expect(answers(page)).to_have_count(2)
        assert await page.locator("main").inner_text() == before
        assert await page.locator("article.user").all_text_contents() == ["count 150", "tool 3"]
    assert await log_of("agent", "interrupted") == []


async def test_stop_ends_the_turn_and_not_the_process(site: Site, home: Home, tmp_path: Path) -> None:
    with owner(tmp_path, "agent", AGENT):
        page = await site.open(AI_SDK)
        await say(page, "count 100000")
        await expect(answers(page)).to_contain_text("0 1 2 3")
        await page.get_by_role("button", name="Stop").click()
        await ready(page)
        await say(page, "count 3")
        await expect(answers(page).nth(1)).to_have_text("0 1 2")
        await page.reload()
        await expect(answers(page).nth(1)).to_have_text("0 1 2")
    (kept,) = await log_of("agent", "kept")
    assert await answers(page).first.text_content() == kept["text"]
    assert [each["status"] for each in await log_of("agent", "turn_ended")] == ["interrupted", "completed"]


async def test_a_stop_from_elsewhere_and_from_a_resumed_page_work(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with owner(tmp_path, "agent", AGENT):
        first = await site.open(AI_SDK)
        await say(first, "count 100000")
        await expect(answers(first)).to_contain_text("0 1 2 3")
        second = await site.open(AI_SDK)
        await expect(answers(second)).to_contain_text("0 1 2 3")
        await second.get_by_role("button", name="Stop").click()
        await ready(first)
        await ready(second)
        await say(first, "count 100000")
        await expect(answers(first).nth(1)).to_contain_text("0 1 2 3")
        await interrupted("agent")
        await ready(first)
        kept = [each["text"] for each in await log_of("agent", "kept")]
        assert await answers(first).all_text_contents() == kept
    assert next(each["by"] for each in await log_of("agent", "kept")) == "ann"


async def test_a_question_is_answered_in_the_conversation(site: Site, home: Home, tmp_path: Path) -> None:
    with owner(tmp_path, "agent", AGENT):
        page = await site.open(AI_SDK)
        await say(page, "ask 2")
        await page.get_by_role("button", name="no").click()
        await expect(answers(page)).to_have_text("0 1 Deploy? no, says annIt is no")
        await ready(page)


async def test_a_new_owner_answers_again_and_the_page_shows_it_once(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with owner(tmp_path, "agent", AGENT) as process:
        page = await site.open(AI_SDK)
        await say(page, "count 100")
        await expect(answers(page)).to_contain_text("0 1 2 3")
        process.kill()
        await asyncio.to_thread(wait_for, lambda: asyncio.run(is_gone("agent")), 60, "its owner is gone")
        with owner(tmp_path, "agent", AGENT):
            await ready(page)
            await expect(answers(page)).to_have_text(numbers(100).strip())
            await page.reload()
            await expect(answers(page)).to_have_text(numbers(100).strip())
            await expect(page.locator("article.user")).to_have_count(1)


async def test_strict_mode_stops_nothing(site: Site, home: Home, tmp_path: Path) -> None:
    """A chat that is its component's own is stopped when React unmounts it, and mounts it again at once."""
    with owner(tmp_path, "agent", AGENT):
        async with sdk.connect() as mesh:
            await mesh.process("agent").send("count 200")
        page = await site.open(AI_SDK, "#inner")
        await expect(answers(page)).to_have_text(numbers(200).strip())
        await ready(page)
    assert await log_of("agent", "interrupted") == []


@contextlib.contextmanager
def replica() -> Iterator[str]:
    """One of several back ends, with the page and the processes."""
    processes = sdk.asgi(sdk.connect(), authorize=lambda *_: "ben")
    page = StaticFiles(directory=pages_of(AI_SDK), html=True)
    with serving(Starlette(routes=[Mount("/proc", processes), Mount("/", page)])) as url:
        yield f"{url}/#http"


async def test_over_http_a_stop_through_another_replica_ends_the_turn(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with (
        owner(tmp_path, "agent", AGENT),
        replica() as one,
        replica() as other,
        contextlib.ExitStack() as stack,
    ):
        link = stack.enter_context(contextlib.closing(Link(urlsplit(one).port or 0)))
        first = await site.open(AI_SDK, f"http://127.0.0.1:{link.port}/#http")
        await say(first, "ask 100")
        await expect(answers(first)).to_contain_text("0 1 2 3")
        link.cut()
        await asyncio.to_thread(kill_server, home)
        link.mend()
        second = await site.open(AI_SDK, other)
        await second.get_by_role("button", name="yes").click()
        await ready(first)
        await expect(answers(first)).to_have_text(numbers(100) + "Deploy? yes, says benIt is yes")
        await say(first, "count 100000")
        await expect(answers(first).nth(1)).to_contain_text("0 1 2 3")
        await second.reload()
        await expect(answers(second).nth(1)).to_contain_text("0 1 2 3")
        await second.get_by_role("button", name="Stop").click()
        await ready(first)
        (kept,) = await log_of("agent", "kept")
        assert await answers(first).nth(1).text_content() == kept["text"]
