"""`natsproc down`: stop the embedded server."""

from __future__ import annotations

from natsproc_cli import exits


def down() -> int:
    """Stop the embedded nats-server, and return when it is gone. Its data stays."""
    from natsproc.server import embedded
    from natsproc.server.home import Home

    stopped = embedded.stop(Home.find())
    exits.remark("stopped the nats-server; its data stays" if stopped else "no nats-server was running")
    return 0
