"""A short torture run: everything at once on one mesh, judged by the checker."""

from __future__ import annotations

from tests.torture.faults import FAULTS
from tests.torture.places import Place
from tests.torture.run import Tally, round_of


async def test_everything_at_once_for_a_while():
    tally = Tally()
    await round_of(Place, FAULTS, 7, 15.0, tally)
    assert not tally.violations, str(tally)
    assert sum(tally.faults.values()) >= 5, str(tally)
    assert tally.checked["events acknowledged to owners"] > 100
    assert tally.checked["messages acknowledged to senders"] > 5
