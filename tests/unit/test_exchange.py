"""What becomes of a message or a run, told from events alone."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from natsproc.http.a2a_task import Task, exchange_of, task_id
from natsproc.http.exchange import Exchange
from natsproc.protocol.messages import Event, Notice
from natsproc.protocol.names import Address

ADDRESS = Address("default", "chat")


def log(*entries):
    """Events from (type, cause, data)."""
    return [
        Event(number, 1, 1, "2026-01-31T23:59:59.123Z", type, data, cause)
        for number, (type, cause, data) in enumerate(entries, 1)
    ]


def received(position, message, **more):
    return (
        "received",
        message,
        {"message": message, "sender": "web", "position": position, "data": "hi", **more},
    )


def told(work, events):
    return [event.offset for event in events if work.feed(event)]


def test_only_its_own_turn_ends_it():
    work = Exchange(1, 2)
    events = log(
        received(1, "m1"),
        ("turn_began", "m1", {"message": "m1", "sender": "web"}),
        ("token", "m1", {"stream": "answer", "text": "x"}),
        received(2, "m2"),
        ("turn_ended", "m1", {"turn": 2, "status": "interrupted"}),
        ("turn_began", "m2", {"message": "m2", "sender": "web"}),
        ("log", None, {"text": "of nobody"}),
        ("replied", "m2", {"message": "m2", "sender": "web", "data": 1}),
        ("turn_ended", "m2", {"turn": 6, "status": "failed", "error": "boom"}),
        ("token", "m2", {"stream": "answer", "text": "too late"}),
    )
    assert told(work, events) == [4, 6, 8, 9]
    assert (work.state, work.why, work.turn) == ("failed", "boom", 6)


def test_without_a_turn_the_reply_ends_it_and_an_end_that_nobody_took_rejects_it():
    work, waiting = Exchange(1, 1), Exchange(1, 2)
    events = log(
        received(1, "m1"),
        ("replied", "m1", {"message": "m1", "sender": "mallory", "data": 0}),
        ("replied", "m1", {"message": "m1", "sender": "web", "data": 1}),
        ("exited", None, {"status": "completed", "code": 0}),
    )
    assert told(work, events) == [1, 2, 3]
    assert work.state == "completed"
    assert told(waiting, events) == []
    assert waiting.state == "rejected"
    refused = Exchange(1, 3)
    told(refused, log(received(3, "m3", refused="not you")))
    assert (refused.state, refused.why) == ("rejected", "not you")


def test_a_recovered_turn_goes_on_and_a_question_is_open_until_its_answer():
    work = Exchange(1, 1)
    begun = ("turn_began", "m1", {"message": "m1", "sender": "web"})
    asked = ("asked", "m1", {"ask": "a", "question": "?"})
    told(work, log(received(1, "m1"), begun, asked, ("recovered", None, {}), begun, asked))
    assert (work.state, list(work.asks)) == ("input-required", ["a"])
    told(work, [Event(7, 1, 1, "", "answered", {"ask": "a", "value": 1}, "c1")])
    assert work.state == "working"
    assert told(work, [Event(8, 1, 1, "", "turn_ended", {"turn": 5, "status": "completed"}, "m1")]) == [8]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "received",
                    "turn_began",
                    "turn_ended",
                    "replied",
                    "asked",
                    "answered",
                    "exited",
                    "token",
                    "text",
                    "x",
                ]
            ),
            st.sampled_from(["m1", None]),
            st.one_of(
                st.none(),
                st.text(max_size=3),
                st.fixed_dictionaries(
                    {},
                    optional={
                        name: st.one_of(
                            st.none(), st.integers(1, 3), st.sampled_from(["m1", "web", "completed", [], {}])
                        )
                        for name in (
                            "message",
                            "sender",
                            "position",
                            "turn",
                            "status",
                            "ask",
                            "stream",
                            "text",
                            "first",
                        )
                    },
                ),
            ),
        ),
        max_size=12,
    ),
    st.sampled_from([0, 1]),
)
@example([("exited", None, {"status": []})], 0)
def test_whatever_stands_in_a_log_a_task_ends_once(entries, position):
    task = Task(ADDRESS, Exchange(1, position))
    for event in log(*entries):
        over = task.work.over
        said = task.feed(event)
        assert not (over and said)
        assert task.to_json()["id"] == task_id(task.work)


@given(st.integers(1, 10**14), st.integers(0, 10**14))
def test_ids_name_what_they_are_made_of(run, position):
    work = exchange_of(task_id(Exchange(run, position)))
    assert (work.run, work.position) == (run, position)


@given(st.text(max_size=40))
def test_other_ids_name_nothing(text):
    assert (work := exchange_of(text)) is None or task_id(work) == text


def test_a_gap_in_an_answer_is_told():
    task = Task(ADDRESS, Exchange(1, 1))
    gap = Notice("gap", {"from": 3, "to": 9}, ADDRESS)
    assert task.notice(gap) == []  # before it was taken: it is found out whether it ever was
    for event in log(received(1, "m1"), ("turn_began", "m1", {"message": "m1", "sender": "web"})):
        task.feed(event)
    (said,) = task.notice(gap)
    (told,) = said["statusUpdate"]["status"]["message"]["parts"]
    assert (told["text"], told["metadata"]["to"]) == ("events 3 to 9 are gone from the log", 9)
    assert task.notice(Notice("caught_up", {}, ADDRESS)) == []
