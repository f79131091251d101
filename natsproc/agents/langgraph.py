"""A LangGraph graph under an address: `pip install 'natsproc[langgraph]'`.

async with natsproc.connect() as mesh, mesh.own(thread_id, allow=("idle", "next", "now")) as proc:
    await converse(proc, builder.compile(checkpointer=saver))
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, NoReturn

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt, StateSnapshot, StateUpdate

from natsproc.owner import Process
from natsproc.protocol.messages import Json, Message, encode
from natsproc.turns import Partial, Turn

from .conversing import QUESTION, Conversation, Voices, text_of
from .heard import Heard, open_calls


async def converse(
    proc: Process,
    graph: Pregel[Any, Any, Any, Any],
    *,
    config: RunnableConfig | None = None,
    messages: str = "messages",
    **options: Any,
) -> NoReturn:
    """Have the graph answer what is sent to the process, for ever; `options` (`context`, …) are for `graph.astream`.

    `messages` is the key of its state that has the conversation, reduced by `add_messages`. The thread is that of
    `config`, or is named by the process's id. What its models say is streamed as `answer`, its tools are `tool_call` and
    `tool_result` events, the last thing said is the reply to the message, and an `interrupt()` in a node asks a person.
    Stop ends the answer, and the thread keeps what was seen of it. What is sent for `next` comes in between two steps,
    while no tool is called: the graph begins anew with it and with all that its state has by then.

    The thread stays with the graph's own checkpointer, and a successor goes on from there. What the graph raises fails
    the turn, and the conversation goes on. Raises: ValueError without a checkpointer; OwnershipLost, Closed.
    """
    if graph.checkpointer is None:
        raise ValueError("the graph has nothing to keep the conversation: builder.compile(checkpointer=…)")
    await GraphConversation(proc, graph, config or {}, messages, options).run()


class GraphConversation(Conversation):
    """A thread of a graph, and the answer that it is at."""

    def __init__(
        self,
        proc: Process,
        graph: Pregel[Any, Any, Any, Any],
        config: RunnableConfig,
        key: str,
        options: dict[str, Any],
    ) -> None:
        super().__init__(proc)
        self._graph, self._key, self._options = graph, key, options
        configurable = {"thread_id": proc.id, **config.get("configurable", {})}
        self._config: RunnableConfig = {**config, "configurable": configurable}
        self._limit: int | None = config.get("recursion_limit", (graph.config or {}).get("recursion_limit"))

    def dump(self) -> dict[str, Json]:
        return {}  # the checkpointer has it all

    def load(self, saved: dict[str, Json]) -> None:
        pass

    def hear(self, asked: Message, *, again: bool) -> None:
        self._heard: Heard | None = None
        self._human = human_of(asked)

    async def answer(self, turn: Turn, asked: Message) -> Any:
        snapshot, heard, payload = await self._open()
        steps = 0
        while payload is not None or snapshot.next:
            if payload is None and snapshot.interrupts:
                payload = await self._ask(snapshot.interrupts)
            heard.settle(snapshot, self._messages(snapshot))
            snapshot = await self._step(heard, payload)
            payload = None
            steps += 1
            if self._limit and steps >= self._limit and snapshot.next:
                raise GraphRecursionError(f"after {steps} steps it has not ended: see recursion_limit")
            said = self._messages(snapshot)
            if snapshot.interrupts or open_calls(said):
                await self.proc.check()
            elif more := await turn.boundary():
                known = {message.id for message in said}
                payload = self._input(*(new for new in map(human_of, more) if new.id not in known))
        last = self._messages(snapshot)[-1:]
        return last[0].text if last and isinstance(last[0], AIMessage) else None

    async def _open(self) -> tuple[StateSnapshot, Heard, Any]:
        """The thread as it is, and what it is to be given: the message, unless a former owner has been at it."""
        snapshot = await self._graph.aget_state(self._config)
        heard = self._heard = Heard(self.proc, self._messages(snapshot))
        return snapshot, heard, None if self._human.id in heard.before else self._input(self._human)

    async def _step(self, heard: Heard, payload: Any) -> StateSnapshot:
        """Let the graph do what is next, and show it."""
        stream = self._graph.astream(
            payload, self._config, stream_mode="messages", interrupt_after="*", **self._options
        )
        async with Voices(self.proc) as voices:
            async with aclosing(stream):  # type: ignore[type-var]
                async for message, where in stream:
                    await heard.hear(voices, message, where)
            snapshot = await self._graph.aget_state(self._config)
            await heard.rest(voices, self._messages(snapshot))
        return snapshot

    def _input(self, *said: HumanMessage) -> dict[str, Any] | None:
        assert self._heard is not None
        for message in said:
            self._heard.said[message.id] = message
        return {self._key: list(said)} if said else None

    async def _ask(self, interrupts: Sequence[Interrupt[Any]]) -> Command[Any]:
        """Ask people what nodes ask; the same questions under whichever owner."""
        async with asyncio.TaskGroup() as group:
            asked = {
                each.id: group.create_task(self.proc.ask(*question_of(each.value), id=each.id))
                for each in interrupts
            }
        return Command(resume={id: task.result() for id, task in asked.items()})

    async def stopped(self, seen: Partial) -> None:
        heard = self._heard or (await self._open())[1]  # it may have been stopped before it looked
        clear = [StateUpdate(None, END)]  # what was begun and is not done is not to be done
        await self._graph.abulk_update_state(self._config, [clear])
        present = self._messages(await self._graph.aget_state(self._config))
        if changes := heard.changes(seen, present):
            as_input = [StateUpdate({self._key: changes}, START)]
            await self._graph.abulk_update_state(self._config, [as_input, clear])

    def _messages(self, snapshot: StateSnapshot) -> list[BaseMessage]:
        values = snapshot.values
        found = values.get(self._key) if isinstance(values, dict) else getattr(values, self._key, None)
        return list(found or ())


def human_of(asked: Message) -> HumanMessage:
    """What was sent, under an id that is the same when it comes again."""
    return HumanMessage(text_of(asked.data), id=f"{asked.sender}.{asked.id}")


def question_of(value: Any) -> tuple[str, list[Json] | None]:
    """What a node asks: a text, or an object with `question` and perhaps `choices`; or anything, as its JSON."""
    if isinstance(value, dict) and isinstance(value.get("question"), str):
        return value["question"][:QUESTION], value.get("choices")
    text = value if isinstance(value, str) else encode(value).decode()
    return text[:QUESTION], None
