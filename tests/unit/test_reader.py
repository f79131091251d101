"""Whatever is lost, doubled, reordered or read again: what a viewer has shown is a prefix of what counts.

`simulated.Viewer` checks each event as it is shown and, once the network is quiet, that nothing is lacking.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import DECISIONS, Choices, Log, Viewer, event, examples, mark
from writers import Writers

from natsproc.errors import BadPayload
from natsproc.protocol import ownership
from natsproc.protocol.messages import UNREADABLE, Cursor, Event, Notice
from natsproc.protocol.ownership import cursor_at
from natsproc.protocol.reader import Do, Read, Reader
from natsproc.protocol.records import Cut


def played(choices: Choices, **kind: bool) -> tuple[Log, Writers]:
    """A log that has been written for a while."""
    log = Log()
    writers = Writers(log, choices, **kind)
    for _ in range(choices.below(40)):
        writers.step()
    return log, writers


def play(writers: Writers, viewers: list[Viewer], choices: Choices, steps: int = 100) -> None:
    """Go on writing while the viewers read, then let everything come to rest."""
    for _ in range(steps):
        if choices.one_in(3):
            for stored in writers.step():
                for viewer in viewers:
                    viewer.hear(stored)
        for viewer in viewers:
            viewer.step()
    for viewer in viewers:
        viewer.finish()


@examples(300)
@given(DECISIONS)
def test_from_the_beginning_all_that_counts_is_shown(raw):
    choices = Choices(raw)
    log, writers = played(choices)
    cuts = choices.pick([(), log.recorded])
    reader = Reader(cuts=cuts, buffer=choices.below(8), follow_runs=True)
    viewer = Viewer(log, reader, choices)
    play(writers, [viewer], choices)
    assert [e.offset for e in viewer.shown] == list(range(1, len(log.counted) + 1))


@examples(200)
@given(DECISIONS)
def test_from_a_cursor_all_behind_it_is_shown(raw):
    choices = Choices(raw)
    trims = choices.one_in(2)
    log, writers = played(choices, trims=trims, holes=not trims)
    if not log.counted:
        return
    position, entry = choices.pick(log.counted)
    cursor = Cursor(position, entry.epoch, entry.run, entry.offset)
    reader = Reader(cuts=choices.pick([(), log.recorded]), cursor=cursor, follow_runs=True)
    viewer = Viewer(log, reader, choices, behind=entry.offset, where=position)
    play(writers, [viewer], choices)


@examples(150)
@given(DECISIONS)
def test_from_the_first_cut_of_a_run_all_behind_it_is_shown(raw):
    choices = Choices(raw)
    trims = choices.one_in(2)
    log, writers = played(choices, trims=trims, holes=not trims)
    if not log.recorded:
        return
    cut = choices.pick(log.recorded)
    reader = Reader(cuts=log.recorded, cursor=cursor_at(cut), follow_runs=True)
    viewer = Viewer(log, reader, choices, behind=cut.offset - 1, where=cut.position)
    play(writers, [viewer], choices)


@examples(300)
@given(DECISIONS)
def test_from_the_middle_all_behind_it_is_shown(raw):
    choices = Choices(raw)
    log, writers = played(choices, holes=False, trims=choices.one_in(2))
    start = 1 + choices.below(max(log.position, 1))
    reader = Reader(cuts=choices.pick([(), log.recorded]), position=start, follow_runs=True)
    viewer = Viewer(log, reader, choices, behind=sum(p <= start for p, _ in log.counted), start=start)
    play(writers, [viewer], choices)


@examples(200)
@given(DECISIONS)
def test_from_the_middle_among_holes_and_refusals(raw):
    choices = Choices(raw)
    log, writers = played(choices)
    if len(log.counted) < 3:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "WINDOW", 8)
        behind = 1 + choices.below(len(log.counted) - 1)
        start = max((p for p, e in log.counted if e.offset <= behind - 8), default=0)
        reader = Reader(cuts=log.recorded, position=start, offset=behind, follow_runs=True)
        viewer = Viewer(log, reader, choices, behind=behind)
        play(writers, [viewer], choices)


@examples(300)
@given(DECISIONS)
def test_what_retention_trimmed_is_said_and_all_else_is_shown(raw):
    choices = Choices(raw)
    log, writers = played(choices, trims=True, holes=False)
    viewers = [Viewer(log, Reader(follow_runs=True, buffer=choices.below(8)), choices) for _ in range(2)]
    play(writers, viewers, choices)


@examples(200)
@given(DECISIONS)
def test_a_window_of_holes_beside_a_trim_never_stalls_a_viewer(raw):
    choices = Choices(raw)
    log, writers = played(choices, trims=True)
    play(writers, [Viewer(log, Reader(follow_runs=True), choices, gaps="anywhere")], choices)


def stored(*entries, skip=0):
    log = Log()
    for entry in entries:
        log.append(entry, skip)
    log.record()
    log.claimed = log.cuts[-1].epoch if log.cuts else 0
    return log


def quietly(log, reader, **kind):
    viewer = Viewer(log, reader, Choices(b""), **kind)
    viewer.quiet()
    return viewer


def said(viewer):
    return [(notice.type, notice.data) for notice in viewer.notices]


def hear(viewer, *entries):
    for entry in entries:
        viewer.hear(viewer.log.append(entry))
    viewer.quiet()


def test_caught_up_and_ended_follow_the_last_event():
    log = stored(mark(5), event(5, 1), event(5, 2, kind="exited"))
    viewer = quietly(log, Reader())
    assert [e.offset for e in viewer.shown] == [1, 2]
    assert said(viewer) == [("caught_up", {}), ("ended", {"run": 1})]
    assert viewer.notices[-1].cursor == viewer.shown[-1].cursor
    hear(viewer, mark(6, run=2), event(6, 3, run=2))
    assert len(viewer.shown) == 2, "a tail belongs to one run"


def test_the_end_says_how_it_ended():
    log = stored(mark(5), event(5, 1))
    viewer = quietly(log, Reader())
    end = event(5, 2, kind="exited")
    hear(viewer, type(end)(5, 1, 2, "", "exited", {"status": "failed", "code": 3, "error": "…"}))
    assert said(viewer)[-1] == ("ended", {"run": 1, "status": "failed", "code": 3})


def test_a_run_that_follows_in_the_log_goes_before_the_end():
    first = [mark(5), event(5, 1), event(5, 2, kind="exited")]
    log = stored(*first, mark(9, run=2), event(9, 3, run=2), event(9, 4, run=2, kind="exited"))
    viewer = quietly(log, Reader())
    assert [e.offset for e in viewer.shown] == [1, 2, 3, 4]
    assert [kind for kind, _ in said(viewer)] == ["takeover", "caught_up", "ended"]
    assert said(viewer)[0] == ("takeover", {"epoch": 9, "run": 2, "node": "node-9"})


def test_following_all_runs_goes_on_after_each_end():
    viewer = quietly(stored(mark(5), event(5, 1, kind="exited")), Reader(follow_runs=True))
    hear(viewer, mark(6, run=2), event(6, 2, run=2, kind="exited"))
    assert [kind for kind, _ in said(viewer)] == ["caught_up", "ended", "takeover", "ended"]
    assert [e.offset for e in viewer.shown] == [1, 2]


@pytest.mark.parametrize("run", [1, 2])
def test_one_run_is_shown_alone(run):
    first = [mark(5), event(5, 1), event(5, 2, kind="exited")]
    log = stored(*first, mark(9, run=2), event(9, 3, run=2), event(9, 4, run=2, kind="exited"))
    reader = Reader(run=run, cursor=cursor_at(log.cuts[run - 1]), cuts=log.cuts)
    viewer = quietly(log, reader, behind=log.cuts[run - 1].offset - 1)
    assert [e.run for e in viewer.shown] == [run, run]
    assert said(viewer)[-1] == ("ended", {"run": run})


def test_a_run_that_another_one_followed_without_an_end_is_over():
    log = stored(mark(5), event(5, 1), mark(9, run=2), event(9, 2, run=2))
    viewer = quietly(log, Reader(run=1))
    assert [e.offset for e in viewer.shown] == [1]
    assert said(viewer)[-1] == ("ended", {"run": 1})


@pytest.mark.parametrize("kind", ["cursor", "position"])
def test_a_tail_that_begins_behind_the_end_says_so(kind):
    log = stored(mark(5), event(5, 1), event(5, 2, kind="exited"))
    start = {"cursor": Cursor(3, 5, 1, 2)} if kind == "cursor" else {"position": 3}
    viewer = quietly(log, Reader(**start), behind=2)
    assert viewer.shown == []
    assert [kind for kind, _ in said(viewer)] == ["caught_up", "ended"]


def test_a_lost_last_entry_is_found_by_a_probe():
    viewer = quietly(stored(mark(5), event(5, 1)), Reader())
    lost = viewer.log.append(event(5, 2))
    assert viewer.reader.last(lost[0]) == (Read(1),)
    assert viewer.reader.last(lost[0]) == ()
    viewer.perform([Read(1)])
    viewer.finish()
    assert len(viewer.shown) == 2


def test_a_hole_shows_with_the_next_live_entry():
    viewer = quietly(stored(mark(5), event(5, 1)), Reader())
    viewer.log.append(event(5, 2))
    position, previous, entry = viewer.log.append(event(5, 3))
    assert viewer.reader.live(position, previous, entry) == (Read(1),)


def test_a_failed_read_is_never_a_gap():
    reader = Reader()
    reader.start()
    assert reader.history_failed() == (Read(0),)
    assert reader.history_failed() == (Read(0),)
    assert [action.type for action in reader.history_end()] == ["caught_up"]
    assert reader.history_failed() == ()


def test_after_a_reconnect_what_was_under_way_is_begun_anew():
    reader = Reader()
    reader.start()
    assert reader.reconnected() == (Read(0),)
    assert reader.history(3, event(5, 1)) == (Do.ASK_FIRST,)
    assert reader.reconnected() == (Do.ASK_FIRST,)
    assert reader.first(3, [Cut(5, 1, 1, 1)], 5) == (Read(0),)
    reader.history(3, event(5, 1))
    reader.history_end()
    assert reader.reconnected() == (Do.ASK_LAST,)


def test_a_flood_is_read_from_the_log_before_listening_again():
    log = stored(mark(5), event(5, 1))
    viewer = quietly(log, Reader())
    reader = viewer.reader
    assert reader.overflowed() == (Do.UNSUBSCRIBE, Read(1))
    assert reader.overflowed() == ()
    flood = [log.append(event(5, offset)) for offset in range(2, 50)]
    for late in flood[:3]:  # heard before, fed now
        assert reader.live(*late) == ()
    assert reader.history(2, event(5, 1)) == ()
    for position, _, entry in flood:
        viewer.perform(reader.history(position, entry))
    assert reader.history_end() == (Do.SUBSCRIBE, Read(flood[-1][0] - 1))
    viewer.perform([Do.SUBSCRIBE, Read(flood[-1][0] - 1)])
    viewer.finish()
    assert len(viewer.shown) == 49


def test_what_is_kept_while_reading_is_bounded():
    log = stored(mark(5))
    reader = Reader(buffer=10, cuts=log.recorded)
    reader.start()
    heard = [log.append(event(5, offset)) for offset in range(1, 13)]
    assert [reader.live(*entry) for entry in heard[:10]] == [()] * 10
    assert reader.live(*heard[10]) == (Do.UNSUBSCRIBE,)
    assert reader.live(*heard[11]) == ()
    assert reader.history_end() == (Do.SUBSCRIBE, Read(0))


def test_what_is_lacking_between_history_and_live_is_read_at_once():
    log = stored(mark(5), *(event(5, offset) for offset in (1, 2, 3)))
    reader = Reader(cuts=log.recorded)
    reader.start()
    assert reader.live(4, 3, event(5, 3)) == ()
    reader.history(1, mark(5))
    reader.history(2, event(5, 1))
    assert reader.history_end() == [Read(1)]
    reader.history(2, event(5, 1))
    reader.history(3, event(5, 2))
    assert [action.type for action in reader.history_end()] == ["output", "caught_up"]


def test_behind_what_was_heard_nobody_has_caught_up():
    reader = Reader()
    reader.start()
    reader.live(4, 3, event(5, 3))
    assert reader.history_end() == []
    assert [action.type for action in reader.last(0)] == ["caught_up"]


def test_what_nobody_asked_for_changes_nothing():
    log = stored(mark(5), event(5, 1))
    reader = Reader()
    reader.start()
    assert reader.first(1, log.cuts, 5) == ()
    assert reader.last(9) == ()
    assert reader.history(1, mark(5)) == (Do.ASK_FIRST,)
    assert reader.history(2, event(5, 1)) == (), "of the read that is abandoned"
    assert reader.history_end() == ()
    assert reader.live(3, 2, event(5, 2)) == ()
    assert reader.first(1, log.cuts, 5) == (Read(0),)
    reader.history(1, mark(5))
    assert [e.offset for e in reader.history(2, event(5, 1, kind="exited"))] == [1]
    assert [e.type for e in reader.history_end()] == ["output", "caught_up"]


def test_behind_the_end_nothing_is_done_any_more():
    viewer = quietly(stored(mark(5), event(5, 1, kind="exited")), Reader())
    reader = viewer.reader
    assert reader.live(4, 3, event(5, 2)) == ()
    assert reader.live(3, 2, event(5, 2)) == ()
    assert reader.history(3, event(5, 2)) == ()
    inputs = [reader.history_end, reader.history_failed, reader.reconnected, reader.overflowed]
    assert [act() for act in inputs] == [()] * 4
    assert reader.last(9) == reader.first(1) == ()


def test_a_read_that_does_not_bring_what_was_heard_is_not_repeated_at_once():
    """A replica may lag behind; the reader waits for the next entry or probe rather than spinning."""
    viewer = quietly(stored(mark(5), event(5, 1)), Reader())
    reader, log = viewer.reader, viewer.log
    log.append(event(5, 2))
    assert reader.live(*log.append(event(5, 3))) == (Read(1),)
    assert reader.history(2, event(5, 1)) == ()
    assert reader.history_end() == []
    assert reader.last(4) == (Read(1),)


def test_events_of_epochs_that_never_were_do_not_set_off_questions_for_each():
    log = stored(mark(5), event(5, 1), *(event(10_000 + n, n + 1) for n in range(100)), event(5, 2))
    reader = Reader(cuts=log.recorded)
    questions = []
    reader_first = reader.first
    reader.first = lambda *args: questions.append(args) or reader_first(*args)
    viewer = quietly(log, reader)
    assert [e.offset for e in viewer.shown] == [1, 2]
    assert len(questions) <= 1
    assert said(viewer) == [("caught_up", {})], "nobody took over"


def test_garbage_is_passed_over():
    log = stored(UNREADABLE, mark(5), UNREADABLE, event(5, 1), UNREADABLE, event(5, 2))
    assert [e.offset for e in quietly(log, Reader()).shown] == [1, 2]


def test_a_trimmed_log_says_what_is_gone():
    log = stored(mark(5), *(event(5, offset) for offset in range(1, 10)))
    log.trim(4)
    viewer = quietly(log, Reader())
    assert said(viewer) == [("gap", {"from": 1, "to": 3}), ("caught_up", {})]
    assert [e.offset for e in viewer.shown] == [4, 5, 6, 7, 8, 9]


def test_a_trim_past_the_cursor_says_what_is_gone():
    log = stored(mark(5), *(event(5, offset) for offset in range(1, 10)))
    log.trim(6)
    viewer = quietly(log, Reader(cursor=Cursor(3, 5, 1, 2), cuts=log.recorded), behind=2)
    assert said(viewer)[0] == ("gap", {"from": 3, "to": 5})


def test_a_zombies_next_event_behind_a_trimmed_mark_is_not_shown():
    """The mark that voided it is gone: only the record's cuts tell, read after the entry was seen."""
    log = stored(mark(5), event(5, 1))
    viewer = quietly(log, Reader(cuts=log.recorded))
    log.append(mark(9))
    log.record()
    log.claimed = 9
    log.append(event(5, 2, note="zombie"))
    log.append(event(9, 2))
    log.trim(3)
    viewer.finish()
    assert [e.epoch for e in viewer.shown] == [5, 9]


def test_a_start_behind_a_mark_that_is_not_recorded_yet():
    log = stored(mark(5), event(5, 1))
    log.append(mark(9))
    log.claimed = 9
    log.append(event(5, 2, note="zombie"))
    log.append(event(9, 2))
    viewer = quietly(log, Reader(cuts=log.recorded, position=4), behind=1, start=4)
    assert [e.epoch for e in viewer.shown] == [9]


def test_what_was_asked_about_and_trimmed_before_it_could_be_read():
    log = stored(mark(5), event(5, 1))
    log.append(mark(9))
    log.claimed = 9
    log.trim(2)
    reader = Reader()
    reader.start()
    assert reader.history(3, mark(9)) == (Do.ASK_FIRST,)
    assert reader.first(3, log.recorded, 9) == (Read(0),)
    log.record()
    log.trim(3)
    assert [action.type for action in reader.history_end()] == ["caught_up"]
    assert reader.live(*log.append(event(9, 2))) == (Read(0),), "nothing before it, and that may be a trim"
    assert reader.history(4, event(9, 2)) == (Do.ASK_FIRST,)
    assert reader.first(4, log.recorded, 9) == (Read(0),)
    assert [action.type for action in reader.history(4, event(9, 2))] == ["gap", "output"]


@pytest.mark.parametrize(("start", "expected"), [(6, [6]), (7, [3, 4, 5, 6])])
def test_a_start_before_or_among_repeats_leaves_no_hole(start, expected):
    log = stored(mark(5), *(event(5, offset) for offset in (1, 2, 3, 4, 5, 2, 3)))
    viewer = quietly(log, Reader(cuts=log.recorded, position=start), behind=5, start=start)
    hear(viewer, event(5, 6))
    assert [e.offset for e in viewer.shown] == expected
    assert said(viewer) == [("caught_up", {})]


def test_a_strangers_cursor_is_refused():
    cuts = [Cut(5, 1, 1, 10), Cut(9, 1, 4, 20)]
    strangers = [Cursor(15, 6, 1, 2), Cursor(25, 5, 1, 3), Cursor(25, 9, 1, 2), Cursor(5, 3, 1, 1)]
    for cursor in strangers:
        with pytest.raises(BadPayload, match="another log"):
            Reader(cuts=cuts, cursor=cursor)


def test_a_cursor_whose_entry_is_another_is_refused():
    reader = Reader(cursor=Cursor(12, 5, 1, 2))
    assert reader.start() == (Do.SUBSCRIBE, Read(11))
    with pytest.raises(BadPayload, match="another log"):
        reader.history(12, event(5, 3))


def test_a_cursor_whose_entry_is_of_another_process_is_refused():
    reader = Reader(cursor=Cursor(12, 5, 1, 2))
    reader.start()
    assert reader.history(14, event(5, 3)) == (Do.ASK_FIRST,)
    with pytest.raises(BadPayload, match="another log"):
        reader.first(10)


@examples(50)
@given(st.integers(0, 3))
def test_notices_carry_the_cursor_of_the_event_before(number):
    log = stored(mark(5), *(event(5, offset) for offset in range(1, number + 1)))
    viewer = quietly(log, Reader(cuts=log.recorded))
    notice = viewer.notices[-1]
    assert isinstance(notice, Notice)
    assert notice.cursor == (viewer.shown[-1].cursor if number else "")
    assert all(isinstance(shown, Event) for shown in viewer.shown)
