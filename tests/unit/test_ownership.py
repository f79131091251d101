"""Which entries count, by folding and by the record's table, and who may take an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import DECISIONS, Choices, Log, event, examples, mark
from writers import Writers

from natsproc.errors import AlreadyEnded, AlreadyRunning, BadPayload, OwnershipLost
from natsproc.protocol.messages import UNREADABLE, Cursor
from natsproc.protocol.names import Address
from natsproc.protocol.ownership import (
    WINDOW,
    Fold,
    Verdict,
    check_cursor,
    check_owner,
    cursor_at,
    cut_before,
    merge_cuts,
    opening,
    owned,
    prune_cuts,
    take,
)
from natsproc.protocol.records import Claim, Cut

ADDRESS = Address("default", "build")
TABLE = (Cut(5, 1, 1, 10), Cut(9, 1, 4, 20), Cut(12, 2, 8, 30))


def written(raw: bytes, **kind: bool) -> tuple[Log, Choices]:
    choices = Choices(raw)
    log = Log()
    writers = Writers(log, choices, **kind)
    for _ in range(60):
        writers.step()
    return log, choices


def verdicts(fold: Fold, log: Log, after: int = 0) -> dict[int, Verdict]:
    """Fold over the stored entries behind that position; in doubt, with the true table."""
    found = {}
    for position, _, entry in log.stored(after):
        verdict = fold.feed(position, entry)
        if verdict is Verdict.UNSURE:
            fold.refresh(log.cuts)
            verdict = fold.feed(position, entry)
        assert verdict is not Verdict.UNSURE
        found[position] = verdict
    return found


def counting(found: dict[int, Verdict]) -> list[int]:
    return [position for position, verdict in found.items() if verdict is Verdict.COUNTS]


@examples(300)
@given(DECISIONS)
def test_folding_the_whole_log_gives_what_counts_and_the_cuts(raw):
    log, _ = written(raw)
    fold = Fold()
    assert counting(verdicts(fold, log)) == [position for position, _ in log.counted]
    assert fold.settle() == len(log.counted) + 1
    assert list(fold.cuts) == log.cuts


@examples(300)
@given(DECISIONS)
def test_folding_over_marks_and_looking_cuts_up_agree(raw):
    """Rule 4: position, epoch and the table say whether an entry is void, wherever one begins."""
    log, choices = written(raw)
    whole = verdicts(Fold(), log)
    for position, _, entry in log.entries:
        cut = cut_before(log.cuts, position)
        if whole[position] in (Verdict.COUNTS, Verdict.REPEAT, Verdict.HOLE):
            assert cut is not None
            assert cut.epoch == entry.epoch
        elif entry.offset and entry.epoch:
            assert cut is None or cut.epoch != entry.epoch
    start = choices.below(max(log.position, 1))
    fold = Fold(position=start)
    fold.refresh(log.cuts)
    void = (Verdict.VOID, Verdict.CUT, Verdict.UNREADABLE)
    for position, verdict in verdicts(fold, log, start).items():
        assert (verdict in void) == (whole[position] in void)


@examples(200)
@given(DECISIONS)
def test_a_fold_resumes_from_any_cut_and_any_cursor(raw):
    log, choices = written(raw)
    cursors = [cursor_at(cut) for cut in log.cuts]
    cursors += [Cursor(position, e.epoch, e.run, e.offset) for position, e in log.counted]
    for cursor in cursors and [choices.pick(cursors)]:
        check_cursor(cursor, log.cuts)
        fold = Fold(choices.pick([(), log.cuts]), cursor=cursor)
        found = counting(verdicts(fold, log, cursor.position))
        assert found == [position for position, _ in log.counted if position > cursor.position]


@examples(200)
@given(DECISIONS)
def test_a_trimmed_log_folds_to_what_is_left_of_it(raw):
    log, choices = written(raw, holes=False)
    log.record()
    floor = choices.below(max(log.position, 1))
    log.trim(floor)
    fold = Fold()
    found = counting(verdicts(fold, log))
    left = [position for position, _ in log.counted if position > floor]
    assert found[len(found) - len(left) :] == left


def fold_of(*entries, **start):
    fold = Fold(**start)
    return fold, [
        fold.feed(position, entry) for position, entry in enumerate(entries, start.get("position", 0) + 1)
    ]


def test_the_first_mark_of_a_higher_epoch_is_a_cut():
    _, found = fold_of(mark(5), mark(9), mark(9), mark(5), mark(12), cuts=(Cut(5, 1, 1, 1),))
    assert found == [Verdict.CUT, Verdict.CUT, Verdict.VOID, Verdict.VOID, Verdict.CUT]


def test_an_event_counts_if_it_is_the_next_one_of_the_last_cuts_epoch():
    entries = (
        mark(5),
        event(5, 1),
        event(5, 1),
        event(5, 3),
        event(4, 2),
        event(6, 2),
        UNREADABLE,
        event(5, 2),
    )
    fold, found = fold_of(*entries, cuts=(Cut(5, 1, 1, 1),))
    names = "CUT COUNTS REPEAT HOLE VOID VOID UNREADABLE COUNTS"
    assert [verdict.name for verdict in found] == names.split()
    assert (fold.epoch, fold.next_offset, fold.missing) == (5, 3, None)


def test_what_lies_behind_a_hole_counts_when_it_comes_again():
    entries = [mark(5), event(5, 2), event(5, 3), event(5, 1), event(5, 2), event(5, 3)]
    _, found = fold_of(*entries, cuts=(Cut(5, 1, 1, 1),))
    assert [verdict.name for verdict in found] == ["CUT", "HOLE", "HOLE", "COUNTS", "COUNTS", "COUNTS"]


def test_a_late_mark_at_the_beginning_of_a_trimmed_log_is_no_cut():
    fold = Fold()
    assert fold.feed(25, mark(7)) is Verdict.UNSURE
    fold.refresh([Cut(5, 1, 1, 1), Cut(7, 1, 3, 9), Cut(9, 1, 6, 20)])
    assert fold.feed(25, mark(7)) is Verdict.VOID
    assert fold.feed(26, event(7, 1)) is Verdict.VOID
    assert fold.feed(27, event(9, 8)) is Verdict.COUNTS
    assert fold.missing == (1, 7)


def test_a_trim_lets_the_first_entry_that_is_not_void_set_the_next_offset():
    fold = Fold(cursor=Cursor(10, 5, 1, 3))
    fold.refresh([Cut(5, 1, 1, 1)], trimmed=True)
    assert fold.feed(30, event(5, 2)) is Verdict.REPEAT
    assert fold.feed(31, event(5, 8)) is Verdict.COUNTS
    assert fold.missing == (4, 7)
    assert fold.feed(32, event(5, 9)) is Verdict.COUNTS


def test_a_trimmed_mark_is_known_from_the_table():
    fold = Fold(cursor=Cursor(10, 5, 1, 3))
    fold.refresh([Cut(9, 2, 5, 20)], trimmed=True)
    assert fold.feed(30, event(5, 4)) is Verdict.VOID
    assert fold.feed(31, event(9, 5)) is Verdict.COUNTS
    assert (fold.epoch, fold.missing) == (9, (4, 4))


def test_a_recorded_cut_says_where_its_epoch_begins():
    fold = Fold([Cut(5, 1, 1, 1), Cut(9, 1, 6, 20)], cursor=Cursor(10, 5, 1, 3))
    fold.refresh([Cut(9, 1, 6, 20)], trimmed=True)
    assert fold.feed(20, mark(9)) is Verdict.CUT
    assert fold.missing == (4, 5)
    assert fold.feed(21, event(9, 7)) is Verdict.HOLE
    assert fold.feed(22, event(9, 6)) is Verdict.COUNTS


def test_an_epoch_that_begins_above_what_was_counted_is_looked_up():
    """A mark that nobody recorded voided a zombie for this reader only; the next owner did not see it."""
    fold = Fold(cursor=Cursor(10, 5, 1, 3))
    assert fold.feed(11, mark(9)) is Verdict.CUT
    assert fold.feed(12, event(9, 6)) is Verdict.UNSURE
    fold.refresh([Cut(5, 1, 1, 1), Cut(9, 1, 6, 11)])
    assert fold.missing == (4, 5)
    assert fold.feed(12, event(9, 6)) is Verdict.COUNTS


def test_an_epoch_that_nobody_recorded_has_no_events_above_the_next():
    """Whoever writes events has recorded its cut before, so this is no place where anything was lost."""
    fold = Fold(cursor=Cursor(10, 5, 1, 3))
    assert fold.feed(11, mark(9)) is Verdict.CUT
    assert fold.feed(12, event(9, 6)) is Verdict.UNSURE
    fold.refresh([Cut(5, 1, 1, 1)])
    assert fold.feed(12, event(9, 6)) is Verdict.HOLE
    assert fold.feed(13, event(9, 4)) is Verdict.COUNTS


def test_without_any_record_the_first_entry_sets_epoch_and_offset():
    fold = Fold()
    assert fold.feed(30, event(5, 8)) is Verdict.UNSURE
    fold.refresh([])
    assert fold.feed(30, event(5, 8)) is Verdict.COUNTS
    assert fold.feed(31, event(5, 9)) is Verdict.COUNTS
    assert fold.missing == (1, 7)


def test_a_cut_that_begins_elsewhere_than_a_start_in_the_middle_led_to():
    """The start lay among repeats; whoever can shall read from further up."""
    table = [Cut(5, 1, 1, 1), Cut(9, 1, 30, 60)]
    fold = Fold(table, position=50)
    fold.refresh(table)
    assert fold.feed(51, event(5, 20)) is Verdict.COUNTS
    assert fold.feed(60, mark(9)) is Verdict.UNSURE
    fold.refresh(table)
    assert fold.feed(60, mark(9)) is Verdict.CUT
    assert fold.missing == (21, 29)


def test_after_a_start_in_the_middle_repeats_are_in_doubt_for_a_while():
    fold = Fold([Cut(5, 1, 1, 1)], position=50)
    assert fold.feed(51, event(5, 20)) is Verdict.UNSURE
    fold.refresh([Cut(5, 1, 1, 1)])
    assert fold.feed(51, event(5, 20)) is Verdict.COUNTS
    assert fold.loose
    assert fold.feed(52, event(5, 20)) is Verdict.REPEAT
    assert fold.feed(53, event(5, 19)) is Verdict.UNSURE
    assert fold.feed(53, event(5, 22)) is Verdict.UNSURE
    for offset in range(21, 20 + WINDOW):
        fold.feed(offset + 33, event(5, offset))
    assert not fold.loose
    assert fold.feed(500, event(5, 19)) is Verdict.REPEAT
    assert fold.feed(501, event(5, 900)) is Verdict.HOLE


def test_an_owner_of_an_empty_log_begins_where_the_record_says():
    assert Fold().settle() == 1
    assert Fold(cursor=Cursor(10, 5, 1, 3)).settle(least=17) == 4, "the log knows better"
    fold = Fold([Cut(5, 1, 1, 1)], position=40)
    fold.refresh([Cut(5, 1, 1, 1)])
    assert fold.feed(41, mark(9)) is Verdict.CUT
    assert fold.settle(least=17) == 17
    assert fold.cuts[-1] == Cut(9, 1, 17, 41)


cuts_tables = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 3)), max_size=6).map(
    lambda steps: [
        Cut(
            sum(s[0] for s in steps[: i + 1]),
            1,
            1 + sum(s[1] for s in steps[:i]),
            sum(s[0] + s[2] for s in steps[: i + 1]),
        )
        for i in range(len(steps))
    ]
)


@examples(50)
@given(cuts_tables, st.integers(0, 80), st.integers(0, 80))
def test_pruning_leaves_every_answer_about_what_is_left(cuts, first, position):
    pruned = prune_cuts(cuts, first)
    if position > first:
        assert cut_before(pruned, position) == cut_before(cuts, position)
    assert prune_cuts(pruned, first) == pruned
    assert all(cut in cuts for cut in pruned)
    assert sum(cut.position <= first for cut in pruned) <= 1


@examples(50)
@given(cuts_tables, st.data())
def test_merging_tables_is_a_union(cuts, data):
    some = data.draw(st.lists(st.sampled_from(cuts), unique=True)) if cuts else []
    assert merge_cuts(some, cuts) == cuts
    assert merge_cuts(cuts, some) == cuts


def test_a_cut_at_the_first_entry_is_all_there_is_to_keep():
    assert prune_cuts(TABLE, 20) == TABLE[1:]
    assert prune_cuts(TABLE, 19) == TABLE
    assert prune_cuts(TABLE, 99) == TABLE[2:]


def test_what_the_record_says_of_an_epoch_stands():
    assert merge_cuts([Cut(5, 1, 3, 9)], [Cut(5, 1, 0, 12), Cut(4, 1, 1, 2)]) == [
        Cut(4, 1, 1, 2),
        Cut(5, 1, 3, 9),
    ]


@pytest.mark.parametrize(
    "cursor", [Cursor(15, 5, 1, 2), Cursor(10, 5, 1, 0), Cursor(99, 12, 2, 50), Cursor(20, 9, 1, 3)]
)
def test_a_cursor_that_fits_the_cuts_is_taken(cursor):
    check_cursor(cursor, TABLE)
    check_cursor(cursor, ())


@pytest.mark.parametrize(
    "cursor",
    [Cursor(15, 9, 1, 5), Cursor(25, 9, 1, 2), Cursor(35, 11, 2, 9), Cursor(5, 3, 1, 1), Cursor(5, 6, 1, 0)],
)
def test_a_cursor_that_cannot_be_of_the_log_is_refused(cursor):
    with pytest.raises(BadPayload, match=f"epoch {cursor.epoch}, offset {cursor.offset}.*another log"):
        check_cursor(cursor, TABLE)


def test_a_cursor_older_than_a_pruned_table_may_be_right():
    check_cursor(Cursor(5, 3, 1, 2), TABLE[1:])
    with pytest.raises(BadPayload):
        check_cursor(Cursor(5, 3, 1, 7), TABLE[1:])


def claimed(claim=None, revision=0, *, alive=False, **more):
    return take(ADDRESS, claim, revision, node="new", nonce="n2", alive=alive, **more)


OLD = Claim("n1", "old", epoch=7, run=3, cuts=TABLE, extra={"later": 1})


def test_an_id_that_nobody_has_is_free():
    assert claimed() == Claim("n2", "new")
    assert claimed().epoch_at(41) == 41


def test_whoever_takes_over_keeps_the_run_and_the_cuts_and_gets_a_new_epoch():
    claim = claimed(OLD, 8)
    assert claim == Claim("n2", "new", epoch=0, run=3, cuts=TABLE, extra={"later": 1})
    assert claim.epoch_at(9) == 9
    assert take(ADDRESS, OLD, 8, node="new", nonce="n2", alive=False) == claim
    assert claimed(OLD, 8, restart=True).run == 3, "a run that has not ended goes on"


@pytest.mark.parametrize("restart", [False, True])
def test_a_live_process_is_left_alone(restart):
    with pytest.raises(AlreadyRunning, match=r"build is running on node old \(epoch 7\)") as caught:
        claimed(OLD, 8, alive=True, restart=restart)
    assert (caught.value.node, caught.value.epoch) == ("old", 7)
    with pytest.raises(AlreadyRunning, match=r"does not answer.*node old \(epoch 7\).*try again") as caught:
        claimed(OLD, 8, alive=True, silent=True, restart=restart)
    assert (caught.value.node, caught.value.epoch) == ("old", 7)


@pytest.mark.parametrize("hint", [False, True])
def test_after_the_end_only_a_restart_opens_the_next_run(hint):
    claim = Claim("n1", "old", epoch=7, run=3, ended=hint)
    with pytest.raises(AlreadyEnded, match=r"run 3 of build has ended.*--restart"):
        claimed(claim, 8, ended=not hint)
    taken = claimed(claim, 8, ended=not hint, restart=True)
    assert (taken.run, taken.ended, taken.epoch) == (4, False, 0)


def test_the_winner_records_what_the_record_lacks_and_prunes_what_is_trimmed():
    claim = Claim("n2", "new", run=3, cuts=TABLE[:2], extra={"later": 1})
    found = (*TABLE, Cut(41, 3, 9, 50))
    record = owned(claim, 41, found, first=25)
    assert record == Claim("n2", "new", epoch=41, run=3, cuts=found[1:], extra={"later": 1})
    assert owned(record, 42, found, first=25, ended=True).epoch == 41
    assert owned(record, 42, found, first=25, ended=True).ended


@pytest.mark.parametrize(
    ("run", "next_offset", "kind"),
    [(1, 1, "started"), (1, 4, "recovered"), (2, 8, "restarted"), (2, 9, "recovered"), (3, 9, "restarted")],
)
def test_the_first_event_says_how_a_run_is_taken_up(run, next_offset, kind):
    cuts = TABLE if next_offset >= 8 else TABLE[: 1 if next_offset == 1 else 2]
    assert opening(run, cuts, next_offset) == kind


def test_the_nonce_says_who_holds_the_id():
    check_owner(ADDRESS, OLD, 8, "n1")
    with pytest.raises(OwnershipLost, match=r"taken over by node old \(epoch 7\)"):
        check_owner(ADDRESS, OLD, 8, "n2")
    with pytest.raises(OwnershipLost, match="no claim record"):
        check_owner(ADDRESS, None, 0, "n1")
