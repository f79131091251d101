"""What the buckets hold: who owns an id, what runs where, and which nodes live. Protocol: sections 4 and 6."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from natsproc.errors import BadName, BadPayload

from .messages import Cursor, decode_object, unfrozen
from .names import Address, check_name


@dataclass(frozen=True, slots=True)
class Cut:
    """Where an epoch begins in the log. Everything behind it from another epoch is void."""

    epoch: int
    run: int
    offset: int  #: the first offset of the epoch
    position: int  #: of the mark

    def to_json(self) -> list[int]:
        return [self.epoch, self.run, self.offset, self.position]


@dataclass(frozen=True, slots=True)
class Place:
    """A counted event, known by its position: a claimant need not read what lies before it."""

    position: int
    epoch: int
    run: int
    offset: int
    sent: int  #: the last offset given to an event by then; up to it, events may lie before the place as well

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.position, self.epoch, self.run, self.offset)

    def to_json(self) -> list[int]:
        return [self.position, self.epoch, self.run, self.offset, self.sent]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state, and what its process had read and written by then."""

    run: int
    offset: int  #: of the last event before it
    object: str  #: the name of the state in the bucket of states
    size: int  #: of the state, in bytes
    digest: str  #: SHA-256 of the state, in hexadecimal
    version: int = 1  #: of the code's idea of a state
    received: dict[str, int] = field(default_factory=dict)  #: sender → inbox position that the state reflects

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def parse(cls, raw: Any) -> Checkpoint:
        """Read what `to_json` wrote. Raises: KeyError, TypeError, ValueError."""
        received = {str(sender): int(position) for sender, position in raw["received"].items()}
        numbers = (int(raw["run"]), int(raw["offset"]), str(raw["object"]), int(raw["size"]))
        return cls(*numbers, str(raw["digest"]), int(raw["version"]), received)


@dataclass(frozen=True, slots=True)
class Claim:
    """The record that says who owns an id; changed by compare-and-set only. Protocol: section 4.

    `epoch` is 0 while the record does not carry it, which means: the revision of the record itself.
    """

    nonce: str
    node: str
    epoch: int = 0
    run: int = 1
    ended: bool = False  #: a hint, the log decides
    cuts: tuple[Cut, ...] = ()
    place: Place | None = None  #: behind the last cut
    checkpoint: Checkpoint | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def epoch_at(self, revision: int) -> int:
        """The fencing token of this claim, given the revision under which it was read."""
        return self.epoch or revision

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            **self.extra,
            "nonce": self.nonce,
            "node": self.node,
            "run": self.run,
            "ended": self.ended,
            "cuts": [cut.to_json() for cut in self.cuts],
        }
        if self.epoch:
            record["epoch"] = self.epoch
        for name in ("place", "checkpoint"):
            if (value := getattr(self, name)) is not None:
                record[name] = value.to_json()
        return record

    @classmethod
    def parse(cls, payload: bytes) -> Claim:
        """Read a claim record. Raises: BadPayload."""
        raw = decode_object(payload, "claim record")
        try:
            cuts = tuple(Cut(*(int(number) for number in cut)) for cut in raw.pop("cuts", ()))
            place, checkpoint = raw.pop("place", None), raw.pop("checkpoint", None)
            return cls(
                nonce=str(raw.pop("nonce")),
                node=str(raw.pop("node")),
                epoch=int(raw.pop("epoch", 0)),
                run=int(raw.pop("run", 1)),
                ended=bool(raw.pop("ended", False)),
                cuts=cuts,
                place=Place(*(int(number) for number in place)) if place else None,
                checkpoint=Checkpoint.parse(checkpoint) if checkpoint else None,
                extra=raw,
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise BadPayload(f"claim record is not one of ours: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Record:
    """What the registry says of a process; written when it changes, by its owner."""

    address: Address
    kind: str
    node: str
    epoch: int
    run: int
    state: str  #: running, paused, waiting; completed, failed, interrupted, cancelled, killed once ended
    started: str
    updated: str
    labels: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    title: str = ""  #: what it runs, for people
    pty: bool = False
    code: int | None = None  #: exit code once ended
    ended: str = ""  #: time of the terminal event
    allow: tuple[str, ...] = ()  #: when messages may land, where not at any time
    asks: tuple[
        dict[str, Any], ...
    ] = ()  #: what it waits for people to answer, shortened: `ask`, `question`, `choices`
    viewers: dict[str, int] = field(
        default_factory=dict
    )  #: who watches, and in how many places; some of very many

    def to_json(self) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "namespace": self.address.namespace,
            "id": self.address.id,
            "kind": self.kind,
            "node": self.node,
            "epoch": self.epoch,
            "run": self.run,
            "state": self.state,
            "started": self.started,
            "updated": self.updated,
            "labels": self.labels,
        }
        for name in ("parent", "title", "pty", "ended", "allow", "asks", "viewers"):
            if value := getattr(self, name):
                raw[name] = value
        if self.code is not None:
            raw["code"] = self.code
        return raw

    @classmethod
    def parse(cls, payload: bytes) -> Record:
        """Read a registry record. Raises: BadPayload."""
        raw = decode_object(payload, "registry record")
        try:
            get = raw.get
            code, labels, asks, viewers = map(get, ("code", "labels", "asks", "viewers"))
            record: Record = _Unfrozen(
                Address(check_name(raw["namespace"], "namespace"), check_name(raw["id"])),
                str(raw["kind"]),
                str(raw["node"]),
                int(raw["epoch"]),
                int(raw["run"]),
                str(raw["state"]),
                str(raw["started"]),
                str(raw["updated"]),
                {str(key): str(value) for key, value in labels.items()} if labels else {},
                str(get("parent", "")),
                str(get("title", "")),
                bool(get("pty", False)),
                None if code is None else int(code),
                str(get("ended", "")),
                tuple(map(str, get("allow") or ())),
                tuple([dict(ask) for ask in asks]) if asks else (),
                {str(who): int(count) for who, count in viewers.items()} if viewers else {},
            )
            record.__class__ = Record
            return record
        except (BadName, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise BadPayload(f"registry record is not one of ours: {error!r}") from None


_Unfrozen = unfrozen(Record)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a node says of itself with every renewal."""

    node: str
    host: str
    pid: int
    version: str
    started: str
    processes: int = 0
    load: float = 0.0  #: one-minute load average of the host
    goodbye: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def parse(cls, payload: bytes) -> Lease:
        """Read a lease. Raises: BadPayload."""
        raw = decode_object(payload, "lease")
        try:
            return cls(**{name: raw[name] for name in cls.__slots__ if name in raw})
        except TypeError as error:
            raise BadPayload(f"lease is not one of ours: {error}") from None
