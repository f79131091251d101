"""An exchange as an A2A task: its JSON as a whole, and what is to be said of it as it goes on. Pure.

What the process says becomes artifacts: a text that is streamed, or an output, is one that grows, each `message`, reply
and result one of its own. Questions to people are what its status says. All else goes by as the message of a status.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from natsproc.protocol.messages import LIFECYCLE, Event, Notice
from natsproc.protocol.names import Address

from .exchange import Exchange, fields

Json = dict[str, Any]

KEPT: Final = (
    4 * 1024 * 1024
)  #: characters of an artifact that a task has as a whole; of a longer one, its end
HISTORY: Final = 100  #: messages

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_ID: Final = re.compile(r"run-([1-9]\d{0,14})|run-([1-9]\d{0,14})-message-([1-9]\d{0,14})")


def task_id(work: Exchange) -> str:
    """`run-1`, or `run-1-message-4711`: by the position in the inbox, which every replica can look up."""
    return f"run-{work.run}" + (f"-message-{work.position}" if work.position else "")


def exchange_of(id: str) -> Exchange | None:
    """What `task_id` named; None if it did not."""
    found = _ID.fullmatch(id)
    return found and Exchange(int(found[1] or found[2]), int(found[3] or 0))


def state_name(state: str) -> str:
    """`input-required` as the protocol has it."""
    return f"TASK_STATE_{state.upper().replace('-', '_')}"


def part(value: Any) -> Json:
    """Any JSON as a part: text, if it is that, or an object that only carries it."""
    text = value.get("text") if isinstance(value, dict) and value.keys() <= {"text", "parts"} else value
    if isinstance(text, str):
        return {"text": text, "mediaType": "text/plain"}
    return {"data": value, "mediaType": "application/json"}


class _Artifact:
    def __init__(self, id: str, name: str) -> None:
        self.id, self.name = id, name
        self._parts: deque[Json] = deque()
        self._size = self._omitted = 0

    def add(self, new: Json) -> None:
        self._parts.append(new)
        self._size += len(new.get("text", ""))
        while self._size > KEPT and len(self._parts) > 1:
            gone = len(self._parts.popleft().get("text", ""))
            self._size, self._omitted = self._size - gone, self._omitted + gone

    def to_json(self, parts: Sequence[Json] | None = None) -> Json:
        """All of it, with the texts that follow on each other as one; or only these parts."""
        said: Json = {"artifactId": self.id, "name": self.name, "parts": list(parts or self._joined())}
        return said | ({"metadata": {"omitted": self._omitted}} if self._omitted and not parts else {})

    def _joined(self) -> list[Json]:
        joined: list[Json] = []
        texts: list[str] = []
        for piece in (*self._parts, {}):
            if "text" in piece:
                texts.append(piece["text"])
                continue
            if texts:
                joined.append(part("".join(texts)))
                texts = []
            if piece:
                joined.append(piece)
        return joined


class Task:
    """A task, fed with the log from where its exchange begins, or before."""

    def __init__(self, address: Address, work: Exchange) -> None:
        self.work = work
        self.id, self.context = task_id(work), str(address)
        self._artifacts: dict[str, _Artifact] = {}
        self._covered: dict[str, int] = {}  # by stream: the offset of its last token
        self._history: deque[Json] = deque(maxlen=HISTORY)
        self.lean = False  #: without its artifacts

    def to_json(self, *, history: int | None = None, artifacts: bool = True) -> Json:
        """All of it, with that many of the last messages."""
        said: Json = {**self._ids("id"), "status": self.status()}
        if artifacts and self._artifacts:
            said["artifacts"] = [artifact.to_json() for artifact in self._artifacts.values()]
        if self._history and history != 0:
            said["history"] = list(self._history)[-(history or HISTORY) :]
        return said

    def status(self, message: Json | None = None) -> Json:
        """Its state, and what there is to say: what it asks, why it failed, or this message."""
        work = self.work
        said: Json = {"state": state_name(work.state)}
        if message is None and work.asks:
            message = self._question(next(iter(work.asks.values())))
        elif message is None and work.why:
            message = self._message("why", "AGENT", [part(work.why)])
        if message is not None:
            said["message"] = message
        if _TIME.fullmatch(work.time):
            said["timestamp"] = work.time
        return said

    def feed(self, event: Event) -> list[Json]:
        """Take the next event into account; what is to be said to those who had all before it."""
        before = (self.work.state, list(self.work.asks))
        if not self.work.feed(event):
            return []
        said = self._content(event)
        if before != (self.work.state, list(self.work.asks)):
            said.append(self._update())
        return said

    def notice(self, notice: Notice) -> list[Json]:
        """Take what the reader says into account; a gap is to be told, because what is said then is not all."""
        self.work.notice(notice)
        if notice.type != "gap" or (self.work.position and self.work.message is None):
            return []
        gone = f"{notice.data['from']} to {notice.data['to']}"
        said = {**part(f"events {gone} are gone from the log"), "metadata": {"type": "gap", **notice.data}}
        return [self._update(self._message(f"gap-{notice.data['to']}", "AGENT", [said]))]

    def _ids(self, name: str = "taskId") -> Json:
        return {name: self.id, "contextId": self.context}

    def _message(self, id: str | int, role: str, parts: list[Json]) -> Json:
        return {"messageId": f"{self.id}-{id}", "role": f"ROLE_{role}", "parts": parts, **self._ids()}

    def _update(self, message: Json | None = None) -> Json:
        return {"statusUpdate": {**self._ids(), "status": self.status(message)}}

    def _question(self, asked: Event) -> Json:
        data = fields(asked)
        about = {name: data[name] for name in ("ask", "choices") if name in data}
        parts = [part(str(data.get("question", ""))), {"data": about, "mediaType": "application/json"}]
        return self._message(asked.offset, "AGENT", parts)

    def _content(self, event: Event) -> list[Json]:
        data, offset = fields(event), event.offset
        match event.type:
            case "token" | "text" | "output":
                return self._streamed(event, data)
            case "message":
                return self._whole(f"message-{offset}", "message", event.data)
            case "replied":
                return self._whole(f"reply-{offset}", "reply", data.get("data"))
            case "exited" if data.get("result") is not None:
                return self._whole("result", "result", data["result"])
            case "received":
                self._history.append(self._message(offset, "USER", [part(data.get("data"))]))
            case "asked":
                self._history.append(self._question(event))
            case "answered" if "value" in data:
                self._history.append(self._message(offset, "USER", [part(data["value"])]))
            case kind if kind not in LIFECYCLE:
                said = data["text"] if isinstance(data.get("text"), str) else event.data
                parts = [{**part(said), "metadata": {"type": kind}}]
                return [self._update(self._message(offset, "AGENT", parts))]
        return []

    def _streamed(self, event: Event, data: Json) -> list[Json]:
        stream, text = str(data.get("stream", "")), data.get("text")
        if event.type == "text":  # says what its tokens said; so only if those are gone
            first = data.get("first")
            if not isinstance(first, int) or self._covered.get(stream, 0) >= first:
                return []
        self._covered[stream] = event.offset
        if isinstance(text, str):
            new = part(text)
        elif isinstance(data.get("base64"), str):
            new = {"raw": data["base64"], "mediaType": "application/octet-stream"}
        else:
            return []
        return self._grow(f"{'output' if event.type == 'output' else 'text'}-{stream}", stream, new)

    def _whole(self, id: str, name: str, value: Any) -> list[Json]:
        return self._grow(id, name, part(value))

    def _grow(self, id: str, name: str, new: Json) -> list[Json]:
        if self.lean:
            return []
        more = id in self._artifacts
        artifact = self._artifacts.setdefault(id, _Artifact(id, name))
        artifact.add(new)
        update = {**self._ids(), "artifact": artifact.to_json([new]), "append": more}
        return [{"artifactUpdate": update}]
