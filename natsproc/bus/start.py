"""Where a tail begins: the latest run, the last events, a time, a cursor. Protocol: section 2.2.

Only what has to be shown is read: an offset is found by binary search, with the cuts of the claim record.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from natsproc.errors import NoSuchProcess
from natsproc.protocol.messages import Cursor, Entry
from natsproc.protocol.names import Address, key_of
from natsproc.protocol.ownership import WINDOW, check_log, cursor_at, cut_before
from natsproc.protocol.reader import Reader
from natsproc.protocol.records import Claim, Cut

from .history import History, StoredEntry
from .joint import Joint
from .kv import Bucket

_LONG_AGO = 1e9


class Start(NamedTuple):
    """Where a tail begins."""

    kind: Literal["run", "first", "last", "since", "position", "cursor", "new"] = "run"
    n: int = 0  #: of `last`: how many events
    seconds: float = 0.0  #: of `since`: how long ago, by the server's clock
    position: int = 0  #: of `position`: show what lies there and behind
    cursor: Cursor | None = None
    run: int | None = None  #: of `run`: that run only; None begins with the latest


def read_claim(claims: Bucket, address: Address) -> asyncio.Future[tuple[Claim | None, int]]:
    """Return a process's claim, as the leader has it, and its epoch. Raises: as `Bucket.get`; BadPayload.

    Whoever asks at the same time asks along.
    """

    async def read() -> tuple[Claim | None, int]:
        found = await claims.get(key_of(address), leader=True)
        if found is None:
            return None, 0
        claim = Claim.parse(found.payload)
        return claim, claim.epoch_at(found.revision)

    return Joint.of(claims.connection).ask(("claim", claims.name, address), read)


async def reader_at(
    start: Start, history: History, claims: Bucket, address: Address, subject: str, *, until_end: bool
) -> tuple[Reader, int | None]:
    """Return a reader of that subject which begins there, and the log's end as it was, for its first read.

    The end is None if there may be more that the reader has to see. Listen to what comes live before you call it.
    Raises: NoSuchProcess; BadPayload (the cursor is of another log); and as the reads it takes.
    """
    last, (claim, _) = await asyncio.gather(history.end_from_leader(subject), read_claim(claims, address))
    if claim is None and last is None:
        raise NoSuchProcess(f"no process {address} has run here: `natsproc ps -a` shows what has")
    if not (start.kind in ("first", "cursor") or (claim and _cut_of(start, claim))):
        # It begins where the log ends, or is found from there: what a claim that is read after that does not know
        # of yet lies behind that end.
        claim, _ = await read_claim(claims, address)
    cuts = claim.cuts if claim else ()
    options: dict[str, Any] = {}
    if start.kind == "cursor" and start.cursor:
        check_log(start.cursor, claim, last.position if last else 0)
        options = {"cursor": start.cursor}
    elif start.kind == "new" and last:
        options = {"position": last.position}
    elif start.kind == "last" and last and cuts:
        options = await _behind(history, subject, await _newest(history, subject, cuts, last) - start.n, cuts)
    elif start.kind in ("since", "position") and last:
        found = await _first_of(history, subject, start)
        options = await _from(history, subject, found, cuts) if found else {"position": last.position}
    elif start.kind == "run" and claim:
        options = _at_run(start, claim, last, address, until_end)
    reader = Reader(cuts=cuts, follow_runs=not until_end, address=address, **options)
    end = last.position if last else 0
    return reader, end if end >= reader.position else None


def _cut_of(start: Start, claim: Claim) -> Cut | None:
    """Where the run that is meant begins; None if that is not recorded yet, or no run is meant."""
    run = start.run or claim.run
    return next((cut for cut in claim.cuts if cut.run == run), None) if start.kind == "run" else None


def _at_run(
    start: Start, claim: Claim, last: StoredEntry | None, address: Address, until_end: bool
) -> dict[str, Any]:
    run = start.run
    if (run or 0) > claim.run:
        raise NoSuchProcess(f"{address} has come to run {claim.run} so far, not to run {run}")
    if cut := _cut_of(start, claim):
        return {"run": run, "cursor": cursor_at(cut)}
    if run is None and claim.cuts and last:  # the next run is claimed and has not begun: wait for it
        return {"run": claim.run if until_end else None, "position": last.position}
    return {"run": run}


async def _behind(history: History, subject: str, offset: int, cuts: Sequence[Cut]) -> dict[str, Any]:
    """Show what lies behind an offset; begin earlier, so that repeats just there can be told."""
    position = await history.find_offset(subject, offset + 1 - WINDOW, cuts)
    return {"position": position, "offset": max(offset, 0)}


async def _newest(history: History, subject: str, cuts: Sequence[Cut], last: StoredEntry) -> int:
    """The offset of the last event that counts, 0 if there is none."""
    entry = Entry.parse(last.payload)
    if entry.epoch != cuts[-1].epoch or entry.is_mark:  # void, or a mark
        position = await history.find_offset(subject, sys.maxsize, cuts)
        found = await history.first(subject, position)
        entry = Entry.parse(found.payload) if found and found.position == position else entry
    return entry.offset if entry.epoch == cuts[-1].epoch and entry.offset else cuts[-1].offset - 1


async def _first_of(history: History, subject: str, start: Start) -> StoredEntry | None:
    if start.kind == "position":
        return await history.first(subject, start.position)
    now = datetime.fromisoformat(await history.now())
    return await history.since(subject, (now - timedelta(seconds=min(start.seconds, _LONG_AGO))).isoformat())


async def _from(history: History, subject: str, found: StoredEntry, cuts: Sequence[Cut]) -> dict[str, Any]:
    entry, cut = Entry.parse(found.payload), cut_before(cuts, found.position)
    if cut and cut.epoch == entry.epoch and entry.offset:
        return await _behind(history, subject, entry.offset - 1, cuts)
    return {"position": found.position - 1}
