"""The agent: any of pydantic-ai's. `CHAT_MODEL=openai:gpt-5` names a model; offline it is a script that answers slowly."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

agent = Agent(instructions="Answer in a few sentences.")


@agent.tool_plain(requires_approval=True)
async def note(text: str) -> str:
    """Write something into the user's notes; a person is asked first."""
    return f"noted: {text}"


async def offline(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Count, use the tool, repeat what the user has said so far, or say what it can."""
    said = said_by_user(messages)
    last, asked = messages[-1].parts[-1], said[-1] if said else ""
    if isinstance(last, ToolReturnPart):
        answer = f"The tool says: {last.content}"
    elif asked.startswith("note: "):
        text = json.dumps({"text": asked[6:]})
        yield {0: DeltaToolCall("note", text, tool_call_id=f"note-{len(messages)}")}
        return
    elif asked.startswith("count to "):
        answer = " ".join(map(str, range(1, int(asked.split()[2]) + 1)))
    elif asked == "what have I said?":
        answer = "; ".join(said)
    else:
        answer = f"“{asked}”? I can “count to 100”, take a “note: buy milk”, and tell “what have I said?”"
    for word in answer.split(" "):
        await asyncio.sleep(0.05)
        yield f"{word} "


def said_by_user(messages: Sequence[ModelMessage]) -> list[str]:
    """All that the user has said, as the history has it."""
    found: list[str] = []
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, UserPromptPart):
            found += [part.content] if isinstance(part.content, str) else map(str, part.content)
    return found


model = os.environ.get("CHAT_MODEL") or FunctionModel(stream_function=offline)
