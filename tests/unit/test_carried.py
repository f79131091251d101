"""What is carried from owner to owner."""

from __future__ import annotations

from natsproc.protocol.carried import COMMANDS, Carried


def test_the_last_position_of_each_sender_is_carried():
    carried = Carried({"received": {"alice": 4}, "other": 1})
    for data in (
        {"sender": "alice", "position": 3},
        {"sender": "bob", "position": 7},
        {"sender": "bob"},
        None,
        5,
    ):
        carried.feed("received", data, 1)
    carried.feed("log", {"sender": "alice", "position": 99}, 1)
    assert carried.to_json() == {"received": {"alice": 4, "bob": 7}, "asks": [], "turns": False}


def test_a_copy_goes_its_own_way():
    carried = Carried({"received": {"alice": 4}})
    copy = carried.copy()
    carried.feed("received", {"sender": "alice", "position": 5}, 1)
    assert (copy.received, Carried(carried.to_json()).received) == ({"alice": 4}, {"alice": 5})


def test_that_a_turn_was_taken_is_carried_to_the_end_of_the_run():
    carried = Carried()
    carried.feed("turn_began", {}, 1)
    carried.feed("turn_ended", {"turn": 1, "status": "completed"}, 2)
    carried = carried.copy()
    assert carried.turns
    carried.feed("exited", {"status": "completed"}, 3)
    assert not Carried({"turns": True} | carried.to_json()).turns


def test_commands_that_were_recorded_are_carried_and_only_the_last_of_them():
    carried = Carried({"commands": [["alice", "c0"]]})
    for number in range(1, COMMANDS + 1):
        carried.feed("refused" if number % 2 else "paused", {"sender": "alice", "command": f"c{number}"}, 1)
    for data in (None, 5, {"sender": "alice"}):
        carried.feed("killed", data, 1)
    carried.feed("log", {"sender": "alice", "command": "no"}, 1)
    assert list(Carried(carried.to_json()).commands) == [("alice", f"c{n}") for n in range(1, COMMANDS + 1)]
