"""What clients of A2A send, as far as it matters here; the rest is ignored, as the protocol wants it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from natsproc.protocol.landing import When
from natsproc.protocol.messages import Json

_CONTENT = ("text", "raw", "url", "data")


def _one_content(part: dict[str, Any]) -> dict[str, Any]:
    found = [name for name in _CONTENT if name in part]
    if len(found) != 1 or (found != ["data"] and not isinstance(part[found[0]], str)):
        raise ValueError(f"a part has one of {', '.join(_CONTENT)}")
    return part


Part = Annotated[dict[str, Any], AfterValidator(_one_content)]


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such time") from None


class Metadata(BaseModel):
    when: When | None = None


class Message(BaseModel):
    messageId: Annotated[str, Field(min_length=1)]
    role: Literal["ROLE_USER"]
    parts: Annotated[list[Part], Field(min_length=1)]
    contextId: str = ""
    taskId: str = ""
    metadata: Metadata = Metadata()

    def data(self) -> Json:
        """As the process is given it: its text, or an object with that and all parts if there is more to it."""
        texts = [part["text"] for part in self.parts if "text" in part]
        return (
            texts[0]
            if len(self.parts) == len(texts) == 1
            else {"text": "\n".join(texts), "parts": self.parts}
        )

    def answer(self) -> tuple[Json, str | None]:
        """What it answers, and to which question: `data` is the value, or an object with `value` and `ask`; or text is."""
        data = next((part["data"] for part in self.parts if "data" in part), None)
        if isinstance(data, dict) and "value" in data:
            return data["value"], str(data["ask"]) if data.get("ask") else None
        return (self.data() if data is None else data), None


class Configuration(BaseModel):
    returnImmediately: bool = False
    historyLength: Annotated[int, Field(ge=0)] | None = None
    taskPushNotificationConfig: Any = None


class SendParams(BaseModel):
    message: Message
    configuration: Configuration = Configuration()


class TaskParams(BaseModel):
    id: str
    historyLength: Annotated[int, Field(ge=0)] | None = None


class ListParams(BaseModel):
    contextId: str = ""
    status: str = ""
    pageSize: Annotated[int, Field(ge=1, le=100)] = 50
    pageToken: str = ""
    historyLength: Annotated[int, Field(ge=0)] | None = None
    statusTimestampAfter: Annotated[datetime, AfterValidator(_in_utc)] | None = None
    includeArtifacts: bool = False
