# ruff: noqa: F811
"""Processes as AG-UI agents: what is streamed is read by the protocol's own models."""

from __future__ import annotations

import asyncio

import httpx
import nats
import pytest
from ag_ui.core import Event, RunAgentInput, UserMessage
from chatting import base, chatting, id, mesh  # noqa: F401
from pydantic import TypeAdapter

ANY = TypeAdapter(Event)


def asked(text, id="m1", run="r1", **more):
    messages = [UserMessage(id=id, content=text), *more.pop("behind", ())]
    given = RunAgentInput(thread_id="t", run_id=run, messages=messages, **more)
    return given.model_dump(mode="json", by_alias=True, exclude_none=True)


class Client:
    """A client that streams runs of one process."""

    def __init__(self, http, url):
        self.http, self.url = http, url

    async def stream(self, given):
        async with self.http.stream("POST", self.url, json=given) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream"
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield ANY.validate_json(line[6:])

    async def run(self, given):
        return [event async for event in self.stream(given)]


@pytest.fixture
async def client(base, id):
    async with httpx.AsyncClient(timeout=60, headers={"x-user": "alice"}) as http:
        yield Client(http, f"{base}/{id}/ag-ui")


def kinds(events):
    return [event.type.value for event in events]


def text(events):
    return "".join(event.delta for event in events if event.type.value == "TEXT_MESSAGE_CONTENT")


async def test_a_run_streams_and_one_that_broke_off_goes_on(mesh, client, id):
    async with chatting(mesh, id) as go:
        go.release()
        stream, before = client.stream(asked("stream")), []
        async for event in stream:
            before.append(event)
            if event.type.value == "TEXT_MESSAGE_CONTENT":
                break
        await stream.aclose()
        assert kinds(before) == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
        for _ in range(5):
            go.release()
        had = {"id": before[1].message_id, "role": "assistant", "content": text(before)}
        given = asked("stream", run="r2")
        given["messages"].append(had)
        after = await client.run(given)
        assert text(before) + text(after) == "abcdef"
        assert after[1].message_id == before[1].message_id
        assert kinds(after)[-5:] == [
            "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "RUN_FINISHED"
        ]  # fmt: skip
        assert (after[-1].run_id, after[-1].outcome.type) == ("r2", "success")
        given["messages"][-1]["content"] = "abcdef"
        given["messages"].append(
            {"id": "c1", "role": "assistant", "toolCalls": [{"id": "c1", "function": {"name": "look"}}]}
        )
        assert not {"TEXT_MESSAGE_CONTENT", "TOOL_CALL_START"} & set(kinds(await client.run(given)))
        again = await client.run(asked("echo", id="m2"))
        assert (text(again), again[-1].result) == ("echo", "echo")


async def test_a_question_ends_a_run_and_its_answer_goes_on_behind_it(mesh, client, id):
    async with chatting(mesh, id):
        first = await client.run(asked("ask"))
        assert kinds(first) == ["RUN_STARTED", "RUN_FINISHED"]
        (question,) = first[-1].outcome.interrupts
        assert (question.message, question.response_schema) == ("Which colour?", {"enum": ["red", "blue"]})

        def answer(value, status="resolved"):
            entry = {"interrupt_id": question.id, "status": status, "payload": value}
            return asked("ask", run="r2", resume=[entry])

        wrong = await client.http.post(client.url, json=answer("green"))
        assert (wrong.status_code, wrong.json()["receipt"]["status"]) == (409, "refused")
        second = await client.run(answer("blue"))
        assert (text(second), second[-1].outcome.type) == ("it is blue", "success")


async def test_stop_and_failure_are_told(mesh, client, id):
    async with chatting(mesh, id) as go:
        failed = await client.run(asked("fail"))
        assert (failed[-1].type.value, failed[-1].code) == ("RUN_ERROR", "failed")
        go.release()
        running = asyncio.create_task(client.run(asked("stream", id="m2")))
        async for item in mesh.process(id).tail(types=["token"]):
            if item.type == "token":
                break
        assert (await mesh.process(id).interrupt(reason="Stop")).applied
        stopped = await running
        assert (text(stopped), stopped[-1].outcome.type) == ("a", "cancelled")


async def test_what_is_no_run_is_refused_before_it_starts(mesh, client, id):
    async with chatting(mesh, id):
        for body in (
            b"{", b"[]", b"{}",
            b'{"threadId":"t","runId":"r","messages":[]}',
            b'{"threadId":"t","runId":"r","messages":[{"id":"a","role":"assistant"}]}',
            b'{"threadId":"t","runId":"r","messages":[],"resume":[{"interruptId":"x","status":"resolved"}]}',
            b'{"threadId":"t","runId":"r","messages":[],"resume":[{"interruptId":"run-1-message-99.1.a","status":"cancelled"}]}',
        ):  # fmt: skip
            said = await client.http.post(
                client.url, content=body, headers={"content-type": "application/json"}
            )
            assert said.status_code == 422, (body, said.text)
        nobody = await client.http.post(client.url, json={}, headers={"x-user": "bob"})
        assert nobody.status_code == 422
        assert (await httpx.AsyncClient().post(client.url, json={})).status_code == 401


async def test_what_is_gone_from_the_log_is_told(mesh, client, id):
    async with chatting(mesh, id):
        first = await client.run(asked("echo"))
        had = {"id": first[1].message_id, "role": "assistant", "content": ""}
        connection = await nats.connect(mesh.url)
        subject = mesh.names.events(mesh.process(id).address)
        await connection.jetstream().purge_stream(mesh.names.event_stream, subject=subject, keep=1)
        await connection.close()
        given = asked("echo", run="r2")
        given["messages"].append(had)
        async with asyncio.timeout(30):
            after = await client.run(given)
        assert kinds(after)[-1] == "RUN_ERROR"
        assert "gone" in after[-1].message
