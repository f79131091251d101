"""Places in a log: a claimant that begins at one learns the same as one that reads the whole epoch."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from natsproc.bus.bulk import StoredEntry
from natsproc.bus.claims import _Reading
from natsproc.protocol.carried import Carried
from natsproc.protocol.messages import encode, encode_event, encode_frame, encode_mark
from natsproc.protocol.records import Claim, Cut, Place

EPOCH = 7
NOW = "2026-01-01T00:00:00.000Z"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6)),
        st.tuples(st.just("store"), st.integers(1, 8)),
        st.tuples(st.just("lose"), st.integers(1, 3)),
        st.tuples(st.just("acknowledge"), st.integers(1, 8)),
        st.tuples(st.just("again"), st.just(0)),
        st.tuples(st.just("place"), st.just(0)),
    ),
    max_size=60,
)


class Owner:
    """A writer whose entries are stored more than once, with holes, and acknowledged late or never."""

    def __init__(self) -> None:
        self.stream = [StoredEntry(1, encode_mark(EPOCH, 1, NOW, "nonce", "n"), NOW, "s", None)]
        self.last = self.sent = self.acknowledged = 0
        self.counted = 0
        self.carried = Carried()
        self.snapshots: dict[int, Carried] = {0: Carried()}
        self.place: Place | None = None

    def append(self, number: int) -> None:
        for _ in range(number):
            self.last += 1
            self.carried.feed("received", self.data(self.last), self.last)
            self.snapshots[self.last] = self.carried.copy()

    @staticmethod
    def data(offset: int) -> dict[str, object]:
        return {"sender": f"s{offset % 3}", "position": offset}

    def store(self, number: int) -> None:
        for _ in range(min(number, self.last - self.sent)):
            self.sent += 1
            payload = encode_event(
                self.sent, encode_frame(EPOCH, 1, NOW), encode("received"), encode(self.data(self.sent))
            )
            self.stream.append(StoredEntry(len(self.stream) * 3, payload, NOW, "s", None))
            self.counted += self.sent == self.counted + 1

    def lose(self, number: int) -> None:
        self.sent = min(self.sent + number, self.last)

    def acknowledge(self, number: int) -> None:
        self.acknowledged = min(self.acknowledged + number, self.sent, self.counted)

    def again(self, _: int) -> None:
        self.sent = self.acknowledged

    def make_place(self, _: int) -> None:
        """At the last copy of what was acknowledged last, as `Checkpoints` does."""
        offset = self.acknowledged
        copies = [s.position for s in self.stream if b'{"offset":%d,' % offset in s.payload]
        if copies:
            self.place = Place(copies[-1], EPOCH, 1, offset, self.last)
            self.at_place = self.snapshots[offset]


def reading(owner: Owner, claim: Claim, *, from_place: bool) -> _Reading:
    found = _Reading(claim, owner.stream[0], from_place=from_place)
    for stored in owner.stream:
        if stored.position > found.position:
            found.feed(stored)
    return found


@settings(max_examples=400)
@given(STEPS)
@example(  # 2 and 3 are stored before 1: an early copy of 2 says nothing of what lies before it
    [("append", 3), ("lose", 1), ("store", 2), ("again", 0), ("store", 2), ("acknowledge", 2), ("place", 0)]
)
def test_reading_from_a_place_says_what_reading_the_epoch_says(steps):
    owner = Owner()
    for name, number in steps:
        getattr(owner, "make_place" if name == "place" else name)(number)
    carried = owner.at_place if owner.place else Carried()
    claim = Claim(
        "nonce", "n", EPOCH, 1, cuts=(Cut(EPOCH, 1, 1, 1),), place=owner.place, extra=carried.to_json()
    )
    whole = reading(owner, Claim("nonce", "n", EPOCH, 1, cuts=claim.cuts), from_place=False)
    short = reading(owner, claim, from_place=True)
    if short.uncertain:
        short = reading(owner, claim, from_place=False)
    won = Claim("other", "m", 0, 1, cuts=claim.cuts)
    assert short.settle(won, 9)[0] == whole.settle(won, 9)[0] == owner.counted + 1
    assert short.carried.received == whole.carried.received == owner.snapshots[owner.counted].received


def test_a_place_is_uncertain_while_what_lay_before_it_may_be_missing():
    owner = Owner()
    owner.append(10)
    owner.store(10)
    owner.acknowledge(5)
    owner.again(0)
    owner.acknowledged = 0
    owner.again(0)
    owner.store(5)  # 1 to 10, then 1 to 5, of which 5 is the last copy of what was acknowledged
    owner.acknowledged = 5
    owner.make_place(0)
    claim = Claim("nonce", "n", EPOCH, 1, cuts=(Cut(EPOCH, 1, 1, 1),), place=owner.place)
    assert reading(owner, claim, from_place=True).uncertain
    owner.store(5)
    assert not reading(owner, claim, from_place=True).uncertain
