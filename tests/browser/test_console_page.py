"""The console in a real browser, with real servers and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browsing import PICTURES, line
from harness import wait_for
from homes import NATSPROC, connect, natsproc, servers_of
from owners import COUNTS, TALKS, owner
from playwright.async_api import Page, expect

import natsproc as sdk
from natsproc.server.home import Home

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=60_000)

# scrolls through a timeline, by so many screens at once: the offsets that were drawn, and what was wrong with their order
WALK = """
async ({ by, until }) => {
  document.dispatchEvent(new WheelEvent("wheel"));
  const scroller = document.querySelector(".scroller"), seen = [], said = new Set();
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const look = () => {
    const rows = [...document.querySelectorAll(".long [data-first]")].map((row) => [+row.dataset.first, +row.dataset.last]).filter(([first]) => first);
    for (let at = 1; at < rows.length; at++) {
      if (rows[at][0] !== rows[at - 1][1] + 1) said.add(`${rows[at - 1]} before ${rows[at]}`);
    }
    const box = scroller.getBoundingClientRect();
    const shown = [...document.querySelectorAll(".long [data-first]")].filter((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      return bottom > box.top && top < box.bottom;
    });
    for (const row of shown) seen.push(+row.dataset.first);
    if (!shown.length) said.add("nothing in sight");
    return shown;
  };
  for (let still = 0; still < 3000; ) {
    const shown = look();
    if (shown.some((row) => (by < 0 ? +row.dataset.first <= until && +row.dataset.first : +row.dataset.last >= until))) break;
    const before = scroller.scrollTop;
    scroller.scrollBy(0, by * scroller.clientHeight);
    await frame();
    await frame();
    still = scroller.scrollTop === before ? still + 1 : 0;
  }
  return { seen: [...new Set(seen)].sort((a, b) => a - b), said: [...said] };
}
"""


def row(page: Page, id: str) -> Any:
    return page.locator(f'a[data-process="default/{id}"]')


def rows(page: Page, text: str | re.Pattern[str]) -> Any:
    return page.locator(".long .row").filter(has_text=text)


async def test_the_fleet_shows_what_starts_waits_and_ends(console, tmp_path):
    page = await console()
    await expect(page.get_by_text("Nothing runs here yet")).to_be_visible()
    work = """
        await proc.ask("Go on?", choices=["yes", "no"])
        await proc.receive()
    """
    with owner(tmp_path, "build", work, kind="make", labels={"user": "ann"}), owner(tmp_path, "train", TALKS):
        await expect(row(page, "train").locator(".state")).to_have_text("running")
        await expect(row(page, "build").locator(".state")).to_have_text("waiting")
        await expect(page.locator(".ask-card")).to_contain_text("Go on?")
        await page.locator("#search").fill("user=ann")
        await expect(row(page, "train")).to_have_count(0)
        await page.get_by_role("button", name="yes").click()
        await expect(page.locator(".ask-card")).to_have_count(0)
        await expect(row(page, "build").locator(".state")).to_have_text("running")
        await page.locator("#search").fill("")
        await page.get_by_role("button", name="Waiting for me").wait_for(state="detached")
    # both owners were killed: nobody has ended their runs
    await expect(row(page, "train").locator(".state")).to_have_text("unreachable")


async def test_text_is_shown_while_it_is_streamed(console, tmp_path):
    speaks = """
        async with proc.stream("answer") as stream:
            for n in range(3):
                await stream.token(f"part {n}. ")
                await proc.receive()
    """
    with owner(tmp_path, "chat", speaks):
        page = await console("default/chat")
        text = page.locator(".speech")
        for n in range(3):
            await expect(text).to_contain_text("".join(f"part {k}. " for k in range(n + 1)))
            await expect(text).to_have_count(1)
            await expect(text.locator(".caret")).to_have_count(1)
            await page.locator("#compose").fill(f"go {n}")
            await page.keyboard.press("Enter")
            await expect(rows(page, f"go {n}")).to_contain_text("your message · taken")
        await expect(text.locator(".caret")).to_have_count(0)
        await expect(text).to_contain_text("part 0. part 1. part 2.")
        await expect(rows(page, "Completed")).to_be_visible()


async def test_output_looks_as_a_terminal_would_show_it(console):
    script = r"""
        printf '\033[1;31mred\033[0m and plain\n'
        for n in 10 50 100; do printf '\r%3d%% done' $n; done; printf '\n'
        printf 'one\ntwo\n\033[2A\033[KONE\n\n'
        printf '\033]0;title\007\033[2Jlast <b>line</b>\n'
        echo oops >&2
    """
    natsproc("run", "--id", "build", "--", "bash", "-c", script)
    page = await console("default/build")
    await expect(page.locator(".line:not(.stderr) .screen")).to_have_text(
        ["red and plain", "100% done", "ONE", "two", "last <b>line</b>"]
    )
    await expect(page.locator(".line .fg-1.m-b")).to_have_text("red")
    await expect(page.locator(".stderr")).to_contain_text("oops")
    await expect(rows(page, "Completed")).to_be_visible()


async def test_answer_send_pause_and_interrupt_with_receipts(console, tmp_path):
    work = """
        await proc.emit("chosen", await proc.ask("Which one?", choices=["left", {"n": 1}]))
        await proc.emit("named", await proc.ask("And its name?"))
        await proc.emit("got", (await proc.receive()).data)
        async with proc.interruptible():
            await proc.receive()
    """
    with owner(tmp_path, "build", work) as process:
        page = await console("default/build")
        await page.get_by_role("button", name="left").click()
        await expect(rows(page, "you answered left")).to_contain_text("your answer · applied")
        await expect(rows(page, "chosen")).to_contain_text("left")
        await page.get_by_role("textbox", name="Your answer").fill("Zoë")
        await page.get_by_role("textbox", name="Your answer").press("Enter")
        await expect(rows(page, "named")).to_contain_text("Zoë")
        await page.get_by_role("button", name="JSON").click()
        await page.locator("#compose").fill("{nonsense")
        await page.locator("#compose").press("Enter")
        await expect(page.get_by_text("This is not JSON")).to_be_visible()
        await page.locator("#compose").fill('{"rate": [1, {"deep": true}]}')
        await page.locator("#compose").press("Enter")
        got = page.locator(".row.said").filter(has_text="got")
        await got.locator(".fold").click()
        await got.locator(".tree .fold").click()
        await expect(got.locator(".tree .tree")).to_contain_text("1")
        await page.get_by_role("button", name="JSON").click()
        await page.get_by_role("button", name="Pause").click()
        await expect(rows(page, "you paused it")).to_contain_text("your pause · applied")
        await page.get_by_role("button", name="Resume").click()
        await expect(rows(page, "you let it go on")).to_contain_text("your resume · applied")
        await page.get_by_role("group", name="Control").get_by_role("button", name="Interrupt").click()
        await page.keyboard.type("stop that, do this")
        await page.keyboard.press("Enter")
        stopped = rows(page, "you interrupted it")
        await expect(stopped).to_contain_text("stop that, do this")
        await expect(stopped).to_contain_text("your interrupt · applied")
        assert await asyncio.to_thread(process.wait, 30) != 0
        await expect(page.locator(".composer")).to_have_count(0)


async def test_cancel_asks_first(console, tmp_path):
    with owner(tmp_path, "build", TALKS) as process:
        page = await console("default/build")
        await page.get_by_role("button", name="Cancel", exact=True).click()
        await page.get_by_role("button", name="Leave it running").click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.get_by_role("button", name="Cancel", exact=True).click()
        await page.get_by_role("button", name="Cancel its run").click()
        await expect(rows(page, "you cancelled it")).to_contain_text("your cancel · applied")
        await asyncio.to_thread(process.wait, 30)
        await expect(page.locator(".head .state")).to_have_text("cancelled")


async def test_who_else_watches_is_shown(console, tmp_path):
    with owner(tmp_path, "build", TALKS):
        page = await console("default/build")
        other = await console("default/build", credential=line("watch", on="default/build", name="bob"))
        await expect(page.locator(".viewers")).to_contain_text("bob")
        await expect(other.locator(".viewers")).to_contain_text("ann")
        await expect(other.locator(".composer, .verbs")).to_have_count(0)
        await other.context.close()
        await expect(page.locator(".viewers")).to_have_count(0)


async def test_gaps_takeovers_and_lost_owners_are_shown_where_they_happened(console, home, tmp_path):
    with owner(
        tmp_path, "build", COUNTS.format(count=20, pause=0) + TALKS.strip("\n").replace("    ", "", 1)
    ) as first:
        page = await console("default/build")
        await expect(rows(page, "n: 19")).to_have_count(1)
        first.kill()
        await expect(rows(page, "does not answer")).to_be_visible()
        with owner(tmp_path, "build", COUNTS.format(count=5, pause=0)) as second:
            await expect(rows(page, "A new owner took over")).to_be_visible()
            await asyncio.to_thread(second.wait, 30)
        await expect(rows(page, "Completed")).to_be_visible()
        kinds = await page.locator(".long .row").evaluate_all(
            "rows => rows.map((row) => row.className.split(' ')[1])"
        )
        assert kinds == [
            "milestone",
            *["said"] * 20,
            "notice",
            "notice",
            "milestone",
            *["said"] * 5,
            "milestone",
        ]
    await asyncio.to_thread(trim, home, 12)
    await page.reload()
    await expect(rows(page, "events (1 to 10) are gone")).to_be_visible()


def trim(home: Home, upto: int) -> None:
    """Have retention take away what was stored before that position."""

    async def purge() -> None:
        connection = await connect(home)
        await connection.api("STREAM.PURGE.PROC_EVENTS", {"seq": upto})
        await connection.close()

    asyncio.run(purge())


@pytest.mark.timeout(500)
async def test_a_hundred_thousand_events_are_all_there_and_in_order(console, tmp_path):
    count = 100_000
    with owner(
        tmp_path, "build", COUNTS.format(count=count, pause=0).replace("        await asyncio.sleep(0)\n", "")
    ) as process:
        await asyncio.to_thread(process.wait, 300)
    page = await console("default/build", size=(900, 2400))
    await expect(rows(page, "Completed")).to_be_visible()

    async def scroll(by: float, until: int) -> list[int]:
        walked = await page.evaluate(WALK, {"by": by, "until": until})
        assert walked["said"] == []
        assert await page.evaluate("document.querySelectorAll('.long .row').length") < 400
        return walked["seen"]

    assert (await scroll(-0.7, count - 1000))[-1000:] == list(range(count - 997, count + 3))
    assert (await scroll(-1000, 1))[0] == 1
    assert (await scroll(0.7, 1500))[:1500] == list(range(1, 1501))
    assert (await scroll(1000, 20_000))[-1] >= 20_000  # of which much was let go, and is read again
    met = await scroll(-0.7, 19_000)
    assert met == list(range(met[0], met[-1] + 1))
    await page.get_by_role("button", name="Jump to the beginning").click()
    await expect(rows(page, "Started")).to_be_visible()
    await page.get_by_role("button", name="Follow the end").click()
    await expect(rows(page, "Completed")).to_be_visible()
    await page.get_by_role("button", name="Jump to the beginning").wait_for(state="detached")


async def test_the_next_run_is_followed_as_the_first(console, tmp_path):
    says = """
        await proc.log("hello")
        await proc.receive()
    """
    with owner(tmp_path, "build", says) as first:
        page = await console("default/build")
        await expect(rows(page, "hello")).to_have_count(1)
        await page.locator("#compose").fill("go")
        await page.keyboard.press("Enter")
        await expect(rows(page, "Completed")).to_have_count(1)
        await asyncio.to_thread(first.wait, 30)
        with owner(tmp_path, "build", says, restart=True):
            await expect(rows(page, "hello")).to_have_count(2)
            await page.locator("#compose").fill("again")
            await page.keyboard.press("Enter")
            await expect(rows(page, "Completed")).to_have_count(2)
    shown = await page.evaluate(WALK, {"by": -0.7, "until": 1})
    assert shown["said"] == []
    assert shown["seen"] == list(range(1, len(shown["seen"]) + 1))


async def test_a_page_that_is_opened_before_its_process_shows_it_once_it_runs(console, tmp_path):
    page = await console("default/later")
    await expect(page.get_by_text("Nothing has run here by this name.")).to_be_visible()
    with owner(tmp_path, "later", 'await proc.emit("first", 1); await proc.receive()'):
        await expect(rows(page, "first")).to_be_visible()
        await expect(page.get_by_text("Nothing has run here by this name.")).to_have_count(0)


async def test_the_end_is_followed_until_somebody_scrolls_up(console, tmp_path):
    counts = """
        for n in range(400): await proc.emit("count", n)
        async for message in proc.inbox():
            for n in range(message.data): await proc.emit("more", n)
    """
    with owner(tmp_path, "build", counts):
        page = await console("default/build")
        await expect(rows(page, "count 399")).to_be_visible()
        await page.locator(".scroller").hover()
        await page.mouse.wheel(0, -2000)
        await expect(page.get_by_role("button", name="Follow the end")).to_be_visible()
        top = await page.locator(".scroller").evaluate("it => it.scrollTop")
        async with sdk.connect() as mesh:
            await mesh.process("build").send(30)
        await page.get_by_role("button", name="31 new events").click()
        await expect(page.locator(".long .row").last).to_contain_text("more 29")
        assert await page.locator(".scroller").evaluate("it => it.scrollTop") > top
        async with sdk.connect() as mesh:
            await mesh.process("build").send(50)
        await expect(page.locator(".long .row").last).to_contain_text("more 49")
        await expect(page.locator(".long .row").last).to_be_in_viewport()


async def test_a_reload_and_a_killed_server_lose_and_repeat_nothing(console, home, tmp_path):
    with owner(tmp_path, "build", COUNTS.format(count=600, pause=0.02)):
        page = await console("default/build", size=(900, 2400))
        await expect(rows(page, re.compile("n: 30"))).not_to_have_count(0)
        await page.reload()
        await expect(rows(page, re.compile("n: 60"))).not_to_have_count(0)
        (pid,) = servers_of(home)
        os.kill(pid, signal.SIGKILL)
        await expect(page.locator(".connection")).to_contain_text("no connection")
        await asyncio.to_thread(
            wait_for, lambda: servers_of(home) not in ([], [pid]), what="another nats-server"
        )
        await expect(page.locator(".connection")).to_have_text("live")
        await expect(rows(page, "Completed")).to_be_visible()
    shown = await page.evaluate(WALK, {"by": -0.7, "until": 1})
    assert shown["said"] == []
    assert shown["seen"] == list(range(1, 603))


async def test_the_credential_leaves_the_address_bar_and_its_end_is_told(console, tmp_path):
    with owner(tmp_path, "build", TALKS):
        page = await console("default/build")
        await expect(page.locator(".connection")).to_have_text("live")
        assert "natsproc_" not in await page.evaluate("location.href + document.referrer + document.cookie")
        assert await page.evaluate("Object.keys(localStorage)") == ["natsproc.theme"]
        await page.reload()
        await expect(rows(page, "Started")).to_be_visible()
        await asyncio.to_thread(natsproc, "revoke", "ann")
        await expect(page.locator(".over-note")).to_contain_text("was revoked")
        await expect(rows(page, "Started")).to_be_visible()
        await page.get_by_role("button", name="Use another link").click()
        await expect(page.get_by_text("natsproc console")).to_be_visible()
        assert await page.evaluate("Object.keys(sessionStorage)") == []
        await page.get_by_label("Link or line").fill(await asyncio.to_thread(line, name="ben"))
        await page.get_by_role("button", name="Open").click()
        await expect(row(page, "build")).to_be_visible()


async def test_a_shared_link_opens_one_process_until_it_is_revoked(console, tmp_path):
    with owner(tmp_path, "build", TALKS):
        shared = await asyncio.to_thread(natsproc, "share", "build")
        link = shared.stdout.strip()
        assert len(link) < 130
        page = await console(link=link)
        await expect(rows(page, "Started")).to_be_visible()
        assert await page.evaluate("location.hash") == "#p=default/build"
        await expect(page.get_by_role("button", name="Kill")).to_have_count(0)
        await page.reload()
        await expect(rows(page, "Started")).to_be_visible()
        guest = re.search(r"natsproc revoke (guest-\w+)", shared.stderr)[1]
        await asyncio.to_thread(natsproc, "revoke", guest)
        await expect(page.locator(".over-note")).to_contain_text("was revoked")
        place, key = link.split("#k=")
        page = await console(link=f"{place}#k=SUB{key[2 : -len('&p=default/build') - 1]}&p=default/build")
        await expect(page.locator(".over-note")).to_contain_text("not whole")


async def test_a_page_without_a_credential_says_what_to_type(console):
    page = await console(credential="")
    await expect(page.get_by_text("natsproc console")).to_be_visible()
    await page.get_by_label("Link or line").fill("nonsense")
    await page.get_by_label("Link or line").press("Enter")
    await expect(page.get_by_text("no link or line")).to_be_visible()


async def test_one_that_may_watch_one_process_sees_that_one(console, tmp_path):
    with owner(tmp_path, "build", TALKS), owner(tmp_path, "other", TALKS):
        page = await console(credential=await asyncio.to_thread(line, "watch", on="default/build"))
        await expect(row(page, "build")).to_be_visible()
        await expect(row(page, "other")).to_have_count(0)
        await row(page, "build").click()
        await expect(rows(page, "Started")).to_be_visible()
        await expect(page.locator(".composer, .verbs")).to_have_count(0)


HOSTILE = """
    bad = "<img src=x onerror=alert(1)><script>alert(2)</script>\\u202egnp.exe"
    await proc.log(bad, field=bad)
    await proc.emit("x" * 60, {bad: {bad: [bad, None, {}, []]}})
    await proc.emit("message", "m" * 900_000)
    await proc.message([list(range(20_000))])
    await proc.output(bad + "\\x1b[8m\\x1b[999999A\\x1b[?1049h" + "w" * 300_000 + "\\n")
    await proc.output(bytes(range(256)))
    await proc.progress(1e308, 1e-308, bad)
    await proc.metric(**{bad: float("nan")})
    async with proc.stream(bad) as stream:
        await stream.token(bad * 300)
    deep = []
    for _ in range(150): deep = [deep]
    await proc.message(deep)
    for type in ("text", "token", "output", "exit", "turn_began2"):
        await proc.emit("hostile", {"type": type, "stream": {"a": []}, "text": 5})
    await proc.ask(bad, choices=[bad, bad + "2"])
"""


async def test_hostile_payloads_are_text_and_nothing_else(console, tmp_path):
    with owner(tmp_path, "build", HOSTILE):
        page = await console("default/build")
        await expect(page.locator(".question.open")).to_contain_text(
            "<script>alert(2)</script>⟨U+202E⟩gnp.exe"
        )
        await page.locator(".scroller").evaluate("it => it.scrollTop = 0")
        await expect(rows(page, "onerror=alert(1)").first).to_be_visible()
        for fold in await page.locator(".fold").all():
            with contextlib.suppress(Exception):
                await fold.click(timeout=2000)
        assert await page.locator(".app img, .app script").count() == 0


async def test_many_processes_are_found_by_search(console, tmp_path):
    script = "for n in $(seq 5); do natsproc run --id job-$n -- true; done"
    path = f"{NATSPROC.parent}:{os.environ['PATH']}"
    await asyncio.to_thread(
        subprocess.run, ["bash", "-c", script], env=os.environ | {"PATH": path}, check=True
    )
    page = await console()
    await expect(page.locator(".process-row")).to_have_count(5)
    await page.keyboard.press("/")
    await page.keyboard.type("job-4")
    await expect(page.locator(".process-row")).to_have_count(1)
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("job-4")
    await expect(rows(page, "Completed")).to_be_visible()
    await page.go_back()
    await expect(page.locator(".process-row")).to_have_count(1)


async def test_metrics_are_drawn_as_they_come(console, tmp_path):
    measures = """
        async for message in proc.inbox():
            await proc.metric(loss=message.data, accuracy=1 - message.data, name=3)
    """
    with owner(tmp_path, "train", measures):
        page = await console("default/train")
        async with sdk.connect() as mesh:
            for loss in (0.5, 0.25, 0.125):
                await mesh.process("train").send(loss)
            await page.get_by_role("button", name="Metrics").click()
            await expect(
                page.get_by_role("img", name="loss: 0.125 now, between 0.125 and 0.5")
            ).to_be_visible()
            await expect(page.locator(".chart canvas")).to_have_count(3)
            await mesh.process("train").send(0.0625)
            await expect(page.get_by_role("img", name="loss: 0.0625 now")).to_be_visible()
            assert await page.evaluate(DRAWN, "canvas")
        await page.reload()
        await expect(page.get_by_role("img", name="accuracy: 0.9375 now")).to_be_visible()


DRAWN = """(what) => [...document.querySelectorAll(what)].every((it) => {
  const { data } = it.getContext("2d").getImageData(0, 0, it.width, it.height);
  return data.some((byte) => byte);
})"""


async def test_an_ended_run_is_played_again(console, tmp_path):
    speaks = """
        for n in range(5):
            await proc.log(f"line {n}")
            await asyncio.sleep(0.4)
    """
    with owner(tmp_path, "build", speaks) as process:
        await asyncio.to_thread(process.wait, 60)
    page = await console("default/build")
    await page.get_by_role("button", name="Replay").click()
    await expect(rows(page, "line 4")).to_be_visible()  # by its own times
    await expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    await page.get_by_label("Moment").fill("0.2")
    await expect(rows(page, "line 0")).to_be_visible()
    await expect(rows(page, re.compile("line [1-4]"))).to_have_count(0)
    for n in range(1, 5):
        await page.get_by_role("button", name="Next").click()
        await expect(rows(page, f"line {n}")).to_be_visible()
        await expect(rows(page, re.compile("line"))).to_have_count(n + 1)
    await page.get_by_label("Moment").fill("0")
    await page.get_by_label("Speed").select_option("100×")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Play", exact=True).click()
    await expect(rows(page, "Completed")).to_be_visible()
    await page.get_by_role("button", name="Timeline").click()
    await expect(page.locator(".player")).to_have_count(0)
    await expect(rows(page, "Completed")).to_be_visible()


async def test_children_stand_below_their_parents(console, tmp_path, monkeypatch):
    with owner(tmp_path, "root", TALKS):
        monkeypatch.setenv("NATSPROC_ADDRESS", "default/root")
        with owner(tmp_path, "child", TALKS):
            page = await console()
            await expect(page.locator(".process-row .c-id .id")).to_have_text(["root", "child"])
            await expect(row(page, "child").locator(".c-id > .shape")).to_have_count(1)
            await row(page, "child").click()
            await page.get_by_role("button", name="child of").click()
            await expect(page.locator("h1")).to_have_text("root")


async def test_all_of_it_from_the_keyboard(console, tmp_path):
    work = """
        await proc.emit("chosen", await proc.ask("Go on?", choices=["yes", "no"]))
        async for message in proc.inbox():
            await proc.emit("got", message.data)
    """
    with owner(tmp_path, "build", work), owner(tmp_path, "other", TALKS):
        page = await console()
        await expect(row(page, "other")).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        for key in ("j", "j", "k"):
            await page.keyboard.press(key)
        await expect(page.locator(".process-row.here")).to_have_count(1)
        await page.keyboard.press("/")
        await page.keyboard.type("build")
        await expect(row(page, "other")).to_have_count(0)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("build")
        await expect(page.locator(".question.open")).to_be_visible()
        await page.keyboard.press("2")
        await expect(rows(page, "chosen")).to_contain_text("no")
        await page.keyboard.press("s")
        await page.keyboard.type("jip?/")
        await page.keyboard.press("Enter")
        await expect(rows(page, "got")).to_contain_text("jip?/")
        await page.keyboard.press("Escape")
        await page.keyboard.press("p")
        await expect(rows(page, "you paused it")).to_be_visible()
        await expect(page.locator(".head .state")).to_have_text("paused")
        await page.keyboard.press("p")
        await expect(rows(page, "you let it go on")).to_be_visible()
        await page.keyboard.press("i")
        await page.keyboard.type("stop")
        await page.keyboard.press("Enter")
        await expect(rows(page, "you interrupted it")).to_contain_text("stop")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await expect(row(page, "build")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_fits_a_phone(console, tmp_path, theme):
    work = """
        await proc.emit("a-long-type-of-event", {"x" * 60: "y" * 200})
        await proc.output("w" * 400 + "\\n")
        await proc.ask("Which of these rather long ways do you want?", choices=["the first of them", "the second", "none of all these"])
    """
    with owner(tmp_path, "a-rather-long-name-of-a-process-that-does-not-fit", work, labels={"some": "label"}):
        page = await console(size=(360, 740), color_scheme=theme, has_touch=True)
        await expect(page.locator(".ask-card")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.screenshot(path=PICTURES / f"phone-fleet-{theme}.png")
        await page.locator(".process-row").click()
        await expect(page.locator(".question.open")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for name in ("Pause", "Interrupt", "Cancel", "Kill"):
            await expect(
                page.get_by_role("group", name="Control").get_by_role("button", name=name)
            ).to_be_visible()
        await page.get_by_role("button", name="the second").click()
        await expect(rows(page, "you answered")).to_be_visible()
        await page.get_by_role("button", name="Back to all processes").click()
        await expect(page.locator(".process-row")).to_be_visible()


async def test_whatever_can_be_used_has_a_name_and_shows_its_focus(console, tmp_path):
    work = """
        await proc.message({"deep": [1]})
        await proc.ask("Go on?", choices=["yes"])
    """
    with owner(tmp_path, "build", work):
        page = await console("default/build")
        await expect(page.locator(".question.open")).to_be_visible()
        unnamed = await page.evaluate(
            """() => [...document.querySelectorAll("button, a, input, select, textarea")].filter((it) => !(
              it.innerText?.trim() || it.ariaLabel || it.title || it.closest("label")?.innerText || it.labels?.length)).map((it) => it.outerHTML)"""
        )
        assert unnamed == []
        met = set()
        for _ in range(40):
            await page.keyboard.press("Tab")
            name, visible = await page.evaluate(
                """() => { const it = document.activeElement, look = getComputedStyle(it), around = getComputedStyle(it.closest(".search") ?? it);
                return [it.id || it.className || it.tagName, it === document.body || look.outlineStyle !== "none" || around.boxShadow !== "none"]; }"""
            )
            met.add(name)
            assert visible, name
        assert {"search", "compose", "scroller", "fold", "button choice"} <= met
        assert await page.locator("[aria-live=polite]").count() >= 1


async def test_a_laptop_that_was_closed_goes_on_where_it_was(console, browser, home, tmp_path):
    """Its page is stopped; meanwhile the server is another one."""
    with owner(tmp_path, "build", COUNTS.format(count=900, pause=0.02)):
        page = await console("default/build", size=(900, 2400))
        await expect(rows(page, re.compile("n: 30"))).not_to_have_count(0)
        session = await browser.new_browser_cdp_session()
        before = {each["id"] for each in (await session.send("SystemInfo.getProcessInfo"))["processInfo"]}
        stopped = [each for each in before if is_renderer(each)]
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            (pid,) = servers_of(home)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(
                wait_for, lambda: servers_of(home) not in ([], [pid]), what="another nats-server"
            )
            await asyncio.sleep(3)  # for which its lid is closed
        finally:
            for each in stopped:
                os.kill(each, signal.SIGCONT)
        await expect(rows(page, "Completed")).to_be_visible()
    shown = await page.evaluate(WALK, {"by": -0.7, "until": 1})
    assert shown["said"] == []
    assert shown["seen"] == list(range(1, 903))


def is_renderer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def test_a_credential_that_has_ended_says_when(console, tmp_path):
    with owner(tmp_path, "build", TALKS):
        page = await console("default/build", credential=await asyncio.to_thread(line, seconds=15))
        await expect(page.locator(".link-state")).to_contain_text("ends in")
        await expect(page.locator(".over-note")).to_contain_text("This link ended at")
        await expect(page.locator(".connection")).to_have_text("over")
