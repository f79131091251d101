"""Rounds of contenders, one after the other and interleaved, and what came of them.

In every round each contender has its turn, in an order that moves on by one each time, so that whatever else the
machine does meets all of them alike. A contender that fails is reported with its message, and the others go on.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from .children import Child, child
from .servers import Files, Pool, Server, Unavailable
from .stats import Goal, thin

T = TypeVar("T")
Scale = Literal["full", "quick", "toy"]
Samples = Mapping[str, Sequence[float]]
"""What a turn has found: samples for each figure."""

TURN_SECONDS = 240.0


@dataclass(frozen=True)
class Figure:
    """What is measured of every contender."""

    name: str
    unit: str
    more_is_better: bool = False


class Turn:
    """What a contender is given."""

    def __init__(self, scale: Scale, pool: Pool, state: dict[str, Any], round: int) -> None:
        self.scale = scale
        self.state = state  #: of this contender, kept over the rounds
        self.round = round
        self._pool = pool

    def size(self, full: T, quick: T, toy: T) -> T:
        return {"full": full, "quick": quick, "toy": toy}[self.scale]

    async def server(self, kind: str) -> Server | Files:
        """A running server. Raises: Unavailable."""
        return await self._pool.get(kind)

    async def url(self, kind: str) -> str:
        return (await self.server(kind)).url

    def child(self, role: str, **arguments: Any) -> AbstractAsyncContextManager[Child]:
        """An OS process that plays a role of `benchmarks.roles` or of a measure."""
        return child(role, **arguments)

    @staticmethod
    def name() -> str:
        """A name that nothing else has."""
        return f"b{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[Turn], Awaitable[Samples]]
    prepare: Callable[[Turn], Awaitable[None]] | None = None  #: once, before the first round
    rounds: int = 99  #: at most: fewer for who is slow
    modules: tuple[str, ...] = ()  #: that it needs


@dataclass
class Section:
    """A measure: its contenders, their figures, and the goals."""

    name: str
    title: str
    about: str
    figures: Sequence[Figure]
    contenders: Sequence[Contender]
    goals: Sequence[Goal] = ()
    rounds: int = 99  #: at most
    growth: bool = False  #: whether the contenders are sizes, each larger than the one before


@dataclass
class Outcome:
    """What a section has found."""

    rounds: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    """contender → figure → samples of each round"""
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


Tell = Callable[[str], None]
"""Hears what is being measured, once for each step."""


def turns(section: Section, rounds: int) -> list[tuple[int, Contender]]:
    """Who is measured when: interleaved, each round beginning with another."""
    plan: list[tuple[int, Contender]] = []
    for number in range(min(rounds, section.rounds)):
        start = number % len(section.contenders)
        order = [*section.contenders[start:], *section.contenders[:start]]
        plan += [(number, contender) for contender in order if number < contender.rounds]
    return plan


async def measure(section: Section, rounds: int, scale: Scale, tell: Tell) -> Outcome:
    """Measure a section; never fails as a whole."""
    outcome = Outcome()
    pool = Pool()
    states: dict[str, dict[str, Any]] = {}
    try:
        for number, contender in turns(section, rounds):
            name = contender.name
            tell(f"{section.name} {number + 1}: {name}")
            if name in outcome.failed or name in outcome.skipped:
                continue
            turn = Turn(scale, pool, states.setdefault(name, {}), number)
            try:
                found = await asyncio.wait_for(_take_turn(contender, turn), TURN_SECONDS)
            except Unavailable as error:
                outcome.skipped[name] = str(error)
            except Exception as error:
                outcome.failed[name] = str(error) or type(error).__name__
            else:
                figures = outcome.rounds.setdefault(name, {})
                for figure, samples in found.items():
                    figures.setdefault(figure, []).append(thin([float(sample) for sample in samples]))
            await pool.quiet()
    finally:
        await asyncio.to_thread(pool.close)
    return outcome


async def _take_turn(contender: Contender, turn: Turn) -> Samples:
    for module in contender.modules:
        if find_spec(module) is None:
            raise Unavailable(f"the Python package {module} is not installed: `make bench` does")
    if contender.prepare and not turn.state.get("prepared"):
        await contender.prepare(turn)
        turn.state["prepared"] = True
    return await contender.run(turn)
