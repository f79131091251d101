"""A pydantic-ai agent under an address. Offline it is the framework's own test model, or name a real one.

python examples/agent_pydantic_ai.py                           # in one terminal; kill -9 it, and start it again
python examples/agent_pydantic_ai.py --model openai:gpt-5      # pip install 'pydantic-ai-slim[openai]'
natsproc attach agent                                          # in another: every line that you type is sent
natsproc send agent "note: buy milk"                           # it asks first: natsproc answer agent yes
natsproc interrupt agent -m "no, coffee"                       # stop it, and say this instead
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

import natsproc
from natsproc.agents.pydantic_ai import converse

agent = Agent(instructions="Answer in one sentence.")


@agent.tool_plain(requires_approval=True)
async def note(text: str) -> str:
    """Remember something."""
    return f"noted: {text}"


async def offline(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Say again what was said, word by word; a `note: …` is a use of the tool."""
    last = messages[-1].parts[-1]
    said = str(last.content) if isinstance(last, UserPromptPart | ToolReturnPart) else ""
    if isinstance(last, UserPromptPart) and said.startswith("note: "):
        yield {0: DeltaToolCall("note", f'{{"text": "{said[6:]}"}}', tool_call_id=f"note-{len(messages)}")}
        return
    for word in f"After {len(messages)} messages you tell me: {said}".split():
        yield f"{word} "
        await asyncio.sleep(0.3)


async def main(id: str, model: str | None) -> None:
    async with (
        natsproc.connect(start=True) as mesh,
        mesh.own(id, kind="chat", allow=("idle", "next", "now")) as proc,
    ):
        await converse(proc, agent, model=model or FunctionModel(stream_function=offline))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("id", nargs="?", default="agent")
    options.add_argument("--model")
    chosen = options.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main(chosen.id, chosen.model))
    except natsproc.Cancelled:
        sys.exit(natsproc.Cancelled.code)
    except natsproc.Error as error:
        sys.exit(f"natsproc: {error}")
