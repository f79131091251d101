"""A log, a lossy bus and a viewer, all in memory, for tests that drive the pure protocol code.

The oracle in `Log` decides by the letter of the rule what counts; it shares no code with `Fold`.
"""

from __future__ import annotations

import os
from collections import deque
from copy import copy
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st

from natsproc.protocol.messages import Entry, Event, Notice, encode
from natsproc.protocol.ownership import Fold, prune_cuts
from natsproc.protocol.reader import Actions, Do, Read, Reader
from natsproc.protocol.records import Cut

DECISIONS = st.binary(min_size=600, max_size=600)


def examples(usual: int) -> settings:
    """As many examples as that, always the same; NATSPROC_EXAMPLES sets another number, at random."""
    number = int(os.environ.get("NATSPROC_EXAMPLES", 0))
    return settings(max_examples=number or usual, deadline=None, derandomize=not number, database=None)


class Choices:
    """Decisions drawn from bytes that Hypothesis makes and shrinks; 0, the harmless one, once they are used up."""

    def __init__(self, raw: bytes) -> None:
        self._raw = iter(raw)

    def below(self, limit: int) -> int:
        return next(self._raw, 0) % limit

    def pick(self, among):
        return among[self.below(len(among))]

    def one_in(self, n: int) -> bool:
        return self.below(n) == n - 1


def mark(epoch: int, run: int = 1) -> Entry:
    return Entry(epoch, run, 0, "", "mark", {"node": f"node-{epoch}"})


def event(epoch: int, offset: int, run: int = 1, kind: str = "output", note: object = None) -> Entry:
    return Entry(epoch, run, offset, "", kind, [epoch, offset, note])


def payload_of(entry: Entry) -> bytes:
    """What is stored for it."""
    payload = encode(entry._asdict())
    assert Entry.parse(payload) == entry
    return payload


def _state(reader: Reader) -> object:
    fold = [getattr(reader._fold, name) for name in Fold.__slots__]
    return {**vars(reader), "_fold": fold}


class Log:
    """Everything that was ever stored on one subject, and what the claim record says."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, Entry]] = []  # position, previous position, entry
        self.at: dict[int, Entry] = {}
        self.position = 0
        self.floor = 0  # what lies up to here is trimmed
        self.counted: list[tuple[int, Entry]] = []  # by the oracle, from the first entry ever
        self.cuts: list[Cut] = []  # by the oracle
        self.recorded: tuple[Cut, ...] = ()
        self.claimed = 0  # epoch of the claim record

    def append(self, entry: Entry, skip: int = 0) -> tuple[int, int, Entry]:
        """Store an entry, behind `skip` entries of other subjects."""
        last = self.entries[-1][0] if self.entries else 0
        self.position += 1 + skip
        stored = (self.position, last if last > self.floor else 0, entry)
        self.entries.append(stored)
        self.at[self.position] = entry
        epoch = self.cuts[-1].epoch if self.cuts else 0
        if entry.type == "mark":
            if entry.epoch > epoch:
                self.cuts.append(Cut(entry.epoch, entry.run, len(self.counted) + 1, self.position))
        elif epoch and entry.epoch == epoch and entry.offset == len(self.counted) + 1:
            self.counted.append((self.position, entry))
        return stored

    def record(self) -> None:
        """Let the owner write into the claim record what it knows of the cuts."""
        self.recorded = prune_cuts(self.cuts, self.first)

    def trim(self, floor: int) -> None:
        """Retention; not beyond a mark that nobody has recorded yet, of which nothing could tell then."""
        unrecorded = [
            cut.position for cut in self.cuts if cut.epoch > max([0, *(c.epoch for c in self.recorded)])
        ]
        floor = min([floor, *(position - 1 for position in unrecorded)])
        self.floor = max(self.floor, min(floor, self.position))

    def stored(self, after: int = 0) -> list[tuple[int, int, Entry]]:
        after = max(after, self.floor)
        index = len(self.entries)
        while index and self.entries[index - 1][0] > after:
            index -= 1
        return self.entries[index:]

    @property
    def first(self) -> int:
        return next((position for position, _, _ in self.stored()), 0)

    @property
    def last(self) -> int:
        return next((position for position, _, _ in reversed(self.stored())), 0)


class Viewer:
    """Drives a Reader as the bus does, with faults by choice, and checks all it shows against the log."""

    def __init__(
        self,
        log: Log,
        reader: Reader,
        choices: Choices,
        *,
        behind: int = 0,
        where: int = 0,
        start: int = 0,
        gaps: Literal["where trimmed", "anywhere"] = "where trimmed",
    ) -> None:
        """`behind`, `where`: offset and position of the event before the first one to be shown. `start`: where
        it begins mid-log, so that its first offset is anyone's guess.
        """
        self.log = log
        self.reader = reader
        self.choices = choices
        self.start = start
        self.offset = behind  # shown last
        self.where = where  # its position
        self.gaps = gaps
        self.shown: list[Event] = []
        self.notices: list[Notice] = []
        self.subscribed = False
        self.inbox: deque[tuple[int, int, Entry]] = deque()
        self.reading: int | None = None  # position behind which the read goes on
        self.joined = False  # whether the read has given an entry
        self.upto = 0  # what is stored later is not of this read
        self.lag = 0  # the replica that answers the read lacks so many entries
        self.asked_first = self.asked_last = False
        self.perform(reader.start())

    def perform(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case Event():
                    self._event(action)
                case Notice():
                    self._notice(action)
                case Read(after):
                    self.reading, self.joined, self.asked_first = after, False, False
                    self.upto = self.log.position
                    self.lag = self.choices.below(4) if self.choices.one_in(6) else 0
                case Do.ASK_FIRST:
                    self.reading, self.asked_first = None, True
                case Do.ASK_LAST:
                    self.asked_last = True
                case Do.SUBSCRIBE:
                    self.subscribed = True
                case Do.UNSUBSCRIBE:
                    self.subscribed = False
                    self.inbox.clear()

    def hear(self, stored: tuple[int, int, Entry]) -> None:
        """What the server republishes, on its way to here."""
        if not self.subscribed:
            return
        fate = self.choices.below(12)
        if fate == 11:  # lost
            return
        self.inbox.append(stored)
        if fate == 10:  # doubled
            self.inbox.append(stored)
        if fate == 9:  # overtaken by what went before
            self.inbox.rotate(1)

    def step(self) -> None:
        """Let one thing happen, of those that can."""
        match self.choices.below(16):
            case 15:
                self.perform(self.reader.reconnected())
            case 14:
                self.inbox.clear()
                self.perform(self.reader.overflowed())
            case 13 if self.reading is not None:
                self.reading = None
                self.perform(self.reader.history_failed())
            case 12 | 11:
                self.perform(self.reader.last(self.log.last))
            case 10 | 9 | 8:
                self._answer()
            case 7 | 6 | 5 | 4:
                self._read(1 + self.choices.below(6))
            case _:
                self._live()

    def quiet(self) -> None:
        """Let all that is under way arrive, and a quiet reader's probe be answered, until nothing changes."""
        self.choices = Choices(b"")
        for _ in range(3):
            for _ in range(10_000):
                self.lag = 0
                if not (self._answer() or self._live() or self._read(1000)):
                    break
            else:
                raise AssertionError("the reader never comes to rest")
            self.perform(self.reader.last(self.log.last))

    def finish(self) -> None:
        """Come to rest, and make sure that all that counts has been shown."""
        self.quiet()
        missing = [position for position, _ in self.log.counted[self.offset :] if position > self.start]
        assert all(position <= self.log.floor for position in missing), (self.offset, len(self.log.counted))
        assert [notice.type for notice in self.notices].count("caught_up") == 1
        ended = [notice for notice in self.notices if notice.type == "ended"]
        over = bool(self.shown) and self.shown[-1].terminal and not missing
        assert len(ended) >= over, "the end of a run was not said"
        epochs = [notice.data["epoch"] for notice in self.notices if notice.type == "takeover"]
        assert epochs == sorted(set(epochs))

    def _live(self) -> bool:
        if not self.inbox:
            return False
        one_by_one = not isinstance(self.reader, Reader)  # for whoever writes down what it is told
        followed = 0 if one_by_one else self._follow(list(self.inbox)[: 1 + self.choices.below(4)], live=True)
        for _ in range(followed):
            self.inbox.popleft()
        if not followed:
            self.perform(self.reader.live(*self.inbox.popleft()))
        return True

    def _follow(self, entries: list[tuple[int, int, Entry]], *, live: bool) -> int:
        """Let the reader take what simply follows, as one that takes one by one; returns how many it took."""
        alone = copy(self.reader)
        alone._fold, alone._buffer = copy(self.reader._fold), list(self.reader._buffer)
        events = self.reader.follow(
            [(position, payload_of(entry), previous) for position, previous, entry in entries], live=live
        )
        for event, (position, previous, entry) in zip(events, entries, strict=False):
            said = alone.live(position, previous, entry) if live else alone.history(position, entry)
            assert list(said) == [event]
        assert _state(alone) == _state(self.reader)
        self.perform(events)
        return len(events)

    def _read(self, count: int) -> bool:
        after = self.reading
        if after is None:
            return False
        if self.joined and after <= self.log.floor:  # what follows need not be what followed
            self.reading = None
            self.perform(self.reader.history_failed())
            return True
        entries = [stored for stored in self.log.stored(after) if stored[0] <= self.upto]
        given = entries[: max(len(entries) - self.lag, 0)][:count]
        if not given:
            self.reading = None
            self.perform(self.reader.history_end())
            return True
        followed = self._follow(given, live=False) if isinstance(self.reader, Reader) else 0
        if followed:
            self.reading, self.joined = given[followed - 1][0], True
        for position, _, entry in given[followed:]:
            self.reading, self.joined = position, True
            actions = self.reader.history(position, entry)
            self.perform(actions)
            if any(isinstance(action, Read) or action is Do.ASK_FIRST for action in actions):
                break
        return True

    def _answer(self) -> bool:
        if self.asked_first:
            self.asked_first = False
            self.perform(self.reader.first(self.log.first, self.log.recorded, self.log.claimed))
        elif self.asked_last:
            self.asked_last = False
            self.perform(self.reader.last(self.log.last))
        else:
            return False
        return True

    def _event(self, event: Event) -> None:
        entry = self.log.at[event.position]  # nothing is shown that is not stored
        assert entry.event(event.position) == event
        assert event.offset <= len(self.log.counted), "shown before it counts"
        counts = self.log.counted[event.offset - 1][1]
        assert (event.epoch, event.type, event.data) == (counts.epoch, counts.type, counts.data)
        if self.shown or not self.start:
            assert event.offset == self.offset + 1, "neither the next one nor announced by a gap"
        self.offset, self.where = event.offset, event.position
        self.shown.append(event)

    def _notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        if notice.type == "gap":
            assert self.where <= self.log.floor or self.gaps == "anywhere", "a gap where nothing was trimmed"
            assert notice.data["from"] == self.offset + 1
            assert notice.data["to"] >= notice.data["from"]
            self.offset = notice.data["to"]
