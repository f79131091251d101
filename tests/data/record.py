"""Record what this version of natsproc leaves on a server, for later versions to go on with.

`python tests/data/record.py` writes `tests/data/VERSION.jsonl`: what its processes are, and then every message
of its streams with its position. `tests/recorded.py` loads it. A file is never written again once that version
is released.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import running  # noqa: E402

import natsproc  # noqa: E402
from natsproc.bus import streams  # noqa: E402
from natsproc.bus.connection import ApiError, Connection, Endpoint  # noqa: E402
from natsproc.protocol.names import Names  # noqa: E402

DIES = """
import asyncio, natsproc
async def main():
    async with natsproc.connect({url!r}, sender="owner") as mesh, mesh.own("agent", kind="agent") as proc:
        messages = proc.inbox()
        async with proc.turn(await anext(messages)):
            await proc.log("in the turn")
        await proc.checkpoint({{"seen": ["first"]}})
        await anext(messages)  # which goes with the state, and comes again
        await proc.ask("Go on?", choices=["yes", "no"])
asyncio.run(main())
"""


async def everything(mesh: natsproc.Mesh) -> str:
    """A run with an event of every type, which completes; returns the cursor of its third event."""
    handle = mesh.process("chat/done")
    async with mesh.own("chat/done", kind="demo", labels={"team": "red"}) as proc:
        await proc.log("hello", level="warning", where="here")
        await proc.progress(1, 2, "half")
        await proc.metric(loss=0.5)
        await proc.message({"any": ["json", None, 1.5, "größer"]})
        await proc.output(b"\xff\x00")
        await proc.emit("own-type", {"x": 1})
        async with proc.stream("said") as stream:
            for token in ("a ", "stream ", "of tokens"):
                await stream.token(token)
        await handle.send("question")
        message = await proc.receive()
        async with proc.turn(message):
            await proc.reply(message, {"answer": 42})
        await handle.pause(reason="wait")
        await handle.resume()
        asked = asyncio.create_task(proc.ask("Sure?", choices=["yes", "no"]))
        event = await anext(aiter(handle.tail(types=["asked"])))
        await handle.answer("maybe")
        await handle.answer("yes", event.data["ask"])
        await asked
        await proc.checkpoint({"state": 1})
    events = [item async for item in handle.tail() if isinstance(item, natsproc.Event)]
    await handle.interrupt({"instead": 1}, reason="held", hold=86400)
    return str(events[2].cursor)


async def dies(mesh: natsproc.Mesh, url: str) -> None:
    """A conversation whose owner is killed while it asks, with a state, and two messages behind that."""
    handle = mesh.process("agent")
    owner = subprocess.Popen([sys.executable, "-c", DIES.format(url=url)])
    while not await handle.record():
        await asyncio.sleep(0.01)
    for text in ("first", "second", "third"):
        await handle.send(text)
    await anext(aiter(handle.tail(types=["asked"])))
    owner.kill()
    owner.wait()


def commands(url: str) -> None:
    """A wrapped command that fails, and is run again."""
    run = [
        str(Path(sys.executable).parent / "natsproc"),
        "run",
        "--server",
        url,
        "--id",
        "build",
        "--restart",
    ]
    for code in (3, 0):
        subprocess.run([*run, "--", "sh", "-c", f"echo built; exit {code}"], check=False)


async def messages(connection: Connection, names: Names) -> AsyncIterator[dict[str, Any]]:
    """What the streams have; leases are nobody's any more."""
    for config in streams.configurations(names, connection.server_version):
        name = config["name"]
        if name == f"KV_{names.leases}":
            continue
        last = (await connection.api(f"STREAM.INFO.{name}"))["state"]["last_seq"]
        for position in range(1, last + 1):
            try:
                found = (await connection.api(f"STREAM.MSG.GET.{name}", {"seq": position}))["message"]
            except ApiError:
                continue  # removed, or replaced
            yield {"stream": name, **{key: found[key] for key in ("subject", "seq")}} | {
                key: base64.b64decode(found[key]).decode("utf-8", "surrogateescape")
                for key in ("data", "hdrs")
                if key in found
            }


async def main() -> None:
    names = Names()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="recorder"))
        await streams.setup(connection, names)
        async with natsproc.connect(server.url, sender="viewer") as mesh:
            cursor = await everything(mesh)
            await dies(mesh, server.url)
            await asyncio.to_thread(commands, server.url)
        lines = [{"version": natsproc.__version__, "cursor": cursor}]
        lines += [line async for line in messages(connection, names)]
        await connection.close()
    path = HERE / f"{natsproc.__version__}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{path}: {len(lines)} lines")


if __name__ == "__main__":
    asyncio.run(main())
