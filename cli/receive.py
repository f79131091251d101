"""`natsproc receive`."""

from __future__ import annotations

import sys
from typing import Any

from natsproc_cli import exits, options


def receive(timeout: options.Timeout = None, output: options.Output = "text") -> int:
    """Take the next message from the inbox of the process that this runs in, and print it.

    Text comes as it is, anything else as JSON. Exits with 124 when the time runs out, with 1 at the end of
    the input, from then on every time. Once a program has received, messages come no longer on its stdin; on
    Linux what lies there unread is received first, elsewhere start it with `run --receive`.
    """
    import natsproc

    message = natsproc.current().receive(timeout=timeout)
    if output == "json":
        exits.print_json({"sender": message.sender, "position": message.position, **message.to_json()})
    elif message.kind == "message":
        print_data(message.data)
    return exits.FAILURE if message.kind == "eof" else 0


def print_data(data: Any) -> None:
    """Print what somebody sent: text as it is, anything else as JSON."""
    from natsproc.protocol.messages import encode
    from natsproc_cli.terminal import plain

    text = data if isinstance(data, str) else encode(data).decode()
    print(plain(text) if sys.stdout.isatty() else text, flush=True)
