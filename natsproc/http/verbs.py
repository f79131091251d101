"""What is posted: messages and commands. A body is a JSON object, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from natsproc.handle import GRACE_SECONDS, ProcessHandle
from natsproc.protocol.landing import When
from natsproc.protocol.messages import Receipt, decode

from . import responses
from .access import Actor
from .problems import Problem
from .request import Receive, Request, Send, read_json
from .routes import Right

MOST_SECONDS: Final = 300.0  #: that a request waits for a receipt or a reply
MOST_HOLD_SECONDS: Final = 10 * 365 * 86400.0  #: that a command is kept
MARGIN_SECONDS: Final = 5.0  #: behind the grace time of a cancel

Id = Annotated[
    str | None,
    Field(max_length=128, min_length=1, description="Sent again with the same id, it changes nothing."),
]
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
Reason = Annotated[str, Field(max_length=10_000, description="For people; it is in the log.")]


class Body(BaseModel):
    """What is posted."""

    model_config = ConfigDict(extra="forbid", title="None")
    id: Id = None


class Send_(Body):
    """A message for its inbox."""

    model_config = ConfigDict(extra="forbid", title="Send")
    data: Any = Field(description="The message: any JSON.")
    when: When | None = Field(None, description="When it is to land while the process is in a turn.")
    wait: bool = Field(False, description="Answer only when the process has taken it.")
    timeout: Seconds = 30.0


class Asking(Body):
    """A message that is replied to."""

    model_config = ConfigDict(extra="forbid", title="Request")
    data: Any = Field(description="The message: any JSON.")
    timeout: Seconds = 30.0


class Command(Body):
    """A command."""

    model_config = ConfigDict(extra="forbid", title="Command")
    reason: Reason = ""
    epoch: int | None = Field(None, description="Good for this epoch only.")
    hold: float = Field(
        0.0,
        ge=0,
        le=MOST_HOLD_SECONDS,
        description="Seconds for which it is kept if nobody serves the process now.",
    )
    timeout: Seconds = 5.0

    def fields(self) -> dict[str, Any]:
        """What the command itself says."""
        return {"reason": self.reason}


class Answer(Command):
    """An answer to what it asks."""

    model_config = ConfigDict(extra="forbid", title="Answer")
    value: Any = Field(description="One of the choices, if there are any.")
    ask: str | None = Field(None, description="Which question; may be left out where there is one.")

    def fields(self) -> dict[str, Any]:
        named = {} if self.ask is None else {"ask": self.ask}
        return super().fields() | {"data": {"value": self.value, **named}}


class Interrupt(Command):
    """Stop what it does now, and say what to do instead."""

    model_config = ConfigDict(extra="forbid", title="Interrupt")
    message: Any = Field(None, description="What to do instead: any JSON.")
    turn: int | None = Field(None, description="Good for the turn only that began at this offset.")
    hard: bool = Field(False, description="Reach code that never awaits, too.")

    def fields(self) -> dict[str, Any]:
        return super().fields() | {"message": self.message, "turn": self.turn, "hard": self.hard}


class Cancel(Command):
    """End it, with time to tidy up."""

    model_config = ConfigDict(extra="forbid", title="Cancel")
    grace: float = Field(GRACE_SECONDS, ge=0, le=MOST_SECONDS - MARGIN_SECONDS)
    timeout: Seconds | None = None  # type: ignore[assignment]  # its grace time and five seconds, unless said

    def fields(self) -> dict[str, Any]:
        return super().fields() | {"grace": self.grace}


class Kill(Command):
    """End it at once."""

    model_config = ConfigDict(extra="forbid", title="Kill")
    timeout: Seconds = 15.0


BODIES: Final[Mapping[str, type[Body]]] = {
    "send": Send_,
    "request": Asking,
    "answer": Answer,
    "interrupt": Interrupt,
    "pause": Command,
    "resume": Command,
    "cancel": Cancel,
    "kill": Kill,
}
"""What each verb takes."""

STATUSES: Final[Mapping[str, int]] = {
    "applied": 200,
    "unconfirmed": 202,
    "accepted": 202,
    "refused": 409,
    "too_late": 409,
}
"""By what a receipt says."""


async def body_of(verb: str, request: Request, receive: Receive) -> Body:
    """Read what was posted. Raises: Problem (413, 415, 422)."""
    raw = await read_json(request, receive)
    value = decode(raw, "the body") if raw.strip() else {}
    try:
        return BODIES[verb].model_validate(value)
    except ValidationError as error:
        found = [{"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
        text = "; ".join(f"{e['field'] or 'the body'}: {e['problem']}" for e in found)
        raise Problem(422, f"{verb} cannot be done with this: {text}", errors=found) from None


def more_rights(body: Body) -> tuple[Right, ...]:
    """What the poster has to be allowed besides: what lands now interrupts, and what becomes of a message is in the log."""
    now = isinstance(body, Send_) and body.when == "now"
    sees = isinstance(body, Asking) or (isinstance(body, Send_) and body.wait)
    more: list[Right] = []
    if now:
        more.append("control")
    if sees:
        more.append("watch")
    return tuple(more)


async def do(verb: str, body: Body, actor: Actor, handle: ProcessHandle, send: Send) -> None:
    """Do what was posted, and say what came of it. Raises: Problem (409), Error."""
    if isinstance(body, Send_):
        await _send(body, actor, handle, send)
    elif isinstance(body, Asking):
        said = await handle.request(body.data, timeout=body.timeout, id=body.id, user=actor.user)
        await responses.reply(send, {"process": str(handle.address), "reply": said})
    elif isinstance(body, Command):
        await _command(verb, body, actor, handle, send)


async def _send(body: Send_, actor: Actor, handle: ProcessHandle, send: Send) -> None:
    if body.wait:
        handle.insist_on_watching()
    sent = await handle.send(body.data, id=body.id, when=body.when, user=actor.user)
    said = {"id": sent.id, "position": sent.position, "duplicate": sent.duplicate}
    if body.wait:
        taken = await sent.consumed(timeout=body.timeout)
        said |= {"offset": taken.offset, "run": taken.run, "when": taken.when}
    await responses.reply(send, said, status=200 if body.wait else 202)


async def _command(verb: str, body: Command, actor: Actor, handle: ProcessHandle, send: Send) -> None:
    timeout = body.timeout
    if isinstance(body, Cancel):
        timeout = body.timeout or body.grace + MARGIN_SECONDS
    receipt = await handle.command(
        verb, timeout=timeout, hold=body.hold, id=body.id, epoch=body.epoch, user=actor.user, **body.fields()
    )
    status = STATUSES[receipt.status]
    if status == 409:
        raise Problem(409, f"{handle.address}: {_why(receipt)}", receipt=receipt.to_json())
    await responses.reply(send, receipt.to_json(), status=status)


def _why(receipt: Receipt) -> str:
    return f"{receipt.verb} {receipt.status.replace('_', ' ')}" + (f": {receipt.why}" if receipt.why else "")
