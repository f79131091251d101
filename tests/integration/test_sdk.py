"""Both sides of the SDK against a real server: owning, running, commanding, receiving, ending."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from meshes import appears, events, until
from pydantic import BaseModel

import natsproc
from natsproc.command.run import run_command
from natsproc.command.runner import Wrapped


class Topic(BaseModel):
    name: str
    depth: int = 1


async def test_a_function_runs_under_an_address_and_returns_its_result(mesh, viewer):
    @natsproc.process
    async def research(proc, topic):
        await proc.log("begun", topic=topic)
        await proc.progress(1, 2, "half")
        await proc.metric(loss=0.5)
        await proc.output("line\n")
        await proc.message({"any": ["json"]})
        await proc.emit(Topic(name="nats"))
        return {"topic": topic}

    assert await mesh.run(research, "nats", id="r1") == {"topic": "nats"}
    handle = viewer.process("r1")
    assert await handle.result(timeout=10) == {"topic": "nats"}
    seen = await events(handle)
    assert [e.offset for e in seen] == list(range(1, 9))
    assert [e.type for e in seen] == [
        "started", "log", "progress", "metric", "output", "message", "topic", "exited",
    ]  # fmt: skip
    assert seen[0].data["kind"] == "research"
    typed = [e async for e in handle.tail(models={"topic": Topic}, types=["topic"]) if e.type == "topic"]
    assert typed[0].data == Topic(name="nats")


async def test_whoever_sees_that_it_has_started_can_command_it(mesh, monkeypatch):
    """A command that comes before its subject is served would be told that there is no such process."""
    wire, said = mesh.connection.wire, []
    for name in ("_write", "_send"):
        original = getattr(wire, name)

        def heard(data, original=original):
            said.append(bytes(data))
            return original(data)

        monkeypatch.setattr(wire, name, heard)
    async with mesh.own("early") as proc:
        await proc.flush()
        everything = b"".join(said)
        assert -1 < everything.index(b"early.control.*") < everything.index(b'"type":"started"')


async def test_interrupt_redirects_inside_a_scope_and_is_recorded_where_it_lands(mesh, viewer):
    entered = asyncio.Event()

    async def agent(proc):
        try:
            async with proc.interruptible():
                entered.set()
                await asyncio.sleep(60)
        except natsproc.Interrupted as stop:
            await proc.log("told", by=stop.sender, instead=stop.message)
        return "ended well"

    task = asyncio.create_task(mesh.run(agent, id="redirect"))
    handle = await appears(viewer, "redirect")
    await asyncio.wait_for(entered.wait(), 10)
    receipt = await handle.interrupt({"topic": "nats"}, reason="wrong topic")
    assert (receipt.status, receipt.sender, receipt.offset) == ("applied", "viewer", 2)
    assert await task == "ended well"
    types = {e.type: e for e in await events(handle)}
    assert types["interrupted"].data["reason"] == "wrong topic"
    assert types["interrupted"].data["sender"] == types["log"].data["by"] == "viewer"
    assert types["log"].data["instead"] == {"topic": "nats"}
    assert types["interrupted"].offset < types["log"].offset
    late = await handle.interrupt()
    assert late.status == "too_late"


async def test_interrupt_outside_any_scope_ends_the_function(mesh, viewer):
    async def sleeper(proc):
        await asyncio.sleep(60)

    task = asyncio.create_task(mesh.run(sleeper, id="outside"))
    handle = await appears(viewer, "outside")
    assert (await handle.interrupt()).applied
    with pytest.raises(natsproc.Interrupted):
        await task
    end = await handle.wait(timeout=10)
    assert (end.status, end.code) == ("interrupted", 130)


@pytest.mark.parametrize(("verb", "status", "code"), [("cancel", "cancelled", 143), ("kill", "killed", 137)])
async def test_cancel_and_kill_end_it_with_one_terminal_event(mesh, viewer, verb, status, code):
    async def sleeper(proc):
        await asyncio.sleep(60)

    task = asyncio.create_task(mesh.run(sleeper, id=f"to-{verb}"))
    handle = await appears(viewer, f"to-{verb}")
    receipt = await getattr(handle, verb)(reason="enough")
    assert receipt.applied
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await task
    seen = await events(handle)
    assert [e.type for e in seen].count("exited") == 1
    assert seen[-1].data == {"status": status, "code": code}
    assert seen[-2].data["reason"] == "enough"


async def test_a_hard_interrupt_lands_in_code_that_never_awaits(bus, viewer):
    program = (
        "import natsproc, sys\n"
        "async def spin(proc):\n"
        "    while True: pass\n"
        "try: natsproc.run(spin, id='spinner', server=sys.argv[1])\n"
        "except natsproc.Interrupted as stop: print('stopped:', stop.reason)\n"
    )
    child = await asyncio.create_subprocess_exec(
        os.sys.executable, "-c", program, bus.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        handle = await appears(viewer, "spinner")
        assert (await handle.ping()).applied

        async def spins():
            stack = (await handle.inspect(stack=True))["stack"]
            return any("in spin" in line for lines in stack.values() for line in lines)

        await until(spins)
        assert (await handle.interrupt(reason="enough", hard=True)).applied
        out, _ = await asyncio.wait_for(child.communicate(), 10)
        assert out == b"stopped: enough\n"
    finally:
        if child.returncode is None:
            child.kill()


async def test_pause_holds_the_next_write_and_resume_lets_it_go(mesh, viewer):
    async def ticker(proc):
        for number in range(1000):
            await proc.progress(number)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(mesh.run(ticker, id="ticker"))
    handle = await appears(viewer, "ticker")
    assert (await handle.pause()).applied

    async def offset():
        return (await handle.inspect())["offset"]

    async def quiet():
        before = await offset()
        await asyncio.sleep(0.2)
        return await offset() == before

    await until(quiet)
    assert [info.state for info in await viewer.list() if info.address.id == "ticker"] == ["paused"]
    before = await offset()
    assert (await handle.resume()).applied

    async def moving():
        return await offset() > before + 5

    await until(moving)
    assert (await handle.pause()).applied
    assert (await handle.cancel()).applied  # also while paused
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await task


async def test_messages_come_in_order_per_sender_and_are_typed(bus, mesh, viewer):
    got = []

    async def reader(proc):
        async for message in proc.inbox(Topic):
            got.append(message)
            if message.data.name == "last":
                return len(got)

    task = asyncio.create_task(mesh.run(reader, id="reader"))
    handle = await appears(viewer, "reader")
    other = mesh.process("reader")
    sent = [await handle.send(Topic(name="a", depth=n)) for n in range(20)]
    await asyncio.gather(*(other.send({"name": "b", "depth": n}, id=f"b{n}") for n in range(20)))
    again = await other.send({"name": "b", "depth": 3}, id="b3")
    assert again.duplicate
    await until(lambda: asyncio.sleep(0, len(got) == 40))
    await handle.send({"name": "last"})
    assert await asyncio.wait_for(task, 10) == 41
    mine = [m for m in got if m.sender == "viewer"]
    assert [m.data.depth for m in mine[:20]] == list(range(20))
    assert [m.id for m in mine[:20]] == [s.id for s in sent]
    with pytest.raises(natsproc.AlreadyEnded):
        await handle.send("too late")


async def test_a_message_is_not_lost_to_a_receive_that_times_out(mesh, viewer):
    async with mesh.own("patient") as proc:
        for _ in range(5):
            with pytest.raises(natsproc.TimedOut):
                await proc.receive(timeout=0.01)
        await viewer.process("patient").send("here")
        assert (await proc.receive(timeout=10)).data == "here"


async def test_a_message_as_large_as_the_server_takes_is_not_lost(mesh, viewer):
    async with mesh.own("large") as proc:
        size = viewer.connection.max_payload - 600
        await viewer.process("large").send("x" * size)
        assert len((await proc.receive(timeout=10)).data) == size
        asking = asyncio.create_task(viewer.process("large").interrupt("y" * size))
        with pytest.raises(natsproc.Interrupted) as stopped:
            async with proc.interruptible():
                await asyncio.sleep(30)
        assert stopped.value.message == "y" * size
        assert (await asking).applied


async def test_own_gives_an_address_to_any_code_and_writes_how_it_ended(mesh, viewer):
    with pytest.raises(ValueError, match="broken"):
        async with mesh.own("order-42", kind="order", labels={"team": "a"}) as proc:
            assert (proc.id, proc.kind, proc.epoch > 0) == ("order-42", "order", True)
            raise ValueError("broken")
    end = await viewer.process("order-42").wait(timeout=10)
    assert (end.status, end.code, end.error) == ("failed", 1, "ValueError: broken")
    with pytest.raises(natsproc.ProcessFailed, match="broken"):
        await viewer.process("order-42").result(timeout=10)
    listed = await viewer.list(ended=True, labels={"team": "a"})
    assert [(info.address.id, info.state) for info in listed] == [("order-42", "failed")]


async def test_an_id_that_lives_is_refused_and_one_that_ended_needs_restart(mesh, viewer):
    async with mesh.own("taken"):
        with pytest.raises(natsproc.AlreadyRunning, match="taken") as caught:
            async with viewer.own("taken"):
                pass
        assert caught.value.node
    with pytest.raises(natsproc.AlreadyEnded, match="restart"):
        async with viewer.own("taken"):
            pass
    async with viewer.own("taken", restart=True) as proc:
        assert proc.run_number == 2
    seen = await events(mesh.process("taken"), run="all")
    assert [(e.offset, e.run, e.type) for e in seen] == [
        (1, 1, "started"), (2, 1, "exited"), (3, 2, "restarted"), (4, 2, "exited"),
    ]  # fmt: skip
    assert [e.run for e in await events(mesh.process("taken"))] == [2, 2]
    assert [e.run for e in await events(mesh.process("taken"), run=1)] == [1, 1]


async def test_two_owners_at_once_one_wins(bus):
    async def attempt(number):
        async with natsproc.connect(bus.url, sender=f"s{number}") as mesh:
            try:
                async with mesh.own("contested"):
                    await asyncio.sleep(1.5)
                    return True
            except natsproc.Refused:
                return False

    assert sum(await asyncio.gather(*(attempt(n) for n in range(5)))) == 1


def test_a_plain_function_gets_the_blocking_twin(bus):
    stops = []

    @natsproc.process(kind="trainer")
    def train(proc, epochs):
        proc.log("begun")
        with proc.stream("answer") as s:
            s.token("a")
            s.token("b")
        try:
            with proc.interruptible():
                for epoch in range(epochs):
                    proc.progress(epoch, epochs)
                    time.sleep(0.01)
        except natsproc.Interrupted as stop:
            stops.append(stop.message)
        return proc.receive(timeout=10).data

    def drive():
        async def main():
            async with natsproc.connect(bus.url, sender="driver") as mesh:
                handle = await appears(mesh, "plain")
                await anext(e async for e in handle.tail() if e.type == "progress")  # it is in its scope
                assert (await handle.interrupt("now this")).applied
                await handle.send({"rate": 0.1})

        asyncio.run(main())

    driver = threading.Thread(target=drive)
    driver.start()
    result = natsproc.run(train, 100_000, id="plain", server=bus.url)
    driver.join()
    assert result == {"rate": 0.1}
    assert stops == ["now this"]


async def test_a_streamed_text_is_one_event_for_a_late_joiner(mesh, viewer):
    async with mesh.own("speaker") as proc:
        async with proc.stream("answer") as s:
            for word in ("one ", "two ", "three"):
                await s.token(word)
        async with proc.stream("answer") as s:
            await s.token("again")
    full = await events(viewer.process("speaker"))
    assert [e.type for e in full] == ["started", "token", "token", "token", "text", "token", "text", "exited"]
    compact = await events(viewer.process("speaker"), compact=True)
    assert [(e.type, e.data.get("text")) for e in compact[1:-1]] == [
        ("text", "one two three"),
        ("text", "again"),
    ]
    assert compact[1].data | {"text": ""} == {"stream": "answer", "text": "", "first": 2, "last": 4}
    assert compact[2].data["stream"] == "answer-2"


async def test_no_way_in_rewrites_a_kind_that_is_given(mesh):
    with pytest.raises(natsproc.BadName):
        natsproc.process(kind="a b")(print)
    with pytest.raises(natsproc.BadName):
        natsproc.run(print, kind="a b", server="nats://127.0.0.1:1")
    with pytest.raises(natsproc.BadName):
        await mesh.run(print, kind="a b")
    with pytest.raises(natsproc.BadName):
        await run_command(mesh, Wrapped(("true",)), kind="a b")
    with pytest.raises(natsproc.BadName):
        async with mesh.own(id="some", kind="a b"):
            pass


async def test_bad_names_and_payloads_say_what_is_wrong_and_use_no_offset(mesh, viewer):
    for bad in ("a.b", "a b", "a*", ">", "", "x" * 10_000, "-a", "ä"):
        with pytest.raises(natsproc.BadName):
            mesh.process(bad)
    async with mesh.own("payloads") as proc:
        with pytest.raises(natsproc.TooLarge, match="bytes") as caught:
            await proc.message("x" * 2_000_000)
        assert caught.value.size > caught.value.limit
        with pytest.raises(natsproc.BadPayload):
            await proc.message({"not json": object()})
        for type in ("exited", "gap", "", "mark"):
            with pytest.raises(natsproc.BadPayload):
                await proc.emit(type)
        assert await proc.message("fits") == 2
        with pytest.raises(natsproc.TooLarge):
            await viewer.process("payloads").send("x" * 2_000_000)
    with pytest.raises(natsproc.NoSuchProcess):
        await viewer.process("never-was").wait(timeout=10)
    with pytest.raises(natsproc.NoSuchProcess):
        await viewer.process("never-was").send("x")


def _child(proc, queue):
    started = time.monotonic()
    queue.put((proc.log("from the child"), time.monotonic() - started))


async def test_a_forked_child_neither_hangs_nor_writes(mesh, viewer):
    async with mesh.own("parent") as proc:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(proc.sync, queue))
        child.start()
        offset, seconds = await asyncio.to_thread(queue.get, True, 20)
        await asyncio.to_thread(child.join, 20)
        assert child.exitcode == 0
        assert (offset, seconds < 5) == (0, True)
        assert await proc.log("from the parent") == 2
    assert [e.data.get("text") for e in await events(viewer.process("parent"))][1] == "from the parent"


async def test_discovery_and_plain_clients_read_along(bus, mesh, viewer):
    heard = []

    async def hear(message):
        heard.append(message.data)

    await viewer.io.call(viewer.connection.subscribe("proc.*.*.live", hear))
    await viewer.io.call(viewer.connection.ping())
    async with mesh.own("spoken") as proc:
        await proc.log("hello")
        await proc.flush()
        found = await viewer.io.call(viewer.connection.request("$SRV.PING.natsproc", b""))
        assert b'"io.nats.micro.v1.ping_response"' in found.data
    await until(lambda: asyncio.sleep(0, len(heard) >= 4))
    assert any(b'"text":"hello"' in payload for payload in heard)


async def test_replies_go_into_client_inboxes_only(mesh, viewer):
    async with mesh.own("deputy") as proc:
        await proc.log("keep me")
        await proc.flush()
        subject = viewer.names.control(proc.address, "viewer")
        heard = []

        async def hear(message):
            heard.append(message.subject)

        for target in (
            "$JS.API.STREAM.PURGE.PROC_EVENTS",
            "_INBOX.somebody-else.x",
            "proc.default.deputy.events",
        ):
            await viewer.io.call(viewer.connection.subscribe(target, hear))
            await viewer.io.call(
                viewer.connection.publish(subject, b'{"id":"x1","verb":"ping"}', reply=target)
            )
        assert (await viewer.process("deputy").ping()).applied  # answered after those three
        assert heard == []
    assert len(await events(viewer.process("deputy"))) == 3


async def test_hostile_commands_are_answered_or_ignored_but_never_break_control(mesh, viewer):
    async with mesh.own("hostile") as proc:
        subject = viewer.names.control(proc.address, "viewer")
        for payload in (
            b"",
            b"not json",
            b"[]",
            b'{"id":1}',
            b'{"id":"a"}',
            b'{"id":"b","verb":"dance"}',
            b"\xff" * 50,
        ):
            reply = await viewer.io.call(viewer.connection.request(subject, payload))
            assert b"refused" in reply.data or b"accepted" in reply.data
        assert (await viewer.process("hostile").ping()).applied
        wrong = await viewer.process("hostile").command("interrupt", epoch=999_999)
        assert (wrong.status, "epoch" in wrong.why) == ("refused", True)


async def test_a_repeated_command_gets_the_first_answer_and_happens_once(mesh, viewer):
    async def agent(proc):
        count = 0
        while count < 2:
            try:
                async with proc.interruptible():
                    await asyncio.sleep(60)
            except natsproc.Interrupted:
                count += 1
        return count

    task = asyncio.create_task(mesh.run(agent, id="idempotent"))
    handle = await appears(viewer, "idempotent")
    first = await handle.command("interrupt", id="the-same")
    second = await handle.command("interrupt", id="the-same")
    assert first == second
    assert first.applied
    assert not task.done()
    await handle.command("interrupt", id="another")
    assert await asyncio.wait_for(task, 10) == 2
    assert [e.type for e in await events(handle)].count("interrupted") == 2


async def test_several_are_tailed_at_once_and_new_ones_join(mesh, viewer):
    async with mesh.own("build-1") as one:
        tail = viewer.tail("build-*")
        seen = {}

        async def watch():
            async for item in tail:
                if isinstance(item, natsproc.Event):
                    seen.setdefault(item.address.id, []).append(item.type)

        task = asyncio.create_task(watch())
        await one.log("first")
        await until(lambda: asyncio.sleep(0, "log" in seen.get("build-1", ())))
        async with mesh.own("build-2") as two, mesh.own("other"):
            await two.log("second")
            await until(lambda: asyncio.sleep(0, "log" in seen.get("build-2", ())))
        assert "other" not in seen
        await tail.aclose()
        await asyncio.wait_for(task, 10)


async def test_a_typed_result_comes_back_typed(mesh, viewer):
    async def make(proc):
        return Topic(name="nats", depth=3)

    await mesh.run(make, id="typed")
    assert await viewer.process("typed").result(Topic, timeout=10) == Topic(name="nats", depth=3)


async def test_what_cannot_be_kept_as_a_result_fails_the_run(mesh, viewer):
    async def make(proc):
        return "x" * 2_000_000

    with pytest.raises(natsproc.TooLarge):
        await mesh.run(make, id="too-much")
    end = await viewer.process("too-much").wait(timeout=10)
    assert (end.status, "result" in end.error) == ("failed", True)


def test_no_server_is_a_clear_error(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path))
    monkeypatch.delenv("NATS_URL", raising=False)
    with pytest.raises(natsproc.NoServer, match="natsproc up"):
        natsproc.connect().open()
    with pytest.raises(natsproc.NoServer):
        natsproc.connect("nats://127.0.0.1:1").open()
