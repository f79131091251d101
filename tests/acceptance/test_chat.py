"""examples/chat.py: what viewers saw is what the agent remembers, whatever stops it, kill -9 included."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from harness import ROOT

import natsproc

CHAT = ROOT / "examples" / "chat.py"
LEASE = 4.0


@pytest.fixture
def environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("NATS_", "NATSPROC_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "home"))
    yield dict(os.environ)
    command = [sys.executable, "-m", "natsproc_cli", "down"]
    subprocess.run(command, capture_output=True, check=False)


class Viewer:
    """Somebody who watches all the while."""

    def __init__(self, handle):
        self.items = []
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._watch(handle))

    async def _watch(self, handle):
        async for item in handle.tail():
            self.items.append(item)
            async with self._news:
                self._news.notify_all()

    async def until(self, condition, timeout=60):
        """Wait until that holds for what was seen."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: self._task.done() or condition(self))
        if self._task.done():
            self._task.result()
        assert condition(self)

    def events(self, kind):
        return [item for item in self.items if isinstance(item, natsproc.Event) and item.type == kind]

    def text_of_turn(self, index):
        """What was streamed in the turn of that index, as tokens."""
        began, ended = self.events("turn_began")[index], self.events("turn_ended")[index]
        tokens = [e.data["text"] for e in self.events("token") if began.offset < e.offset < ended.offset]
        return "".join(tokens)

    async def close(self):
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def agent(environment, folder):
    """The agent in an OS process of its own; `kill` ends it as a power failure would."""
    job = await asyncio.create_subprocess_exec(sys.executable, CHAT, env=environment, cwd=folder)
    try:
        yield job
    finally:
        with suppress(ProcessLookupError):
            job.kill()
        await job.wait()


async def turns(viewer, count):
    await viewer.until(lambda v: len(v.events("turn_ended")) == count)


async def begun(mesh):
    async with asyncio.timeout(30):
        while await mesh.process("chat").record() is None:
            await asyncio.sleep(0.05)


async def test_stopped_steered_and_killed_it_remembers_what_viewers_saw(environment, tmp_path):
    async with natsproc.connect(start=True) as mesh:
        handle = mesh.process("chat")
        async with agent(environment, tmp_path) as job:
            await begun(mesh)
            viewer, other = Viewer(handle), Viewer(handle)
            await handle.send("tides")
            await viewer.until(lambda v: len(v.events("token")) >= 8)
            receipt = await handle.interrupt("waves", reason="wrong topic")
            assert receipt.applied
            await viewer.until(lambda v: len(v.events("token")) >= len(v.text_of_turn(0).split()) + 5)
            taken = await (await handle.send("winds", when="now")).consumed(timeout=30)
            assert taken.when == "now"
            await turns(viewer, 3)
            statuses = [event.data["status"] for event in viewer.events("turn_ended")]
            assert statuses == ["interrupted", "interrupted", "completed"]
            await viewer.until(lambda v: len(v.events("checkpointed")) == 2)
            job.kill()
            await job.wait()
        await viewer.until(lambda v: any(item.type == "unreachable" for item in v.items))

        async with agent(environment, tmp_path):
            await viewer.until(lambda v: len(v.events("recovered")) == 1)
            await handle.send("what did you say?")
            await turns(viewer, 4)
            assert viewer.text_of_turn(3).strip() == viewer.text_of_turn(2).strip()
            await viewer.until(lambda v: len(v.events("checkpointed")) == 3)

        said = [part["content"] for part in await saved_state(mesh)]
        assert said == [
            "tides", f"{viewer.text_of_turn(0)} [stopped by {mesh.sender}]",
            "waves", f"{viewer.text_of_turn(1)} [stopped by {mesh.sender}]",
            "winds", viewer.text_of_turn(2),
            "what did you say?", viewer.text_of_turn(3),
        ]  # fmt: skip
        assert len(viewer.text_of_turn(0).split()) < 60  # it was stopped on its way
        await other.until(lambda o: len(o.items) >= len(viewer.items))
        offsets = [item.offset for item in viewer.items if isinstance(item, natsproc.Event)]
        assert offsets == list(range(1, len(offsets) + 1))
        assert "takeover" in [item.type for item in viewer.items]
        assert other.items[: len(viewer.items)] == viewer.items
        await viewer.close()
        await other.close()


async def saved_state(mesh):
    """What the agent saved last, read by taking its id over."""
    async with asyncio.timeout(30):
        while True:
            with suppress(natsproc.AlreadyRunning):
                async with mesh.own("chat") as proc:
                    return proc.state["said"]
            await asyncio.sleep(0.2)


async def test_a_person_is_asked_before_the_tool_is_used_also_by_one_that_was_killed_meanwhile(
    environment, tmp_path
):
    notes = tmp_path / "notes.txt"
    async with natsproc.connect(start=True) as mesh:
        handle = mesh.process("chat")
        async with agent(environment, tmp_path) as job:
            await begun(mesh)
            viewer = Viewer(handle)
            await handle.send("note: buy milk")
            await viewer.until(lambda v: len(v.events("asked")) == 1)
            assert (await handle.answer("no")).applied
            await turns(viewer, 1)
            assert viewer.text_of_turn(0).strip() == "The note: a person said no."
            assert not notes.exists()
            await viewer.until(lambda v: len(v.events("checkpointed")) == 2)
            await handle.send("note: buy bread")
            await viewer.until(lambda v: len(v.events("asked")) == 2)
            job.kill()
            await job.wait()
        await viewer.until(lambda v: any(item.type == "unreachable" for item in v.items))
        async with agent(environment, tmp_path):
            await viewer.until(lambda v: len(v.events("turn_began")) == 3)  # the message came again
            async with asyncio.timeout(30):
                while not (await handle.answer("yes")).applied:
                    await asyncio.sleep(0.1)
            await viewer.until(lambda v: len(v.events("checkpointed")) == 3)
            assert notes.read_text() == "buy bread\n"
            asked = [event.data["ask"] for event in viewer.events("asked")]
            assert len(asked) == 3  # the third is the second one, asked again
            assert asked[1] == asked[2]
        await viewer.close()


async def test_any_openai_compatible_endpoint_will_do(environment, tmp_path):
    bodies = []

    async def complete(request):
        bodies.append(await request.json())
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        function = [{"index": 0, "id": "c1", "function": {"name": "note", "arguments": ""}}]
        rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"te', 'xt": "milk"}')]
        deltas = [{"tool_calls": [part]} for part in (function + rest)]
        if len(bodies) > 1:
            deltas = [{"content": piece} for piece in ("It is ", "written ", "down.")]
        for delta in deltas:
            await answer.write(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    named = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "k", "CHAT_MODEL": "m"}
    try:
        async with natsproc.connect(start=True) as mesh, agent(environment | named, tmp_path):
            handle = mesh.process("chat")
            await begun(mesh)
            viewer = Viewer(handle)
            await handle.send("milk, please")
            await viewer.until(lambda v: len(v.events("asked")) == 1)
            assert (await handle.answer("yes")).applied
            await turns(viewer, 1)
            assert viewer.text_of_turn(0) == "It is written down."
            assert [message["role"] for message in bodies[1]["messages"]] == ["user", "assistant", "tool"]
            assert bodies[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"text": "milk"}'
            assert bodies[1]["messages"][2]["tool_call_id"] == "c1"
            await viewer.close()
    finally:
        await runner.cleanup()
