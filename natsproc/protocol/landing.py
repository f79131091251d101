"""When a message lands in a process that is in a turn: what its sender asks for, within what the process allows.

Protocol: section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from natsproc.errors import BadPayload, Refused

from .names import Address

When = Literal["idle", "next", "now"]

WHEN: Final[tuple[When, ...]] = ("idle", "next", "now")
"""The gentlest first: after the turn, at its next boundary, at once."""


def landing(when: str, allow: Sequence[str] = ()) -> When:
    """When a message that is stored lands; `when` is what its sender asked for, empty if nothing.

    What is not allowed becomes the nearest gentler time that is, or else the gentlest of all: it is never lost.
    """
    allowed = [time for time in WHEN if time in allow] or WHEN
    wish = WHEN.index(when) if when in WHEN else 0
    return next((time for time in reversed(WHEN[: wish + 1]) if time in allowed), allowed[0])


def check_landing(address: Address, when: str, allow: Sequence[str]) -> None:
    """Make sure that a message may be sent at all. Raises: BadPayload; Refused if nothing so gentle is allowed."""
    if when:
        check_allow((when,))
        if WHEN.index(landing(when, allow)) > WHEN.index(when):
            times = " or ".join(time for time in WHEN if time in allow)
            raise Refused(
                f"{address} takes no message {when!r}, only {times}: send it so, or leave it to the process"
            )


def check_allow(allow: Sequence[str]) -> None:
    """Make sure that these are times. Raises: BadPayload."""
    if wrong := [time for time in allow if time not in WHEN]:
        raise BadPayload(f"{wrong[0]!r} is no time for a message to land: choose from {', '.join(WHEN)}")
