"""The models that chat.py talks to: an OpenAI-compatible endpoint, or a script for where there is none."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from pydantic import BaseModel

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "note",
            "description": "Write a line into the user's notes. A person is asked first.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
    }
]


class ToolCall(BaseModel):
    """Something that the model wants done."""

    id: str
    name: str
    arguments: dict[str, Any]


class Said(BaseModel):
    """One part of a conversation."""

    role: str  # user, assistant or tool
    content: str
    calls: list[ToolCall] = []
    call: str = ""  # of a tool's answer: which call it answers


class Conversation(BaseModel):
    """All that was said: the agent's whole state."""

    said: list[Said] = []


class Model(Protocol):
    """Whatever goes on with a conversation."""

    name: str

    def speak(self, said: Sequence[Said]) -> AsyncIterator[str | ToolCall]:
        """Give the next answer piece by piece."""


def choose_model() -> Model:
    """The endpoint that the environment names, or the script."""
    if url := os.environ.get("OPENAI_BASE_URL"):
        return Endpoint(
            url, os.environ.get("OPENAI_API_KEY", ""), os.environ.get("CHAT_MODEL", "gpt-4o-mini")
        )
    return Script()


class Script:
    """A model without a model: it says long sentences slowly, and quotes itself when asked what it said."""

    name = "a scripted model, since OPENAI_BASE_URL names none"

    async def speak(self, said: Sequence[Said]) -> AsyncIterator[str | ToolCall]:
        last = said[-1]
        if last.role == "tool":
            sentence = f"The note: {last.content}."
        elif last.content.startswith("note:"):
            yield ToolCall(id=f"call-{len(said)}", name="note", arguments={"text": last.content[5:].strip()})
            return
        elif last.content == "what did you say?":
            sentence = next(
                (s.content for s in reversed(said[:-1]) if s.role == "assistant"), "nothing so far"
            )
        else:
            sentence = f"About {last.content}: " + " ".join(f"sentence {n} of it." for n in range(1, 41))
        for word in sentence.split(" "):
            await asyncio.sleep(0.02)
            yield f"{word} "


class Endpoint:
    """Any server that speaks OpenAI's chat completions, streamed."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self.name = f"{model} at {url}"
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._key = key
        self._model = model

    async def speak(self, said: Sequence[Said]) -> AsyncIterator[str | ToolCall]:
        import aiohttp

        body = {
            "model": self._model,
            "messages": [_message(part) for part in said],
            "tools": TOOLS,
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        calls: dict[int, dict[str, str]] = {}
        async with (
            aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
            session.post(self._url, json=body) as answer,
        ):
            async for line in answer.content:
                data = line.decode().strip().removeprefix("data:").strip()
                if not line.startswith(b"data:") or data == "[DONE]":
                    continue
                for choice in json.loads(data).get("choices", []):
                    delta = choice.get("delta") or {}
                    if text := delta.get("content"):
                        yield text
                    for part in delta.get("tool_calls") or []:
                        _gather(
                            calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""}), part
                        )
        for call in calls.values():
            yield ToolCall(id=call["id"], name=call["name"], arguments=json.loads(call["arguments"] or "{}"))


def _message(part: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": part.role, "content": part.content}
    if part.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in part.calls
        ]
    return message | ({"tool_call_id": part.call} if part.call else {})


def _gather(call: dict[str, str], part: dict[str, Any]) -> None:
    """A tool call comes in pieces, too."""
    call["id"] += part.get("id") or ""
    function = part.get("function") or {}
    for name in ("name", "arguments"):
        call[name] += function.get(name) or ""
