"""Owners, zombies, a log, a claim record and viewers, at random, driven by the functions that the bus uses.

Owners are generators that a scheduler wakes in any order, or forgets: whoever sleeps while another takes over is
a zombie when it wakes. Answers get lost, so that an owner does not know what happened; marks and events arrive
late and twice. Whatever happens, the rules of section 4 have to hold.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from simulated import DECISIONS, Choices, Log, Viewer, examples, mark

from natsproc.errors import AlreadyEnded, AlreadyRunning, OwnershipLost
from natsproc.protocol.messages import EXITED, Entry, encode
from natsproc.protocol.names import Address
from natsproc.protocol.ownership import (
    Fold,
    Verdict,
    check_owner,
    cursor_at,
    opening,
    owned,
    take,
)
from natsproc.protocol.reader import Reader
from natsproc.protocol.records import Claim

ADDRESS = Address("default", "build")
Step = Iterator[None]


class World:
    """The bus: a log, a claim record, and all that is on its way to either."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.log = Log()
        self.payload: bytes | None = None  # the claim record
        self.revision = 0
        self.late: list[object] = []  # what may arrive at any time, or never
        self.owners: list[Owner] = []
        self.steps: list[Step] = []
        self.viewers: list[Viewer] = []
        self.promised: list[Entry] = []

    def claim(self) -> tuple[Claim | None, int]:
        """Read the record from the leader."""
        return (Claim.parse(self.payload), self.revision) if self.payload else (None, 0)

    def swap(self, wanted: Claim, expected: int) -> str:
        """Compare-and-set, of which the outcome may stay unknown."""
        fate = self.choices.below(8)
        if fate == 7:  # on its way for long
            self.late.append((wanted, expected))
            return "unknown"
        won = self._apply(wanted, expected)
        if fate == 6:
            return "unknown"
        return "won" if won else "lost"

    def _apply(self, wanted: Claim, expected: int) -> bool:
        if expected != (self.revision if self.payload else 0):
            return False
        self.revision += 1 + self.choices.below(3)
        self.payload = encode(wanted.to_json())
        claim, revision = self.claim()
        self.log.recorded, self.log.claimed = claim.cuts, claim.epoch_at(revision)
        return True

    def store(self, entry: Entry) -> bool:
        """Publish: whether it was acknowledged."""
        fate = self.choices.below(10)
        if fate == 9:
            return False
        if fate == 8:
            self.late.append(entry)
            return False
        self.append(entry)
        if fate == 7:
            self.late.append(entry)
        return fate != 6

    def append(self, entry: Entry) -> None:
        stored = self.log.append(entry, self.choices.below(2))
        for viewer in self.viewers:
            viewer.hear(stored)

    def deliver_late(self) -> None:
        if self.late:
            what = self.late.pop(self.choices.below(len(self.late)))
            if isinstance(what, Entry):
                self.append(what)
            else:
                self._apply(*what)

    def spawn(self) -> None:
        owner = Owner(self, len(self.owners), restart=self.choices.one_in(2))
        self.owners.append(owner)
        self.steps.append(owner.live())


class Owner:
    """Somebody who wants the id, and what it does with it."""

    def __init__(self, world: World, number: int, *, restart: bool) -> None:
        self.world = world
        self.node = f"node-{number}"
        self.nonce = f"nonce-{number}"
        self.restart = restart
        self.alive = True
        self.claim = Claim("", "")
        self.revision = 0
        self.epoch = 0
        self.next = 0
        self.runs: set[int] = set()  # those it has claimed, or tried to

    def live(self) -> Step:
        try:
            yield from self._own()
            yield from self._work()
        except (AlreadyRunning, AlreadyEnded, OwnershipLost):
            pass
        finally:
            self.alive = False

    def _own(self) -> Step:
        ended = False
        while True:
            yield from self._take(ended)
            yield from self._mark()
            fold, run_ended = yield from self._read()
            self.next = fold.settle()
            ended = run_ended == self.claim.run
            if ended and self.restart:
                continue
            yield from self._amend(owned(self.claim, self.revision, fold.cuts, 1, ended=ended))
            if ended:
                raise AlreadyEnded
            self.kind = opening(self.claim.run, self.claim.cuts, self.next)
            return

    def _take(self, ended: bool) -> Step:
        """Rule 1: win the record, with the same nonce until the outcome is known."""
        self.nonce += "+"
        while True:
            claim, revision = self.world.claim()
            yield
            if claim is not None and claim.nonce == self.nonce:
                break
            mine = claim is not None and claim.nonce == self.claim.nonce
            alive = not mine and claim is not None and self._answers(claim)
            wanted = take(
                ADDRESS,
                claim,
                revision,
                node=self.node,
                nonce=self.nonce,
                alive=alive,
                ended=ended and mine,
                restart=self.restart,
            )
            self.runs.add(wanted.run)
            yield
            self.world.swap(wanted, revision)
            yield
        self.claim, self.revision, self.epoch = claim, revision, claim.epoch_at(revision)

    def _answers(self, claim: Claim) -> bool:
        """A ping: whoever is gone does not answer, and whoever is there may not be heard."""
        there = any(owner.alive and owner.nonce == claim.nonce for owner in self.world.owners)
        return there and self.world.choices.one_in(4)

    def _mark(self) -> Step:
        """Rule 2: append a mark until it is known to be stored."""
        while not self.world.store(mark(self.epoch, self.claim.run)):
            yield
        yield

    def _read(self) -> Iterator[None]:
        """Rule 3: read the log from the last recorded cut up to the own mark."""
        cuts = self.claim.cuts
        fold = Fold(cuts, cursor=cursor_at(cuts[-1])) if cuts else Fold()
        ended = 0
        for position, _, entry in self.world.log.stored(cuts[-1].position if cuts else 0):
            verdict = fold.feed(position, entry)
            if verdict is Verdict.UNSURE:
                fold.refresh(cuts)
                verdict = fold.feed(position, entry)
            assert verdict not in (Verdict.UNSURE, Verdict.UNREADABLE)
            if verdict is Verdict.CUT and entry.epoch == self.epoch:
                return fold, ended
            if verdict is Verdict.COUNTS and entry.type == EXITED:
                ended = entry.run
            if self.world.choices.one_in(12):
                yield
        raise OwnershipLost  # the mark came behind that of a later claim

    def _amend(self, wanted: Claim) -> Step:
        """Change the record, as long as it is ours."""
        while True:
            outcome = self.world.swap(wanted, self.revision)
            yield
            claim, revision = self.world.claim()
            check_owner(ADDRESS, claim, revision, self.nonce)
            if outcome == "won" or claim == wanted:
                self.claim, self.revision = claim, revision
                return
            self.revision = revision

    def _work(self) -> Step:
        """Write in windows; whatever promises something reads the claim after the commit."""
        run = self.claim.run
        queue = [self._event(run, self.kind)]
        for _ in range(self.world.choices.below(5)):
            queue += [self._event(run, "output") for _ in range(self.world.choices.below(4))]
            yield from self._flush(queue)
            queue = []
        if self.world.choices.one_in(2):
            return  # it dies
        queue.append(self._event(run, EXITED))
        yield from self._flush(queue)
        yield from self._amend(replace(self.claim, ended=True))

    def _event(self, run: int, kind: str) -> Entry:
        entry = Entry(self.epoch, run, self.next, "", kind, [self.node, self.next])
        self.next += 1
        return entry

    def _flush(self, queue: list[Entry]) -> Step:
        waiting = deque(queue)
        while waiting:
            acknowledged = []
            for entry in list(waiting)[:4]:
                acknowledged.append(self.world.store(entry))
                yield
            while acknowledged and acknowledged.pop(0):  # from the front: the rest is sent again, in order
                waiting.popleft()
            yield
        claim, revision = self.world.claim()
        check_owner(ADDRESS, claim, revision, self.nonce)
        self.world.promised += queue


def run(raw: bytes, steps: int = 250) -> World:
    choices = Choices(raw)
    world = World(choices)
    world.spawn()
    world.viewers = [Viewer(world.log, Reader(follow_runs=True, buffer=4), choices) for _ in range(2)]
    for _ in range(steps):
        match choices.below(12):
            case 11 if len(world.owners) < 8:
                world.spawn()
            case 10:
                world.deliver_late()
            case 9 | 8:
                world.viewers[choices.below(2)].step()
            case _ if world.steps:
                step = choices.pick(world.steps)
                if next(step, "over") == "over":
                    world.steps.remove(step)
            case _:
                world.spawn()
    while world.late:
        world.deliver_late()
    return world


def somebody_can_take_over(world: World) -> None:
    """Once nobody answers and the network is well, whoever asks for the id gets it, and what it says counts."""
    world.choices = Choices(b"")
    for owner in world.owners:
        owner.alive = False
    heir = Owner(world, len(world.owners), restart=True)
    world.owners.append(heir)
    before = len(world.log.counted)
    for _ in heir.live():
        pass
    assert [entry.data[0] for _, entry in world.log.counted[before:]] == [heir.node] * 2


@examples(400)
@given(DECISIONS)
def test_owners_zombies_and_viewers_agree(raw):
    world = run(raw)
    somebody_can_take_over(world)
    for viewer in world.viewers:
        viewer.finish()
        assert [e.offset for e in viewer.shown] == list(range(1, len(world.log.counted) + 1))
    promises_are_kept(world)
    runs_end_once(world)
    cuts_agree(world)


def promises_are_kept(world: World) -> None:
    """Every event of a flush that returned counts, exactly once."""
    counted = Counter((e.epoch, e.offset, e.type, str(e.data)) for _, e in world.log.counted)
    for entry in world.promised:
        assert counted[entry.epoch, entry.offset, entry.type, str(entry.data)] == 1, "a promise was broken"


def runs_end_once(world: World) -> None:
    """A run has one end, nothing behind it, and begins with an event that says so."""
    ended: set[int] = set()
    latest = 0
    for _, entry in world.log.counted:
        assert entry.run not in ended, "a run went on after its end"
        assert entry.run >= latest
        if entry.run > latest:
            assert not latest or latest in ended, "a run began before the last one had ended"
            assert entry.type == ("started" if entry.run == 1 else "restarted")
            asked = any(owner.restart and entry.run in owner.runs for owner in world.owners)
            assert entry.run == 1 or asked, "a next run that nobody asked for"
        elif entry.type in ("started", "restarted"):
            raise AssertionError("a run began twice")
        latest = entry.run
        if entry.type == EXITED:
            ended.add(entry.run)


def cuts_agree(world: World) -> None:
    """Folding over the marks, the record's table, and the rule by its letter give the same."""
    log = world.log
    fold = Fold()
    fold.refresh(log.recorded)
    counted = [(p, e) for p, _, e in log.entries if fold.feed(p, e) is Verdict.COUNTS]
    assert counted == log.counted
    assert fold.settle() == len(counted) + 1
    assert list(fold.cuts) == log.cuts
    assert list(log.recorded) == log.cuts[: len(log.recorded)], "the record is not what the log says"
    assert len({cut.epoch for cut in log.cuts}) == len(log.cuts)
