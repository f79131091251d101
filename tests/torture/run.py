"""Torture: `python -m tests.torture.run --seconds 600 --seed 7 [--faults a,b] [--lanes 2] [--json FILE]`.

Rounds of about a minute, each on a new mesh, each judged when it is over. What is done when comes from the seed;
what the operating system makes of it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from natsproc.errors import Error

from .checker import History, check, what_counts
from .faults import FAULTS, Fault
from .places import PLACES, Impossible, Place
from .world import World

ROUND = 60.0  #: seconds of faults in a round, at most


class Tally:
    """What was done and checked, and what was found."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.without_effect: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.violations: list[str] = []

    def judge(self, histories: list[History]) -> list[str]:
        """Count what there is in these histories, and return what is wrong with it."""
        for history in histories:
            self.checked["processes"] += 1
            self.checked["events stored"] += len(history.log)
            self.checked["events acknowledged to owners"] += sum(len(a.events) for a in history.acknowledged)
            self.checked["events shown by viewers"] += sum(map(len, history.shown.values()))
            self.checked["messages acknowledged to senders"] += len(history.sent)
            self.checked["receipts"] += len(history.receipts)
            self.checked["replies"] += len(history.replied)
            self.checked["states saved"] += len(history.saved)
            self.checked["states to go on with"] += sum(bool(began.taken) for began in history.began)
            self.checked["runs"] += len(history.ended)
            self.checked["epochs"] += len(history.claimed)
            self.checked["owners that lost the id"] += len(history.lost)
            dropped = (data["count"] for line, data in what_counts(history.log)[0] if line.type == "dropped")
            self.checked["events dropped, and said to be"] += sum(dropped)
        return [violation for history in histories for violation in check(history)]

    @property
    def line(self) -> str:
        events, faults = self.checked["events stored"], sum(self.faults.values())
        return f"{faults} faults, {events} events, {len(self.violations)} violations so far"

    def __str__(self) -> str:
        lines = [f"{sum(self.faults.values())} faults injected"]
        lines += [f"  {count:6} {kind}" for kind, count in sorted(self.faults.items())]
        lines += [
            f"  {count:6} without effect: {kind}" for kind, count in sorted(self.without_effect.items())
        ]
        lines += ["checked", *(f"  {count:8} {what}" for what, count in self.checked.items())]
        return "\n".join([*lines, f"{len(self.violations)} violations", *self.violations])


async def round_of(
    kind: type[Place], faults: Sequence[type[Fault]], seed: int, seconds: float, tally: Tally
) -> None:
    """One world, its faults, and the judgement. Raises: Impossible, if the place cannot be made here."""
    place = kind(Path(tempfile.mkdtemp(prefix=f"torture-{kind.name}-{seed}-")))
    world, where = World(place, seed), f"{kind.name}, seed {seed}"
    here = [fault for fault in faults if kind.name in fault.places]
    try:
        await world.start()
        stop = time.monotonic() + seconds
        tracks = sorted({fault.track for fault in here})
        await asyncio.gather(
            *(_track(world, track, [f for f in here if f.track == track], stop, tally) for track in tracks)
        )
        world.trouble += tally.judge(await world.finish())
        taken = [line[2] for line in world.lines("lost") if line[2] not in world.disturbed]
        tally.checked["of these, taken over without being frozen or cut off"] += len(taken)
    except Impossible:
        shutil.rmtree(place.folder)
        raise
    except Exception:
        world.trouble.append(f"it could not be judged: {traceback.format_exc()}")
    finally:
        await world.stop()
    world.trouble += [f"{line[2]}: {line[3]}" for line in world.lines("trouble")]
    tally.violations += [f"{where}: {sentence}" for sentence in world.trouble]
    if world.trouble:
        print(f"kept: {place.folder}", *world.trouble, sep="\n", file=sys.stderr)
    else:
        shutil.rmtree(place.folder)


async def _track(world: World, name: str, faults: list[type[Fault]], stop: float, tally: Tally) -> None:
    """Faults one after the other, each kind as often as the others."""
    dice = random.Random(f"{world.seed} {name}")
    await asyncio.sleep(dice.uniform(2, 4))
    while True:
        for fault in dice.sample(faults, len(faults)):
            await asyncio.sleep(dice.uniform(0, 2 * fault.pause))
            if time.monotonic() > stop:
                return
            effect = False
            with suppress(Error):
                effect = await fault().inject(world, random.Random(dice.random()))
            (tally.faults if effect else tally.without_effect)[fault.kind] += 1


class Rounds:
    """Rounds until the time is over, on every place where one of the faults can happen."""

    def __init__(
        self, seconds: float, seed: int, faults: Sequence[type[Fault]], tally: Tally, json: Path | None
    ) -> None:
        self._stop = time.monotonic() + seconds
        self._seed = seed
        self._faults = faults
        self._tally = tally
        self._json = json
        self._places = [name for name in PLACES if any(fault.places[0] == name for fault in faults)]
        self._numbers = count()

    async def run(self) -> None:
        """One round after the other; several of these may run at a time."""
        for number in self._numbers:
            left = self._stop - time.monotonic()
            if number and (not self._places or left < 10):
                return
            name = self._places[number % len(self._places)]
            try:
                await round_of(
                    PLACES[name], self._faults, self._seed * 1000 + number, min(left, ROUND), self._tally
                )
            except Impossible as why:
                print(f"SKIPPED, this machine has no place {name!r}: {why}", file=sys.stderr)
                self._places.remove(name)
            print(f"round {number}, {name}: {self._tally.line}", file=sys.stderr)
            if self._json:
                self._json.write_text(json.dumps(vars(self._tally), indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults", default="", help="kinds, with commas; all without")
    parser.add_argument("--lanes", type=int, default=1, help="rounds at a time")
    parser.add_argument("--json", type=Path, help="where to write the tally to, after each round")
    options = parser.parse_args()
    wanted = [name.strip() for name in options.faults.split(",") if name]
    faults = [fault for fault in FAULTS if not wanted or any(fault.kind.startswith(name) for name in wanted)]
    tally = Tally()
    rounds = Rounds(options.seconds, options.seed, faults, tally, options.json)

    async def run() -> None:
        await asyncio.gather(*(rounds.run() for _ in range(options.lanes)))

    asyncio.run(run())
    print(tally)
    return bool(tally.violations)


if __name__ == "__main__":
    sys.exit(main())
