# ruff: noqa: F811
"""Processes as A2A agents: the protocol's own client, real uvicorn, a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import get_artifact_text, get_message_text
from a2a.types import a2a_pb2 as pb
from a2a.utils import errors
from chatting import base, chatting, id, mesh  # noqa: F401
from google.protobuf.json_format import MessageToDict
from meshes import until
from talking import has

import natsproc

WORKING, COMPLETED, CANCELED = pb.TASK_STATE_WORKING, pb.TASK_STATE_COMPLETED, pb.TASK_STATE_CANCELED
INPUT_REQUIRED, SUBMITTED = pb.TASK_STATE_INPUT_REQUIRED, pb.TASK_STATE_SUBMITTED


@contextlib.asynccontextmanager
async def agent(base, id, user="alice"):
    async with httpx.AsyncClient(timeout=60, headers={"x-user": user}) as http:
        card = await A2ACardResolver(http, f"{base}/{id}/a2a").get_agent_card()
        async with ClientFactory(ClientConfig(httpx_client=http)).create(card) as client:
            client.card, client.http = card, http
            yield client


def say(*parts, now=False, **more):
    parts = [pb.Part(text=part) if isinstance(part, str) else part for part in parts]
    message = pb.Message(message_id=str(uuid.uuid4()), role=pb.ROLE_USER, parts=parts, **more)
    return pb.SendMessageRequest(message=message, configuration={"return_immediately": now})


async def one(client, request):
    """The task with which it is answered, without streaming."""
    return (await client._transport.send_message(request)).task


class Shown:
    """What a client shows: the task that came first, and what came behind it, put together."""

    def __init__(self):
        self.first = None
        self.states = []
        self.texts = {}
        self.passing = []

    def take(self, said):
        if said.HasField("task"):
            assert self.first is None
            self.first = said.task
            self.states = [said.task.status.state]
            self.texts = {a.artifact_id: get_artifact_text(a) for a in said.task.artifacts}
        elif said.HasField("artifact_update"):
            new = said.artifact_update
            id, text = new.artifact.artifact_id, get_artifact_text(new.artifact)
            assert new.append == (id in self.texts)
            self.texts[id] = self.texts.get(id, "") + text
        else:
            status = said.status_update.status
            self.states.append(status.state)
            if status.HasField("message"):
                self.passing.append(MessageToDict(status.message))

    async def until(self, stream, seen):
        async for said in stream:
            self.take(said)
            if seen(self):
                return self
        return self


async def test_the_card_says_where_and_what(mesh, base, id):
    async with chatting(mesh, id, labels={"version": "2"}), agent(base, id) as client:
        card = client.card
        assert card.supported_interfaces[0].url == f"{base}/{id}/a2a"
        assert (card.name, card.version, card.description) == (id, "2", f"chat {id}")
        assert card.capabilities.streaming
        assert [skill.id for skill in card.skills] == ["chat"]
        assert card.provider.organization == "us"


async def test_a_turn_streams_and_a_lost_connection_is_taken_up(mesh, base, id):
    async with chatting(mesh, id) as go, agent(base, id) as client, agent(base, id) as again:
        go.release()
        stream = client.send_message(say("stream"))
        before = await Shown().until(stream, lambda s: "a" in s.texts.values())
        assert before.first.context_id == id
        await client.http.aclose()  # in the midst of it
        go.release()
        go.release()
        task_id, after = before.first.id, Shown()
        following = again.subscribe(pb.SubscribeToTaskRequest(id=task_id))
        await after.until(following, lambda s: s.texts.get("text-answer") == "abc")
        for _ in range(3):
            go.release()
        await after.until(following, lambda s: False)
        assert after.texts == {
            "text-answer": "abcdef"
        }  # the snapshot and what came behind it: nothing twice, nothing missing
        assert after.states[-1] == COMPLETED
        assert [said["parts"][0]["metadata"]["type"] for said in after.passing] == ["tool_call"]
        task = await again.get_task(pb.GetTaskRequest(id=task_id))
        assert (task.status.state, get_artifact_text(task.artifacts[0])) == (COMPLETED, "abcdef")
        assert [get_message_text(message) for message in task.history] == ["stream"]
        with pytest.raises(errors.UnsupportedOperationError):
            async for _ in again.subscribe(pb.SubscribeToTaskRequest(id=task_id)):
                pass


async def test_cancel_from_another_client(mesh, base, id):
    async with (
        chatting(mesh, id) as go,
        agent(base, id) as client,
        agent(base, id) as other,
        agent(base, id, "bob") as bob,
    ):
        go.release()
        stream, shown = client.send_message(say("stream")), Shown()
        await shown.until(stream, lambda s: s.texts)
        cancel = pb.CancelTaskRequest(id=shown.first.id)
        with pytest.raises(A2AClientError, match="403"):
            await bob.cancel_task(cancel)
        assert (await other.cancel_task(cancel)).status.state == CANCELED
        await shown.until(stream, lambda s: False)
        assert (shown.states[-1], shown.texts) == (CANCELED, {"text-answer": "a"})
        with pytest.raises(errors.TaskNotCancelableError):
            await other.cancel_task(cancel)
        assert get_artifact_text((await one(client, say("still there"))).artifacts[0]) == "still there"


async def test_a_question_is_answered(mesh, base, id):
    async with chatting(mesh, id), agent(base, id) as client, agent(base, id, "bob") as bob:
        task = await one(client, say("ask"))
        assert task.status.state == INPUT_REQUIRED
        assert "Which colour?" in get_message_text(task.status.message)
        assert MessageToDict(task.status.message.parts[1].data)["choices"] == ["red", "blue"]
        with pytest.raises(errors.InvalidParamsError):
            await one(client, say("green", task_id=task.id))
        with pytest.raises(A2AClientError, match="403"):
            await one(bob, say("red", task_id=task.id))
        done = await one(client, say("blue", task_id=task.id, context_id=id))
        assert (done.id, done.status.state) == (task.id, COMPLETED)
        assert get_artifact_text(done.artifacts[0]) == "it is blue"
        assert [get_message_text(m).split("\n")[0] for m in done.history] == ["ask", "Which colour?", "blue"]
        with pytest.raises(errors.UnsupportedOperationError):  # it is over
            await one(client, say("red", task_id=task.id))


async def test_what_is_said_meanwhile_joins_the_task(mesh, base, id):
    async with chatting(mesh, id) as go, agent(base, id) as client:
        task = await one(client, say("stream", now=True))
        shown = Shown()
        stream = client.subscribe(pb.SubscribeToTaskRequest(id=task.id))
        await shown.until(stream, lambda s: WORKING in s.states)
        more = await one(client, say("this", task_id=task.id, now=True))
        assert more.id == task.id
        await until(lambda: has(go.waiting, 1))
        for _ in range(6):
            go.release()
        await shown.until(stream, lambda s: False)
        assert sorted(shown.texts.values()) == ["abcdef", "also this"]


async def test_messages_are_sent_once_and_fail_and_wait(mesh, base, id):
    async with chatting(mesh, id) as go, agent(base, id) as client:
        failed = await one(client, say("fail"))
        assert failed.status.state == pb.TASK_STATE_FAILED
        assert "division" in get_message_text(failed.status.message)
        request = say(pb.Part(data={"number_value": 7}), now=True)
        once, twice = await one(client, request), await one(client, request)
        assert once.id == twice.id
        await one(client, say("stream", now=True))
        waiting = await one(client, say("next", now=True))
        assert waiting.status.state == SUBMITTED
        with pytest.raises(errors.TaskNotCancelableError):
            await client.cancel_task(pb.CancelTaskRequest(id=waiting.id))
        for _ in range(6):
            go.release()
        while (task := await client.get_task(pb.GetTaskRequest(id=waiting.id))).status.state != COMPLETED:
            assert task.status.state in (SUBMITTED, WORKING)
        assert [get_artifact_text(artifact) for artifact in task.artifacts] == ["next"]


async def test_tasks_are_listed(mesh, base, id):
    async with chatting(mesh, id), agent(base, id) as client:
        ids = [(await one(client, say(text))).id for text in ("one", "two", "fail")]
        listed = await client.list_tasks(pb.ListTasksRequest())
        assert sorted(task.id for task in listed.tasks) == sorted(ids)
        assert (listed.total_size, listed.next_page_token) == (3, "")
        assert not any(task.artifacts for task in listed.tasks)
        seen, token = [], ""
        while True:
            page = await client.list_tasks(
                pb.ListTasksRequest(page_size=1, page_token=token, status=COMPLETED, include_artifacts=True)
            )
            seen += [get_artifact_text(task.artifacts[0]) for task in page.tasks]
            token = page.next_page_token
            if not token:
                break
        assert seen == ["two", "one"]
        assert not (await client.list_tasks(pb.ListTasksRequest(context_id="other"))).tasks


async def test_a_run_that_takes_no_messages_is_a_task(mesh, base, id):
    async with agent_of_run(mesh, base, id) as (proc, client):
        task = (await client.list_tasks(pb.ListTasksRequest())).tasks[0]
        assert (task.id, task.status.state) == ("run-1", WORKING)
        shown, stream = Shown(), client.subscribe(pb.SubscribeToTaskRequest(id=task.id))
        await shown.until(stream, lambda s: s.first)
        await proc.emit("output", {"stream": "stdout", "text": "hello\n"})
        await shown.until(stream, lambda s: s.texts)
        cancelled = await client.cancel_task(pb.CancelTaskRequest(id=task.id))
        assert cancelled.status.state == CANCELED
        await shown.until(stream, lambda s: False)
        assert shown.texts == {"output-stdout": "hello\n"}
        with pytest.raises(errors.UnsupportedOperationError):
            await one(client, say("anybody?"))


@contextlib.asynccontextmanager
async def agent_of_run(mesh, base, id):
    ready = asyncio.get_running_loop().create_future()

    async def work():
        async with mesh.own(id) as proc:
            await proc.flush()
            ready.set_result(proc)
            await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    proc = await ready
    async with agent(base, id) as client:
        yield proc, client
    with pytest.raises((natsproc.Cancelled, asyncio.CancelledError)):
        await task


async def test_errors_are_those_of_the_protocol(mesh, base, id):
    async with chatting(mesh, id), agent(base, id) as client:
        for task in ("no-such", "run-1-message-1", "run-2", "run-1-message-999999", "run-1" * 40):
            with pytest.raises(errors.TaskNotFoundError):
                await client.get_task(pb.GetTaskRequest(id=task))
        with pytest.raises(errors.TaskNotFoundError):
            await one(client, say("hello", task_id="run-1-message-7"))
        with pytest.raises(errors.InvalidParamsError):
            await one(client, say("hello", context_id="another"))
        with pytest.raises(errors.PushNotificationNotSupportedError):
            await client.create_task_push_notification_config(pb.TaskPushNotificationConfig(task_id="run-1"))

        async def post(body, status=200, **headers):
            headers = {"content-type": "application/json", **headers}
            response = await client.http.post(f"{base}/{id}/a2a", content=body, headers=headers)
            assert response.status_code == status, response.text
            return response.json()

        call = '{"jsonrpc":"2.0","id":7,"method":"%s","params":%s}'
        for body, code in (
            ("{", -32700),
            ("[]", -32600),
            ('{"jsonrpc":"2.0","id":[],"method":"GetTask"}', -32600),
            ('{"id":7,"method":"GetTask"}', -32600),
            (call % ("message/send", "{}"), -32601),
            (call % ("SendMessage", "7"), -32602),
            (call % ("SendMessage", '{"message":{"messageId":"m","role":"ROLE_USER","parts":[{}]}}'), -32602),
            (call % ("ListTasks", '{"pageSize":0}'), -32602),
            (call % ("ListTasks", '{"statusTimestampAfter":"0001-01-01T00:00:00+14:00"}'), -32602),
            (call % ("GetTask", '{"id":"x","historyLength":-1}'), -32602),
            (call % ("GetExtendedAgentCard", "{}"), -32004),
            ("[" * 100_000, -32700),
        ):
            said = await post(body)
            assert said["error"]["code"] == code, (body[:80], said)
        assert (await post(call % ("GetTask", '{"id":"x"}')))["id"] == 7
        assert (await post(call % ("GetTask", '{"id":"x"}'), **{"a2a-version": "0.3"}))["error"][
            "code"
        ] == -32009
        await post("{}", 415, **{"content-type": "text/plain"})
        nobody = await httpx.AsyncClient().post(f"{base}/{id}/a2a", json={})
        assert nobody.status_code == 401
        assert (
            await client.http.post(
                f"{base}/nobody/a2a", json={"jsonrpc": "2.0", "id": 1, "method": "GetTask"}
            )
        ).status_code == 404
