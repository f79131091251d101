"""A pydantic-ai agent under an address: `pip install 'natsproc[pydantic-ai]'`.

async with natsproc.connect() as mesh, mesh.own(thread_id, allow=("idle", "next", "now")) as proc:
    await converse(proc, Agent("openai:gpt-5"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar

from pydantic_ai.agent import AbstractAgent, Agent, AgentRun
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallEvent,
    ToolCallPart,
    ToolResultEvent,
    ToolReturnPart,
    repair_messages,
)
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext, ToolDenied
from pydantic_graph import End

from natsproc.owner import Process
from natsproc.protocol.messages import Json, Message
from natsproc.turns import Partial, Turn

from .conversing import QUESTION, Conversation, Voices, show_call, show_result, text_of

M = TypeVar("M", ModelRequest, ModelResponse)

STREAMS: Final = {TextPart: "answer", ThinkingPart: "thinking"}


async def converse(proc: Process, agent: AbstractAgent[Any, Any], **options: Any) -> NoReturn:
    """Have the agent answer what is sent to the process, for ever; `options` (`deps`, `model`, …) are for `agent.iter`.

    Its text is streamed as `answer` and `thinking`, its tools are `tool_call` and `tool_result` events, and its output
    is the reply to the message. Stop ends the answer, and the history keeps what was seen of it. What is sent for `next`
    comes in before the next request to the model. A tool that needs approval asks a person. The history is the state of
    the process, saved with every answer and around every use of tools, so that a successor goes on there.

    What the framework raises fails the turn, and the conversation goes on. Raises: OwnershipLost, Closed.
    """
    await AgentConversation(proc, agent, options).run()


class AgentConversation(Conversation):
    """What was said to an agent and by it, and what it is at."""

    def __init__(self, proc: Process, agent: AbstractAgent[Any, Any], options: dict[str, Any]) -> None:
        super().__init__(proc)
        self.messages: list[ModelMessage] = []  #: as the framework has them
        self.unsent: list[str] = []  #: said to the agent, and not in `messages` yet
        self.begun = False  #: `messages` ends within an answer
        self._agent = agent
        own = HandleDeferredToolCalls[Any](self._decide)
        self._options = {**options, "capabilities": [*options.get("capabilities", ()), own]}

    def dump(self) -> dict[str, Json]:
        messages = ModelMessagesTypeAdapter.dump_python(self.messages, mode="json")
        return {"messages": messages, "unsent": self.unsent, "begun": self.begun}

    def load(self, saved: dict[str, Json]) -> None:
        self.messages = ModelMessagesTypeAdapter.validate_python(saved["messages"])
        self.unsent, self.begun = saved["unsent"], saved["begun"]

    def hear(self, asked: Message, *, again: bool) -> None:
        self._step: Step | None = None
        self._goes_on = again and self.begun
        if not self._goes_on:
            self.messages = repair_messages(self.messages)  # calls that are left to others are not waited for
            self.unsent = [*self.unsent, text_of(asked.data)]

    async def answer(self, turn: Turn, asked: Message) -> Any:
        goes_on = self._goes_on
        prompt = None if goes_on else self.unsent if len(self.unsent) > 1 else self.unsent[0]
        async with self._agent.iter(prompt, message_history=self.messages, **self._options) as run:
            queue = Queue(run)
            if goes_on:
                queue.add(self.unsent)
            node = run.next_node
            while not isinstance(node, End):
                step = self._step = Step(run, queue, node, self._step)
                if step.worth_saving:
                    self._keep(step.so_far(), queue.waiting, begun=True)
                    await self.save(asked)
                await step.hear(self.proc)
                queue.add([text_of(more.data) for more in await turn.boundary()])
                node = await run.next(node)
        self._step = None
        self._keep(run.all_messages())
        assert run.result is not None
        return run.result.output

    async def stopped(self, seen: Partial) -> None:
        step = self._step
        if step is not None and (history := step.as_seen(seen)) is not None:
            self._keep(history, step.queue.waiting)
        elif self.begun:
            self._keep(repair_messages(self.messages), self.unsent)

    def _keep(self, messages: list[ModelMessage], unsent: Sequence[str] = (), *, begun: bool = False) -> None:
        self.messages, self.unsent, self.begun = list(messages), list(unsent), begun

    async def _decide(self, _: RunContext[Any], wanted: DeferredToolRequests) -> DeferredToolResults:
        """Ask people about the tools that wait for them."""

        async def approved(call: ToolCallPart) -> bool | ToolDenied:
            question = f"May it call {call.tool_name} with {call.args_as_json_str()}?"
            said = await self.proc.ask(question[:QUESTION], ["yes", "no"])
            return True if said == "yes" else ToolDenied("A person said no.")

        async def answered(call: ToolCallPart) -> Json:
            return await self.proc.ask(f"{call.tool_name}: {call.args_as_json_str()}"[:QUESTION])

        questions = [call for call in wanted.calls if wanted.kind(call.tool_call_id) == "question"]
        async with asyncio.TaskGroup() as group:
            approvals = {c.tool_call_id: group.create_task(approved(c)) for c in wanted.approvals}
            answers = {c.tool_call_id: group.create_task(answered(c)) for c in questions}
        return wanted.build_results(
            approvals={id: task.result() for id, task in approvals.items()},
            calls={id: task.result() for id, task in answers.items()},
        )


class Queue:
    """What came in for `next`, until a request to the model has it."""

    def __init__(self, run: AgentRun[Any, Any]) -> None:
        self._run = run
        self._texts: dict[str, str] = {}

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            if id := self._run.enqueue(text):
                self._texts[id] = text

    @property
    def waiting(self) -> list[str]:
        """What no request has yet."""
        pending = [message.enqueue_id for message in self._run.pending_messages]
        return [text for id, text in self._texts.items() if id in pending]


class Step:
    """A node of the framework's graph: what is shown of it, and what of it was seen."""

    def __init__(self, run: AgentRun[Any, Any], queue: Queue, node: Any, before: Step | None) -> None:
        self.queue = queue
        self._run, self._node = run, node
        self._request: ModelRequest | None = node.request if Agent.is_model_request_node(node) else None
        self._response: ModelResponse | None = node.model_response if Agent.is_call_tools_node(node) else None
        self._heard = False
        self._texts: dict[
            int, tuple[type[TextPart | ThinkingPart], str]
        ] = {}  # by index: what it is, its stream
        self._called: set[str] = set()
        self._returns: dict[str, ToolReturnPart] = {}
        self.uses_tools = self._response is not None and bool(self._response.tool_calls)
        #: whether somebody who goes on here need not do again what came before
        self.worth_saving = self.uses_tools or (before is not None and before.uses_tools)

    def so_far(self) -> list[ModelMessage]:
        """The history with which a run begins that goes on here."""
        return [*self._run.all_messages(), *([self._request] if self._request else [])]

    async def hear(self, proc: Process) -> None:
        """Let it be done, and show it."""
        node = self._node
        if self._request is not None:
            async with node.stream(self._run.ctx) as stream, Voices(proc) as voices:
                async for event in stream:
                    await self._hear_text(voices, event)
            self._heard = True
        elif self._response is not None:
            async with node.stream(self._run.ctx) as events:
                async for event in events:
                    await self._hear_tool(proc, event)

    async def _hear_text(self, voices: Voices, event: AgentStreamEvent) -> None:
        match event:
            case PartStartEvent(index=index, part=TextPart() | ThinkingPart() as part):
                await voices.end(index)  # one that this replaces
                kind: type[TextPart | ThinkingPart] = TextPart if isinstance(part, TextPart) else ThinkingPart
                name = voices.open(index, STREAMS[kind])
                self._texts[index] = (kind, name)
                await voices.say(index, part.content)
            case PartDeltaEvent(index=index, delta=TextPartDelta() | ThinkingPartDelta() as delta):
                await voices.say(index, delta.content_delta or "")
            case PartEndEvent(index=index):
                await voices.end(index)

    async def _hear_tool(self, proc: Process, event: AgentStreamEvent) -> None:
        match event:
            case ToolCallEvent(part=call):
                self._called.add(call.tool_call_id)
                await show_call(proc, call.tool_call_id, call.tool_name, call.args_as_dict())
            case ToolResultEvent(part=result):
                self._returns[result.tool_call_id] = result
                await show_result(proc, result.tool_call_id, result.tool_name, result.content, result.outcome)

    def as_seen(self, seen: Partial) -> list[ModelMessage] | None:
        """The history up to here, with what was seen of this step; None if it has not begun to answer."""
        run = self._run
        history = list(run.all_messages())
        while history and history[-1].run_id == run.run_id and history[-1].state != "complete":
            history.pop()  # as the framework has what it broke off
        if self._request is not None and not self._heard:
            return self._within_response(history, self._request, seen.streams)
        if self._request is None and self._response is None:
            return None
        return self._behind_response(
            history, {(e.type, e.data["id"]) for e in seen.events if "tool" in e.type}
        )

    def _within_response(
        self, history: list[ModelMessage], request: ModelRequest, streams: dict[str, str]
    ) -> list[ModelMessage]:
        at = next((i for i, message in enumerate(history) if message is request), len(history))
        asked = [request, *(m for m in history[at + 1 :] if isinstance(m, ModelRequest))]
        texts = [(kind, streams.get(name, "")) for _, (kind, name) in sorted(self._texts.items())]
        said = [self._new(ModelResponse, [kind(content=text) for kind, text in texts if text])]
        return [*history[:at], *asked, *(m for m in said if m.parts)]

    def _behind_response(
        self, history: list[ModelMessage], shown: set[tuple[str, str]]
    ) -> list[ModelMessage]:
        at = max(i for i, message in enumerate(history) if isinstance(message, ModelResponse))
        response = history[at]
        assert isinstance(response, ModelResponse)
        called = {id for id in self._called if ("tool_call", id) in shown}
        said = [p for p in response.parts if not isinstance(p, ToolCallPart) or p.tool_call_id in called]
        returns = [part for id, part in self._returns.items() if ("tool_result", id) in shown]
        return [
            *history[:at],
            *([replace(response, parts=said)] if said else []),
            *([self._new(ModelRequest, returns)] if called else []),
        ]

    def _new(self, kind: type[M], parts: Sequence[Any]) -> M:
        """A message of this run that was broken off."""
        return kind(
            parts, run_id=self._run.run_id, conversation_id=self._run.conversation_id, state="interrupted"
        )
