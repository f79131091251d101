"""ASGI applications on real uvicorn servers, each in a thread of its own, on a free port."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from harness import wait_for


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """The URL at which the application is served. What streams then is cut off at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=1, access_log=False, **options
        )
        server = uvicorn.Server(config)

        def run() -> None:
            with contextlib.suppress(SystemExit):  # it could not start, and says so
                server.run([listening])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive(), 60, "uvicorn to start")
            assert server.started, "uvicorn did not start"
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def parsed(text: str) -> list[dict[str, str]]:
    """Server-Sent Events as EventSource reads them, comments left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            found.append(fields)
    return found
