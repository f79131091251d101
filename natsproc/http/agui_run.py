"""An exchange as an AG-UI run: which of the protocol's events are said for those of the log. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from natsproc.protocol.messages import LIFECYCLE, Event, encode

from .exchange import Exchange, fields

Json = dict[str, Any]

_THINKING: Final = re.compile(r"thinking(-\d+)?")


class Run:
    """What is said of an exchange, behind an offset; `known` is what the client has by id: of its messages, and calls."""

    def __init__(
        self, work: Exchange, id: str, *, after: int = 0, known: Mapping[str, str] | None = None
    ) -> None:
        self.work = work
        self._id, self._after = id, after
        self._known = dict(known or {})
        self._texts: dict[str, tuple[str, str]] = {}  # open ones, by stream: what it is, its message id
        self._covered: dict[str, int] = {}
        self._spoke = False
        self._result: Any = None
        self._offset = after  # of the last event that was said

    def feed(self, event: Event) -> list[Json]:
        """What is to be said for the next event."""
        mine = self.work.feed(event)
        if not mine or event.offset <= self._after:
            return []
        self._offset = event.offset
        return list(self._said(event, fields(event)))

    def end(self, about: Json) -> list[Json]:
        """How it ends, if it does now: over, or with something to ask. `about` are the ids of thread and run."""
        work, said = self.work, [event for stream in list(self._texts) for event in self._close(stream)]
        if work.state in ("failed", "rejected"):
            return [*said, {"type": "RUN_ERROR", "message": work.why or work.state, "code": work.state}]
        outcome: Json = {"type": "cancelled" if work.state == "canceled" else "success"}
        if work.state == "completed" and isinstance(self._result, str) and not self._spoke:
            said += self._message("TEXT_MESSAGE", f"{self._id}-reply", self._result)
        if work.asks:
            outcome = {"type": "interrupt", "interrupts": [self._interrupt(e) for e in work.asks.values()]}
        result = {"result": self._result} if work.state == "completed" and self._result is not None else {}
        return [*said, {"type": "RUN_FINISHED", **about, "outcome": outcome, **result}]

    def _interrupt(self, asked: Event) -> Json:
        data = fields(asked)
        said = {"id": f"{self._id}.{self._offset}.{data.get('ask', '')}", "reason": "question"}
        said["message"] = str(data.get("question", ""))
        return said | ({"responseSchema": {"enum": data["choices"]}} if data.get("choices") else {})

    def _said(self, event: Event, data: Json) -> Iterator[Json]:
        kind, stream, text = event.type, str(data.get("stream", "")), data.get("text")
        if kind == "token" and isinstance(text, str):
            self._covered[stream] = event.offset
            yield from self._piece(stream, event.offset, text)
        elif kind == "text":
            first = data.get("first")
            if isinstance(first, int) and isinstance(text, str) and self._covered.get(stream, 0) < first:
                yield from self._piece(stream, event.offset, text)  # its tokens are gone
            yield from self._close(stream)
        elif kind == "message" and isinstance(text or event.data, str):
            yield from self._message("TEXT_MESSAGE", f"{self._id}-{event.offset}", text or event.data)
        elif kind == "tool_call" and isinstance(data.get("id"), str):
            yield from self._call(data["id"], str(data.get("name", "")), data.get("arguments"))
        elif kind == "tool_result" and isinstance(data.get("id"), str):
            result = data.get("result")
            content = result if isinstance(result, str) else encode(result).decode()
            about = {"messageId": f"{self._id}-{event.offset}", "toolCallId": data["id"], "role": "tool"}
            if about["messageId"] in self._known:
                return
            yield {"type": "TOOL_CALL_RESULT", **about, "content": content}
        elif kind == "replied":
            self._result = data.get("data")
        elif kind == "state":
            yield {"type": "STATE_SNAPSHOT", "snapshot": event.data}
        elif kind not in LIFECYCLE:
            yield {"type": "CUSTOM", "name": kind, "value": event.data}

    def _call(self, id: str, name: str, arguments: Any) -> Iterator[Json]:
        if id in self._known:
            return
        self._known[id] = ""
        yield {"type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": name}
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": encode(arguments).decode()}
        yield {"type": "TOOL_CALL_END", "toolCallId": id}

    def _piece(self, stream: str, offset: int, text: str) -> Iterator[Json]:
        if stream not in self._texts:
            kind = "REASONING_MESSAGE" if _THINKING.fullmatch(stream) else "TEXT_MESSAGE"
            self._texts[stream] = kind, f"{self._id}-{offset}"
            yield from self._open(*self._texts[stream])
        kind, id = self._texts[stream]
        if text := self._unknown(id, text):
            self._spoke = self._spoke or kind == "TEXT_MESSAGE"
            yield {"type": f"{kind}_CONTENT", "messageId": id, "delta": text}

    def _unknown(self, id: str, text: str) -> str:
        """What of the next piece of a message the client does not have yet."""
        had = self._known.get(id, "")
        if had:
            self._spoke, self._known[id] = True, had[len(text) :]
        return text[len(had) :]

    def _message(self, kind: str, id: str, text: str) -> Iterator[Json]:
        self._spoke = True
        yield from self._open(kind, id)
        if text := self._unknown(id, text):
            yield {"type": f"{kind}_CONTENT", "messageId": id, "delta": text}
        yield {"type": f"{kind}_END", "messageId": id}

    def _open(self, kind: str, id: str) -> Iterator[Json]:
        reasons = kind == "REASONING_MESSAGE"
        if reasons:
            yield {"type": "REASONING_START", "messageId": id}
        yield {"type": f"{kind}_START", "messageId": id, "role": "reasoning" if reasons else "assistant"}

    def _close(self, stream: str) -> Iterator[Json]:
        kind, id = self._texts.pop(stream, ("", ""))
        if kind:
            yield {"type": f"{kind}_END", "messageId": id}
        if kind == "REASONING_MESSAGE":
            yield {"type": "REASONING_END", "messageId": id}
