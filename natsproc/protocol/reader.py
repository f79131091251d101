"""The reader of one process's log as a pure state machine: history and live are one thing. Protocol: section 2.2.

Methods take what came from the bus and return what to do, in order: show an `Event` or a `Notice`, or ask
the bus for something. Whatever is lost, doubled, reordered or read again, each event that counts is shown
once, in order, and nothing that is not stored.

The driver abandons the read in progress (and feeds nothing more of it) whenever a `Read` or `ASK_FIRST` is
returned, and subscribes before it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from .messages import EXITED, Cursor, Entry, Event, Notice, next_event
from .names import Address
from .ownership import Fold, Verdict, check_cursor, cursor_at, cut_before, foreign_cursor, merge_cuts
from .records import Cut

BUFFER: Final = 8192
"""Live entries kept while history is read; above that the reader stops listening until it has caught up."""


class Do(Enum):
    """What there is to do besides reading."""

    ASK_FIRST = "ask the stream's leader for the subject's first position, then for the claim; call `first`"
    ASK_LAST = "ask for the position of the subject's last entry; call `last`"
    SUBSCRIBE = "listen to the live subject, from now on and before whatever follows"
    UNSUBSCRIBE = "stop listening, and drop what has been heard and not been fed"


class Read(NamedTuple):
    """Read the subject's entries behind that position, to its last one; then call `history_end`."""

    after: int


Action = Event | Notice | Read | Do
Actions = Sequence[Action]

Placed = tuple[Any, ...]
"""Position and payload of an entry; of a live one then the position of the one before it."""

_NOTHING: Final[Actions] = ()
_COUNTS: Final = Verdict.COUNTS


class _State(Enum):
    READING = "reading"
    ASKING = "asking"  # for the log's first position and the record's cuts
    LIVE = "live"
    DONE = "done"


class Reader:
    """Decides what to show of one log, what to skip, and what to read again."""

    def __init__(
        self,
        *,
        cuts: Iterable[Cut] = (),
        cursor: Cursor | None = None,
        position: int = 0,
        offset: int = 0,
        run: int | None = None,
        follow_runs: bool = False,
        address: Address | None = None,
        buffer: int = BUFFER,
    ) -> None:
        """Begin behind `cursor`, or show what lies behind `position` (0: the whole log), above `offset`.

        A `position` in the middle had better lie `ownership.WINDOW` events before what is to be shown, with
        `offset` to hide these: repeats just before it would be shown, and it might lie in a window of holes.
        `run`: show that run only. `follow_runs`: go on after a terminal event, should another run follow.
        `cuts` are those of the claim record; a cursor and a run's first cut (`cursor_at`) need no more
        questions. Raises: BadPayload if the cursor is of another log.
        """
        table = merge_cuts(cuts, ())
        if cursor is not None:
            check_cursor(cursor, table)
        self._address = address
        self._run = run
        self._follow_runs = follow_runs
        self._limit = buffer
        self._hidden = position  # nothing is shown up to this position
        self._shown = offset  # nor up to this offset
        self._midlog = self._seeking = cursor is None and position > 1  # nothing was shown so far
        self._state = _State.READING
        self._buffer: list[tuple[int, int, Entry]] = []
        self._deaf = False  # unsubscribed, until a read is complete
        self._caught_up = False
        self._asked = (0, False)  # the entry in doubt, and whether entries before it are gone
        self._known = 0  # that entry, once the record's cuts have been read: it has to come next
        self._last: Event | Cursor | None = cursor  # what a notice's cursor names
        self._terminal: Event | None = None  # ends the tail, unless another event follows
        self._epoch = cursor.epoch if cursor else 0  # the last one shown
        self._anchored = False  # whether the read in progress joins what was read before
        self._plain = False  # whether a counted event can be shown without further questions
        self._begin(Fold(table, cursor=cursor, position=max(position - 1, 0)), cursor, max(position - 1, 0))

    def _begin(self, fold: Fold, cursor: Cursor | None, position: int) -> None:
        self._fold = fold
        self.position = cursor.position if cursor else position  #: of the last entry that was dealt with
        self._start = position  # a position that need not be an entry's
        self._unchecked = cursor

    def start(self) -> Actions:
        """What to do first."""
        return (Do.SUBSCRIBE, self._read())

    def live(self, position: int, previous: int, entry: Entry) -> Actions:
        """An entry of the live subject, and the position of the one before it on that subject.

        Raises: BadPayload if the cursor turns out to be of another log.
        """
        if self._state is not _State.LIVE:
            return self._keep(position, previous, entry)
        if previous == self.position >= self._known:
            return self._take(position, entry)
        if position <= self.position:
            if self._unchecked:  # of a log that is gone, and this one has not come as far
                raise foreign_cursor(self._unchecked)
            return _NOTHING
        self._keep(position, previous, entry)
        return (self._read(),)

    def history(self, position: int, entry: Entry) -> Actions:
        """The next entry of the read in progress."""
        if self._anchored and position > self.position:
            return self._take(position, entry)
        if self._state is not _State.READING:
            return _NOTHING
        if position > self.position:
            # What the read begins with joins the start, or else has to be what the cuts were asked for.
            joined = position == self._known if self._known else self.position == self._start
            if not joined:
                return self._ask(position, trimmed=True)
            self._anchored = True
            return self._take(position, entry)
        if position == self.position:
            self._anchored = True
            self._check(position, entry)
        return _NOTHING

    def follow(self, entries: Sequence[Placed], *, live: bool) -> list[Event]:
        """Take those entries, from the first on, that simply follow; the one behind them is for `history` or `live`.

        That is what these two would say of them, one by one, in half the time.
        """
        ready = (self._state is _State.LIVE and self.position >= self._known) if live else self._anchored
        if not (ready and self._plain):
            return []
        events: list[Event] = []
        fold, address, last = self._fold, self._address, self.position
        epoch, offset = fold.epoch, fold.next_offset
        for entry in entries:
            position = entry[0]
            if (entry[2] != last) if live else position <= last:
                break
            if (event := next_event(entry[1], epoch, offset, position, address)) is None:
                break
            events.append(event)
            last, offset = position, event.offset + 1
        if events:
            self.position, fold.next_offset, self._last = last, offset, events[-1]
        return events

    def history_end(self) -> Actions:
        """The read in progress is complete."""
        if self._state is not _State.READING:
            return _NOTHING
        if self._deaf:
            self._deaf = False
            return (Do.SUBSCRIBE, self._read())
        actions: list[Action] = []
        hole = False
        for position, previous, entry in self._buffer:
            if position > self.position:
                if hole := previous != self.position or self.position < self._known:
                    break
                actions += self._take(position, entry)
                if self._state is not _State.READING:
                    return actions
        if hole and self.position > self._began:
            return [*actions, self._read()]
        # A read that did not bring what was heard is not repeated at once: a later entry or probe does it.
        self._buffer.clear()
        self._state = _State.LIVE
        return actions if hole else [*actions, *self._settle()]

    def history_failed(self) -> Actions:
        """The read in progress came to nothing: begin it anew. That is never a gap."""
        return (self._read(),) if self._state is _State.READING else _NOTHING

    def first(self, first: int, cuts: Iterable[Cut] = (), epoch: int = 0) -> Actions:
        """The position of the log's first entry (0: none), and then the claim's cuts and epoch (0: no claim).

        Raises: BadPayload if the cursor turns out to be of another log.
        """
        if self._state is not _State.ASKING:
            return _NOTHING
        table = merge_cuts(cuts, ())
        self._known, trimmed = self._asked
        self._plain = False
        if self._unchecked is not None:
            check_cursor(self._unchecked, table)
            if not table and 0 < first <= self.position:
                raise foreign_cursor(self._unchecked)
            self._unchecked = None
        if self._midlog and not trimmed and 0 < first <= self.position:
            self._step_back(table, epoch, first)
        self._fold.refresh(table, trimmed=trimmed)
        return (*self._gap(), self._read())

    def last(self, position: int) -> Actions:
        """The position of the subject's last entry: what a quiet reader asks for now and then."""
        if self._state is not _State.LIVE:
            return _NOTHING
        return (self._read(),) if position > self.position else self._settle()

    def reconnected(self) -> Actions:
        """The connection was lost and is back; what was under way is begun anew."""
        if self._state is _State.ASKING:
            return (Do.ASK_FIRST,)
        return (Do.ASK_LAST,) if self._state is _State.LIVE else self.history_failed()

    def overflowed(self) -> Actions:
        """Live entries were lost for want of room, here or in the driver."""
        if self._deaf or self._state is _State.DONE:
            return _NOTHING
        self._deaf = True
        self._buffer.clear()
        # A flood is better read from the log first: listening meanwhile would be paying twice.
        return (Do.UNSUBSCRIBE, self._read()) if self._state is _State.LIVE else (Do.UNSUBSCRIBE,)

    def _keep(self, position: int, previous: int, entry: Entry) -> Actions:
        if self._deaf or self._state is _State.DONE:
            return _NOTHING
        self._buffer.append((position, previous, entry))
        return self.overflowed() if len(self._buffer) > self._limit else _NOTHING

    def _read(self) -> Read:
        self._state = _State.READING
        self._anchored = False
        self._began = self.position
        # The entry read last is read again: as long as it is there, nothing behind it was trimmed.
        return Read(self.position if self.position == self._start else self.position - 1)

    def _ask(self, position: int, *, trimmed: bool) -> Actions:
        self._state = _State.ASKING
        self._anchored = False
        self._asked = (position, trimmed)
        return (Do.ASK_FIRST,)

    def _step_back(self, table: list[Cut], epoch: int, first: int) -> None:
        """Read from further up if what lies behind a start in the middle cannot be told from there.

        Either a claim is under way, and there may be a mark that its record does not show yet; or the start
        lay among repeats.
        """
        claiming = not self._fold.epoch and epoch > max((cut.epoch for cut in table), default=0)
        cut = cut_before(table, self._known if self._last is None else self._last.position)
        whole = cut is not None and cut.position >= first
        if not claiming and not (self._fold.loose and whole):
            return
        if not self._seeking and self._last is not None:
            self._hidden, self._shown = 0, self._last.offset
        if cut is not None and whole:
            self._begin(Fold(table, cursor=cursor_at(cut)), cursor_at(cut), 0)
            self._unchecked = None
        else:
            self._begin(Fold(table, position=first - 1), None, first - 1)
        self._midlog = False
        self._known = 0

    def _check(self, position: int, entry: Entry) -> None:
        """Look at the entry at the cursor's position."""
        cursor, self._unchecked = self._unchecked, None
        if cursor is None or cursor.position != position:
            return
        if entry.epoch != cursor.epoch or not (entry.is_mark or entry.offset == cursor.offset):
            raise foreign_cursor(cursor)
        if entry.type == EXITED and self._run in (None, entry.run):
            self._terminal = entry.event(position, self._address)

    def _take(self, position: int, entry: Entry) -> Actions:
        """Deal with the entry that follows the last one dealt with."""
        verdict = self._fold.feed(position, entry)
        if verdict is _COUNTS and self._plain and entry.type != EXITED:
            self.position = position
            self._last = event = entry.event(position, self._address)
            return (event,)
        if verdict is Verdict.UNSURE:
            return self._ask(position, trimmed=False)
        self.position = position
        actions = self._gap()
        if verdict is Verdict.CUT or (verdict is _COUNTS and entry.epoch != self._epoch):
            actions += self._takeover(entry)
        if verdict is _COUNTS:
            actions += self._show(entry.event(position, self._address))
        return actions

    def _show(self, event: Event) -> list[Action]:
        visible = event.position > self._hidden and event.offset > self._shown
        self._last = event
        self._terminal = event if event.terminal and self._run in (None, event.run) else None
        self._plain = visible and self._run is None and not event.terminal
        self._seeking = self._seeking and not visible
        if self._run is not None and event.run > self._run:
            self._terminal = None
            return self._end(self._run)
        actions: list[Action] = [event] if visible and self._run in (None, event.run) else []
        if self._terminal is None:
            return actions
        if self._run == event.run:
            return actions + self._end(self._run)
        return actions + self._settle() if self._state is _State.LIVE and self._caught_up else actions

    def _settle(self) -> list[Action]:
        """The live edge is reached."""
        actions: list[Action] = []
        if not self._caught_up:
            self._caught_up = True
            actions.append(self._say("caught_up", {}))
        if self._terminal is not None:
            actions += self._end(self._terminal.run)
        return actions

    def _end(self, run: int) -> list[Action]:
        data: dict[str, Any] = {"run": run}
        if self._terminal is not None and isinstance(self._terminal.data, dict):
            data |= {key: self._terminal.data.get(key) for key in ("status", "code")}
        self._terminal = None
        if not self._follow_runs or self._run is not None:
            self._state = _State.DONE
            self._anchored = False
            self._buffer.clear()
        return [self._say("ended", data)]

    def _gap(self) -> list[Action]:
        missing, self._fold.missing = self._fold.missing, None
        if missing is None or self._seeking or self.position < self._hidden or missing[1] <= self._shown:
            return []
        return [self._say("gap", {"from": max(missing[0], self._shown + 1), "to": missing[1]})]

    def _takeover(self, entry: Entry) -> list[Action]:
        before, self._epoch = self._epoch, max(entry.epoch, self._epoch)
        if not before or entry.epoch <= before or self.position <= self._hidden:
            return []
        data = {"epoch": entry.epoch, "run": entry.run}
        if entry.is_mark and isinstance(entry.data, dict) and "node" in entry.data:
            data["node"] = entry.data["node"]
        return [self._say("takeover", data)]

    def _say(self, kind: Literal["gap", "takeover", "caught_up", "ended"], data: dict[str, Any]) -> Notice:
        last = self._last
        cursor = "" if last is None else last.cursor if isinstance(last, Event) else str(last)
        return Notice(kind, data, self._address, cursor)
