"""`<natsproc-tail>` in a real browser: in the example's page, and in pages that try it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browsing import PICTURES, line
from harness import ROOT, free_port, wait_for
from homes import a_home, servers_of
from owners import COUNTS, owner
from playwright.async_api import Browser, Page, Route, expect
from webclient import ASSETS, ELEMENT, rolled

import natsproc as sdk
from natsproc.server import embedded
from natsproc.server.home import Home

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=60_000)

TAIL = "natsproc-tail"
STRICT = "default-src 'none'; script-src 'self'; connect-src 'self' ws://127.0.0.1:*; require-trusted-types-for 'script'"


@cache
def element() -> bytes:
    """What is shipped; of code that was broken on purpose, what its sources make."""
    shipped = ASSETS / "natsproc-tail.js"
    if os.environ.get("NATSPROC_MUTANT"):
        rolled(ELEMENT, shipped)
    return shipped.read_bytes()


class Site:
    """A page of somebody's own, at an origin that the server knows, under a strict policy."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.given: list[str] = []  # credentials that `/grant` gave
        self.grants: Any = lambda: line("watch", on="build", name="guest")
        self._origin = origin
        self._body = ""
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: "Content Security" in said.text and self.wrong.append(said.text))

    async def serve(self, body: str) -> None:
        self._body = body
        await self.page.route(f"{self._origin}/**", self._answer)
        await self.page.goto(f"{self._origin}/")

    async def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(self._origin)
        if path == "/natsproc-tail.js":
            await route.fulfill(body=element(), content_type="text/javascript")
        elif path == "/grant":
            status, text = 200, await asyncio.to_thread(self.grants)
            if isinstance(text, int):
                status, text = text, ""
            self.given.append(text)
            await route.fulfill(status=status, body=text)
        else:
            page = f'<!doctype html><script type="module" src="natsproc-tail.js"></script>{self._body}'
            headers = {"Content-Security-Policy": STRICT}
            await route.fulfill(body=page, content_type="text/html", headers=headers)

    def rows(self) -> Any:
        return self.page.locator(f"{TAIL} .row")

    async def texts(self) -> list[str]:
        found: list[str] = await self.rows().all_text_contents()
        return found

    async def says(self, text: str) -> None:
        await expect(self.page.locator(f"{TAIL} .status")).to_contain_text(text)


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    browser: Browser, home: Home, origin: str, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    context = await browser.new_context(viewport={"width": 800, "height": 600})
    site = Site(await context.new_page(), origin)
    yield site
    PICTURES.mkdir(parents=True, exist_ok=True)
    await site.page.screenshot(path=PICTURES / f"{request.node.name}.png")
    await context.close()
    assert site.wrong == []


async def last(page: Page) -> int:
    """The number in the last row."""
    text = await page.locator(f"{TAIL} .row").last.text_content()
    return int((text or "").partition("n: ")[2].rstrip(" }"))


SPEAKS = """
    await proc.output("\\x1b[1;32mgreen\\x1b[0m <b>not bold</b> \\x1b]0;title\\x07\\u202eevil\\n")
    await proc.output("half ")
    await proc.output("a line\\rHALF\\n")
    await proc.log("attention", "warning", why="reasons")
    await proc.metric(loss=0.25)
    for n in range(1, 4):
        await proc.progress(n, 4, "copying")
    async with proc.stream("answer") as answer:
        for word in ("Once ", "upon ", "<i>a</i> ", "time"):
            await answer.token(word)
    await proc.emit("mine", {"x": "<img src=x onerror=alert(1)>"})
    raise ValueError("the end")
"""


async def test_the_example_shows_a_live_run(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with a_home(tmp_path / "home", monkeypatch) as home, contextlib.ExitStack() as stack:
        embedded.start(home, embedded.Wishes(origins=(f"http://127.0.0.1:{port}",)))
        script = [sys.executable, str(ROOT / "examples" / "embed.py"), str(port)]
        server = stack.enter_context(
            subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        )
        stack.callback(server.kill)
        assert server.stdout
        assert await asyncio.to_thread(server.stdout.readline) == f"open http://127.0.0.1:{port}/\n".encode()
        stack.enter_context(owner(tmp_path, "build", COUNTS.format(count=100_000, pause=0.02)))
        page = await browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(f"http://127.0.0.1:{port}/")
        await expect(page.locator(f"{TAIL} .rows")).to_contain_text("{ n: 50 }")
        (granted,) = sdk.grants()
        sdk.revoke(granted.sender)  # the page asks for another one, and goes on
        await expect(page.locator(f"{TAIL} .rows")).to_contain_text(f"n: {await last(page) + 50} }}")
        assert [each.sender for each in sdk.grants()] == [granted.sender] * 2
        await page.close()
    assert [text for text in said if "Content Security" in text] == []


async def test_each_kind_of_event_is_shown_and_markup_is_text(site: Site, tmp_path: Path) -> None:
    with owner(tmp_path, "build", SPEAKS) as process:
        await asyncio.to_thread(process.wait, 60)
    await site.serve('<natsproc-tail src="grant" process="build"></natsproc-tail>')
    await site.says("ended: failed, exit code 1")
    texts = [text.split("  ")[0] if text.startswith("half") else text for text in await site.texts()]
    assert texts[1:3] == ["green <b>not bold</b> ⟨U+202E⟩evil", "HALF a line"]
    assert texts[3].endswith("warningattention  why=reasons")
    assert texts[4].endswith("metricloss=0.25")
    assert texts[5].endswith("progress75%  3/4  copying")
    assert texts[6].endswith("answerOnce upon <i>a</i> time")
    assert "<img src=x onerror=alert(1)>" in texts[7]
    assert texts[8].endswith("exitedfailed, exit code 1: ValueError: the end")
    assert len(texts) == 9
    green = site.page.locator(f"{TAIL} .output span.b")
    assert await green.evaluate("span => getComputedStyle(span).color") == "rgb(19, 113, 58)"
    bar = site.page.locator(f"{TAIL} progress")
    assert [await bar.get_attribute("value"), await bar.get_attribute("max")] == ["3", "4"]
    assert await site.page.get_by_role("log", name="What build says").count() == 1
    assert await site.page.get_by_role("log").get_attribute("aria-busy") == "false"


async def test_nothing_is_missed_or_shown_twice_while_the_server_is_killed(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with owner(tmp_path, "build", COUNTS.format(count=300, pause=0.02)):
        await site.serve('<natsproc-tail src="grant" process="build" rows="1000"></natsproc-tail>')
        await expect(site.rows().nth(40)).to_be_visible()
        (pid,) = servers_of(home)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: servers_of(home) not in ([], [pid]), what="another server")
        await site.says("ended: completed")
    texts = await site.texts()
    assert [text.partition("{ n: ")[2].rstrip(" }") for text in texts[1:-1]] == [str(n) for n in range(300)]


async def test_so_many_rows_are_kept_and_the_view_stays_where_it_is_put(site: Site, tmp_path: Path) -> None:
    body = """
        for n in range(3000):
            await proc.output(f"line {n}\\n")
        await proc.receive()
        for n in range(3000, 3010):
            await proc.log(f"line {n}")
        await proc.receive()
    """
    async with sdk.connect() as mesh:
        with owner(tmp_path, "build", body):
            await site.serve('<natsproc-tail src="grant" process="build" rows="200"></natsproc-tail>')
            await expect(site.rows().last).to_have_text("line 2999")
            assert await site.rows().count() == 200
            log = site.page.get_by_role("log")
            assert await log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight < 2")
            button = site.page.get_by_role("button")
            await expect(button).to_be_hidden()
            await log.evaluate("log => { log.scrollTop = 0; }")
            await mesh.process("build").send("go")
            await expect(button).to_have_text("↓ 11 new")
            assert await log.evaluate("log => log.scrollTop") < 500
            await button.click()
            await expect(site.rows().last).to_contain_text("line 3009")
            assert await log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight < 2")
            await expect(button).to_be_hidden()


LISTEN = """
() => {
  window.seen = [];
  for (const type of ["natsproc-event", "natsproc-notice"]) {
    document.addEventListener(type, (event) => {
      window.seen.push([type, event.detail.type, event.detail.offset ?? 0]);
      if (event.detail.type === "count") event.preventDefault();
    });
  }
}
"""


async def test_the_page_hears_of_each_and_may_keep_it_from_being_shown(site: Site, tmp_path: Path) -> None:
    with owner(tmp_path, "build", COUNTS.format(count=3, pause=0)) as process:
        await asyncio.to_thread(process.wait, 60)
    await site.serve("")
    await site.page.evaluate(LISTEN)
    await site.page.evaluate(
        """line => {
          const tail = document.createElement("natsproc-tail");
          tail.setAttribute("process", "build");
          tail.credentials = async () => line;
          document.body.append(tail);
        }""",
        line("watch", on="build"),
    )
    await site.says("ended: completed")
    assert await site.page.evaluate("seen") == [
        ["natsproc-event", "started", 1],
        *(["natsproc-event", "count", n] for n in (2, 3, 4)),
        ["natsproc-event", "exited", 5],
        ["natsproc-notice", "caught_up", 0],
        ["natsproc-notice", "ended", 0],
    ]
    assert len(await site.texts()) == 2
    cursor = await site.page.evaluate("document.querySelector('natsproc-tail').cursor")
    await site.page.evaluate(
        "cursor => document.querySelector('natsproc-tail').setAttribute('after', cursor)", cursor
    )
    await expect(site.rows()).to_have_count(0)
    await site.says("ended: completed")


async def test_it_leaves_when_it_is_taken_away_and_goes_on_where_it_is_moved(
    site: Site, home: Home, tmp_path: Path
) -> None:
    with owner(tmp_path, "build", COUNTS.format(count=100_000, pause=0.02)):
        await site.serve('<main></main><natsproc-tail src="grant" process="build"></natsproc-tail>')
        await expect(site.rows().nth(10)).to_be_visible()
        async with sdk.connect() as mesh:
            info = mesh.process("build")
            await site.page.evaluate(
                "document.querySelector('main').append(document.querySelector('natsproc-tail'))"
            )
            await expect(site.rows().nth(60)).to_be_visible()
            assert len(site.given) == 1
            await until(lambda record: record.viewers == {"guest": 1}, info)
            await site.page.evaluate("window.kept = document.querySelector('natsproc-tail'); kept.remove()")
            await until(lambda record: not record.viewers, info)
        assert await site.page.evaluate("kept.shadowRoot.querySelectorAll('.row').length") > 60


async def until(true: Any, process: Any) -> None:
    """Wait until what the registry says of a process is as it should be."""
    async with asyncio.timeout(60):
        while not true(await process.record()):
            await asyncio.sleep(0.05)


async def test_what_is_wrong_is_said_and_what_may_pass_is_tried_again(site: Site, tmp_path: Path) -> None:
    answers = [503, line("watch", on="build", name="guest")]
    site.grants = lambda: answers.pop(0) if len(answers) > 1 else answers[0]
    await site.serve('<natsproc-tail src="grant" process="build"></natsproc-tail>')
    await site.says("gives no credential: 503")
    await site.says("waiting for it")
    with owner(tmp_path, "build", "await proc.output('here\\n')"):
        await site.says("ended: completed")
    assert "here" in await site.texts()
    tail = site.page.locator(TAIL)
    for name, value, said in (
        ("process", "other", "may not watch"),
        ("process", "no such", "cannot be"),
        ("process", "", "set process"),
        ("src", "", "set"),
    ):
        await tail.evaluate("(tail, [name, value]) => tail.setAttribute(name, value)", [name, value])
        await site.says(said)
    site.grants = lambda: 403
    await tail.evaluate(
        "tail => { tail.setAttribute('process', 'build'); tail.setAttribute('src', '/grant'); }"
    )
    await site.says("gives no credential: 403")


async def test_another_credential_is_fetched_before_the_first_ends(site: Site, tmp_path: Path) -> None:
    site.grants = lambda: line("watch", on="build", name="guest", seconds=10)
    with owner(tmp_path, "build", COUNTS.format(count=400, pause=0.03)):
        await site.serve('<natsproc-tail src="grant" process="build"></natsproc-tail>')
        await site.says("ended: completed")
    assert len(set(site.given)) == len(site.given) >= 2
    texts = await site.texts()
    assert [text.partition("{ n: ")[2].rstrip(" }") for text in texts[1:-1]] == [str(n) for n in range(400)]


@pytest.mark.parametrize(("scheme", "theme", "background"), [
    ("light", "", "rgb(255, 255, 255)"), ("dark", "", "rgb(20, 23, 28)"), ("dark", "light", "rgb(255, 255, 255)"),
])  # fmt: skip
async def test_it_is_light_or_dark_as_the_reader_or_the_page_wants(
    site: Site, tmp_path: Path, scheme: Any, theme: str, background: str
) -> None:
    with owner(tmp_path, "build", SPEAKS) as process:
        await asyncio.to_thread(process.wait, 60)
    await site.page.emulate_media(color_scheme=scheme)
    await site.serve(
        f'<natsproc-tail src="grant" process="build" compact n="6" theme="{theme}"></natsproc-tail>'
    )
    await site.says("ended: failed")
    shown = site.page.locator(TAIL)
    assert await shown.evaluate("tail => getComputedStyle(tail).backgroundColor") == background
    assert len(await site.texts()) < 9
