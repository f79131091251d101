"""What a process can say, and the shape of the event that each becomes; one way for loops, one for threads.

Everything goes through `emit`, which differs: into the log itself, or through the socket of a wrapper.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar

from natsproc.errors import BadPayload
from natsproc.protocol.messages import Json, Message

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


def typed(type: str | BaseModel, data: Json) -> tuple[str, Json]:
    """The event type and data of what `emit` was given: a model's type is its class name in snake case."""
    if isinstance(type, str):
        return type, data
    name = type.__class__.__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name)), type


def output_data(text: str | bytes, stream: str) -> dict[str, str]:
    """The data of an `output` event; bytes that are not text travel as base64."""
    if isinstance(text, str):
        return {"stream": stream, "text": text}
    try:
        return {"stream": stream, "text": text.decode()}
    except UnicodeDecodeError:
        return {"stream": stream, "base64": base64.b64encode(text).decode()}


def progress_data(done: float, total: float | None, text: str) -> dict[str, Any]:
    """The data of a `progress` event."""
    return {"done": done} | ({} if total is None else {"total": total}) | ({"text": text} if text else {})


def metric_data(values: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """The data of a `metric` event: numbers of Python's, NumPy's or PyTorch's. Raises: BadPayload."""
    data: dict[str, float] = {}
    for name, value in values.items():
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            data[name] = value if isinstance(value, int | float) else float(value)
        except (TypeError, ValueError):
            raise BadPayload(f"metric {name!r} is {value!r:.80}: a metric is a number") from None
    return data


def as_model(message: Message, model: type[M] | None) -> Message:
    """The message with its data as `model`, if one is given. Raises: BadPayload."""
    if model is None:
        return message
    try:
        return replace(message, data=model.model_validate(message.data))
    except ValueError as error:
        raise BadPayload(
            f"message {message.id} from {message.sender} is no {model.__name__}: {error}"
        ) from None


class Speaking(ABC):
    """Events of natsproc's own shapes, in coroutines. All return the event's offset."""

    @abstractmethod
    async def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int: ...

    async def output(self, text: str | bytes, stream: str = "stdout") -> int:
        """Write text, or bytes, as a program would to `stream`."""
        return await self.emit("output", output_data(text, stream))

    async def log(self, text: str, level: str = "info", **fields: Json) -> int:
        """Write a line for people, with any further fields for programs."""
        return await self.emit("log", {"level": level, "text": text, **fields})

    async def progress(self, done: float, total: float | None = None, text: str = "") -> int:
        """Say how far it is: `done` of `total` units, and what it is at."""
        return await self.emit("progress", progress_data(done, total, text))

    async def metric(self, **values: SupportsFloat) -> int:
        """Write named numbers, as in `await proc.metric(loss=0.31, accuracy=0.9)`. Raises: BadPayload, too."""
        return await self.emit("metric", metric_data(values))

    async def message(self, data: Json) -> int:
        """Write something that the process has to say, of any shape."""
        return await self.emit("message", data)


class BlockingSpeaking(ABC):
    """The blocking twin of `Speaking`."""

    @abstractmethod
    def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int: ...

    def output(self, text: str | bytes, stream: str = "stdout") -> int:
        """See `Speaking.output`."""
        return self.emit("output", output_data(text, stream))

    def log(self, text: str, level: str = "info", **fields: Json) -> int:
        """See `Speaking.log`."""
        return self.emit("log", {"level": level, "text": text, **fields})

    def progress(self, done: float, total: float | None = None, text: str = "") -> int:
        """See `Speaking.progress`."""
        return self.emit("progress", progress_data(done, total, text))

    def metric(self, **values: SupportsFloat) -> int:
        """See `Speaking.metric`."""
        return self.emit("metric", metric_data(values))

    def message(self, data: Json) -> int:
        """See `Speaking.message`."""
        return self.emit("message", data)
