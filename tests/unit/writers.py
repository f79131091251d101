"""Owners past and present who write into a simulated log, in every order that the rules allow."""

from __future__ import annotations

from dataclasses import dataclass

from simulated import Choices, Log, event, mark

from natsproc.protocol.messages import UNREADABLE


@dataclass
class Owner:
    epoch: int
    run: int
    next: int = 0  # 0: it has not read the log yet
    marked: bool = False
    ended: bool = False


class Writers:
    """Steps of claiming, marking, recording and writing, doubled, late and out of place."""

    def __init__(self, log: Log, choices: Choices, *, trims: bool = False, holes: bool = True) -> None:
        """`trims`: retention is at work. `holes`: later events are stored before earlier ones are sent again."""
        self.log = log
        self.choices = choices
        self.trims = trims
        self.holes = holes
        self.owners: list[Owner] = []
        self.notes = 0
        self.out: list[tuple[int, int, object]] = []

    def step(self) -> list[tuple[int, int, object]]:
        """Do one thing; returns what was stored by it."""
        self.out = []
        match self.choices.below(16):
            case 0 | 1 | 2 | 3:
                self._advance()
            case 4 | 5 | 6:
                self._write(1 + self.choices.below(4))
            case 7:
                self._window()
            case 8:
                self._again()
            case 9 | 10:
                self._zombie()
            case 11:
                self._late_mark()
            case 12:
                self._claim()
            case 13:
                self._garbage()
            case 14:
                self._end()
            case 15:
                if self.trims and self.log.position:
                    self.log.trim(self.log.position - self.choices.below(12))
        return self.out

    @property
    def _owner(self) -> Owner | None:
        """Who owns the log by its last cut, and knows it."""
        epoch = self.log.cuts[-1].epoch if self.log.cuts else 0
        return next((owner for owner in self.owners if owner.epoch == epoch and owner.next), None)

    def _append(self, entry) -> None:
        self.out.append(self.log.append(entry, self.choices.below(3)))

    def _note(self) -> int:
        self.notes += 1
        return self.notes

    def _claim(self) -> None:
        run = max((owner.run for owner in self.owners), default=1)
        if any(owner.run == run and owner.ended for owner in self.owners):
            run += 1
        epoch = (self.owners[-1].epoch if self.owners else 0) + 1 + self.choices.below(3)
        self.owners.append(Owner(epoch, run))
        self.log.claimed = epoch

    def _advance(self) -> None:
        """The last claimant goes on: mark, then record, then write."""
        if not self.owners:
            self._claim()
            return
        last = self.owners[-1]
        if not last.marked:
            last.marked = True
            self._append(mark(last.epoch, last.run))
        elif not last.next:
            last.next = len(self.log.counted) + 1
            self.log.record()
        else:
            self._write(1)

    def _write(self, count: int) -> None:
        owner = self._owner
        if owner is None or owner.ended:
            return
        for _ in range(count):
            self._append(event(owner.epoch, owner.next, owner.run, note=self._note()))
            owner.next += 1

    def _window(self) -> None:
        """Some of several events under way are stored; then all are sent again, or the lost one is refused."""
        owner = self._owner
        if owner is None or owner.ended:
            return
        count = 2 + self.choices.below(3)
        window = [event(owner.epoch, owner.next + i, owner.run, note=self._note()) for i in range(count)]
        for entry in window:
            if self.choices.below(2) and self.holes:
                self._append(entry)
        if self.holes and not self.trims and self.choices.one_in(3):
            first = next((i for i, e in enumerate(window) if self._unstored(e)), count)
            window = [
                *window[:first],
                event(owner.epoch, owner.next + first, owner.run, "failed", self._note()),
            ]
        for entry in window:
            self._append(entry)
        owner.next += len(window)

    def _unstored(self, entry) -> bool:
        return len(self.log.counted) < entry.offset

    def _again(self) -> None:
        """Acknowledgements were lost: what is stored is sent again, by whoever owns the log or did."""
        if self.log.counted:
            count = 1 + self.choices.below(min(4, len(self.log.counted)))
            again = self.log.counted[-count:]
            for _, entry in again if self.trims else again[: 1 + self.choices.below(count)]:
                self._append(entry)

    def _zombie(self) -> None:
        """Somebody who lost the log goes on writing, where it stopped or where the log is now."""
        owner = self._owner
        others = [o for o in self.owners if o is not owner and (o.next or o.marked)]
        if others:
            zombie = others[self.choices.below(len(others))]
            offset = zombie.next if self.choices.below(2) else len(self.log.counted) + 1
            kind = "exited" if self.choices.one_in(4) else "output"
            if zombie.next and zombie.epoch != self.log.cuts[-1].epoch:
                self._append(event(zombie.epoch, max(offset, 1), zombie.run, kind, self._note()))
                zombie.next = max(offset, 1) + 1

    def _late_mark(self) -> None:
        if self.owners:
            owner = self.owners[self.choices.below(len(self.owners))]
            owner.marked = True
            self._append(mark(owner.epoch, owner.run))

    def _garbage(self) -> None:
        self._append(UNREADABLE)

    def _end(self) -> None:
        owner = self._owner
        if owner is not None and not owner.ended:
            owner.ended = True
            self._append(event(owner.epoch, owner.next, owner.run, "exited", self._note()))
            owner.next += 1
