"""Wrapped commands as processes of the mesh: their output as events, their inbox as stdin, verbs as signals."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import pyte
import pytest
from wrapping import DEADLINE, Job, text

import natsproc
from natsproc.command.session import Session
from natsproc.command.terminal import Size
from natsproc.local import LocalServer
from natsproc.protocol.names import new_token

SIGNALLED = ("interrupted", "paused", "resumed", "cancelled")


@pytest.fixture(scope="module")
def version():
    return None


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


async def test_output_is_all_there_in_order_within_each_stream(mesh):
    code = "import sys\nfor n in range(20000):\n print(n)\n print(-n, file=sys.stderr)"
    async with Job(mesh, *python(code)) as job:
        assert (await job.ended()).code == 0
        assert await job.written("stdout") == b"".join(b"%d\n" % n for n in range(20000))
        assert await job.written("stderr") == b"".join(b"%d\n" % -n for n in range(20000))


async def test_nothing_is_lost_at_the_exit(mesh):
    async with Job(mesh, "sh", "-c", "seq 1 200000; printf 'no newline'") as job:
        assert (await job.ended()).code == 0
        assert await job.written() == b"".join(b"%d\n" % n for n in range(1, 200001)) + b"no newline"
        assert len(await job.events("output")) < 5000  # many lines an event


async def test_merged_output_is_in_the_exact_order_and_one_stream(mesh):
    code = "import os\nfor n in range(5000): os.write(1 + n % 2, b'%d\\n' % n)"
    async with Job(mesh, *python(code), merge=True) as job:
        await job.ended()
        assert await job.written() == b"".join(b"%d\n" % n for n in range(5000))
        assert await job.written("stderr") == b""


async def test_bytes_that_are_no_text_come_verbatim(mesh):
    async with Job(mesh, "printf", r"caf\303\251\nbad \351\nfin\n") as job:
        await job.ended()
        assert await job.written() == b"caf\xc3\xa9\nbad \xe9\nfin\n"


async def test_a_prompt_without_its_newline_is_shown_and_progress_bars_are_merged(mesh):
    bar = "".join(f"\\r{n}%%" for n in range(100))
    async with Job(
        mesh, "sh", "-c", f"printf 'Name: '; read name; printf '{bar}'; echo; echo hello $name"
    ) as job:
        await job.shows("Name: ")
        await job.handle.send("you")
        await job.ended()
        written = (await job.written()).decode()
        assert written.startswith("Name: ")
        assert written.endswith("99%\nhello you\n")
        assert written.count("%") < 10


async def test_python_children_are_unbuffered_unless_told_otherwise(mesh):
    async with Job(mesh, *python("print('now'); input()")) as job:
        await job.shows("now")
        await job.type(None, "eof")
        await job.ended()
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    async with Job(mesh, *python("import os; print(repr(os.environ['PYTHONUNBUFFERED']))"), env=env) as job:
        await job.ended()
        assert await job.written() == b"''\n"


async def test_messages_are_lines_of_stdin_until_its_end(mesh):
    async with Job(mesh, "cat") as job:
        await job.begun()
        await job.handle.send("text")
        await job.handle.send("a line\n")
        await job.handle.send({"any": ["json", 1]})
        await job.handle.send({"text": "key", "raw": True})
        await job.handle.send({"text": "strokes"})
        await job.type(None, "eof")
        assert (await job.ended()).code == 0
        assert await job.written() == b'text\na line\n{"any":["json",1]}\nkeystrokes\n'
        assert [event.data["sender"] for event in await job.events("received")] == ["owner"] * 6


async def test_a_message_behind_the_end_of_input_is_said_to_reach_nobody(mesh):
    async with Job(mesh, "sh", "-c", "cat; sleep 100") as job:
        await job.begun()
        await job.type(None, "eof")
        await job.handle.send("late")
        async with asyncio.timeout(DEADLINE):
            async for event in job.handle.tail(types=["log"]):
                if isinstance(event, natsproc.Event):
                    assert "reached nobody" in event.data["text"]
                    break
        assert (await job.handle.kill()).applied


async def test_a_command_that_does_not_read_is_controlled_all_the_same(mesh):
    async with Job(mesh, "sh", "-c", "echo up; sleep 1000") as job:
        await job.shows("up")
        for _ in range(5):
            await job.handle.send("x" * 900_000)  # more than the pipe and the buffer before it hold
        assert (await job.handle.pause()).applied
        assert (await job.handle.resume()).applied
        assert (await job.handle.cancel()).applied
        assert (await job.ended()).signal == 15


async def test_an_interrupt_comes_before_its_message(mesh):
    code = """
import select, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("busy")
select.select([0], [], [])
print("now:", input(), signal.SIGINT in signal.sigpending())
"""
    async with Job(mesh, *python(code)) as job:
        await job.shows("busy")
        receipt = await job.handle.interrupt("do this", reason="wrong way")
        assert receipt.applied
        assert (await job.ended()).code == 0, await job.written("stderr")
        assert (await job.written()).endswith(b"now: do this True\n")
        (event,) = await job.events("interrupted")
        assert event.data["message"] == "do this"
        assert event.data["reason"] == "wrong way"
        assert (await job.terminal_event())["status"] == "completed"


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("exit 0", {"status": "completed", "code": 0}),
        ("exit 3", {"status": "failed", "code": 3}),
        ("kill -TERM $$", {"status": "failed", "code": 143, "signal": 15}),
        ("kill -INT $$", {"status": "interrupted", "code": 130, "signal": 2}),
    ],
)
async def test_the_terminal_event_has_exit_code_and_signal(mesh, script, ending):
    async with Job(mesh, "sh", "-c", script) as job:
        assert (await job.ended()).code == ending["code"]
        assert await job.terminal_event() == ending


async def test_a_command_that_cannot_be_run_is_a_failed_run(mesh, tmp_path):
    (tmp_path / "plain").write_text("no program")
    for command, code in [("no-such-command-of-ours", 127), (str(tmp_path / "plain"), 126)]:
        async with Job(mesh, command) as job:
            ended = await job.ended()
            assert ended.code == code
            assert command in ended.error
            ending = await job.terminal_event()
            assert (ending["status"], ending["code"], ending["error"]) == ("failed", code, ended.error)


async def test_what_a_receipt_of_kill_or_cancel_says_is_gone(mesh, tmp_path):
    loop = f"trap '' TERM; touch {tmp_path}/$BASHPID; while ((SECONDS < 120)); do sleep 0.05; done"
    for verb, options in [("kill", {}), ("cancel", {"grace": 0.3})]:
        for file in tmp_path.iterdir():
            file.unlink()
        async with Job(mesh, "bash", "-c", f"setsid bash -c '{loop}' & {loop}") as job:
            async with asyncio.timeout(DEADLINE):
                while len(pids := [int(file.name) for file in tmp_path.iterdir()]) < 2:
                    await asyncio.sleep(0.01)
            receipt = await getattr(job.handle, verb)(**options)
            assert receipt.status == "applied"
            assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            await job.ended()
            ending = await job.terminal_event()
            assert ending == {"status": "killed" if verb == "kill" else "cancelled", "code": 137, "signal": 9}


async def test_pause_and_resume(mesh):
    async with Job(mesh, "sh", "-c", "while :; do echo tick; sleep 0.02; done") as job:
        await job.shows("tick")
        assert (await job.handle.pause(reason="lunch")).applied
        inspected = await job.handle.inspect()
        assert inspected["paused"]
        assert {member["state"] for member in inspected["members"]} <= {"stopped", "zombie", "disk-sleep"}
        receipt = await job.handle.interrupt()
        assert "paused" in receipt.why
        assert (await job.handle.resume()).applied
        assert (await job.ended()).signal == 2
        assert (await job.terminal_event())["status"] == "interrupted"
        assert (await job.handle.pause()).status == "too_late"


async def test_a_child_that_keeps_the_output_open_does_not_keep_the_run(mesh):
    async with Job(mesh, "sh", "-c", "sleep 1000 & echo done") as job:
        assert (await job.ended()).code == 0
        assert await job.written() == b"done\n"
        (event,) = await job.events("log")
        assert "left behind" in event.data["text"]


async def test_what_outlives_the_command_for_a_moment_is_heard(mesh):
    async with Job(mesh, "sh", "-c", "(sleep 0.3; echo late) & echo early", linger=DEADLINE) as job:
        await job.ended()
        assert await job.written() == b"early\nlate\n"


# The address from inside the program.


async def test_a_program_speaks_and_hears_under_the_address_that_it_runs_at(mesh):
    code = """
import asyncio, multiprocessing, os, stat, natsproc
proc = natsproc.current()
path = os.environ["NATSPROC_SOCKET"]
assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
first = proc.metric(loss=0.25)
assert proc.log("hello", step=1) == first + 1
asyncio.run(proc.aio.progress(1, 2))
child = multiprocessing.get_context("fork").Process(target=proc.message, args=("from a fork",))
child.start(); child.join()
try:
    proc.emit("exited", {})
except natsproc.BadPayload as error:
    proc.message(str(error))
try:
    proc.emit("big", "x" * 2_000_000)
except natsproc.TooLarge as error:
    proc.message({"limit": error.limit, "size": error.size})
try:
    proc.receive(timeout=0.05)
except natsproc.TimedOut:
    proc.message("waiting")
message = proc.receive()
proc.message({"got": message.data, "from": message.sender})
proc.flush()
"""
    async with Job(mesh, *python(code)) as job:
        async with asyncio.timeout(DEADLINE):
            while not [e for e in await tailed(job) if e.type == "message" and e.data == "waiting"]:
                await asyncio.sleep(0.02)
        await job.handle.send({"lr": 0.1})
        assert (await job.ended()).code == 0, (await job.written("stderr")).decode()
        events = await job.events()
        assert [e.data for e in events if e.type == "metric"] == [{"loss": 0.25}]
        assert [e.data for e in events if e.type == "progress"] == [{"done": 1, "total": 2}]
        said = [e.data for e in events if e.type == "message"]
        assert said[0] == "from a fork"
        assert "natsproc's own" in said[1]
        assert said[2]["size"] > said[2]["limit"] > 0
        assert said[-1] == {"got": {"lr": 0.1}, "from": "owner"}


async def test_a_program_streams_text_as_a_process_does(mesh):
    code = """
import asyncio, natsproc
proc = natsproc.current()
with proc.stream("answer") as s:
    s.token("one ")
    with natsproc.current().stream("answer") as other:
        other.token("two")
    s.token("three")

async def aio():
    async with proc.aio.stream("answer") as s:
        s.most = 1
        await s.token("a")
        await s.token("b")

asyncio.run(aio())
"""
    async with Job(mesh, *python(code)) as job:
        assert (await job.ended()).code == 0, (await job.written("stderr")).decode()
        events = [e for e in await job.events() if e.type in ("token", "text")]
        first = events[0].offset
        assert [tuple(e.data.values()) for e in events if e.type == "text"] == [
            ("answer-2", "two", first + 1, first + 1),
            ("answer", "one three", first, first + 3),
            ("answer-3", "a", first + 5, first + 5),
            ("answer-3", "b", first + 7, first + 7),
        ]


async def test_what_a_program_prints_and_emits_keeps_its_order(mesh):
    code = """
import natsproc
proc = natsproc.current()
for n in range(200):
    print("line", n, "and", end=" ")
    print("its end")
    proc.metric(n=n)
"""
    async with Job(mesh, *python(code)) as job:
        await job.ended()
        printed, n = b"", 0
        for event in await job.events():
            if event.type == "output":
                printed += text(event)
            elif event.type == "metric":
                assert printed.endswith(b"line %d and its end\n" % n)
                n += 1
        assert n == 200


async def tailed(job: Job) -> list[natsproc.Event]:
    try:
        return [e async for e in job.handle.tail(follow=False) if isinstance(e, natsproc.Event)]
    except natsproc.NoSuchProcess:
        return []


async def test_a_receiver_that_is_killed_takes_no_message_along(mesh):
    killed = """
import os, signal, threading, natsproc
proc = natsproc.current()
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
proc.receive()
"""
    receive = "import natsproc; print(natsproc.current().receive(timeout=60).data)"
    script = f"{sys.executable} -c '{killed}'; echo next; {sys.executable} -c '{receive}'"
    async with Job(mesh, "bash", "-c", script) as job:
        await job.shows("next")
        await job.handle.send("kept")
        await job.ended()
        assert (await job.written()).endswith(b"next\nkept\n")


async def put_in(job: Job, count: int) -> None:
    """Wait until so many messages are on their way to the program."""
    async with asyncio.timeout(DEADLINE):
        while len([e for e in await tailed(job) if e.type == "received"]) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("asks", ["before", "after"])
async def test_the_end_of_input_stays_for_every_receiver(mesh, tmp_path, asks):
    code = f"""
import os, threading, time, natsproc
proc = natsproc.current()
def receive():
    print(natsproc.current().receive(timeout=60).kind + "\\n", end="")
if {asks == "before"}:
    try:
        proc.receive(timeout=0.01)
    except natsproc.TimedOut:
        print("asked")
    threads = [threading.Thread(target=receive) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
else:
    while not os.path.exists("{tmp_path}/go"): time.sleep(0.01)
for _ in range(3): receive()
print("over", list(natsproc.current().inbox()))
proc.receive(timeout=60)
time.sleep(1000)
"""
    async with Job(mesh, *python(code)) as job:
        await (job.shows("asked") if asks == "before" else job.begun())
        await job.type(None, "eof")
        await put_in(job, 1)
        (tmp_path / "go").touch()
        await job.shows("over []")
        await job.handle.send("late")
        async with asyncio.timeout(DEADLINE):
            while not [
                e for e in await tailed(job) if e.type == "log" and "reached nobody" in e.data["text"]
            ]:
                await asyncio.sleep(0.02)
        await job.handle.kill()
        lines = (await job.written()).decode().splitlines()
        assert lines[-4:] == ["eof"] * 3 + ["over []"]
        assert len(lines) == (8 if asks == "before" else 4)


@pytest.mark.parametrize("size", [1, 50_000])  # three of the latter are more than a pipe holds
@pytest.mark.parametrize("end", [True, False])
async def test_what_lies_unread_on_stdin_is_for_the_first_that_receives(mesh, tmp_path, size, end):
    code = f"""
import os, time, natsproc
os.read(0, 4); part = os.read(0, 1)
while not os.path.exists("{tmp_path}/go"): time.sleep(0.01)
proc = natsproc.current()
print(*(proc.receive(timeout=60).data[:3] for _ in range(3)))
rest = b""
while not rest.endswith(b"\\n"): rest += os.read(0, 65536)
print(part + rest[-2:], len(rest))
if {end}:
    print(os.read(0, 1), proc.receive(timeout=60).kind)
else:
    print("more"); print(proc.receive(timeout=60).data)
"""
    async with Job(mesh, *python(code)) as job:
        await job.begun()
        for text in ("all", "b" * size + "2", "3rd" * size, "4th" * size, "5th"):
            await job.handle.send(text)
        if end:
            await job.type(None, "eof")
        await put_in(job, 5 + end)
        (tmp_path / "go").touch()
        if not end:
            await job.shows("more")
            await job.handle.send("late")
        assert (await job.ended()).code == 0, (await job.written("stderr")).decode()
        last = "b'' eof" if end else "more\nlate"
        assert (await job.written()).decode() == f"3rd 4th 5th\nb'b2\\n' {size + 1}\n{last}\n"


async def test_what_a_program_says_of_a_signal_comes_behind_the_event(mesh, monkeypatch):
    """However late we notice that the signal is sent."""
    code = """
import signal, natsproc
proc = natsproc.current()
numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCONT)
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready")
while True:
    number = signal.sigwait(numbers)
    print("got", number)
    proc.metric(number=number)
"""
    said, tell = threading.Event(), LocalServer._answer

    async def answer(self, line):
        try:
            return await tell(self, line)
        finally:
            said.set()

    def late(name):
        send = getattr(Session, name)

        async def sent_late(self, *arguments):
            result = await send(self, *arguments)
            await asyncio.to_thread(said.wait, DEADLINE)
            said.clear()
            return result

        monkeypatch.setattr(Session, name, sent_late)

    async with Job(mesh, *python(code)) as job:
        await job.shows("ready")
        said.clear()
        monkeypatch.setattr(LocalServer, "_answer", answer)
        late("signal")
        late("resume")
        await job.handle.interrupt()
        await job.handle.pause()
        await job.handle.resume()
        await job.handle.cancel(grace=0.2)
        events = [e.type for e in await job.events() if e.type in (*SIGNALLED, "output", "metric")]
        assert events[1:7] == ["interrupted", "output", "metric", "paused", "resumed", "output"]
        assert events[8:11] == ["cancelled", "output", "metric"]


async def test_no_wrapper_and_a_wrapper_that_is_gone_are_clear_errors(monkeypatch, tmp_path):
    monkeypatch.delenv("NATSPROC_SOCKET", raising=False)
    with pytest.raises(natsproc.NoSuchProcess, match="does not run under natsproc"):
        natsproc.current()
    monkeypatch.setenv("NATSPROC_ADDRESS", "job")
    monkeypatch.setenv("NATSPROC_SOCKET", str(tmp_path / "socket"))
    with pytest.raises(natsproc.Unreachable, match="gone"):
        natsproc.current()


# Under a terminal.


async def screen(job: Job) -> list[str]:
    """What somebody who attaches now is shown."""
    snapshot = (await job.handle.inspect())["screen"]
    display = pyte.Screen(snapshot["cols"], snapshot["rows"])
    pyte.Stream(display).feed(snapshot["text"])
    return [line.rstrip() for line in display.display]


async def until_shown(job: Job, line: str) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        while line not in (shown := await screen(job)):
            await asyncio.sleep(0.02)
    return shown


async def test_a_terminal_program_is_repainted_typed_to_and_resized(mesh):
    program = r"""
import os, signal, sys, tty
tty.setraw(0)
def draw(*_):
    size = os.get_terminal_size()
    sys.stdout.write(f"\x1b[2J\x1b[H\x1b[31mtop\x1b[0m\x1b[3;5Hat 3,5\x1b[4;1H{size.lines}x{size.columns}\x1b[5;1H")
    sys.stdout.flush()
signal.signal(signal.SIGWINCH, draw)
draw()
while (key := os.read(0, 1)) != b"q":
    os.write(1, key)
"""
    async with Job(mesh, *python(program), pty=True, size=Size(10, 40)) as job:
        await job.shows("10x40")
        assert (await until_shown(job, "10x40"))[:3] == ["top", "", "    at 3,5"]
        await job.type({"text": "hi"}, "keys")
        await until_shown(job, "hi")
        await job.type({"rows": 12, "cols": 50}, "resize")
        await until_shown(job, "12x50")
        await job.type({"rows": 0, "cols": "wide"}, "resize")  # of no terminal: ignored
        await job.type({"text": "q"}, "keys")
        assert (await job.ended()).code == 0
        sizes = [(event.data["rows"], event.data["cols"]) for event in await job.events("screen")]
        assert sizes == [(10, 40), (12, 50)]


async def test_stale_keys_are_dropped(mesh):
    async with Job(mesh, "cat", pty=True) as job:
        await job.begun()
        epoch = (await job.handle.inspect())["epoch"]
        await job.type({"text": "a", "epoch": epoch - 1}, "keys")  # another owner's
        await job.type({"text": "b", "epoch": epoch}, "keys")
        old = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
        message = {"id": new_token(), "time": old, "kind": "keys", "data": {"text": "c", "epoch": epoch}}
        subject = mesh.names.inbox(job.handle.address, "owner")
        await mesh.io.call(mesh.connection.store(subject, natsproc.protocol.messages.encode(message)))
        await job.type({"text": "d\n", "epoch": epoch}, "keys")
        await job.type(None, "eof")
        await job.ended()
        assert await job.written() == b"bd\r\nbd\r\n"


async def test_a_terminal_job_in_the_foreground_is_interrupted_and_the_shell_stays(mesh):
    env = os.environ | {"PS1": "$ "}
    async with Job(mesh, "bash", "--norc", "-i", pty=True, env=env) as job:
        await job.shows("$ ")
        await job.handle.send("PS1='re''ady> '; sleep 1000")
        async with asyncio.timeout(DEADLINE):
            while "sleep" not in [m["name"] for m in (await job.handle.inspect())["members"]]:
                await asyncio.sleep(0.05)
        assert (await job.handle.interrupt()).applied
        await job.shows("ready> ")
        await job.handle.send("echo code-$?; exit 5")
        assert (await job.ended()).code == 5
        assert b"code-130" in await job.written()
