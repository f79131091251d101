"""The mesh over HTTP: real uvicorn, a real nats-server, and the clients that people have."""

from __future__ import annotations

import asyncio
import json

import httpx
import jsonschema
import pytest
from meshes import make_mesh, until
from openapi_spec_validator import validate
from serving import parsed, serving

import natsproc
from natsproc.http.routes import VERBS
from natsproc.protocol.messages import Cursor

JSON = {"content-type": "application/json"}


def everybody(request, namespace, id, right):
    return True


@pytest.fixture
async def url(server):
    await make_mesh(server.url)
    return server.url


@pytest.fixture
async def mesh(url):
    async with natsproc.connect(url, sender="worker") as mesh:
        yield mesh


@pytest.fixture
def http(url):
    """A server that lets everybody do everything, and a client."""
    app = natsproc.asgi(server=url, sender="web", authorize=everybody, heartbeat=0.2)
    with serving(app) as base, httpx.Client(base_url=base, timeout=30) as client:
        yield client


async def call(client, *request, **options):
    return await asyncio.to_thread(client.request, *request, **options)


async def written(mesh, id, *texts, **options):
    """A run that says these texts, and is over."""
    async with mesh.own(id, **options) as proc:
        for text in texts:
            await proc.log(text)


def said(items):
    """The texts of what was logged, whatever else is among the items."""
    return [item["data"]["text"] for item in items if item["type"] == "log"]


async def test_a_last_event_id_of_another_log_is_refused_at_once(mesh, http):
    await written(mesh, "job", "one", "two")
    async with mesh.own("later") as proc:
        await proc.log("one")
        await proc.flush()
        job, *_ = [item async for item in mesh.process("job").tail(follow=False)]
        mine = [item async for item in mesh.process("later").tail(follow=False)][-2]
        beyond = str(Cursor(10_000, mine.epoch, 1, 700))
        for cursor in (job.cursor, beyond):
            refused = await call(http, "GET", "/later/events", headers={"last-event-id": cursor})
            assert refused.status_code == 422
            assert "another log" in refused.json()["detail"]


async def test_events_as_server_sent_events(mesh, http):
    await written(mesh, "job", "one", "two")
    response = await call(http, "GET", "/job/events")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    first, *blocks = parsed(response.text)
    assert 500 <= int(first["retry"]) <= 2000
    items = [json.loads(block["data"]) for block in blocks]
    assert [item["type"] for item in items] == ["started", "log", "log", "exited", "caught_up", "ended"]
    assert [item.get("offset") for item in items] == [1, 2, 3, 4, None, None]
    assert [block.get("id") for block in blocks[:4]] == [item["cursor"] for item in items[:4]]
    assert not any("id" in block or "event" in block for block in blocks[4:])


async def test_events_as_lines_and_as_an_array(mesh, http):
    await written(mesh, "job", "one", "two")
    lines = await call(http, "GET", "/job/events", headers={"accept": "application/x-ndjson"})
    items = [json.loads(line) for line in lines.text.splitlines()]
    assert said(items) == ["one", "two"]
    array = await call(http, "GET", "/job/events?follow=0", headers={"accept": "application/json"})
    assert array.headers["content-type"] == "application/json"
    assert array.json() == items
    neither = await call(http, "GET", "/job/events", headers={"accept": "image/png"})
    assert neither.status_code == 406


async def test_where_a_stream_begins(mesh, http):
    async with mesh.own("job") as proc:
        for number in range(5):
            await proc.log(str(number))
    await written(mesh, "job", "again", restart=True)

    async def texts(query, **headers):
        response = await call(http, "GET", f"/job/events?follow=0&{query}", headers=headers)
        assert response.status_code == 200, response.text
        items = [json.loads(block["data"]) for block in parsed(response.text) if "data" in block]
        return said(items), [item["cursor"] for item in items if item["type"] == "log"]

    everything, cursors = await texts("run=all")
    assert everything == ["0", "1", "2", "3", "4", "again"]
    assert (await texts(""))[0] == ["again"]
    assert (await texts("run=1"))[0] == ["0", "1", "2", "3", "4"]
    assert (await texts("n=2"))[0] == ["again"]
    assert (await texts(f"after={cursors[2]}"))[0] == ["3", "4", "again"]
    # where an EventSource goes on is in its header; its URL stays as it was
    assert (await texts("run=1", **{"last-event-id": cursors[3]}))[0] == ["4", "again"]
    assert (await texts("since=3600&type=log"))[0] == everything
    for query in ("n=x", "after=nonsense", "follow=perhaps", "n=1&run=2", "since=-1"):
        wrong = await call(http, "GET", f"/job/events?{query}")
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json"), query


async def test_a_stream_that_is_over_is_not_asked_for_again(mesh, http):
    await written(mesh, "job", "one")
    items = parsed((await call(http, "GET", "/job/events")).text)
    last = [item["id"] for item in items if "id" in item][-1]
    assert (await call(http, "GET", "/job/events", headers={"last-event-id": last})).status_code == 204
    await written(mesh, "job", "two", restart=True)
    more = await call(http, "GET", "/job/events", headers={"last-event-id": last})
    assert said([json.loads(item["data"]) for item in parsed(more.text) if "data" in item]) == ["two"]


async def test_compact_gives_one_event_for_a_streamed_text(mesh, http):
    async with mesh.own("job") as proc, proc.stream() as stream:
        for word in ("a ", "b ", "c"):
            await stream.token(word)
    whole = ["token"] * 3 + ["text"]
    for query, expected in (
        ("", whole),
        ("compact", ["text"]),
        ("compact=1", ["text"]),
        ("compact=0", whole),
    ):
        response = await call(http, "GET", f"/job/events?{query}", headers={"accept": "application/json"})
        assert [i["type"] for i in response.json() if i["type"] in ("token", "text")] == expected


async def test_a_live_stream_beats_and_goes_on(mesh, http):
    async with mesh.own("job") as proc:
        await proc.log("before")
        await proc.flush()
        got = []

        def watch():
            with http.stream("GET", "/job/events") as response:
                for line in response.iter_lines():
                    got.append(line)

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await until(lambda: has(got, ":"))
        await proc.log("after")
    await watching
    texts = said([json.loads(line[6:]) for line in got if line.startswith("data: ")])
    assert texts == ["before", "after"]


async def has(got, line):
    return line in got


async def test_a_cut_stream_resumes_by_its_last_event_id(mesh, http):
    async with mesh.own("job") as proc:
        await proc.flush()
        offsets, last, connections = [], "", 0

        def watch_some(most):
            nonlocal last
            headers = {"last-event-id": last} if last else {}
            with http.stream("GET", "/job/events", headers=headers) as response:
                if response.status_code == 204:
                    return False
                for line in response.iter_lines():
                    if line.startswith("id: "):
                        last = line[4:]
                    if line.startswith("data: ") and "offset" in (item := json.loads(line[6:])):
                        offsets.append(item["offset"])
                        most -= 1
                    if not most and not line:
                        return True  # and so the connection is cut, in the middle
            return True

        async def watch():
            nonlocal connections
            while await asyncio.to_thread(watch_some, 1 + connections % 7):
                connections += 1

        watching = asyncio.create_task(watch())
        for number in range(150):
            await proc.log(str(number))
            if number % 10 == 0:
                await asyncio.sleep(0.01)
    await watching
    assert offsets == list(range(1, 153))
    assert connections > 30


async def test_who_leaves_is_gone_at_once(mesh, http):
    async with mesh.own("job") as proc:
        await proc.flush()
        with http.stream("GET", "/job/events") as response:
            lines = response.iter_lines()  # once it is forgotten, the connection is closed
            next(lines)

            async def seen():
                return proc.viewers == {"web": 1}

            async def unseen():
                return proc.viewers == {}

            await until(seen)
        del lines
        await until(unseen, 9)  # before its next announcement, and long before it would be forgotten


async def test_verbs_and_their_receipts(mesh, http):
    got = []
    async with mesh.own("job") as proc:
        sent = await call(http, "POST", "/job/send", json={"data": {"lr": 0.1}, "id": "m1"})
        assert (sent.status_code, sent.json()["id"], sent.json()["duplicate"]) == (202, "m1", False)
        assert (await call(http, "POST", "/job/send", json={"data": 1, "id": "m1"})).json()["duplicate"]
        message = await anext(proc.inbox())
        got.append((message.data, message.sender))
        asking = asyncio.create_task(call(http, "POST", "/job/request", json={"data": "how far?"}))
        message = await anext(proc.inbox())
        await proc.reply(message, "half")
        reply = await asking
        assert reply.json() == {"process": "job", "reply": "half"}
        paused = await call(http, "POST", "/job/pause", json={"reason": "lunch"})
        assert (paused.status_code, paused.json()["status"]) == (200, "applied")
        assert (await call(http, "POST", "/job/resume")).json()["verb"] == "resume"  # curl needs no body
        with pytest.raises(natsproc.Interrupted) as stop:
            async with proc.interruptible():
                asking = asyncio.create_task(
                    call(
                        http, "POST", "/job/interrupt", json={"message": {"topic": "nats"}, "reason": "wrong"}
                    )
                )
                await asyncio.sleep(30)
        assert (stop.value.message, stop.value.reason) == ({"topic": "nats"}, "wrong")
        assert (await asking).json()["status"] == "applied"
        question = asyncio.create_task(proc.ask("Go on?", choices=["yes", "no"]))

        async def asked():
            return (await call(http, "GET", "/?waiting=1")).json()["processes"]

        (process,) = await until(asked)
        assert process["asks"][0]["choices"] == ["yes", "no"]
        wrong = await call(http, "POST", "/job/answer", json={"value": "maybe"})
        assert (wrong.status_code, wrong.json()["receipt"]["status"]) == (409, "refused")
        assert (await call(http, "POST", "/job/answer", json={"value": "yes"})).json()["status"] == "applied"
        assert await question == "yes"
        late = await call(http, "POST", "/job/answer", json={"value": "no"})
        assert (late.status_code, late.json()["receipt"]["status"]) == (409, "too_late")
        assert "yes" in late.json()["detail"]
    assert got == [({"lr": 0.1}, "web")]


async def test_a_command_for_nobody_is_held(mesh, http):
    held = await call(http, "POST", "/later/pause", json={"hold": 60, "timeout": 10})
    assert (held.status_code, held.json()["status"]) == (202, "accepted")
    assert held.json()["data"]["held_until"]


async def test_records_lists_and_namespaces(url, mesh, http):
    async with natsproc.connect(url, namespace="chat") as chat, chat.own("one", kind="agent") as proc:
        await proc.log("hello")
        await proc.flush()
        await written(mesh, "job", labels={"team": "red"})
        record = (await call(http, "GET", "/chat/one")).json()
        assert (record["namespace"], record["id"], record["state"]) == ("chat", "one", "running")
        assert (await call(http, "GET", "/chat/one/record")).json()["id"] == "one"
        assert (await call(http, "GET", "/job")).json()["state"] == "completed"
        items = await call(http, "GET", "/chat/one/events?follow=0", headers={"accept": "application/json"})
        assert said(items.json()) == ["hello"]

        async def ids(query):
            response = await call(http, "GET", f"/?{query}")
            assert response.status_code == 200
            return [process["id"] for process in response.json()["processes"]]

        assert await ids("") == []
        assert await ids("ended=1") == ["job"]
        assert sorted(await ids("ended=1&namespace=*")) == ["job", "one"]
        assert await ids("namespace=chat") == ["one"]
        assert await ids("namespace=chat&kind=other") == []
        assert await ids("ended=1&label=team%3Dred") == ["job"]
        assert await ids("ended=1&label=team%3Dblue") == []


async def test_head_and_options(mesh, http):
    await written(mesh, "job")
    for path in ("/", "/job", "/job/events"):
        head = await call(http, "HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
    assert (await call(http, "HEAD", "/job/events")).headers["content-type"] == "text/event-stream"
    assert (await call(http, "HEAD", "/nobody/events")).status_code == 404
    options = await call(http, "OPTIONS", "/job/interrupt")
    assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")


async def test_the_description_is_valid_and_true(mesh, http):
    description = (await call(http, "GET", "/openapi.json")).json()
    validate(description)
    assert description["servers"] == [{"url": "/"}]
    for form in ("/{id}", "/{namespace}/{id}"):
        posted = {path.rsplit("/", 1)[1] for path, item in description["paths"].items() if "post" in item}
        assert posted == set(VERBS)
        assert f"{form}/events" in description["paths"]
    schemas = description["components"]

    def matches(value, name):
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": schemas})

    await written(mesh, "done", "hello")
    async with mesh.own("job") as proc:
        await proc.flush()
        items = await call(http, "GET", "/done/events", headers={"accept": "application/json"})
        for item in items.json():
            matches(item, "Item")
        matches((await call(http, "GET", "/?ended=1")).json(), "Processes")
        matches((await call(http, "POST", "/job/pause", json={})).json(), "Receipt")
        matches((await call(http, "POST", "/job/send", json={"data": 1})).json(), "Sent")
        matches((await call(http, "POST", "/job/answer", json={"value": 1})).json(), "Problem")
        matches((await call(http, "POST", "/job/send", json={})).json(), "Problem")
        matches({"reason": "x", "hold": 5}, "Command")
        with pytest.raises(jsonschema.ValidationError):
            matches({"reson": "x"}, "Command")
        await call(http, "POST", "/job/resume", json={})


PROBLEMS = [
    ("POST", "/job/pause", {"hold": 1e300}, 422, None),
    ("GET", "/nobody", None, 404, "NoSuchProcess"),
    ("GET", "/nobody/events", None, 404, "NoSuchProcess"),
    ("GET", "/a/b/c/d", None, 404, None),
    ("GET", "/no%20name", None, 404, "BadName"),
    ("DELETE", "/job", None, 405, None),
    ("GET", "/job/interrupt", None, 405, None),
    ("POST", "/job/events", None, 405, None),
    ("POST", "/nobody/pause", {}, 404, "NoSuchProcess"),
    ("POST", "/job/send", {"data": 1}, 410, "AlreadyEnded"),
    ("POST", "/job/send", {}, 422, None),
    ("POST", "/job/pause", {"reson": "x"}, 422, None),
    ("POST", "/job/pause", {"timeout": 1e9}, 422, None),
    ("POST", "/job/send", {"data": "x" * 2_000_000}, 413, "TooLarge"),
    ("GET", "/?label=x", None, 422, None),
]


async def test_problems_say_what_happened(mesh, http):
    await written(mesh, "job")
    for method, path, body, status, error in PROBLEMS:
        response = await call(http, method, path, **({"json": body} if body is not None else {}))
        assert response.status_code == status, (path, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (problem["type"], problem["status"], problem.get("error")) == ("about:blank", status, error), (
            path
        )
        assert len(problem["detail"]) > 20


async def test_a_page_of_another_site_posts_nothing(mesh, http):
    """What a browser sends across sites without asking first: forms, text, and nothing."""
    async with mesh.own("job") as proc:
        await proc.flush()
        attempts = (
            {"data": {"reason": "x"}},
            {"content": b'{"reason":"x"}', "headers": {"content-type": "text/plain"}},
            {"headers": {"origin": "https://evil.example"}},
        )
        for attempt in attempts:
            assert (await call(http, "POST", "/job/cancel", **attempt)).status_code == 415
        assert (await mesh.process("job").record()).state == "running"


async def test_the_host_decides_who_may_what(url, mesh):
    """alice may do all with her own, bob may watch only, and nobody else anything; the log says who it was."""
    asked = []

    async def authorize(request, namespace, id, right):
        asked.append((request.method, request.path, namespace, id, right))
        user = request.cookies.get("user", "")
        if not user:
            return "" if right == "control" else None
        if id == "*":
            return False
        mine = id.startswith(user)
        may = {"bob": ("watch",), "eve": ("watch", "send")}.get(user, ())
        return user if mine or right in may else False

    def at(user):
        return httpx.AsyncClient(base_url=base, cookies={"user": user} if user else {}, timeout=30)

    with serving(natsproc.asgi(mesh, authorize=authorize)) as base:
        async with mesh.own("alice-1") as proc, mesh.own("carl-1"), at("alice") as alice, at("bob") as bob:
            async with at("") as nobody:
                for method, path in (("GET", "/"), ("GET", "/alice-1"), ("POST", "/alice-1/kill")):
                    response = await nobody.request(method, path)
                    assert (response.status_code, "www-authenticate" in response.headers) == (401, True)
            assert (await alice.get("/carl-1/events")).status_code == 403
            assert (await alice.get("/nothing")).status_code == 403  # nor whether it exists
            assert (await bob.post("/alice-1/pause", json={})).status_code == 403
            listed = [p["id"] for p in (await alice.get("/")).json()["processes"]]
            assert listed == ["alice-1"]
            assert len((await bob.get("/")).json()["processes"]) == 2
            assert (await alice.post("/alice-1/pause", json={"reason": "lunch"})).json()["sender"] == "worker"
            await alice.post("/alice-1/resume", json={})
            await alice.post("/alice-1/send", json={"data": "hello"})
            message = await anext(proc.inbox())
            assert (message.sender, message.user) == ("worker", "alice")
            async with at("eve") as eve:  # who may send, and so interrupt nobody
                assert (await eve.post("/alice-1/send", json={"data": 1})).status_code == 202
                assert (await eve.post("/alice-1/send", json={"data": 1, "when": "now"})).status_code == 403
            await proc.flush()
            got = [
                i async for i in mesh.process("alice-1").tail(follow=False) if isinstance(i, natsproc.Event)
            ]
            by = {event.type: event.data for event in got if event.type in ("paused", "received")}
            assert {(data["sender"], data["user"]) for data in by.values()} == {("worker", "alice")}
    assert ("POST", "/alice-1/pause", "default", "alice-1", "control") in asked
    assert mesh.opened  # it was the host's, who closes it


async def test_the_log_says_for_whom_it_was(mesh, http):
    """Whatever is asked for, and however it ends; the sender is who it is all the same."""
    handle = mesh.process("job")
    async with mesh.own("job") as proc:
        stopping = None
        with pytest.raises(natsproc.Interrupted) as stop:
            async with proc.interruptible():
                stopping = asyncio.create_task(handle.command("interrupt", user="alice"))
                await asyncio.sleep(30)
        await stopping
        question = asyncio.create_task(proc.ask("Go on?"))
        async with asyncio.timeout(20):
            while not (await handle.command("answer", data={"value": "yes"}, user="bob")).applied:
                await asyncio.sleep(0.05)
        await question
        await handle.command("answer", data={"value": "no"}, user="carl")  # too late
        async with proc.turn():
            with pytest.raises(natsproc.Interrupted) as landed:
                async with proc.interruptible():
                    await handle.send("now", when="now", user="dora")
                    await asyncio.sleep(30)
    assert (stop.value.user, landed.value.user, landed.value.received.user) == ("alice", "dora", "dora")
    events = [item async for item in handle.tail(follow=False) if isinstance(item, natsproc.Event)]
    users = [
        (event.type, event.data["user"], event.data["sender"])
        for event in events
        if "user" in (event.data or {})
    ]
    early = ("refused", "bob", "worker")  # an answer before it asked, if any
    assert [found for found in users if found != early] == [
        ("interrupted", "alice", "worker"), ("answered", "bob", "worker"), ("refused", "carl", "worker"),
        ("interrupted", "dora", "worker"), ("received", "dora", "worker"),
    ]  # fmt: skip
