"""What goes over the wire, as small immutable classes with their JSON forms. Protocol: sections 2 to 6.

JSON by pydantic_core, which is a dependency already and four times as fast as `json`. Unknown fields are
kept or ignored, never an error: a newer natsproc may share the mesh.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Final, Literal, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from natsproc.errors import BadPayload

from .names import Address

Json = Any

_LONG, _DEEP = 4000, 150  # below either, a value can be read back
_AROUND = 8  # levels that whatever carries the value may add

TYPE: Final = 64  #: characters of the type of an event
USER: Final = 200  #: characters of the name of a user for whom a sender asks

MARK: Final = "mark"
EXITED: Final = "exited"
COMMAND: Final = "command"  #: the kind of message that holds a command
KINDS: Final = frozenset({"message", COMMAND, "eof", "keys", "resize"})
"""Of messages; those of another kind are for a newer version."""

MOST: Final = 2**53 - 1
"""No epoch, run or offset is above that: not every language has larger whole numbers."""

LIFECYCLE: Final = frozenset(
    {
        "mark", "started", "restarted", "recovered", "paused", "resumed", "interrupted", "cancelled", "killed",
        "refused", "received", "replied", "turn_began", "turn_ended", "asked", "answered", "checkpointed", "dropped",
        "failed", "exited",
    }
)  # fmt: skip
"""Event types that only natsproc writes."""

NOTICES: Final = frozenset({"gap", "takeover", "caught_up", "unreachable", "ended"})
"""Types of what a reader says by itself; no event may use one."""


def encode(value: Json, what: str = "data") -> bytes:
    """Write any JSON value as bytes, and what pydantic makes one of. Raises: BadPayload.

    Models, dataclasses and mappings become objects; lists, tuples, sets, deques and generators arrays; datetimes, dates
    and times ISO 8601 text, timedeltas its durations; bytes the text that they are in UTF-8 (or else BadPayload); UUIDs,
    paths, URLs, decimals, NaN and the infinities text; enums their values. An object's keys become text.
    """
    try:
        payload = to_json(value, inf_nan_mode="strings")
        # What is written and cannot be read (200 levels, 4300 digits) would be a hole in the log for ever.
        size = len(payload)
        if size > _DEEP and (size > _LONG or payload.count(b"[") + payload.count(b"{") > _DEEP):
            from_json(b"[" * _AROUND + payload + b"]" * _AROUND)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise BadPayload(f"{what} cannot be sent as JSON: {error}") from None
    return payload


def decode(payload: bytes, what: str = "message") -> Json:
    """Read JSON from bytes. Raises: BadPayload."""
    try:
        return from_json(payload)
    except ValueError as error:
        raise BadPayload(f"{what} is not JSON: {error}") from None


def decode_object(payload: bytes, what: str = "message") -> dict[str, Any]:
    """Read a JSON object from bytes. Raises: BadPayload."""
    value = decode(payload, what)
    if not isinstance(value, dict):
        raise BadPayload(f"{what} is not a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class Cursor:
    """From where a tail goes on: the entry shown last. Its text is opaque to everyone else."""

    position: int  #: sequence in the event stream
    epoch: int
    run: int
    offset: int

    def __str__(self) -> str:
        raw = f"1.{self.position}.{self.epoch}.{self.run}.{self.offset}"
        return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote. Raises: BadPayload."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            version, *numbers = raw.split(".")
            position, epoch, run, offset = (int(number) for number in numbers)
        except (ValueError, binascii.Error):
            version = ""
        if version != "1" or min(position, epoch, run, offset) < 0:
            raise BadPayload(f"{text[:40]!r} is not a cursor; take one from `natsproc tail -o json`")
        return cls(position, epoch, run, offset)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a process's log that counts."""

    offset: int  #: 1, 2, 3 … without holes, across epochs and runs
    epoch: int
    run: int
    time: str  #: the owner's clock, RFC 3339, UTC, milliseconds
    type: str
    data: Json = None
    cause: str | None = None  #: id of the command or message that led to it
    position: int = 0  #: sequence in the event stream; 0 until it is read from there
    address: Address | None = None

    @property
    def cursor(self) -> str:
        """The token with which a tail goes on behind this event."""
        return str(Cursor(self.position, self.epoch, self.run, self.offset))

    @property
    def terminal(self) -> bool:
        """Whether this event ends its run."""
        return self.type == EXITED

    def to_json(self) -> dict[str, Any]:
        """The form that `natsproc tail -o json` prints."""
        line: dict[str, Any] = {
            "offset": self.offset,
            "epoch": self.epoch,
            "run": self.run,
            "time": self.time,
            "type": self.type,
            "data": self.data,
        }
        if self.cause is not None:
            line["cause"] = self.cause
        line["cursor"] = self.cursor
        return line


def unfrozen(kind: type) -> Any:
    """A class with the slots of a frozen one, to make objects of, by place and without defaults, that then become `kind`.

    That takes a third of the time: a frozen one's fields cost a call each to set.
    """
    return make_dataclass(
        f"_{kind.__name__}", [field.name for field in fields(kind)], slots=True, repr=False, eq=False
    )


_Unfrozen = unfrozen(Event)


def next_event(
    payload: bytes, epoch: int, offset: int | None, position: int, address: Address | None
) -> Event | None:
    """Read an entry if it is the event of that epoch and offset and ends nothing: as `Entry.parse`, for half the price."""
    try:
        raw = from_json(payload, allow_inf_nan=False)
        run, kind, offset_there = raw["run"], raw["type"], raw["offset"]
        if (
            offset_there == offset
            and raw["epoch"] == epoch
            and type(offset_there) is type(raw["epoch"]) is type(run) is int
            and 0 < epoch <= MOST
            and 0 < offset_there <= MOST
            and -MOST <= run <= MOST
            and type(kind) is str
            and kind != MARK
            and kind != EXITED
        ):
            get = raw.get
            event: Event = _Unfrozen(
                offset, epoch, run, str(get("time", "")), kind, get("data"), get("cause"), position, address
            )
            event.__class__ = Event
            return event
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


@dataclass(frozen=True, slots=True)
class Notice:
    """What the reader itself has to say: never stored, never numbered."""

    type: Literal["gap", "takeover", "caught_up", "unreachable", "ended"]
    data: dict[str, Any] = field(default_factory=dict)
    address: Address | None = None
    cursor: str = ""  #: of the event before it

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "data": self.data, "cursor": self.cursor}


class Entry(NamedTuple):
    """One stored message on an events subject, before anyone decided whether it counts.

    A mark has offset 0. An entry that cannot be read as one of ours has epoch 0 and so never counts.
    """

    epoch: int
    run: int
    offset: int
    time: str
    type: str
    data: Json
    cause: str | None = None

    @classmethod
    def parse(cls, payload: bytes) -> Entry:
        """Read an entry; garbage becomes an entry that cannot count, never an exception."""
        try:
            raw = from_json(payload, allow_inf_nan=False)
            epoch, run, offset = raw["epoch"], raw["run"], raw.get("offset", 0)
            if not (type(epoch) is type(run) is type(offset) is int):
                epoch, run, offset = map(_whole, (epoch, run, offset))
            if not (0 < epoch <= MOST and 0 <= offset <= MOST and -MOST <= run <= MOST):
                return UNREADABLE
            kind = raw["type"]
            if not isinstance(kind, str) or (kind == MARK) != (offset == 0):
                return UNREADABLE
            return cls(epoch, run, offset, str(raw.get("time", "")), kind, raw.get("data"), raw.get("cause"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return UNREADABLE

    @property
    def is_mark(self) -> bool:
        return self.type == MARK

    def event(self, position: int, address: Address | None = None) -> Event:
        epoch, run, offset, time, kind, data, cause = self
        event: Event = _Unfrozen(offset, epoch, run, time, kind, data, cause, position, address)
        event.__class__ = Event
        return event


def _whole(number: Json) -> int:
    """A whole number, however it is written: not every language tells 7 from 7.0. Raises: ValueError, TypeError."""
    if type(number) not in (int, float) or number % 1 != 0:  # which an infinite one is, too
        raise ValueError(number)
    return int(number)


UNREADABLE: Final = Entry(0, 0, 0, "", "unreadable", None)


def encode_type(type: str) -> bytes:
    """The type of a user's event as JSON. Raises: BadPayload."""
    if not isinstance(type, str) or not type.isprintable() or not 0 < len(type) <= TYPE:
        raise BadPayload(f"{type!r:.80} cannot be an event type: 1 to {TYPE} printable characters")
    if type in LIFECYCLE or type in NOTICES:
        raise BadPayload(f"event type {type!r} is natsproc's own; name yours otherwise")
    return encode(type)


def encode_frame(epoch: int, run: int, time: str) -> bytes:
    """Write what all events of an epoch have in common that are of one time, for `encode_event`."""
    return b'"epoch":%d,"run":%d,"time":"%b"' % (epoch, run, time.encode())


def encode_event(offset: int, frame: bytes, kind: bytes, data: bytes, cause: bytes = b"") -> bytes:
    """Write an event from its frame, and parts that are JSON already (`kind` and `cause` with their quotes)."""
    if cause:
        return b'{"offset":%d,%b,"type":%b,"data":%b,"cause":%b}' % (offset, frame, kind, data, cause)
    return b'{"offset":%d,%b,"type":%b,"data":%b}' % (offset, frame, kind, data)


def encode_mark(epoch: int, run: int, time: str, nonce: str, node: str) -> bytes:
    """Write the mark that makes an epoch's place in the log."""
    return encode(
        {"epoch": epoch, "run": run, "time": time, "type": MARK, "data": {"nonce": nonce, "node": node}}
    )


def _check_sender(raw: dict[str, Any], sender: str) -> None:
    """Whose it is is in the subject, which the server pins; a payload that says otherwise lies. Raises: BadPayload."""
    if (claimed := raw.get("sender", sender)) != sender:
        raise BadPayload(f"it says that its sender is {claimed!r}, and was sent as {sender!r}")


def _user(raw: dict[str, Any]) -> str:
    return str(raw.get("user") or "")[:USER]


@dataclass(frozen=True, slots=True)
class Command:
    """What a controller asks of an owner. Protocol: section 5."""

    id: str
    verb: str  #: ping inspect interrupt pause resume cancel kill answer
    sender: str = ""  #: the subject's last token; never from the payload
    reason: str = ""
    message: Json = None
    epoch: int | None = None  #: valid for this epoch only
    turn: int | None = None  #: valid for this turn only, which is the offset of its first event
    hard: bool = False
    grace: float | None = None  #: seconds between asking and forcing
    data: dict[str, Any] = field(default_factory=dict)
    user: str = ""  #: for whom the sender asks, by its word alone

    def to_json(self) -> dict[str, Any]:
        raw: dict[str, Any] = {"id": self.id, "verb": self.verb}
        for name in ("message", "epoch", "turn", "grace"):
            if (value := getattr(self, name)) is not None:
                raw[name] = value
        for name in ("reason", "data", "user"):
            if value := getattr(self, name):
                raw[name] = value
        if self.hard:
            raw["hard"] = True
        return raw

    @classmethod
    def parse(cls, payload: bytes, sender: str) -> Command:
        """Read a command that came under `sender`. Raises: BadPayload."""
        raw = decode_object(payload, "command")
        _check_sender(raw, sender)
        try:
            grace, epoch, data = raw.get("grace"), raw.get("epoch"), raw.get("data") or {}
            turn = raw.get("turn")
            if not isinstance(data, dict) or not isinstance(raw["id"], str) or len(raw["id"]) > 128:
                raise BadPayload("command has a bad id or data")
            if grace is not None and not 0 <= float(grace) < float("inf"):
                raise BadPayload(f"command has a grace time of {grace!r} seconds")
            return cls(
                id=raw["id"],
                verb=str(raw["verb"]),
                sender=sender,
                reason=str(raw.get("reason", "")),
                message=raw.get("message"),
                epoch=None if epoch is None else int(epoch),
                turn=None if turn is None else int(turn),
                hard=bool(raw.get("hard", False)),
                grace=None if grace is None else float(grace),
                data=data,
                user=_user(raw),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadPayload(f"command is not one of ours: {error!r}") from None


Status = Literal["accepted", "applied", "refused", "too_late", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command inside the process that it was meant for."""

    status: Status = "applied"
    why: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a command: first `accepted` by the node, then what became of it."""

    command: str  #: id of the command
    verb: str
    status: Status
    why: str = ""  #: for people: why it was refused or too late, or what is not certain
    sender: str = ""  #: as whom the owner saw the controller
    node: str = ""
    epoch: int = 0
    offset: int = 0  #: the event that records it; 0 where the log need not know (ping, inspect)
    data: dict[str, Any] = field(default_factory=dict)
    verified: bool = True  #: whether the server holds senders to their names, as far as the owner knows

    @property
    def applied(self) -> bool:
        return self.status == "applied"

    def to_json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "verb": self.verb,
            "status": self.status,
            "why": self.why,
            "sender": self.sender,
            "node": self.node,
            "epoch": self.epoch,
            "offset": self.offset,
            "data": self.data,
            **({} if self.verified else {"verified": False}),
        }

    @classmethod
    def parse(cls, payload: bytes) -> Receipt:
        """Read a receipt; a status of a newer version counts as `refused`. Raises: BadPayload."""
        raw = decode_object(payload, "receipt")
        try:
            status = raw["status"]
            known = status in ("accepted", "applied", "refused", "too_late", "unconfirmed")
            return cls(
                command=str(raw["command"]),
                verb=str(raw["verb"]),
                status=status if known else "refused",
                why=str(raw.get("why", "")) if known else f"unknown status {status!r}",
                sender=str(raw.get("sender", "")),
                node=str(raw.get("node", "")),
                epoch=int(raw.get("epoch", 0)),
                offset=int(raw.get("offset", 0)),
                data=raw.get("data") or {},
                verified=bool(raw.get("verified", True)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadPayload(f"receipt is not one of ours: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Message:
    """Something sent to a process's inbox. `position` orders it, per sender."""

    id: str
    sender: str
    data: Json
    time: str = ""
    position: int = 0
    kind: str = "message"  #: `message`, or `eof` for the end of a wrapped command's input
    reply: str = ""
    when: str = ""  #: when it is to land: `idle`, `next`, `now`, or as the process likes
    user: str = ""  #: for whom the sender sends it, by its word alone
    refused: str = ""  #: why the process does not take it; never on the wire

    def to_json(self) -> dict[str, Any]:
        raw: dict[str, Any] = {"id": self.id, "time": self.time, "data": self.data}
        for name in ("when", "user"):
            if value := getattr(self, name):
                raw[name] = value
        if self.kind != "message":
            raw["kind"] = self.kind
        if self.reply:
            raw["reply"] = self.reply
        return raw

    @classmethod
    def parse(cls, payload: bytes, sender: str, position: int) -> Message:
        """Read a message; one that is not JSON of ours arrives as text, from any NATS client. Raises: BadPayload."""
        try:
            raw = from_json(payload)
        except ValueError:
            raw = None
        if not isinstance(raw, dict) or "id" not in raw or "data" not in raw:
            data = raw if raw is not None else payload.decode("utf-8", "replace")
            return cls(f"p{position}", sender, data, position=position)
        _check_sender(raw, sender)
        return cls(
            id=str(raw["id"]),
            sender=sender,
            data=raw["data"],
            time=str(raw.get("time", "")),
            position=position,
            kind=str(raw.get("kind", "message")),
            reply=str(raw.get("reply", "")),
            when=str(raw.get("when", "")),
            user=_user(raw),
        )
