"""Questions: what the log says of them, and what code that asks again is given."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import examples

from natsproc.asking import Asking
from natsproc.errors import BadPayload, Closed, TooLarge
from natsproc.protocol.asks import CARRIED_BYTES, Ask, Asks
from natsproc.protocol.messages import Command, decode, encode


class Log:
    """A log of which every event counts at once."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict]] = []

    def append_lifecycle(self, type, data=None, *, cause=None):
        self.events.append((type, decode(encode(data))))
        return len(self.events)

    def folded(self) -> Asks:
        asks = Asks()
        for offset, (type, data) in enumerate(self.events, 1):
            asks.feed(type, data, offset)
            asks = Asks(decode(encode(asks.to_json())))  # as if taken over here
        return asks


def owner(log: Log) -> Asking:
    asking = Asking(lambda: None)
    asking.open(log, log.folded())
    return asking


numbers = count()


def answer(asking: Asking, value, ask=None, sender="alice"):
    data = {"value": value} | ({"ask": ask} if ask else {})
    outcome, _, asked = asking.answer(Command(f"c{next(numbers)}", "answer", sender, data=data))
    if asked and outcome.status == "applied":
        asked.answer.set_result(asked.ask.value)
    return outcome


def test_the_first_answer_wins_and_the_second_is_told_whose():
    asking = owner(log := Log())
    asked = asking.begin("Approve?", ["yes", "no"], None, None)
    assert [ask.question for ask in asking.waiting] == ["Approve?"]
    assert answer(asking, "maybe").why == "'maybe' is not among the choices: yes, no"
    assert answer(asking, "no", sender="bob").status == "applied"
    late = answer(asking, "yes", asked.ask.ask)
    assert (late.status, late.why) == ("too_late", "bob has answered 'Approve?' already: no")
    assert answer(asking, "yes").why == late.why
    assert asked.answer.result(0) == "no"
    assert asking.waiting == []
    assert [type for type, _ in log.events] == ["asked", "answered"]


def test_an_answer_names_the_question_where_there_are_several():
    asking = owner(Log())
    assert answer(asking, "yes").why == "it asks nothing"
    first, second = (asking.begin(text, None, None, None) for text in ("First?", "Second?"))
    both = f"; {first.ask.ask}: First?; {second.ask.ask}: Second?"
    assert answer(asking, 1).why == "it asks more than one thing: name the one that is meant" + both
    assert answer(asking, 1, "other").why == "it has not asked 'other'" + both
    assert answer(asking, {"any": "json"}, second.ask.ask).status == "applied"
    assert answer(asking, 1).status == "applied"
    assert (first.answer.result(0), second.answer.result(0)) == (1, {"any": "json"})


def test_choices_may_be_anything_and_are_chosen_by_their_text():
    ask = Ask("a", "How many?", [1, True, None, "two"])
    assert [ask.choose(text) for text in ("1", "true", "null", "two")] == [1, True, None, "two"]
    assert ask.choose(True) is True
    with pytest.raises(ValueError, match="1, true, null, two"):
        ask.choose("2")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((" ", None), BadPayload),
        (("Which?", "yes"), BadPayload),
        (("Which?", [1, "1"]), BadPayload),
        (("Which?", [object()]), BadPayload),
        (("?" * 20_000, None), TooLarge),
    ],
)
def test_what_is_no_question(arguments, error):
    asking = owner(log := Log())
    with pytest.raises(error):
        asking.begin(*arguments, None, None)
    assert not log.events


def test_a_question_that_is_taken_back_can_be_answered_no_more():
    asking = owner(log := Log())
    asked = asking.begin("Approve?", None, None, None)
    asking.leave(asked, "it timed out")
    assert log.events[-1] == ("answered", {"ask": asked.ask.ask, "why": "it timed out"})
    late = answer(asking, "yes")
    assert (late.status, late.why) == ("too_late", "'Approve?' waits for no answer any more: it timed out")
    assert log.folded().to_json() == []
    assert answer(owner(log), "yes", asked.ask.ask).status == "refused"


def test_code_that_asks_under_one_name_asks_once():
    asking = owner(log := Log())
    one, two = (asking.begin("Deploy?", ["yes"], "deploy", None) for _ in range(2))
    assert one is two
    asking.leave(one, "taken back")
    assert answer(asking, "yes").status == "applied"
    assert asking.begin("Deploy?", ["yes"], "deploy", None).answer.result(0) == "yes"
    with pytest.raises(BadPayload, match="names another question"):
        asking.begin("Deploy it?", ["yes"], "deploy", None)
    assert [type for type, _ in log.events] == ["asked", "answered"]
    assert owner(log).begin("Deploy?", ["yes"], "deploy", "m9").answer.result(0) == "yes"


def test_recovered_code_goes_on_waiting_for_the_question_and_gets_its_answer():
    first = owner(log := Log())
    asked = first.begin("Approve?", ["yes", "no"], None, "m1")
    second = owner(log)
    assert second.waiting == []
    again = second.begin("Approve?", ["yes", "no"], None, "m2")
    assert again.ask.ask == asked.ask.ask
    assert answer(second, "yes").status == "applied"
    assert again.answer.result(0) == "yes"


def test_an_answer_that_came_while_nobody_waited_is_for_whoever_asks_again():
    owner(log := Log()).begin("Approve?", None, None, "m1")
    assert answer(second := owner(log), "yes").status == "applied"
    assert log.events[-1][1]["unheard"] is True
    third = owner(log)
    assert third.begin("Approve?", None, None, "m2").answer.result(0) == "yes"
    assert not third.begin("Approve?", None, None, "m2").answer.done()  # a new question
    assert second.waiting == []


def test_an_answer_that_the_code_has_had_is_not_given_for_other_work():
    first = owner(log := Log())
    first.begin("Run rm?", ["yes", "no"], None, "m1")
    answer(first, "yes")
    second = owner(log)
    assert not second.begin("Run rm?", ["yes", "no"], None, "m2").answer.done()
    third = owner(log)
    assert third.begin("Run rm?", ["yes", "no"], None, "m1").answer.result(0) == "yes"


def test_a_checkpoint_forgets_what_was_answered_and_an_end_all():
    asking = owner(log := Log())
    asking.begin("One?", None, None, None)
    answer(asking, "yes")
    asking.begin("Two?", None, None, None)
    log.append_lifecycle("checkpointed", {"offset": len(log.events)})
    assert [ask["question"] for ask in log.folded().to_json()] == ["Two?"]
    log.append_lifecycle("exited", {"status": "killed", "again": True})
    assert [ask["question"] for ask in log.folded().to_json()] == ["Two?"]
    log.append_lifecycle("exited", {"status": "failed"})
    assert log.folded().to_json() == []


def test_an_answer_that_came_while_a_state_was_being_saved_is_not_in_it():
    asking = owner(log := Log())
    asking.begin("One?", None, None, "m1")
    before = len(log.events)
    answer(asking, "yes")
    log.append_lifecycle("checkpointed", {"offset": before})
    recovered = owner(log)
    assert recovered.begin("One?", None, None, "m1").answer.result(0) == "yes"


def test_code_that_has_saved_is_past_what_it_was_answered():
    first = owner(log := Log())
    first.begin("Run rm?", ["yes", "no"], None, "m1")
    answer(first, "yes")
    second = owner(log)
    second.saved()
    log.append_lifecycle("checkpointed", {"offset": len(log.events)})
    assert not second.begin("Run rm?", ["yes", "no"], None, "m1").answer.done()


def test_an_answer_that_nobody_has_heard_is_not_in_a_state_that_is_saved():
    asking = owner(log := Log())
    asked = asking.begin("Approve?", None, None, "m1")
    asking = owner(log)
    answer(asking, "yes", asked.ask.ask)
    asking.saved()
    saved = len(log.events)
    log.append_lifecycle("checkpointed", {"offset": saved})
    assert asking.begin("Approve?", None, None, "m2").answer.result(0) == "yes"
    log.append_lifecycle("checkpointed", {"offset": saved})  # as a claimant settles it
    assert owner(log).begin("Approve?", None, None, "m2").answer.result(0) == "yes"


def test_what_is_carried_is_bounded_and_open_questions_go_last():
    asking = owner(log := Log())
    first = asking.begin("Open?", None, None, None)
    for number in range(20):
        asked = asking.begin(f"Number {number}?", None, None, None)
        answer(asking, "x" * 15_000, asked.ask.ask)
    carried = log.folded()
    assert len(encode(carried.to_json())) < CARRIED_BYTES + 15_000
    assert next(iter(carried.by_id)) == first.ask.ask
    assert carried.by_id[asked.ask.ask].answered
    assert "too large" in answer(asking, "x" * 20_000, first.ask.ask).why


def test_code_that_waits_is_told_when_no_answer_counts_any_more():
    asking = owner(Log())
    asked = asking.begin("Approve?", None, None, None)
    asking.close(Closed("ended"))
    with pytest.raises(Closed):
        asked.answer.result(0)


texts = st.sampled_from(["Approve?", "Which?"])
steps = st.one_of(
    st.tuples(
        st.just("ask"), texts, st.sampled_from([None, "m1", "m2"]), st.sampled_from([None, None, "named"])
    ),
    st.tuples(st.just("answer"), st.integers(0, 8), st.sampled_from("abc")),
    st.tuples(st.just("leave"), st.integers(0, 8)),
    st.just(("recover",)),
    st.just(("checkpoint",)),
)


@examples(300)
@given(st.lists(steps, max_size=40))
def test_whatever_happens_each_question_has_one_answer_and_the_code_has_that_one(plan):
    asking = owner(log := Log())
    waiting = []
    for name, *rest in plan:
        if name == "ask":
            question, after, id = rest
            try:
                waiting.append(asking.begin(question, None, id, after))
            except BadPayload:
                assert id == "named"
        elif name == "answer":
            known = [data["ask"] for type, data in log.events if type == "asked"]
            answer(asking, len(log.events), known[rest[0] % len(known)] if known else None, rest[1])
        elif name == "leave" and rest[0] < len(waiting):
            asking.leave(waiting.pop(rest[0]), "taken back")
        elif name == "recover":
            asking, waiting = owner(log), []
        elif name == "checkpoint":
            asking.saved()
            log.append_lifecycle("checkpointed", {"offset": len(log.events)})
    given: dict[str, object] = {}
    for type, data in log.events:
        if type == "answered" and "sender" in data:
            assert data["ask"] not in given or data["ask"] == "named"
            given[data["ask"]] = data["value"]
    for asked in waiting:
        if asked.answer.done():
            assert asked.answer.result() == given[asked.ask.ask]
        else:
            assert asked.ask in asking.waiting
