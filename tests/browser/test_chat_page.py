"""examples/fastapi-chat in a real browser: one conversation, whichever replica runs it or gets a request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import pytest_asyncio
from browsing import PICTURES
from harness import ROOT, wait_for
from homes import a_home
from playwright.async_api import Browser, Locator, Page, Route, expect
from webclient import CHAT, bundled

from natsproc.server import embedded

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
expect.set_options(timeout=60_000)

LONG = 200  # words, of which one comes every 50 ms


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the example is, with both replicas, as `run.py` starts it; of a page that was broken on purpose, as its sources are."""
    if os.environ.get("NATSPROC_MUTANT"):
        bundled(CHAT, CHAT.with_name("static"))
    folder: Path = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch, a_home(folder / "home", patch) as home:
        patch.delenv("CHAT_MODEL", raising=False)
        embedded.start(home)
        command = [sys.executable, ROOT / "examples" / "fastapi-chat" / "run.py"]
        with (folder / "said").open("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as run:
            try:
                wait_for(
                    lambda: run.poll() is not None or _address(folder / "said"), 100, "the example is up"
                )
                assert run.poll() is None, (folder / "said").read_text()
                yield _address(folder / "said")
            finally:
                run.send_signal(signal.SIGINT)
                code = run.wait(60)
        assert code == 0, (folder / "said").read_text()


def _address(said: Path) -> str:
    found = re.search(r"open (http\S+) ", said.read_text())
    return found[1] if found else ""


def _answers(site: str, replica: str) -> bool:
    with suppress(OSError), urlopen(Request(site, headers={"X-Replica": replica}), timeout=5) as answer:
        return bool(answer.headers["X-Replica"] == replica)
    return False


class Chat:
    """The page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.agent = page.locator("li.agent")
        self.user = page.locator("li.user")
        self.system = page.locator("li.system")
        self.stop = page.get_by_role("button", name="Stop")

    async def send(self, text: str) -> None:
        await self.page.locator("input").fill(text)
        await self.page.get_by_role("button", name="Send").click()

    async def replica(self) -> str:
        """Where its agent runs."""
        status = self.page.get_by_role("status")
        await expect(status).to_contain_text("the agent runs in replica")
        found = re.search(r"runs in replica (\d)", await status.inner_text())
        assert found
        return found[1]

    async def path(self) -> str:
        """Where the conversation is over HTTP: the only one that this session is shown."""
        listed = await self.page.request.get("/proc/")
        [process] = (await listed.json())["processes"]
        return f"/proc/{process['id']}"

    async def get(self, what: str = "") -> Any:
        """What there is of it, with the session of the page."""
        accept = {"Accept": "application/json"}
        return await (await self.page.request.get(await self.path() + what, headers=accept)).json()


@pytest_asyncio.fixture(loop_scope="session")
async def chat(browser: Browser, site: str, request: pytest.FixtureRequest) -> AsyncIterator[Chat]:
    """A conversation of its own, of a visitor who has just come; both replicas are there."""
    for replica in "12":
        await asyncio.to_thread(wait_for, lambda: _answers(site, replica), 60, f"replica {replica} answers")  # noqa: B023
    context = await browser.new_context(viewport={"width": 800, "height": 700}, base_url=site)
    page = await context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    await page.goto("/")
    yield Chat(page)
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{request.node.name}.png")
    await context.close()
    assert not wrong


def count(to: int) -> str:
    return " ".join(map(str, range(1, to + 1)))


async def begun(answer: Locator) -> None:
    await expect(answer).to_contain_text("1 2 3")


async def test_an_answer_survives_a_reload_and_a_question_is_answered_by_a_button(chat: Chat):
    await chat.send(f"count to {LONG}")
    await begun(chat.agent)
    await chat.page.reload()
    await begun(chat.agent)
    assert await chat.stop.is_visible(), "the answer was over before the page was there again"
    await expect(chat.agent).to_have_text(count(LONG))
    await expect(chat.user).to_have_text([f"count to {LONG}"])
    await expect(chat.stop).to_be_hidden()

    await chat.send("note: buy milk")
    await expect(chat.page.locator(".question")).to_contain_text("buy milk")
    await chat.page.reload()
    await chat.page.get_by_role("button", name="yes").click()
    await expect(chat.agent.last).to_have_text("The tool says: noted: buy milk")
    await expect(chat.page.locator(".question")).to_have_count(0)


async def test_stop_reaches_the_replica_that_runs_the_agent_through_the_other(
    chat: Chat, browser: Browser, site: str
):
    owner = await chat.replica()
    other = {"1": "2", "2": "1"}[owner]

    async def through_the_other(route: Route) -> None:
        await route.continue_(headers={**route.request.headers, "x-replica": other})

    await chat.page.route("**/interrupt", through_the_other)
    await chat.send(f"count to {LONG}")
    await begun(chat.agent)
    async with chat.page.expect_response("**/interrupt") as responding:
        await chat.stop.click()
    response = await responding.value
    receipt, record = await response.json(), await chat.get()
    assert response.headers["x-replica"] == other
    assert (receipt["status"], receipt["node"]) == ("applied", record["node"])
    assert record["labels"]["replica"] == owner

    await expect(chat.system).to_have_text(["interrupted"])
    seen = await chat.agent.inner_text()
    assert f"{count(LONG)} ".startswith(seen.strip() + " ")
    assert len(seen.split()) < LONG
    await chat.send("what have I said?")
    await expect(chat.agent).to_have_text([seen.strip(), f"count to {LONG}; what have I said?"])

    stranger = await browser.new_context(base_url=site)
    assert (await stranger.request.post("/chats/mine")).ok
    assert (await stranger.request.post(f"{await chat.path()}/interrupt", data={})).status == 403
    await stranger.close()


async def test_what_is_said_meanwhile_waits_or_stops_the_answer_as_the_user_likes(chat: Chat):
    await chat.send("count to 60")
    await begun(chat.agent)
    await chat.send("count to 3")
    await expect(chat.agent).to_have_text([count(60), count(3)])
    await expect(chat.page.locator(".waiting")).to_have_count(0)

    await chat.send(f"count to {LONG}")
    await begun(chat.agent.nth(2))
    await chat.page.locator("select").select_option("now")
    await chat.send("count to 4")
    await expect(chat.agent.nth(3)).to_have_text(count(4))
    await expect(chat.system).to_have_text(["interrupted"])
    assert len((await chat.agent.nth(2).inner_text()).split()) < LONG
    said = ["count to 60", "count to 3", f"count to {LONG}", "count to 4"]
    await expect(chat.user).to_have_text(said)


async def test_what_is_to_be_taken_in_lands_within_the_answer_once_its_tools_are_done(chat: Chat):
    await chat.send("note: buy milk")
    await expect(chat.page.locator(".question")).to_contain_text("buy milk")
    await chat.page.locator("select").select_option("next")
    await chat.send("what have I said?")
    await expect(chat.page.locator(".waiting")).to_have_count(1)
    await chat.page.get_by_role("button", name="yes").click()
    await expect(chat.agent.last).to_have_text("note: buy milk; what have I said?")
    await expect(chat.page.locator(".waiting")).to_have_count(0)
    await expect(chat.user).to_have_text(["note: buy milk", "what have I said?"])
    await expect(chat.stop).to_be_hidden()
    events = [item for item in await chat.get("/events?type=received,turn_ended") if "offset" in item]
    assert [event["type"] for event in events] == ["received", "received", "turn_ended"]
    assert [event["data"].get("when", "idle") for event in events[:2]] == ["idle", "next"]


async def test_a_conversation_whose_replica_is_killed_goes_on_in_the_other(chat: Chat):
    await chat.send("count to 3")
    await expect(chat.agent).to_have_text(count(3))
    await chat.send(f"count to {LONG}")
    await begun(chat.agent.nth(1))
    owner = await chat.replica()
    started, *_ = await chat.get("/events?type=started")
    assert started["data"]["labels"]["replica"] == owner
    os.kill(started["data"]["pid"], signal.SIGKILL)

    await expect(chat.system).to_have_text([f"replica {({'1': '2', '2': '1'})[owner]} took over"])
    assert await chat.replica() != owner
    await expect(chat.agent).to_have_count(3)
    await expect(chat.agent.nth(2)).to_have_text(count(LONG))
    await expect(chat.user).to_have_text(["count to 3", f"count to {LONG}"])
    await chat.send("what have I said?")
    await expect(chat.agent.last).to_have_text(f"count to 3; count to {LONG}; what have I said?")
