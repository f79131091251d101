"""Judges recorded histories: what owners, senders and viewers were told, against what the streams hold.

Pure, and on its own: "what counts" is written here once more, from docs/protocol.md sections 2.1 and 4, and the
product's own Fold is only the second judge. Every violation is a sentence.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DROPPING = ("p3",)  #: processes whose owners drop what finds no room
OPENINGS = ("started", "restarted", "recovered")


class Stored(NamedTuple):
    """An entry of a stream."""

    position: int
    payload: bytes
    sender: str = ""  #: of an inbox's entry


class Shown(NamedTuple):
    """What a viewer showed."""

    position: int
    epoch: int
    run: int
    offset: int
    type: str
    digest: int  #: of type and data
    cause: str | None = None


class Claimed(NamedTuple):
    """An owner was told that it has the id."""

    owner: str
    epoch: int
    run: int


class Acknowledged(NamedTuple):
    """A flush returned to an owner: everything up to this offset is stored, and counts."""

    owner: str
    epoch: int
    upto: int
    events: dict[int, int]  #: offset → digest of what the owner wrote there, or what was dropped there
    said: int = 0  #: the number of the last tick by then, if that is known


class Ended(NamedTuple):
    """An owner was told that its run has ended."""

    owner: str
    epoch: int
    run: int
    status: str


class Lost(NamedTuple):
    """An owner was told that a newer epoch owns the id."""

    owner: str
    epoch: int


class Sent(NamedTuple):
    """A sender was told that its message is stored."""

    sender: str
    id: str
    position: int


class Receipt(NamedTuple):
    """A sender was told that its command was applied, or its message taken, and which event records it."""

    command: str  #: or message
    offset: int
    type: str


class Replied(NamedTuple):
    """A sender was told what the process replies."""

    message: str
    expected: Any
    reply: Any


class Began(NamedTuple):
    """An owner began with this state: the messages of the run that it has taken, as it knows."""

    owner: str
    epoch: int
    run: int
    taken: list[str]


class Kept(NamedTuple):
    """An owner ended a run with this state."""

    owner: str
    epoch: int
    run: int
    taken: list[str]


class Saved(NamedTuple):
    """An owner was told that its state is saved, after it had written the event of that offset."""

    owner: str
    epoch: int
    run: int
    offset: int


@dataclass
class History:
    """All that was recorded about one process."""

    name: str
    log: list[Stored] = field(default_factory=list)
    inbox: list[Stored] = field(default_factory=list)
    cuts: list[tuple[int, int, int, int]] = field(default_factory=list)  #: of the claim record
    claimed: list[Claimed] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    replied: list[Replied] = field(default_factory=list)
    began: list[Began] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    shown: dict[str, list[Shown]] = field(default_factory=dict)  #: by viewer

    @property
    def drops(self) -> bool:
        return self.name in DROPPING


def digest(type: str, data: Any) -> int:
    """A number that tells one event's content from another's."""
    return zlib.crc32(json.dumps([type, data], sort_keys=True).encode())


class Counted(NamedTuple):
    """An entry of the log that counts."""

    shown: Shown
    data: Any


def what_counts(log: Iterable[Stored]) -> tuple[list[Counted], list[tuple[int, int, int, int]]]:
    """The events that count, and the cuts. Protocol: section 2.1."""
    epoch, following = 0, 1
    counted, cuts = [], []
    for stored in log:
        raw = json.loads(stored.payload)
        if raw["type"] == "mark":
            if raw["epoch"] > epoch:
                epoch = raw["epoch"]
                cuts.append((epoch, raw["run"], following, stored.position))
        elif raw["epoch"] == epoch and raw["offset"] == following:
            following += 1
            kind, data = raw["type"], raw["data"]
            line = Shown(
                stored.position, epoch, raw["run"], raw["offset"], kind, digest(kind, data), raw.get("cause")
            )
            counted.append(Counted(line, data))
    return counted, cuts


def check(history: History, *, complete: bool = True) -> list[str]:
    """Every violation found in one process's history; `complete`: everything was waited for."""
    counted, cuts = what_counts(history.log)
    found = [
        *_judges(history, counted, cuts),
        *_runs(counted, complete),
        *_owners(history, counted, cuts),
        *_acknowledgements(history, counted),
        *_ticks(history, counted),
        *_messages(history, counted, complete),
    ]
    for viewer, shown in history.shown.items():
        found += _viewer(viewer, shown, [line for line, _ in counted], complete)
    return [f"{history.name}: {violation}" for violation in found]


def _judges(history: History, counted: list[Counted], cuts: list[tuple[int, int, int, int]]) -> Iterator[str]:
    """The product's own rules say the same, and so does the claim record."""
    from natsproc.protocol.messages import Entry
    from natsproc.protocol.ownership import Fold, Verdict
    from natsproc.protocol.records import Cut

    table, fold, theirs = [Cut(*cut) for cut in history.cuts], Fold(Cut(*cut) for cut in history.cuts), []
    for stored in history.log:
        entry = Entry.parse(stored.payload)
        verdict = fold.feed(stored.position, entry)
        if verdict is Verdict.UNSURE:
            fold.refresh(table)
            verdict = fold.feed(stored.position, entry)
        if verdict is Verdict.COUNTS:
            theirs.append(stored.position)
    ours = [line.position for line, _ in counted]
    if ours != theirs:
        first = min(set(ours) ^ set(theirs))
        yield f"the judges disagree about the entry at position {first}"
    for cut in set(history.cuts) - set(cuts):
        yield f"the claim record has a cut {cut} that the log has not"
    if history.cuts and cuts and cuts[-1] not in history.cuts:
        yield f"the claim record lacks the last cut, {cuts[-1]}"


def _runs(counted: list[Counted], complete: bool) -> Iterator[str]:
    """Runs follow each other, each with one first and one terminal event, and nothing behind that."""
    run, over = 0, True
    for line, _ in counted:
        if line.run != run:
            if not over:
                yield f"run {run} has no terminal event, and run {line.run} began at offset {line.offset}"
            if line.run != run + 1:
                yield f"run {line.run} follows run {run} at offset {line.offset}"
            if line.type not in ("started", "restarted"):
                yield f"run {line.run} begins with {line.type} at offset {line.offset}"
            run, over = line.run, False
        elif over:
            yield f"run {run} has ended, and goes on with {line.type} at offset {line.offset}"
        over = over or line.type == "exited"
    if complete and not over:
        yield f"run {run} has no terminal event"


def _owners(history: History, counted: list[Counted], cuts: list[tuple[int, int, int, int]]) -> Iterator[str]:
    """An epoch has one owner, who alone writes in it; nobody is told for nothing that he lost it."""
    owners: dict[int, str] = {}
    for claim in history.claimed:
        if owners.setdefault(claim.epoch, claim.owner) != claim.owner:
            yield f"{owners[claim.epoch]} and {claim.owner} both own epoch {claim.epoch}"
    epoch = 0
    for line, data in counted:
        if line.epoch != epoch and line.type not in OPENINGS:
            yield f"epoch {line.epoch} begins with {line.type} at offset {line.offset}"
        epoch = line.epoch
        by = data.get("by") if isinstance(data, dict) else None
        if by and by != owners.get(epoch):
            yield f"{by} wrote offset {line.offset} in epoch {epoch}, which belongs to {owners.get(epoch)}"
    for lost in history.lost:
        if not any(cut[0] > lost.epoch for cut in cuts):
            yield f"{lost.owner} was told that it lost epoch {lost.epoch}, and nobody took it"


def _acknowledgements(history: History, counted: list[Counted]) -> Iterator[str]:
    """What owners and controllers were told is so."""
    lines = {line.offset: line for line, _ in counted}
    began: dict[int, int] = {}
    for line, _ in counted:
        began.setdefault(line.epoch, line.offset)
    for ack in history.acknowledged:
        told = f"was acknowledged to {ack.owner} in epoch {ack.epoch}"
        for offset in range(began.get(ack.epoch, ack.upto), ack.upto + 1):
            if offset not in lines or lines[offset].epoch != ack.epoch:
                yield f"offset {offset} {told}, and does not count"
            elif history.drops and lines[offset].type == "dropped":
                continue
            elif ack.events.get(offset, lines[offset].digest) != lines[offset].digest:
                yield f"offset {offset} {told}, and is another event"
    exits = {line.run: (line, data) for line, data in counted if line.type == "exited"}
    for owner, epoch, run, status in history.ended:
        line, data = exits.get(run, (None, {}))
        if line is None or line.epoch != epoch or data["status"] != status:
            yield f"{owner} was told that run {run} ended {status} in epoch {epoch}, and the log has {data or 'no end'}"
    for receipt in history.receipts:
        at = lines.get(receipt.offset)
        if at is None or at.type != receipt.type or at.cause != receipt.command:
            what = f"{at.type} of {at.cause}" if at else "nothing"
            yield f"{receipt.command} was {receipt.type} at offset {receipt.offset}, it was said, where there is {what}"
    replies: dict[str, Any] = {}
    for line, data in counted:
        if line.type == "replied":
            replies.setdefault(data["message"], data["data"])
    for message, expected, reply in history.replied:
        if not reply == expected == replies.get(message):
            yield f"the reply to {message} was {reply}, which is {replies.get(message)} in the log and {expected} by rights"


def _ticks(history: History, counted: list[Counted]) -> Iterator[str]:
    """Owners number what they say: all of it is there, but for what was dropped and is said in its place."""
    epoch = last = dropped = 0
    upto: dict[
        tuple[int, int], tuple[int, int]
    ] = {}  # epoch and offset → the first and last tick that it is about
    for line, data in counted:
        if line.epoch != epoch:
            epoch, last, dropped = line.epoch, 0, 0
        if line.type == "dropped":
            upto[epoch, line.offset] = (last + dropped + 1, last + dropped + data["count"])
            dropped += data["count"]
            if not history.drops:
                yield f"{data['count']} events were dropped at offset {line.offset}, by an owner that drops none"
        elif line.type == "tick" and "n" in data:
            if data["n"] != last + dropped + 1:
                yield f"tick {data['n']} at offset {line.offset} follows {last}, and {dropped} are said to be dropped"
            last, dropped = data["n"], 0
            upto[epoch, line.offset] = (last, last)
    for ack in history.acknowledged:
        first, final = upto.get((ack.epoch, ack.upto), (0, -1))
        if ack.said and not first <= ack.said <= final:
            yield f"tick {ack.said} was acknowledged to {ack.owner} at offset {ack.upto}, which is about {first} to {final}"


class Taken(NamedTuple):
    """A message that a run has taken, unless the state that knows of it is lost."""

    offset: int
    run: int
    id: str
    position: int
    sender: str


def _messages(history: History, counted: list[Counted], complete: bool) -> Iterator[str]:
    """Acknowledged messages are stored, once; what is stored is consumed once, in order per sender."""
    stored = {entry.position: (entry.sender, json.loads(entry.payload)) for entry in history.inbox}
    for id, times in Counter(raw["id"] for _, raw in stored.values()).items():
        if times > 1:
            yield f"message {id} is stored {times} times"
    for sent in history.sent:
        sender, raw = stored.get(sent.position, ("", {"id": "nothing"}))
        if (sender, raw["id"]) != (sent.sender, sent.id):
            yield f"message {sent.id} was acknowledged at position {sent.position}, which holds {raw['id']}"
    taken: list[Taken] = []
    for line, data in counted:
        if line.type == "recovered" and (saved := data.get("checkpoint")):  # what came behind it comes again
            taken = [one for one in taken if one.run != line.run or one.offset <= saved]
        if line.type in OPENINGS:
            yield from _begins(history, line, data.get("checkpoint", 0), taken)
        if line.type != "received":
            continue
        one = Taken(line.offset, line.run, data["message"], data["position"], data["sender"])
        if any(one.position == other.position for other in taken):
            yield f"message {one.id} was consumed again at offset {line.offset}"
        elif any(one.sender == other.sender and one.position < other.position for other in taken):
            yield f"message {one.id} of {one.sender} was consumed after a later one, at offset {line.offset}"
        taken.append(one)
        held, raw = stored.get(one.position, ("", {}))
        if (held, raw.get("id"), raw.get("data")) != (one.sender, one.id, data.get("data")):
            yield f"message {one.id} was consumed at offset {line.offset}, and is not in the inbox"
    for kept in history.kept:
        yield from _same(f"{kept.owner} ended run {kept.run} with", kept.taken, kept.run, taken)
    for position in set(stored) - {one.position for one in taken} if complete else ():
        yield f"message {stored[position][1]['id']} at position {position} was never consumed"


def _begins(history: History, line: Shown, saved: int, taken: list[Taken]) -> Iterator[str]:
    """An epoch begins with the state that was saved last, which knows just what was taken by then."""
    for began in history.began:
        if began.epoch == line.epoch:
            yield from _same(f"{began.owner} began run {began.run} with", began.taken, began.run, taken)
    for known in history.saved:
        if known.run == line.run and known.epoch < line.epoch and known.offset > saved:
            yield f"epoch {line.epoch} begins with the state of offset {saved}, and {known.offset} was saved"


def _same(what: str, known: list[str], run: int, taken: list[Taken]) -> Iterator[str]:
    by_rights = sorted(one.id for one in taken if one.run == run)
    if sorted(known) != by_rights:
        wrong = Counter(known)
        wrong.subtract(by_rights)
        differences = {id: times for id, times in wrong.items() if times}
        yield f"{what} {len(known)} messages, and the log says otherwise of {differences}"


def _viewer(viewer: str, shown: list[Shown], counted: list[Shown], complete: bool) -> Iterator[str]:
    """What was shown is a prefix of what counts, and in the end all of it."""
    for index, line in enumerate(shown):
        if index >= len(counted):
            yield f"{viewer} showed offset {line.offset} at position {line.position}, which does not count"
            return
        if line != counted[index]:
            yield f"{viewer} showed {line} where {counted[index]} counts"
            return
    if complete and len(shown) < len(counted):
        yield f"{viewer} never showed offset {counted[len(shown)].offset} and what follows"
