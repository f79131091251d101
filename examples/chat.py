"""A chat agent with an address: stopped and steered mid-answer, it remembers what you saw; it survives kill -9.

    python examples/chat.py                       # in one terminal; kill -9 it, and start it again five seconds later
    natsproc attach chat                          # in another: every line that you type is sent
    natsproc send chat "tell me about tides"
    natsproc interrupt chat                       # stop this answer
    natsproc interrupt chat -m "no, waves"        # stop it, and answer this instead
    natsproc send chat --when now "no, waves"     # the same, as a message
    natsproc send chat "note: buy milk"           # it asks first: natsproc answer chat yes

The model is any OpenAI-compatible endpoint (OPENAI_BASE_URL, OPENAI_API_KEY, CHAT_MODEL), or a scripted one
(chat_models.py). The one tool that it has, `note`, adds a line to notes.txt, and only if a person said yes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chat_models import Conversation, Model, Said, ToolCall, choose_model

import natsproc

NOTES = Path("notes.txt")


@natsproc.process(kind="chat", state=Conversation, allow=("idle", "next", "now"))
async def chat(proc: natsproc.Process, model: Model) -> None:
    """Answer one message after the other, for ever; a stopped answer is remembered as far as it was seen."""
    talk: Conversation = proc.state or Conversation()
    if proc.state is None:
        await proc.checkpoint(talk)  # the first message, too, comes again if we are killed while we answer it
    await proc.log(f"{model.name}; {len(talk.said)} things said so far")
    async for message in proc.inbox():
        asked: natsproc.Message | None = message
        while asked is not None:
            asked = await exchange(proc, model, talk, asked)
        await proc.checkpoint(talk)  # what was said and what was read, together


async def exchange(
    proc: natsproc.Process, model: Model, talk: Conversation, asked: natsproc.Message
) -> natsproc.Message | None:
    """Answer one message. Returns the next one, if somebody stopped the answer by saying something else."""
    talk.said.append(Said(role="user", content=text_of(asked.data)))
    new: list[Said] = []
    try:
        async with proc.turn(asked) as turn:
            await answer(proc, turn, model, talk, new)
    except natsproc.Interrupted as stop:
        seen = stop.partial.text if stop.partial else ""
        talk.said.append(Said(role="assistant", content=f"{seen} [stopped by {stop.sender}]".lstrip()))
        if stop.received is None and stop.message is not None:
            return natsproc.Message(stop.command, stop.sender, stop.message)
        return stop.received
    talk.said += new
    return None


async def answer(
    proc: natsproc.Process, turn: natsproc.Turn, model: Model, talk: Conversation, new: list[Said]
) -> None:
    """Let the model speak, and use its tool, until it has said all; what it says is added to `new`."""
    while True:
        calls: list[ToolCall] = []
        async with proc.stream("answer") as stream:
            async for piece in model.speak([*talk.said, *new]):
                if isinstance(piece, ToolCall):
                    calls.append(piece)
                else:
                    await stream.token(piece)
            new.append(Said(role="assistant", content=stream.text, calls=calls))
        for call in calls:
            new.append(Said(role="tool", content=await use(proc, call), call=call.id))
        more = await turn.boundary()  # said meanwhile, for the next step of this answer
        new += [Said(role="user", content=text_of(message.data)) for message in more]
        if not calls and not more:
            return


async def use(proc: natsproc.Process, call: ToolCall) -> str:
    """Do what the model wants done, if a person agrees; returns what the model is told."""
    text = str(call.arguments.get("text", ""))
    if call.name != "note" or not text:
        return f"there is no tool {call.name} that takes {call.arguments}"
    if await proc.ask(f"Write {text!r} into {NOTES}?", choices=["yes", "no"]) != "yes":
        return "a person said no"
    await asyncio.to_thread(write_note, text)
    return "written"


def write_note(text: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{text}\n")


def text_of(data: object) -> str:
    """What a message says: text, or the `text` of an object."""
    return str(data.get("text", data) if isinstance(data, dict) else data)


if __name__ == "__main__":
    natsproc.run(chat, choose_model(), id=sys.argv[1] if len(sys.argv) > 1 else "chat")
