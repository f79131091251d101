"""What came of an answer of a LangGraph graph: what is shown of it, and the history that holds what was seen."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langgraph.types import StateSnapshot

from natsproc.owner import Process
from natsproc.turns import Partial

from .conversing import Voices, show_call, show_result

BROKEN_OFF: Final = "The tool call was interrupted before a result was produced."


class Heard:
    """What came of an answer, as far as it is shown; by keys, as the id of a streamed message is known at its end."""

    def __init__(self, proc: Process, before: Iterable[BaseMessage]) -> None:
        self.before = {message.id for message in before}
        self.said: dict[Hashable, BaseMessage] = {}
        self._proc = proc
        self._streams: dict[Hashable, str] = {}
        self._where: dict[Hashable, Any] = {}
        self._pieces: dict[Hashable, list[AIMessageChunk]] = {}
        self._calls: dict[str | None, ToolCall] = {}

    async def hear(self, voices: Voices, message: BaseMessage, where: dict[str, Any]) -> None:
        """Show a message, or the next piece of one; `where` is one object for all pieces of a message."""
        key: Hashable = id(where) if isinstance(message, AIMessageChunk) else message.id
        if isinstance(message, AIMessageChunk):
            self._pieces.setdefault(key, []).append(message)
        elif self._knows(message):
            return
        if not isinstance(message, AIMessage | ToolMessage):
            return
        self.said.setdefault(key, message)
        self._where[key] = where
        if isinstance(message, ToolMessage):
            await self._show_result(message)
            return
        if message.text and key not in self._streams:
            self._streams[key] = voices.open(key, "answer")
        await voices.say(key, message.text)
        if getattr(message, "chunk_position", "last") == "last":
            await voices.end(key)

    async def rest(self, voices: Voices, present: Iterable[BaseMessage]) -> None:
        """Show what the state has by now, and was not streamed: calls of tools, above all."""
        self._gather()
        for message in present:
            await self.hear(voices, message, {})
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                if message.id not in self.before and call["id"] not in self._calls:
                    self._calls[call["id"]] = call
                    await show_call(self._proc, call["id"] or "", call["name"], call["args"])

    async def _show_result(self, message: ToolMessage) -> None:
        call = self._calls.get(message.tool_call_id)
        name = message.name or (call["name"] if call else "")
        await show_result(self._proc, message.tool_call_id, name, message.content, message.status)

    def _knows(self, message: BaseMessage) -> bool:
        return message.id in self.before or any(said.id == message.id for said in self.said.values())

    def _gather(self) -> None:
        for key, pieces in self._pieces.items():
            self.said[key] = add_ai_message_chunks(*pieces)

    def settle(self, snapshot: StateSnapshot, present: Iterable[BaseMessage]) -> None:
        """A next step begins: what the state has not taken, and will not, is not of the conversation."""
        ids = {message.id for message in present}
        done = {task.name for task in snapshot.tasks if not task.interrupts and snapshot.interrupts}
        for key, message in list(self.said.items()):
            node = self._where.get(key, {}).get("langgraph_node")
            if message.id not in ids and not isinstance(message, HumanMessage) and node not in done:
                del self.said[key]
                self._pieces.pop(key, None)

    def changes(self, seen: Partial, present: Sequence[BaseMessage]) -> list[BaseMessage]:
        """What makes the messages that the state has those that were seen."""
        self._gather()
        shown = {(event.type, event.data["id"]) for event in seen.events if event.type.startswith("tool_")}
        wanted = [self._as_seen(key, message, seen.streams, shown) for key, message in self.said.items()]
        told = [message for message in wanted if message is not None]
        left = open_calls([*(m for m in present if m.id in self.before), *told])
        told += [ToolMessage(BROKEN_OFF, tool_call_id=id, status="error") for id in left]
        has = {message.id: message for message in present}
        ids = {message.id for message in told}
        unseen = [
            RemoveMessage(id)
            for id, message in has.items()
            if id and id not in ids | self.before and isinstance(message, AIMessage | ToolMessage)
        ]
        return [*unseen, *(m for m in told if m.id not in has or not same(m, has[m.id]))]

    def _as_seen(
        self, key: Hashable, message: BaseMessage, streams: dict[str, str], shown: set[tuple[str, str]]
    ) -> BaseMessage | None:
        if isinstance(message, ToolMessage):
            return message if ("tool_result", message.tool_call_id) in shown else None
        if not isinstance(message, AIMessage):
            return message
        text = streams.get(self._streams.get(key, ""), "")
        calls = [
            call
            for id, call in self._calls.items()
            if ("tool_call", id) in shown and call in message.tool_calls
        ]
        return AIMessage(text, id=message.id, tool_calls=calls) if text or calls else None


def same(one: BaseMessage, other: BaseMessage) -> bool:
    """Whether two messages say the same."""
    calls = [[call["id"] for call in getattr(message, "tool_calls", ())] for message in (one, other)]
    return one.text == other.text and calls[0] == calls[1]


def open_calls(said: Sequence[BaseMessage]) -> list[str]:
    """The ids of calls without a result."""
    returned = {message.tool_call_id for message in said if isinstance(message, ToolMessage)}
    calls = [call["id"] for message in said if isinstance(message, AIMessage) for call in message.tool_calls]
    return [id for id in calls if id and id not in returned]
