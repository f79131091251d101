"""A chat on two replicas behind a load balancer: python examples/fastapi-chat/run.py [PORT]

It starts a nats-server, two replicas and the proxy, on free ports of this machine, and ends them at Ctrl-C. What was
said is kept in .home beside this file, or in the NATSPROC_HOME that you name.

    pip install 'natsproc[pydantic-ai]' fastapi uvicorn
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from proxy import Proxy

import natsproc

HERE = Path(__file__).parent
REPLICAS = 2
AGAIN_SECONDS = 10  #: after which a replica that has died is started again


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def keep(number: int, port: int) -> None:
    """Run a replica, and start it again some time after it has died."""
    command = [
        sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--header", f"X-Replica:{number}",
        "--log-level", "warning", "--timeout-graceful-shutdown", "1",
    ]  # fmt: skip
    while True:
        environment = os.environ | {"REPLICA": str(number)}
        replica = await asyncio.create_subprocess_exec(*command, cwd=HERE, env=environment)
        print(f"replica {number} is process {replica.pid}", flush=True)
        try:
            await replica.wait()
        finally:
            with suppress(ProcessLookupError):
                replica.terminate()
            await replica.wait()
        print(f"replica {number} has died, and comes again in {AGAIN_SECONDS} s", flush=True)
        await asyncio.sleep(AGAIN_SECONDS)


async def listens(port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            return writer.close()
        await asyncio.sleep(0.05)


async def main(port: int, began: float) -> None:
    async with natsproc.connect(start=True):
        pass  # now there is a server
    ports = [free_port() for _ in range(REPLICAS)]
    replicas = [asyncio.create_task(keep(number, port)) for number, port in enumerate(ports, 1)]
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: [task.cancel() for task in replicas])
    try:
        await asyncio.wait(map(asyncio.create_task, map(listens, ports)))
        server = await asyncio.start_server(Proxy(ports).serve, "127.0.0.1", port)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        print(f"open {url} (started in {time.monotonic() - began:.1f} s; Ctrl-C ends it)", flush=True)
        await asyncio.wait(replicas)
    finally:
        for task in replicas:
            task.cancel()
        await asyncio.wait(replicas)


if __name__ == "__main__":
    own = "NATSPROC_HOME" not in os.environ
    os.environ.setdefault("NATSPROC_HOME", str(HERE / ".home"))
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0, time.monotonic()))
    except (natsproc.Error, OSError) as error:
        sys.exit(f"natsproc: {error}")
    finally:
        if own:
            subprocess.run([sys.executable, "-m", "natsproc_cli", "down"], check=False)
