"""The client for browsers, in Node: the protocol's vectors, its size, and real processes over real WebSockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from harness import SERVERS, binary, free_port, wait_for
from homes import NATSPROC, a_home, connect, servers_of
from owners import COUNTS, TALKS, owner
from webclient import CLIENT, built, in_client, in_deno, in_node

import natsproc as sdk
from natsproc.server import embedded

LIMITS = {
    "all": (16_800, 56_600, 'export * from "natsproc"'),
    "watching": (
        13_600,
        53_400,
        'import { Address, Connection, Tail } from "natsproc"; globalThis.them = [Address, Connection, Tail]',
    ),
}
"""Bytes of our own, and with the dependency, of who uses that: bundled, minified and gzipped."""


def test_the_vectors_of_the_protocol():
    built()
    in_client("--test", "test/vectors.test.js")


@pytest.mark.parametrize("what", LIMITS)
def test_it_stays_small(what, tmp_path):
    *limits, program = LIMITS[what]
    entry = tmp_path / "entry.js"
    entry.write_text(program.replace("natsproc", (built() / "index.js").as_posix()))
    rolldown = CLIENT / "node_modules" / "rolldown" / "bin" / "cli.mjs"
    for limit, options in zip(limits, (["--external", "@nats-io/nats-core"], []), strict=True):
        bundle = tmp_path / "bundle.js"
        in_client(str(rolldown), str(entry), "--minify", "--format", "esm", *options, "-o", str(bundle))
        size = len(gzip.compress(bundle.read_bytes(), 9))
        assert size <= limit


@pytest.mark.parametrize("runtime", [in_node, in_deno])
def test_its_readme_shows_an_example_that_runs(home, tmp_path, runtime):
    example = CLIENT / "example.mjs"
    assert example.read_text() in (CLIENT / "README.md").read_text()
    with owner(tmp_path, "build", TALKS):
        environment = os.environ | {"NATSPROC_GRANT": line()}
        said = in_client(str(example), "build", runtime=runtime(), env=environment).stdout
    assert "started" in said
    assert "is answered { echo: 'how far?' }" in said.replace('"', "'")
    # the receipt, and what the log says, come each its own way
    assert {"interrupt applied", "ended: interrupted"} < set(said.splitlines()[-3:])


def test_installing_it_runs_nothing():
    assert set(json.loads((CLIENT / "package.json").read_text())["scripts"]) == {"build", "test"}


@pytest.fixture
def home(tmp_path, monkeypatch, request):
    built()
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(getattr(request, "param", None))))
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        yield home


class Page:
    """A program in Node that has a `mesh`, and `say`s lines of JSON."""

    def __init__(
        self, folder: Path, body: str, *lines: str, runtime: tuple[str, ...] = (), **options: Any
    ) -> None:
        given = json.dumps({"credentials": lines[0]} | options)
        text = f"""
            import {{ connect }} from {json.dumps((built() / "index.js").as_uri())};
            const say = (value) => console.log(JSON.stringify(value));
            const failure = (error) => ({{ error: error.name, text: error.message }});
            const lines = {json.dumps(lines)};
            let mesh;
            try {{
              mesh = await connect({given});
              {body}
            }} catch (error) {{
              say(failure(error));
            }}
            await mesh?.close();
        """
        self.file = folder / f"page-{time.monotonic_ns()}.mjs"
        self.file.write_text(textwrap.dedent(text))
        self.said: list[Any] = []
        self._stderr = self.file.with_suffix(".stderr")
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*(runtime or in_node()), self.file], stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    def hear(self) -> Any:
        """What it says next."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"it ended:\n{self._stderr.read_text()}\nafter {self.said[-3:]}"
        self.said.append(json.loads(line))
        return self.said[-1]

    def until(self, wanted: Any) -> Any:
        """Go on hearing until something is said that `wanted` takes."""
        while not wanted(said := self.hear()):
            pass
        return said

    def rest(self) -> list[Any]:
        """All that it says until it ends, well."""
        assert self.process.stdout
        self.said += map(json.loads, self.process.stdout)
        assert self.process.wait(20) == 0, self._stderr.read_text()
        return self.said

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()


TAIL = "for await (const item of mesh.process('build').tail({})) say([item.kind, item.type, item.offset ?? 0, item.data]);"


TELLS = "await mesh.process('build').send('well'); say(await mesh.process('build').result());"
GRANTS = f"""
  const {{ execFileSync }} = await import("node:child_process");
  let asked = 0, granted = 0;
  const grant = (time) => {{
    asked++;
    const made = execFileSync({json.dumps(str(NATSPROC))}, ["grant", "page", "--can", "watch", "--on", "build", "--for", time]);
    granted = performance.now();
    return String(made);
  }};
"""


def line(*can: str, on: str = "build", **options: Any) -> str:
    return sdk.grant("page", can or ["watch", "send", "control"], on.split(","), **options).line


def info_of(id: str) -> Any:
    async def look() -> Any:
        async with sdk.connect() as mesh:
            return await mesh.process(id).info()

    return asyncio.run(look())


def offset_of(id: str) -> int:
    """The offset of its last event."""

    async def look() -> int:
        async with sdk.connect() as mesh:
            return [
                item.offset
                async for item in mesh.process(id).tail(n=1, follow=False)
                if isinstance(item, sdk.Event)
            ][-1]

    return asyncio.run(look())


def events(said: list[Any]) -> list[int]:
    return [offset for kind, _, offset, _ in said if kind == "event"]


def notices(said: list[Any]) -> list[str]:
    return [type for kind, type, _, _ in said if kind == "notice"]


@pytest.mark.parametrize("home", SERVERS, ids=[v or "newest" for v in SERVERS], indirect=True)
def test_a_tail_misses_and_repeats_nothing_while_the_server_is_killed(home, tmp_path):
    tail_over_killed_servers(home, tmp_path)


def test_so_it_does_under_deno(home, tmp_path):
    folder = built() / tmp_path.name  # where Deno finds the dependency
    folder.mkdir()
    try:
        tail_over_killed_servers(home, folder, runtime=in_deno())
    finally:
        shutil.rmtree(folder)


def tail_over_killed_servers(home, folder: Path, **options: Any) -> None:
    count = 400
    with (
        owner(folder, "build", COUNTS.format(count=count, pause=0.01)),
        Page(folder, TAIL, line("watch"), **options) as page,
    ):
        page.until(lambda said: said[2] == 60)
        for _ in range(2):
            (pid,) = servers_of(home)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda before=pid: servers_of(home) not in ([], [before]), what="another nats-server")
            heard = len(page.said)
            page.until(lambda _, enough=heard + 30: len(page.said) > enough)
        said = page.rest()
    assert events(said) == list(range(1, count + 3))
    assert [type for kind, type, _, _ in said if kind == "event"][0 :: count + 1] == ["started", "exited"]
    assert notices(said) == ["caught_up", "ended"]
    assert said[-1][3] == {"run": 1, "status": "completed", "code": 0}


@pytest.mark.parametrize(("can", "on"), [("watch", "build"), ("all", "*/*")])
def test_it_goes_on_behind_a_cursor_and_knows_one_of_another_log(home, tmp_path, can, on):
    body = """
      const first = mesh.process("build").tail();
      for await (const item of first) if (item.type === "count" && item.data.n === 4) break;
      for await (const item of mesh.process("build").tail({ after: first.cursor })) say([item.kind, item.type, item.offset ?? 0, item.data]);
      // as of this log, had it come further: of a mesh that was made anew
      const [version, , epoch, run] = atob(first.cursor.replace(/-/g, "+").replace(/_/g, "/")).split(".");
      const later = btoa([version, 99999, epoch, run, 700].join(".")).replace(/=+$/, "");
      for (const after of ["MS45OTk5OS43Ny4xLjc", later]) {
        try {
          for await (const item of mesh.process("build").tail({ after })) say(item);
        } catch (error) {
          say([error.name, error.message]);
        }
      }
    """
    with (
        owner(tmp_path, "build", COUNTS.format(count=10, pause=0.01)),
        Page(tmp_path, body, line(can, on=on)) as page,
    ):
        *said, foreign, beyond = page.rest()
    assert events(said) == list(range(7, 13))
    for name, text in (foreign, beyond):
        assert name == "BadPayload"
        assert "another log" in text


def test_it_can_be_stopped_at_any_time(home, tmp_path):
    body = """
      const quiet = new AbortController();
      setTimeout(() => quiet.abort(), 200);
      for await (const item of mesh.process("build").tail({ signal: quiet.signal })) say(item.type);
      const left = mesh.process("build").tail();
      const waiting = (async () => { for await (const item of left) if (item.type === "caught_up") say("left"); })();
      setTimeout(() => left.return(), 500);
      await waiting;
      say("over");
    """
    with owner(tmp_path, "build", TALKS), Page(tmp_path, body, line("watch")) as page:
        assert page.rest() == ["started", "caught_up", "left", "over"]


def test_who_is_slow_gets_it_all_later(home, tmp_path):
    body = """
      for await (const item of mesh.process("build").tail()) {
        if (item.type === "caught_up") {
          await mesh.process("build").send("go");
          await new Promise((resolve) => setTimeout(resolve, 4000));
        }
        say([item.kind, item.type, item.offset ?? 0, null]);
      }
    """
    floods = """
        await proc.receive()
        for n in range(20_000):
            await proc.emit("count", {"n": n})
    """
    with owner(tmp_path, "build", floods), Page(tmp_path, body, line("watch", "send")) as page:
        said = page.rest()
    assert events(said) == list(range(1, 20_004))
    assert notices(said) == ["caught_up", "ended"]


async def trimmed(home, upto: int | None) -> None:
    """Have retention take away what was stored up to that position, or everything."""
    connection = await connect(home)
    await connection.api("STREAM.PURGE.PROC_EVENTS", {"seq": upto + 1} if upto else {})
    await connection.close()


async def test_what_retention_took_is_said(home, tmp_path):
    with owner(tmp_path, "build", COUNTS.format(count=20, pause=0)) as process:
        await asyncio.to_thread(process.wait, 30)
    for upto, missing in ((12, 11), (None, 22)):  # the mark was the first
        await trimmed(home, upto)
        with Page(tmp_path, TAIL, line("watch")) as page:
            said = await asyncio.to_thread(page.rest)
        assert said[0] == ["notice", "gap", 0, {"from": 1, "to": missing}] or said[1][3] == {
            "from": 1,
            "to": missing,
        }
        assert events(said) == list(range(missing + 1, 23))
        assert said[-1] == ["notice", "ended", 0, {"run": 1, "status": "completed", "code": 0}]


def test_a_laptop_that_was_closed_goes_on_where_it_was(home, tmp_path):
    body = f"""
      {GRANTS}
      const again = await connect({{ credentials: async () => grant(asked ? "1h" : "5s") }});
      for await (const item of again.process("build").tail()) say([item.kind, item.type, item.offset ?? 0, item.data]);
      say(asked);
      await again.close();
    """
    with (
        owner(tmp_path, "build", COUNTS.format(count=400, pause=0.025)),
        Page(tmp_path, body, line("watch")) as page,
    ):
        page.until(lambda said: said[2] == 20)
        page.process.send_signal(signal.SIGSTOP)
        time.sleep(6)  # its credential ends meanwhile, and the server hangs up
        page.process.send_signal(signal.SIGCONT)
        *said, asked = page.rest()
    assert events(said) == list(range(1, 403))
    assert notices(said) == ["caught_up", "ended"]
    assert asked == 2


@pytest.mark.parametrize(("can", "on"), [("watch", "build,nobody"), ("all", "*/*")])
def test_it_begins_with_the_last_ones_and_pages_back_to_the_first(home, tmp_path, can, on):
    """Over two owners and two runs, of which only what is asked for is read."""
    body = """
      const build = mesh.process("build");
      const shown = async (options) => {
        const found = [];
        for await (const item of build.tail({ follow: false, ...options })) if (item.kind === "event") found.push(item.offset);
        return found;
      };
      say(await shown({ n: 3 }));
      say(await shown({ n: 0 }));
      say((await shown({ n: 5000 })).length);
      say((await shown({ since: 3600 })).length);
      say(await shown({ since: 0 }));
      let before = (await shown({ n: 1 }))[0] + 1;
      for (let page; (page = await build.before(before, 333)).length; before = page[0].offset) say(page.map((each) => [each.offset, each.type, each.run]));
      say((await build.before(5, 2)).map((each) => each.offset));
      say(await mesh.process("nobody").before(7).catch(failure));
      build.tail({ n: 1, since: 2 });
    """
    lines = 700
    with owner(tmp_path, "build", COUNTS.format(count=lines, pause=0) + "await proc.receive()\n") as first:
        wait_for(lambda: offset_of("build") > lines, what="its events are stored")
        first.kill()
        wait_for(lambda: info_of("build").gone, what="its owner is gone")
    for restart in (False, True):  # it is recovered, and then run again
        with owner(tmp_path, "build", COUNTS.format(count=lines, pause=0), restart=restart) as process:
            process.wait(60)
    with Page(tmp_path, body, line(can, on=on)) as page:
        said = page.rest()
    total = 3 * lines + 5
    assert said[:5] == [[total - 2, total - 1, total], [], total, total, []]
    *pages, short, nobody, both = said[5:]
    assert [len(page) for page in pages] == [*(total // 333 * [333]), total % 333]
    whole = [event for page in reversed(pages) for event in page]
    assert [offset for offset, _, _ in whole] == list(range(1, total + 1))
    assert [type for _, type, _ in whole if type != "count"] == [
        "started",
        "recovered",
        "exited",
        "restarted",
        "exited",
    ]
    assert [run for _, _, run in whole] == (2 * lines + 3) * [1] + (lines + 2) * [2]
    assert short == [3, 4]
    assert (both["error"], nobody["error"]) == ("BadPayload", "NoSuchProcess")


def test_who_watches_is_seen_by_the_others_and_the_process(home, tmp_path):
    tells = """
        while True:
            if proc.viewers != told: await proc.emit("seen", told := dict(proc.viewers))
            await asyncio.sleep(0.05)
    """
    body = """
      const build = mesh.process("build");
      const tail = build.tail(), other = build.tail(), unseen = build.tail({ announce: false }), over = build.tail({ follow: false });
      for (const each of [other, unseen, over]) await each.next();
      let grown = false;
      for await (const item of tail) {
        if (item.type !== "seen") continue;
        if (item.data.page === 2 && !grown) grown = !!other.return();
        else if (item.data.page === 1 && grown) break;
      }
      say(grown);
    """
    closes = """
      await mesh.process("build").tail({ n: 0 }).next();
      let viewers = {};
      while (!viewers.page) ({ viewers } = await mesh.process("build").record());
      say(viewers);
    """
    with owner(tmp_path, "build", "told = {}\n" + textwrap.dedent(tells)):
        with Page(tmp_path, body, line("watch")) as page:
            assert page.rest() == [True]
        wait_for(
            lambda: not info_of("build").record.viewers, what="nobody watches, and not only after a while"
        )
        with Page(tmp_path, closes, line("watch")) as page:
            assert page.rest() == [{"page": 1}]
        wait_for(lambda: not info_of("build").record.viewers, what="who disconnects has left")


def test_a_new_owner_soon_knows_who_watches(home, tmp_path):
    with owner(tmp_path, "build", TALKS) as first, Page(tmp_path, TAIL, line("watch")) as page:
        page.until(lambda said: said[1] == "caught_up")
        first.kill()
        page.until(lambda said: said[1] == "unreachable")
        with owner(tmp_path, "build", "await proc.receive()"):
            wait_for(lambda: info_of("build").record.viewers == {"page": 1}, what="it says so now and then")


def test_streamed_text_comes_whole_to_a_late_joiner(home, tmp_path):
    speak = """
        async with proc.stream() as stream:
            for n in range(50):
                await stream.token(f"{n} ")
    """
    body = "for await (const item of mesh.process('build').tail({ compact: true })) say([item.kind, item.type, 0, item.data]);"
    with owner(tmp_path, "build", speak) as process:
        process.wait(30)
        with Page(tmp_path, body, line("watch")) as page:
            said = page.rest()
    assert [type for _, type, _, _ in said] == ["started", "text", "exited", "caught_up", "ended"]
    assert said[1][3]["text"] == "".join(f"{n} " for n in range(50))


def test_it_sends_asks_and_commands_with_receipts(home, tmp_path):
    work = """
        answer = await proc.ask("Deploy?", choices=["yes", "no"])
        await proc.emit("chosen", answer)
        async for message in proc.inbox():
            await proc.reply(message, {"echo": message.data})
    """
    body = """
      const build = mesh.process("build");
      for await (const item of build.tail()) if (item.type === "asked") break;
      say((await build.record()).asks[0].question);
      const verdict = ({ verb, status, sender, offset, verified }) => [verb, status, sender, offset > 0, verified];
      say(verdict(await build.answer("maybe")));
      say(verdict(await build.answer("yes")));
      say(verdict(await build.answer("no")));
      const sent = await build.send({ n: 1 }, { id: "first" });
      say((await sent.consumed({ timeout: 10 })).when);
      say((await build.send({ n: 1 }, { id: "first" })).duplicate);
      say(await sent.reply({ timeout: 10 }));
      say(await build.request(["é", null, 1.5], { timeout: 10 }));
      say(verdict(await build.pause({ reason: "wait" })));
      say((await build.record()).state);
      say(verdict(await build.resume()));
      say(verdict(await build.interrupt({ reason: "enough", message: { then: "rest" } })));
      for await (const item of build.tail()) if (item.type === "interrupted") say(item.data);
      while (!(await build.record()).ended) await new Promise((resolve) => setTimeout(resolve, 20));
      say((await build.interrupt()).status);
      say((await build.send(1).catch(failure)).error);
    """
    with owner(tmp_path, "build", work), Page(tmp_path, body, line()) as page:
        said = page.rest()
    interrupted = said.pop(-3)
    assert said == [
        "Deploy?",
        ["answer", "refused", "page", True, True],
        ["answer", "applied", "page", True, True],
        ["answer", "too_late", "page", True, True],
        "idle",
        True,
        {"echo": {"n": 1}},
        {"echo": ["é", None, 1.5]},
        ["pause", "applied", "page", True, True],
        "paused",
        ["resume", "applied", "page", True, True],
        ["interrupt", "applied", "page", True, True],
        "too_late",
        "AlreadyEnded",
    ]
    assert (interrupted["sender"], interrupted["reason"], interrupted["message"]) == (
        "page",
        "enough",
        {"then": "rest"},
    )


def test_it_waits_for_the_end_and_looks_inside(home, tmp_path):
    body = """
      const build = mesh.process("build");
      say(await build.wait({ timeout: 0.2 }).catch(failure));
      say(Object.keys(await build.inspect({ stack: true })).includes("stack"));
      const ends = [build.wait({ timeout: 60 }), build.result({ timeout: 60 }).catch(failure)];
      await build.send("fail");
      for (const end of ends) say(await end);
      let gone = null;
      while (!gone || gone.error === "Unreachable") gone = await build.inspect().then(() => null, failure);
      say(gone);
    """
    work = """
        message = await proc.receive()
        if message.data == "fail": raise RuntimeError("no more")
        return {"did": message.data}
    """
    with owner(tmp_path, "build", work), Page(tmp_path, body, line()) as page:
        early, stack, end, failed, gone = page.rest()
    assert (early["error"], stack, gone["error"]) == ("TimedOut", True, "AlreadyEnded")
    assert (end["status"], end["code"], end["run"], end["offset"]) == ("failed", 1, 1, 3)
    assert (failed["error"], "no more" in failed["text"]) == ("ProcessFailed", True)
    with owner(tmp_path, "build", work, restart=True), Page(tmp_path, TELLS, line()) as page:
        assert page.rest() == [{"did": "well"}]


def test_a_command_on_hold_is_kept_for_whoever_is_next(home, tmp_path):
    body = """
      const build = mesh.process("build");
      const brief = ({ status, data }) => [status, Date.parse(data.held_until) > Date.now()];
      say(brief(await build.interrupt({ reason: "not now", hold: 600 })));
      say(await build.answer("yes", { hold: 600 }).catch(failure));
    """
    with Page(tmp_path, body, line()) as page:
        held, refused = page.rest()
    assert held == ["accepted", True]
    assert refused["error"] == "Refused"
    subprocess.run([NATSPROC, "run", "--id", "build", "--", "sleep", "60"], timeout=60, check=False)
    with Page(tmp_path, TAIL, line("watch")) as page:
        said = page.rest()
    assert [data["reason"] for _, type, _, data in said if type == "interrupted"] == ["not now"]


def test_an_answer_on_hold_is_for_the_question_that_is_open(home, tmp_path):
    asks = 'await proc.emit("chosen", await proc.ask("Deploy?"))'
    body = """
      const build = mesh.process("build");
      for await (const item of build.tail()) {
        if (item.type === "asked") say("asked");
        if (item.type === "unreachable") say((await build.answer("later", { hold: 600 })).status);
        if (item.type === "chosen") say(item.data);
      }
    """
    with owner(tmp_path, "build", asks) as first, Page(tmp_path, body, line()) as page:
        assert page.hear() == "asked"
        first.kill()
        assert page.hear() == "accepted"
        with owner(tmp_path, "build", asks):
            assert page.rest()[-1] == "later"


def test_what_was_not_granted_is_denied_and_said(home, tmp_path):
    body = """
      const other = mesh.process("other");
      say(await mesh.process("build").send(1).catch(failure));
      say(await mesh.process("build").interrupt().catch(failure));
      say(await other.record().catch(failure));
      say(await other.tail().next().catch(failure));
      say(await mesh.list().then((found) => found.map((each) => [each.address.id, each.quiet >= 0])));
      say(await mesh.process("no such").record().catch(failure));
    """
    with owner(tmp_path, "build", TALKS), owner(tmp_path, "other", TALKS):
        with Page(tmp_path, body, line("watch")) as page:
            said = page.rest()
        with Page(tmp_path, "say(1)", line("watch"), servers=f"ws://127.0.0.1:{free_port()}") as page:
            nobody = page.rest()
    assert [each["error"] for each in said[:4]] == ["NotAllowed"] * 4
    assert [each["text"].split(":")[0] for each in said[:4]] == [
        "page may not send to default/build",
        "page may not command default/build",
        "page may not watch default/other",
        "page may not watch default/other",
    ]
    assert said[4] == [["build", True]]
    assert said[5]["error"] == "BadName"
    assert [each["error"] for each in nobody] == ["NoServer"]


def test_a_new_credential_is_asked_for_before_the_old_one_ends(home, tmp_path):
    body = f"""
      {GRANTS}
      let lost = [];
      const again = await connect({{ credentials: async () => grant("10s") }});
      again.on("down", () => lost.push(performance.now() - granted));
      for await (const item of again.process("build").tail()) say([item.kind, item.type, item.offset ?? 0, item.data]);
      say([asked, lost]);
      await again.close();
    """
    with (
        owner(tmp_path, "build", COUNTS.format(count=500, pause=0.025)),
        Page(tmp_path, body, line("watch")) as page,
    ):
        *said, (asked, lost) = page.rest()
    assert events(said) == list(range(1, 503))
    assert notices(said) == ["caught_up", "ended"]
    assert (asked, len(lost)) == (2, 1)
    assert lost[0] < 1500, "it was to connect anew at once, not when the server hangs up two seconds later"


def test_one_that_was_revoked_is_told_so(home, tmp_path):
    with owner(tmp_path, "build", TALKS), Page(tmp_path, TAIL, line("watch")) as page:
        page.until(lambda said: said[1] == "caught_up")
        sdk.revoke("page")
        assert page.rest()[-1]["error"] == "NotAllowed"


def test_lists_and_changes_by_kind_and_label(home, tmp_path):
    body = """
      const brief = (each) => [each.address.id, each.state, each.kind, each.labels];
      say((await mesh.list({ kind: "train" })).map(brief));
      say((await mesh.list({ labels: { user: "ann" } })).map(brief));
      say((await mesh.list({ namespace: "*" })).map((each) => [each.address.id, each.quiet >= 0 && each.quiet < 60]).sort());
      for await (const { address, record } of mesh.list({ watch: true, labels: { user: "ann" } })) {
        say([address.id, record && record.state]);
        if (!record) break;
        if (record.state === "running") await mesh.process(address).pause();
        else await mesh.process(address).kill();
      }
      say((await mesh.list({ ended: true, kind: "train" })).map((each) => each.state));
    """
    with (
        owner(tmp_path, "a", TALKS, kind="train", labels={"user": "ann"}),
        owner(tmp_path, "b", TALKS, kind="serve"),
        Page(tmp_path, body, line("watch", "control", on="*/*")) as page,
    ):
        trains, anns, everyone, *changes, ended = page.rest()
    assert trains == anns == [["a", "running", "train", {"user": "ann"}]]
    assert everyone == [["a", True], ["b", True]]
    assert changes == [["a", "running"], ["a", "paused"], ["a", None]]
    assert ended == ["killed"]


def test_an_owner_that_is_gone_and_one_that_takes_over_are_said(home, tmp_path):
    with owner(tmp_path, "build", TALKS) as first, Page(tmp_path, TAIL, line("watch")) as page:
        page.until(lambda said: said[1] == "caught_up")
        first.kill()
        assert page.until(lambda said: said[1] == "unreachable")[3]["epoch"] == 1
        with owner(tmp_path, "build", "pass"):
            said = page.rest()
    assert notices(said) == ["caught_up", "unreachable", "takeover", "ended"]
    assert events(said) == list(range(1, len(events(said)) + 1))
