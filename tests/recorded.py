"""What a version of natsproc left on a server, put on another one: every message at the position that it had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsproc.bus import streams
from natsproc.bus.connection import Connection
from natsproc.protocol.names import Names

DATA = Path(__file__).resolve().parent / "data"
VERSIONS = sorted(path.stem for path in DATA.glob("*.jsonl"))
_FILLERS = {
    "PROC_EVENTS": "proc.none.none.events",
    "PROC_INBOX": "proc.none.none.inbox.none",
    "OBJ_PROC_STATES": "$O.PROC_STATES.C.none",
}


@dataclass
class Recorded:
    """A recording: see `tests/data/record.py`."""

    cursor: str  #: of the third event of chat/done
    messages: list[dict[str, Any]]

    @classmethod
    def load(cls, version: str) -> Recorded:
        first, *rest = map(json.loads, (DATA / f"{version}.jsonl").read_text().splitlines())
        return cls(first["cursor"], rest)

    def events(self, subject: str) -> list[dict[str, Any]]:
        """The events of a log, marks left out."""
        found = [json.loads(m["data"]) for m in self.messages if m["subject"] == subject]
        return [event for event in found if "offset" in event]

    async def put(self, connection: Connection) -> None:
        """Make the mesh, and store all of it there."""
        await streams.setup(connection, Names())
        for stream in dict.fromkeys(message["stream"] for message in self.messages):
            filler = _FILLERS.get(stream, f"$KV.{stream[3:]}.none")
            position = 0
            for message in (m for m in self.messages if m["stream"] == stream):
                while (position := position + 1) < message["seq"]:  # what was there has been removed
                    await connection.store(filler, b"")
                data = message.get("data", "").encode("utf-8", "surrogateescape")
                stored = await connection.store(message["subject"], data, headers=_headers(message))
                assert stored["seq"] == message["seq"]
            await connection.api(f"STREAM.PURGE.{stream}", {"filter": filler})


def _headers(message: dict[str, Any]) -> dict[str, str] | None:
    """Those that say something of a message, and not of how it was stored."""
    lines = [line.partition(": ") for line in message.get("hdrs", "").split("\r\n")[1:] if line]
    return {name: value for name, _, value in lines if not name.startswith("Nats-Expected")} or None
