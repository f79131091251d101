"""The application inside other people's: mounted below Starlette and FastAPI, behind middleware, without a lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
from fastapi import FastAPI, Request
from harness import ROOT
from meshes import make_mesh
from serving import parsed, serving
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

import natsproc


@pytest.fixture
async def url(server):
    await make_mesh(server.url)
    return server.url


def everybody(request, namespace, id, right):
    return True


def fastapi(url):
    """A back end with a lifespan that owns the mesh, its own routes, and middleware that knows the user."""
    mesh = natsproc.connect(url, sender="backend")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with mesh:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def session(request: Request, call_next):
        request.state.user = request.cookies.get("session")
        return await call_next(request)

    @app.get("/hello")
    async def hello():
        return {"hello": "world"}

    def authorize(request, namespace, id, right):
        return request.scope["state"]["user"]

    app.mount("/api/proc", natsproc.asgi(mesh, authorize=authorize))
    return app


def starlette(url):
    """Nobody opens the mesh: a mounted application hears of no lifespan."""
    inner = natsproc.asgi(server=url, sender="backend", authorize=everybody)
    cors = Middleware(
        CORSMiddleware, allow_origins=["https://page.example"], allow_methods=["*"], allow_headers=["*"]
    )
    return Starlette(routes=[Mount("/api/proc", inner)], middleware=[cors])


@pytest.mark.parametrize("framework", [fastapi, starlette])
async def test_mounted_it_does_the_same(url, framework):
    async with natsproc.connect(url, namespace="chat", sender="worker") as mesh, mesh.own("one") as proc:
        await proc.log("hello")
        await proc.flush()
        with serving(framework(url)) as base:
            async with httpx.AsyncClient(base_url=base, cookies={"session": "alice"}, timeout=30) as http:
                if framework is fastapi:
                    assert (await http.get("/hello")).json() == {"hello": "world"}
                assert (await http.get("/api/proc/chat/one")).json()["id"] == "one"
                assert (await http.get("/api/proc/", params={"namespace": "chat"})).json()["processes"]
                assert (await http.get("/api/proc/nobody")).status_code == 404
                items = []
                async with http.stream("GET", "/api/proc/chat/one/events") as response:
                    assert response.status_code == 200
                    sending = None
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            items.append(json.loads(line[6:]))
                        if items and items[-1]["type"] == "caught_up" and sending is None:
                            sending = asyncio.create_task(
                                http.post("/api/proc/chat/one/send", json={"data": "hi", "wait": True})
                            )
                            message = await anext(proc.inbox())
                            assert message.data == "hi"
                        if items and items[-1]["type"] == "received":
                            break
                assert (await sending).json()["offset"] == items[-1]["offset"]
                assert items[-1]["data"].get("user", "") == ("alice" if framework is fastapi else "")


async def test_cors_is_the_hosts(url):
    with serving(starlette(url)) as base:
        async with httpx.AsyncClient(base_url=base, headers={"origin": "https://page.example"}) as http:
            response = await http.get("/api/proc/")
            assert response.headers["access-control-allow-origin"] == "https://page.example"
            asked = {
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type",
            }
            assert (await http.options("/api/proc/job/pause", headers=asked)).status_code == 200


async def test_without_a_server_requests_say_so_and_come_back(server):
    """Mounted before the nats-server is there; a later request connects."""
    await make_mesh(server.url)
    server.stop()
    with serving(starlette(server.url)) as base:
        async with httpx.AsyncClient(base_url=base, timeout=60) as http:
            away = await http.get("/api/proc/")
            assert (away.status_code, away.json()["error"]) == (503, "NoServer")
            assert "retry-after" in away.headers
            assert str(server.port) not in away.text  # nobody has been asked who it is
            server.start()
            async with asyncio.timeout(60):
                while (await http.get("/api/proc/")).status_code != 200:
                    await asyncio.sleep(0.1)


async def test_a_lifespan_connects_and_closes(url):
    """As uvicorn does it; twice, as tests of a back end do."""
    app = natsproc.asgi(server=url, authorize=everybody)
    for _ in range(2):
        with serving(app, lifespan="on") as base:
            assert app.mesh.opened
            assert (await asyncio.to_thread(httpx.get, f"{base}/")).status_code == 200
        assert not app.mesh.opened


async def test_with_no_server_a_lifespan_fails(server):
    server.stop()
    with (
        pytest.raises(AssertionError, match="uvicorn did not start"),
        serving(natsproc.asgi(server=server.url, authorize=everybody), lifespan="on"),
    ):
        pass


def test_nothing_is_open_by_default():
    with pytest.raises(TypeError, match="authorize"):
        natsproc.asgi(server="nats://127.0.0.1:1")


async def test_events_of_a_run_that_ends(url):
    """A mounted stream ends by itself when the run does."""
    async with natsproc.connect(url, sender="worker") as mesh:
        with serving(starlette(url)) as base:
            async with mesh.own("job") as proc:
                await proc.flush()
                watching = asyncio.create_task(
                    asyncio.to_thread(httpx.get, f"{base}/api/proc/job/events", timeout=60)
                )
                await proc.log("hello")
            items = [json.loads(block["data"]) for block in parsed((await watching).text) if "data" in block]
            assert items[-1]["type"] == "ended"


async def test_the_example_of_the_documents(url, monkeypatch):
    monkeypatch.setenv("NATS_URL", url)
    code = (ROOT / "docs" / "http.md").read_text().split("```python\n")[1].split("```")[0]
    scope = {}
    exec(compile(code, "http.md", "exec"), scope)
    async with natsproc.connect(sender="worker") as mesh, mesh.own("alice-1") as proc:
        await proc.flush()
        with serving(scope["app"]) as base:
            async with httpx.AsyncClient(base_url=base, cookies={"user": "alice"}, timeout=30) as alice:
                paused = await alice.post("/proc/alice-1/pause", json={})
                assert paused.json()["status"] == "applied"
                assert (await alice.get("/proc/bob-1")).status_code == 403
                assert (await alice.post("/proc/alice-1/resume", json={})).json()["status"] == "applied"
