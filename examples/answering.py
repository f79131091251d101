"""Text that streams under an address, is stopped and redirected mid-answer, and goes on with the next question.

    python examples/answering.py                        # in one terminal
    natsproc tail answering                             # in another; with --compact, one event an answer
    natsproc send answering "what is a bus?"
    natsproc interrupt answering -m "shorter, please"   # stops this answer, not the conversation
    natsproc cancel answering

The answers are read aloud from Python's own documentation, as a stand-in for a model that speaks word by word.
"""

from __future__ import annotations

import asyncio
import inspect

import natsproc


def words(question: str) -> list[str]:
    """What there is to say: the documentation of a module that the question names, or else of asyncio's queues."""
    topics = {"bus": asyncio.Queue, "wait": asyncio.Event, "task": asyncio.Task}
    topic = next((thing for name, thing in topics.items() if name in question), asyncio.Lock)
    return (inspect.getdoc(topic) or "").split()


@natsproc.process
async def answering(proc: natsproc.Process) -> None:
    """Answer one question after the other."""
    question, longest = "", 200
    while True:
        question = question or str((await proc.receive()).data)
        try:
            async with proc.interruptible(), proc.stream("answer") as answer:
                for word in words(question)[:longest]:
                    await answer.token(word + " ")
                    await asyncio.sleep(0.05)
            question = ""
        except natsproc.Interrupted as stop:
            longest = 5
            await proc.log(f"{stop.sender} interrupted: {stop.message or stop.reason or 'no reason'}")
            question = question if stop.message else ""


if __name__ == "__main__":
    try:
        natsproc.run(answering, id="answering", restart=True)
    except natsproc.Error as error:
        raise SystemExit(f"natsproc: {error}") from None
