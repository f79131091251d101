"""Who owns a process, and so which entries of its log count. Protocol: section 4.

Two places decide, and nothing else: the claim record, changed by compare-and-set, and a position in the log.
The winner of a claim appends a mark; the first mark of a higher epoch is a cut; an event counts if its epoch
is that of the last cut before it and its offset is the next one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Final, Literal

from natsproc.errors import AlreadyEnded, AlreadyRunning, BadPayload, OwnershipLost

from .messages import Cursor, Entry
from .names import Address
from .records import Claim, Cut

Opening = Literal["started", "restarted", "recovered"]

WINDOW: Final = 256
"""So many entries of one process, at most, may be stored before one that was sent earlier."""

_SURE: Final = -1


class Verdict(Enum):
    """What an entry is to whoever reads the log in order."""

    COUNTS = "counts"  #: an event, the next one
    CUT = "cut"  #: a mark that opens a new epoch
    VOID = "void"  #: of another epoch, or a mark that opens nothing
    REPEAT = "repeat"  #: counted before
    HOLE = "hole"  #: ahead of the next one, which was lost or refused: it comes again behind that one
    UNREADABLE = "unreadable"  #: not one of ours
    UNSURE = "unsure"  #: not decided: `refresh` with the record's cuts, then feed the same entry again


class Fold:
    """Decides which entries of a log count, as they are fed in the order of their positions.

    Where what was fed cannot decide (the log was trimmed, or is read from its middle) the record's table of
    cuts does. The answer is then UNSURE until that table has been read after the entry in doubt.
    """

    __slots__ = ("_base", "_cuts", "_doubt", "_floor", "_placed", "_since", "epoch", "missing", "next_offset")

    def __init__(self, cuts: Iterable[Cut] = (), *, cursor: Cursor | None = None, position: int = 0) -> None:
        """Begin behind `cursor`, or else behind `position`, of which nothing is known but the cuts."""
        self._cuts = merge_cuts(cuts, ())
        self.epoch = 0
        self.next_offset: int | None = 1  #: None: the first event that is not void sets it
        self.missing: tuple[int, int] | None = None  #: offsets found to be lost; whoever reads it resets it
        self._base = 0  # the event that set next_offset, which might have been a repeat or ahead of others
        self._floor = 0  # while next_offset is None: nothing below is new; 0: nothing was expected either
        self._doubt: int | None = 1  # the value of next_offset that nothing has confirmed so far
        self._placed = False  # whether `epoch` is that of the place in the log
        self._since = position  # everything behind this position was fed
        if cursor is not None:
            self.epoch, self.next_offset = cursor.epoch, cursor.offset + 1
            self._doubt, self._placed, self._since = _SURE, True, cursor.position
        elif position:
            self.next_offset = self._doubt = None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts it was given and those it has found, in order."""
        return tuple(self._cuts)

    @property
    def loose(self) -> bool:
        """Whether it began in the middle so lately that repeats may have misled it."""
        return self._base > 0 and self.next_offset is not None and self.next_offset - self._base < WINDOW

    def feed(self, position: int, entry: Entry) -> Verdict:
        """Say what the entry at that position is. Protocol: section 2.1."""
        if entry.offset == self.next_offset and entry.epoch == self.epoch:
            self.next_offset = entry.offset + 1
            return Verdict.COUNTS
        if not entry.epoch:
            return Verdict.UNREADABLE
        if not self._placed:
            if self.next_offset == self._doubt and not self._is_cut(position, entry):
                return Verdict.UNSURE
            self._place(position, entry)
        return self._mark(position, entry) if entry.is_mark else self._event(entry)

    def refresh(self, cuts: Iterable[Cut], *, trimmed: bool = False) -> None:
        """Take the record's cuts, read after the entry in doubt; `trimmed`: entries before it are gone."""
        table = merge_cuts(cuts, ())
        cut = _cut_of(table, self.epoch)
        self._cuts = merge_cuts(table, self._cuts)
        self._doubt = _SURE
        self._placed = False
        if not trimmed and cut is not None and cut.position > self._since:
            self._expect(cut.offset)
        elif trimmed or self.loose or (cut is None and self.next_offset == 1):
            self._expect_any()  # the last case: nobody knows what the log begins with

    def settle(self, least: int = 1) -> int:
        """Return the next offset of a log that ends here, for the owner who is about to write it.

        `least` is what the record knows, should all entries that tell have been trimmed.
        """
        if self.next_offset is None:
            self._expect(max(self._floor, least))
        return self.next_offset or least

    def _is_cut(self, position: int, entry: Entry) -> bool:
        """Whether the table says of this entry that it is the mark which opens its epoch."""
        return entry.is_mark and any(
            cut.position == position and cut.epoch == entry.epoch for cut in self._cuts
        )

    def _place(self, position: int, entry: Entry) -> None:
        """Find the epoch of a place that was not reached entry by entry."""
        cut = cut_before(self._cuts, position)
        if cut is not None and cut.epoch > self.epoch:
            self.epoch = cut.epoch
            self._expect_any()
        elif not self.epoch and not entry.is_mark:
            self.epoch = entry.epoch
        self._since = position - 1
        self._placed = True

    def _mark(self, position: int, entry: Entry) -> Verdict:
        if entry.epoch <= self.epoch:
            return Verdict.VOID
        if self._is_cut(position, entry):
            first = self._cuts[bisect_left(self._cuts, position, key=_position)].offset
            if self.loose and first != self.next_offset:
                return Verdict.UNSURE
            self._expect(first)
            self._doubt, self._base = _SURE, 0
        else:
            found = Cut(entry.epoch, entry.run, self.next_offset or 0, position)
            self._cuts = merge_cuts(self._cuts, (found,))
            self._doubt = self.next_offset
        self.epoch, self._placed = entry.epoch, True
        return Verdict.CUT

    def _event(self, entry: Entry) -> Verdict:
        doubtful = self.next_offset == self._doubt
        if entry.epoch != self.epoch:
            return Verdict.UNSURE if doubtful and entry.epoch > self.epoch else Verdict.VOID
        if self.next_offset is None:
            if doubtful:
                return Verdict.UNSURE
            if entry.offset < self._floor:
                return Verdict.REPEAT
            self._expect(entry.offset)
            self.next_offset, self._base = entry.offset + 1, entry.offset
            return Verdict.COUNTS
        if self._base <= entry.offset < self.next_offset:
            return Verdict.REPEAT
        if doubtful or self.loose:
            return Verdict.UNSURE
        return Verdict.HOLE if entry.offset > self.next_offset else Verdict.REPEAT

    def _expect(self, offset: int) -> None:
        """From now on `offset` is the next one, unless a later one is already."""
        expected = self._floor if self.next_offset is None else self.next_offset
        if offset > expected > 0:
            self.missing = (expected, offset - 1)
        self.next_offset = max(offset, expected)
        for index in range(len(self._cuts) - 1, -1, -1):  # cuts found before the offset was known
            if self._cuts[index].offset:
                break
            self._cuts[index] = replace(self._cuts[index], offset=self.next_offset)

    def _expect_any(self) -> None:
        """From now on the first event that is not void sets the next offset."""
        if self.next_offset is not None:
            self._floor = self.next_offset
        self.next_offset = None


def merge_cuts(known: Iterable[Cut], found: Iterable[Cut]) -> list[Cut]:
    """Both tables as one, in order; what `known` says of an epoch stands."""
    table = {cut.epoch: cut for cut in found}
    table.update((cut.epoch, cut) for cut in known)
    return sorted(table.values(), key=_position)


def prune_cuts(cuts: Iterable[Cut], first: int) -> tuple[Cut, ...]:
    """Drop the cuts that say nothing about a log whose first entry is at position `first`."""
    table = merge_cuts(cuts, ())
    needless = bisect_left(table, first, key=_position)
    if needless < len(table) and table[needless].position == first:
        needless += 1
    return tuple(table[max(needless - 1, 0) :])


def cut_before(cuts: Sequence[Cut], position: int) -> Cut | None:
    """The last cut that lies before that position; `cuts` are in order."""
    index = bisect_left(cuts, position, key=_position)
    return cuts[index - 1] if index else None


def cursor_at(cut: Cut) -> Cursor:
    """The cursor from which a reader begins with the first event of that epoch."""
    return Cursor(cut.position, cut.epoch, cut.run, cut.offset - 1)


def check_cursor(cursor: Cursor, cuts: Sequence[Cut]) -> None:
    """Make sure that the cursor can be of the log with these cuts. Raises: BadPayload."""
    cut = cut_before(cuts, cursor.position + 1)
    if cut is not None:
        fits = cut.epoch == cursor.epoch and cut.offset <= cursor.offset + 1
    else:
        fits = not cuts or (cursor.epoch < cuts[0].epoch and cursor.offset < cuts[0].offset)
    if not fits:
        raise foreign_cursor(cursor)


def check_log(cursor: Cursor, claim: Claim | None, last: int) -> None:
    """Make sure that the cursor can be of the log with that claim, whose last entry has position `last` (0: none left).

    Both as the leader has them. What it names was stored, so the log has cuts and has come as far; and where anything
    is left of a log, its last entry is. Raises: BadPayload.
    """
    behind = 0 < last < cursor.position
    if claim is not None:
        ended = int(claim.extra.get("last", 0)) if claim.ended and not last else 0
        behind = behind or not claim.cuts or 0 < ended < cursor.offset
        behind = behind or cursor.epoch < int(claim.extra.get("born", 0))
    if behind:
        raise foreign_cursor(cursor)


def foreign_cursor(cursor: Cursor) -> BadPayload:
    """The error for a cursor that was made from another log."""
    return BadPayload(
        f"the cursor (epoch {cursor.epoch}, offset {cursor.offset}) belongs to another log, not to this "
        "process's: take one from a tail of this process, or begin without"
    )


def _cut_of(cuts: Sequence[Cut], epoch: int) -> Cut | None:
    return next((cut for cut in reversed(cuts) if cut.epoch == epoch), None)


def _position(cut: Cut) -> int:
    return cut.position


def take(
    address: Address,
    claim: Claim | None,
    revision: int,
    *,
    node: str,
    nonce: str,
    alive: bool,
    silent: bool = False,
    ended: bool = False,
    restart: bool = False,
) -> Claim:
    """The record with which a claimant takes the id, to be written if `revision` is still the last one.

    `alive`: the process of `claim` answers a ping, or is `silent` and its node holds a lease. `ended`: its run has ended, as the log says (the record's
    own word is a hint, and heeded too). `restart`: a next run is asked for.
    Raises: AlreadyRunning; AlreadyEnded. Protocol: section 4.
    """
    if claim is None:
        return Claim(nonce, node)
    if alive:
        raise _already_running(address, claim, claim.epoch_at(revision), silent)
    ended = ended or claim.ended
    if ended and not restart:
        raise already_ended(address, claim.run)
    run = claim.run + 1 if ended else claim.run
    return replace(claim, nonce=nonce, node=node, epoch=0, run=run, ended=False)


def _already_running(address: Address, claim: Claim, epoch: int, silent: bool) -> AlreadyRunning:
    text = (
        f"{address} is running on node {claim.node} (epoch {epoch}): watch it with `natsproc tail {address}`, "
        "or choose another id"
    )
    if silent:
        text = (
            f"{address} does not answer, and its node {claim.node} (epoch {epoch}) holds a lease: it is starting or "
            "overloaded, or was stopped, cut off or killed just now. If it is gone its lease runs out within seconds: "
            "try again then, and see `natsproc ps`"
        )
    return AlreadyRunning(text, node=claim.node, epoch=epoch)


def already_ended(address: Address, run: int) -> AlreadyEnded:
    """The error for an id whose run is over."""
    return AlreadyEnded(
        f"run {run} of {address} has ended: start the next one with --restart, in Python with restart=True"
    )


def opening(run: int, cuts: Sequence[Cut], next_offset: int) -> Opening:
    """What the first event of a winner says; `cuts` include its own."""
    first = next((cut for cut in cuts if cut.run == run), None)
    if first is not None and first.offset < next_offset:
        return "recovered"
    return "started" if run == 1 else "restarted"


def owned(claim: Claim, revision: int, cuts: Iterable[Cut], first: int, *, ended: bool = False) -> Claim:
    """The winner's record after it has read the log: every cut that the record lacks, none that is trimmed.

    The last cut is its place now. A next run begins without the checkpoint of the one before. `cuts` are those of
    the fold, `first` is the position of the log's first entry. Where the log begins with this record, `born` says so
    for good: a cursor of an epoch before is that of a namesake, which was pruned.
    """
    table = prune_cuts(merge_cuts(claim.cuts, cuts), first)
    extra = claim.extra
    if not claim.cuts and table and (table[0].position, table[0].offset) == (first, 1):
        extra = {**extra, "born": table[0].epoch}
    checkpoint = claim.checkpoint if claim.checkpoint and claim.checkpoint.run == claim.run else None
    claim = replace(claim, epoch=claim.epoch_at(revision), cuts=table, place=None, checkpoint=checkpoint)
    return replace(claim, ended=claim.ended or ended, extra=extra)


def check_owner(address: Address, claim: Claim | None, revision: int, nonce: str) -> None:
    """Make sure that the record still shows our nonce. Raises: OwnershipLost, naming the new owner."""
    if claim is None:
        raise OwnershipLost(f"{address} has no claim record any more: nothing written here counts")
    if claim.nonce != nonce:
        raise OwnershipLost(
            f"{address} was taken over by node {claim.node} (epoch {claim.epoch_at(revision)}): "
            "nothing written here counts any more"
        )
