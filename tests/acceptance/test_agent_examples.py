"""The examples of agents, offline as they come: steered mid-answer, and asking before they use their tool."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from harness import ROOT
from meshes import appears, server_with_mesh
from talking import of, shown, text

import natsproc


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_with_mesh(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.mark.parametrize("framework", ["pydantic_ai", "langgraph"])
async def test_an_example_is_redirected_and_asks_before_it_writes(server, tmp_path, framework):
    example = ROOT / "examples" / f"agent_{framework}.py"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATS")}
    environment = kept | {"NATSPROC_HOME": str(tmp_path / "home"), "NATS_URL": server.url}
    job = await asyncio.create_subprocess_exec(
        sys.executable, example, framework, env=environment, cwd=tmp_path
    )
    try:
        async with natsproc.connect(server.url, sender="viewer") as mesh:
            handle = await appears(mesh, framework)
            await handle.send(
                "tell me of the tides, and of the moon that makes them, and of the sun that helps it"
            )
            await shown(handle, text)
            assert (await handle.interrupt("coffee")).applied
            asked = await handle.send("note: buy milk")
            await shown(handle, lambda seen: of(seen, "asked"))
            assert (await handle.answer("yes")).applied
            seen = await shown(handle, lambda seen: "milk" in text(seen))
            assert of(seen, "turn_ended")[0].data["status"] == "interrupted"
            assert of(seen, "tool_result")[0].data["result"] == "noted: buy milk"
            assert "After 3 messages you tell me: coffee" in text(seen)
            assert asked.id in [e.data["message"] for e in of(seen, "received")]
    finally:
        job.kill()
        await job.wait()
