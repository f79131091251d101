"""The mailbox of a process: who takes which messages, in which order, and what the process allows."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import examples

from natsproc.errors import BadPayload, Refused
from natsproc.mailbox import Mailbox
from natsproc.protocol.landing import WHEN, check_allow, check_landing, landing
from natsproc.protocol.messages import Message
from natsproc.protocol.names import Address

CHAT = Address("default", "chat")
allows = st.lists(st.sampled_from(WHEN), unique=True).map(tuple)
whens = st.sampled_from(["", *WHEN, "levitating"])


def message(position: int, sender: str = "alice", when: str = "") -> Message:
    return Message(f"m{position}", sender, position, position=position, when=when)


@given(whens, allows)
def test_a_message_lands_as_wished_or_at_the_nearest_gentler_time_that_is_allowed(when, allow):
    allowed = allow or WHEN
    found = landing(when, allow)
    assert found in allowed
    gentler = [time for time in WHEN if time in allowed and WHEN.index(time) <= rank(when)]
    assert found == (gentler[-1] if gentler else min(allowed, key=WHEN.index))


def rank(when: str) -> int:
    return WHEN.index(when) if when in WHEN else 0


@given(st.sampled_from(["", *WHEN]), allows)
def test_what_is_sent_is_refused_only_if_it_would_land_less_gently(when, allow):
    if when and rank(landing(when, allow)) > rank(when):
        with pytest.raises(Refused, match=" or ".join(time for time in WHEN if time in allow)):
            check_landing(CHAT, when, allow)
    else:
        check_landing(CHAT, when, allow)


@pytest.mark.parametrize(
    "call", [lambda: check_landing(CHAT, "soon", ()), lambda: check_allow(["idle", "soon"])]
)
def test_no_other_time_is_known(call):
    with pytest.raises(BadPayload, match="choose from idle, next, now"):
        call()


step = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("ab"), whens),
    st.just(("take",)),
    st.just(("boundary",)),
    st.tuples(st.just("exit"), st.integers(0, 30)),
)


@examples(300)
@given(st.lists(step, max_size=60), allows)
def test_nothing_is_lost_or_doubled_and_each_senders_order_holds_whoever_takes(steps, allow):
    mailbox = Mailbox(allow)
    struck: list[Message] = []
    mailbox.interrupt = struck.append
    sent: list[Message] = []
    taken: list[Message] = []
    for name, *rest in steps:
        if name == "put":
            sent.append(message(len(sent) + 1, *rest))
            mailbox.put(sent[-1])
        elif name == "take" and (one := mailbox.take_nowait()):
            taken.append(one)
        elif name == "boundary":
            found = mailbox.take_next()
            for sender in {m.sender for m in found}:
                assert landing([m for m in found if m.sender == sender][-1].when, allow) != "idle"
            taken += found
            assert not any(landing(m.when, allow) != "idle" for m in mailbox._items)
        elif name == "exit" and rest[0] < len(struck) and (one := mailbox.take_now(struck[rest[0]].sender)):
            assert landing(one.when, allow) == "now"
            taken.append(one)
    assert struck == [m for m in sent if landing(m.when, allow) == "now"]
    while (one := mailbox.take_nowait()) is not None:
        taken.append(one)
    assert sorted(m.position for m in taken) == [m.position for m in sent]
    for sender in "ab":
        positions = [m.position for m in taken if m.sender == sender]
        assert positions == sorted(positions)


async def test_a_message_that_lands_now_wakes_who_waits_though_nobody_was_interrupted():
    mailbox = Mailbox()
    waiting = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    threading.Thread(target=mailbox.put, args=(message(1, when="now"),)).start()
    assert (await asyncio.wait_for(waiting, 10)).position == 1


def test_a_thread_that_waits_looks_around_before_it_takes_what_lands_now():
    mailbox = Mailbox()
    found: list[Message | None] = []
    nudges = mailbox.nudges
    thread = threading.Thread(target=lambda: found.append(mailbox.take_blocking(10, nudges=nudges)))
    thread.start()
    mailbox.put(message(1, when="now"))
    thread.join(10)
    assert found == [None]
    assert mailbox.take_blocking(0, nudges=nudges) is None
    assert mailbox.take_blocking(0, nudges=mailbox.nudges) == message(1, when="now")


def test_what_comes_when_it_is_closed_interrupts_nobody():
    mailbox = Mailbox()
    mailbox.interrupt = lambda _: pytest.fail("interrupted")
    mailbox.close()
    mailbox.put(message(1, when="now"))
    assert len(mailbox) == 0
