"""The checker of the torture run, on histories forged to be good and to be bad in one way each."""

from __future__ import annotations

import copy
import json

import pytest

from tests.torture.checker import (
    Acknowledged,
    Began,
    Claimed,
    Ended,
    History,
    Kept,
    Lost,
    Receipt,
    Replied,
    Saved,
    Sent,
    Shown,
    Stored,
    check,
    digest,
    what_counts,
)


class Forger:
    """Writes a good history: two owners of run 1 with a zombie between them, and one of run 2."""

    def __init__(self):
        self.log: list[Stored] = []
        self.offset = 0

    def mark(self, epoch, run):
        self.store({"epoch": epoch, "run": run, "type": "mark", "data": {"nonce": "n", "node": "n"}})

    def event(self, epoch, run, kind, data, *, offset=None, cause=None):
        if offset is None:
            self.offset = offset = self.offset + 1
        raw = {"offset": offset, "epoch": epoch, "run": run, "type": kind, "data": data}
        self.store(raw | ({"cause": cause} if cause else {}))

    def tick(self, epoch, run, by, **place):
        self.event(epoch, run, "tick", {"by": by}, **place)

    def received(self, epoch, run, position):
        data = {"message": f"m{position}", "sender": "s0", "position": position, "data": position}
        self.event(epoch, run, "received", data, cause=f"m{position}")

    def store(self, raw):
        self.log.append(Stored(10 * len(self.log) + 10, json.dumps({"time": "", **raw}).encode()))

    def history(self):
        self.mark(3, 1)
        self.event(3, 1, "started", {})
        for _ in range(3):
            self.tick(3, 1, "n0.1")
        self.tick(3, 1, "n0.1", offset=4)  # a repeat
        self.received(3, 1, 1)
        self.tick(3, 1, "n0.1", offset=7)  # behind a hole, and sent again
        self.mark(5, 1)
        self.tick(3, 1, "n0.1", offset=6)  # a zombie's
        self.event(5, 1, "recovered", {})
        self.tick(5, 1, "n1.1")
        self.event(5, 1, "interrupted", {"command": "c1"}, cause="c1")
        self.received(5, 1, 2)
        self.event(5, 1, "replied", {"message": "m2", "data": 2}, cause="m2")
        self.event(5, 1, "exited", {"status": "completed", "code": 0})
        self.mark(8, 2)
        self.event(8, 2, "restarted", {})
        self.received(8, 2, 4)
        self.tick(8, 2, "n0.2")
        self.event(8, 2, "exited", {"status": "failed", "code": 1})
        counted, cuts = what_counts(self.log)
        lines = [line for line, _ in counted]
        return History(
            "p0",
            self.log,
            [Stored(n, json.dumps({"id": f"m{n}", "data": n}).encode(), "s0") for n in (1, 2, 4)],
            cuts,
            claimed=[Claimed("n0.1", 3, 1), Claimed("n1.1", 5, 1), Claimed("n0.2", 8, 2)],
            acknowledged=[self.told("n0.1", 3, 4), self.told("n1.1", 5, 7), self.told("n0.2", 8, 14)],
            ended=[Ended("n1.1", 5, 1, "completed"), Ended("n0.2", 8, 2, "failed")],
            lost=[Lost("n0.1", 3)],
            sent=[Sent("s0", "m1", 1), Sent("s0", "m4", 4)],
            receipts=[Receipt("c1", 8, "interrupted")],
            replied=[Replied("m2", 2, 2)],
            shown={"v0": lines, "v1": list(lines)},
        )

    @staticmethod
    def told(owner, epoch, offset):
        return Acknowledged(owner, epoch, offset, {offset: digest("tick", {"by": owner})})


def good() -> History:
    return Forger().history()


def test_a_good_history_has_no_violation():
    history = good()
    assert check(history) == []
    assert [line.offset for line in history.shown["v0"]] == list(range(1, 16))


def test_what_is_not_complete_may_lack_its_end():
    history = good()
    del history.log[-1], history.ended[-1]
    del history.shown["v0"][-1:], history.shown["v1"][-4:]
    assert check(history, complete=False) == []
    assert check(history) != []


def rewrite(history, index, **fields):
    entry = history.log[index]
    history.log[index] = entry._replace(payload=json.dumps(json.loads(entry.payload) | fields).encode())


def show(history, **fields):
    history.shown["v1"][5] = history.shown["v1"][5]._replace(**fields)


def lose(history, index):
    """The stream lost an entry that counts, and viewers showed the rest: as if it had never been."""
    del history.log[index]
    history.shown = {"v0": [line for line, _ in what_counts(history.log)[0]]}


def two_terminal_events(history):
    payload = json.loads(history.log[-1].payload) | {"offset": 16}
    history.log.append(Stored(999, json.dumps(payload).encode()))
    history.shown = {"v0": [line for line, _ in what_counts(history.log)[0]]}


def consumed_twice(history):
    rewrite(history, 18, data=json.loads(history.log[6].payload)["data"])
    history.shown = {"v0": [line for line, _ in what_counts(history.log)[0]]}


def never_consumed(history):
    history.inbox.append(Stored(6, b'{"id":"m6","data":6}', "s0"))


def stored_twice(history):
    history.inbox.append(Stored(7, history.inbox[0].payload, "s0"))


def out_of_order(history):
    history.inbox = [entry._replace(position={1: 1, 2: 9, 4: 4}[entry.position]) for entry in history.inbox]
    data = json.loads(history.log[13].payload)["data"] | {"position": 9}
    rewrite(history, 13, data=data)
    history.shown = {"v0": [line for line, _ in what_counts(history.log)[0]]}


BAD = {
    "is acknowledged and lost with the log": (lambda h: lose(h, 2), "was acknowledged to n0.1"),
    "is acknowledged to a zombie": (
        lambda h: h.acknowledged.append(Forger.told("n0.1", 3, 6)),
        "offset 6 was acknowledged to n0.1 in epoch 3, and does not count",
    ),
    "is acknowledged and another": (
        lambda h: h.acknowledged.append(Acknowledged("n0.1", 3, 4, {4: 1})),
        "is another event",
    ),
    "was told of an end that is not there": (
        lambda h: h.ended.append(Ended("n0.1", 3, 1, "failed")),
        "was told that run 1 ended failed in epoch 3",
    ),
    "was told of an end of another status": (
        lambda h: h.ended.__setitem__(1, Ended("n0.2", 8, 2, "completed")),
        "was told that run 2 ended completed",
    ),
    "was told of a loss that is none": (lambda h: h.lost.append(Lost("n0.2", 8)), "nobody took it"),
    "has two owners in one epoch": (lambda h: h.claimed.append(Claimed("n2.1", 5, 1)), "both own epoch 5"),
    "has a stranger in an epoch": (
        lambda h: rewrite(h, 11, data={"by": "n0.1"}),
        "n0.1 wrote offset 7 in epoch 5, which belongs to n1.1",
    ),
    "has an epoch without an opening": (
        lambda h: rewrite(h, 10, type="tick"),
        "epoch 5 begins with tick",
    ),
    "has a run without an end": (lambda h: rewrite(h, 15, type="tick"), "run 1 has no terminal event"),
    "has a last run without an end": (lambda h: rewrite(h, -1, type="tick"), "run 2 has no terminal event"),
    "has two ends of a run": (two_terminal_events, "run 2 has ended, and goes on with exited"),
    "leaves a run out": (
        lambda h: [rewrite(h, index, run=3) for index in range(16, 21)],
        "run 3 follows run 1",
    ),
    "recovers into a new run": (lambda h: rewrite(h, 17, type="recovered"), "run 2 begins with recovered"),
    "has a command that is not recorded": (
        lambda h: h.receipts.append(Receipt("c2", 7, "interrupted")),
        "c2 was interrupted at offset 7, it was said, where there is tick",
    ),
    "was told of a reply that is not there": (
        lambda h: h.replied.append(Replied("m4", 4, 4)),
        "the reply to m4 was 4, which is None in the log and 4 by rights",
    ),
    "was told of a wrong reply": (lambda h: h.replied.append(Replied("m2", 2, 3)), "the reply to m2 was 3"),
    "has a message that is acknowledged and lost": (
        lambda h: h.sent.append(Sent("s0", "m3", 3)),
        "message m3 was acknowledged at position 3, which holds nothing",
    ),
    "has a message that is stored twice": (stored_twice, "message m1 is stored 2 times"),
    "has a message that is consumed twice": (consumed_twice, "message m1 was consumed again at offset 13"),
    "has a message that is never consumed": (never_consumed, "message m6 at position 6 was never consumed"),
    "has messages out of order": (out_of_order, "message m4 of s0 was consumed after a later one"),
    "has a message that nobody sent": (lambda h: h.inbox.pop(0), "is not in the inbox"),
    "has a cut that the log has not": (lambda h: h.cuts.append((9, 2, 16, 999)), "that the log has not"),
    "lacks a cut in its record": (lambda h: h.cuts.pop(), "lacks the last cut"),
    "is shown twice": (lambda h: h.shown["v1"].insert(3, h.shown["v1"][2]), "v1 showed"),
    "is shown out of order": (
        lambda h: h.shown["v1"].insert(3, h.shown["v1"].pop()),
        "v1 showed",
    ),
    "is shown with a hole": (lambda h: h.shown["v1"].pop(4), "v1 showed"),
    "is shown and not stored": (
        lambda h: h.shown["v1"].append(Shown(999, 8, 2, 16, "tick", 0)),
        "v1 showed offset 16 at position 999, which does not count",
    ),
    "is shown from a zombie": (lambda h: show(h, position=90, epoch=3), "v1 showed"),
    "is shown as something else": (lambda h: show(h, digest=1), "v1 showed"),
    "is not shown to the end": (lambda h: h.shown["v1"].pop(), "v1 never showed offset 15"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_history_that(how):
    forge, sentence = BAD[how]
    history = copy.deepcopy(good())
    forge(history)
    found = check(history)
    assert any(sentence in violation for violation in found), found


def test_the_judges_disagree_when_one_of_them_is_wrong(monkeypatch):
    from natsproc.protocol.ownership import Fold, Verdict

    right = Fold.feed
    monkeypatch.setattr(
        Fold, "feed", lambda self, at, entry: Verdict.COUNTS if at == 80 else right(self, at, entry)
    )
    assert check(good()) == ["p0: the judges disagree about the entry at position 80"]


def with_state(**lists) -> History:
    """A history with a state: two owners of a run, of whom the second goes on with what the first has saved."""
    log = Forger()
    log.mark(3, 1)
    log.event(3, 1, "started", {})
    log.received(3, 1, 1)
    log.event(3, 1, "checkpointed", {})
    log.received(3, 1, 2)
    log.mark(5, 1)
    log.event(5, 1, "recovered", {"checkpoint": 3})
    log.received(5, 1, 2)
    log.event(5, 1, "exited", {"status": "completed"})
    _, cuts = what_counts(log.log)
    inbox = [Stored(n, json.dumps({"id": f"m{n}", "data": n}).encode(), "s0") for n in (1, 2)]
    known = {
        "began": [Began("n0", 3, 1, []), Began("n1", 5, 1, ["m1"])],
        "kept": [Kept("n1", 5, 1, ["m1", "m2"])],
        "saved": [Saved("n0", 3, 1, 3)],
    }
    return History("p0", log.log, inbox, cuts, **(known | lists))


def test_what_was_taken_since_the_state_was_saved_is_taken_again():
    assert check(with_state()) == []


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"kept": [Kept("n1", 5, 1, ["m1", "m2", "m2"])]}, "n1 ended run 1 with 3 messages"),
        ({"kept": [Kept("n1", 5, 1, ["m2"])]}, "the log says otherwise of {'m1': -1}"),
        ({"began": [Began("n1", 5, 1, ["m1", "m2"])]}, "n1 began run 1 with 2 messages"),
        ({"began": [Began("n1", 5, 1, [])]}, "n1 began run 1 with 0 messages"),
        ({"saved": [Saved("n0", 3, 1, 4)]}, "epoch 5 begins with the state of offset 3, and 4 was saved"),
    ],
)
def test_a_state_that_disagrees_with_the_log(lists, sentence):
    found = check(with_state(**lists))
    assert len(found) == 1
    assert sentence in found[0]


def dropping(*entries, name="p3", acknowledged=()) -> list[str]:
    """What is wrong with a run of these ticks, and of `-3` for three that were dropped."""
    log = Forger()
    log.mark(3, 1)
    log.event(3, 1, "started", {})
    for n in entries:
        if n < 0:
            log.event(3, 1, "dropped", {"count": -n, "bytes": -n})
        else:
            log.event(3, 1, "tick", {"by": "n0", "n": n})
    log.event(3, 1, "exited", {"status": "completed"})
    _, cuts = what_counts(log.log)
    acks = [Acknowledged("n0", 3, upto, {upto: 1} if n < 0 else {}, abs(n)) for upto, n in acknowledged]
    claimed = [Claimed("n0", 3, 1)]
    return check(History(name, log.log, [], cuts, claimed=claimed, acknowledged=acks))


def test_what_was_dropped_and_said_to_be_is_not_missing():
    assert (
        dropping(1, 2, -3, 6, -1, -2, acknowledged=[(3, 2), (4, -3), (4, -5), (5, 6), (6, -7), (7, -9)]) == []
    )
    assert dropping(1, 2, 3, name="p0", acknowledged=[(4, 3)]) == []


@pytest.mark.parametrize(
    ("entries", "more", "sentence"),
    [
        ((1, 3), {}, "tick 3 at offset 3 follows 1, and 0 are said to be dropped"),
        ((1, -1, 4), {}, "tick 4 at offset 4 follows 1, and 1 are said to be dropped"),
        ((1, -2, 3), {}, "tick 3 at offset 4 follows 1, and 2 are said to be dropped"),
        ((1, 1), {}, "tick 1 at offset 3 follows 1"),
        ((1, -2, 4), {"name": "p0"}, "2 events were dropped at offset 3, by an owner that drops none"),
        ((1, -2), {"acknowledged": [(3, -4)]}, "tick 4 was acknowledged to n0 at offset 3, which is about 2 to 3"),
        ((1, 2), {"acknowledged": [(2, 2)]}, "tick 2 was acknowledged to n0 at offset 2, which is about 1 to 1"),
    ],
)  # fmt: skip
def test_what_is_missing_and_not_said_to_be_or_the_reverse(entries, more, sentence):
    found = dropping(*entries, **more)
    assert len(found) == 1
    assert sentence in found[0]
