"""What stands behind the `?`. Parameters that are not ours are the host's, and ignored. All raise: Problem (422)."""

from __future__ import annotations

from math import isfinite

from .problems import Problem
from .request import Request

_FLAGS = {"1": True, "true": True, "yes": True, "": True, "0": False, "false": False, "no": False}


def text(request: Request, name: str) -> str | None:
    """The last value of a parameter."""
    values = request.query.get(name)
    return values[-1] if values else None


def flag(request: Request, name: str, default: bool) -> bool:
    """`?compact` and `?compact=1` are true, `?compact=0` is false."""
    value = text(request, name)
    if value is None:
        return default
    if value.lower() not in _FLAGS:
        raise Problem(422, f"?{name}= is 1 or 0, not {value[:40]!r}")
    return _FLAGS[value.lower()]


def count(request: Request, name: str) -> int | None:
    """A whole number from 0 on."""
    value = text(request, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise Problem(422, f"?{name}= is a whole number, not {value[:40]!r}")
    return int(value)


def seconds(request: Request, name: str) -> float | None:
    """A number of seconds from 0 on."""
    value = text(request, name)
    try:
        number = None if value is None else float(value)
    except ValueError:
        number = -1.0
    if number is not None and not (isfinite(number) and number >= 0):
        raise Problem(422, f"?{name}= is a number of seconds, not {str(value)[:40]!r}")
    return number


def pairs(request: Request, name: str) -> dict[str, str]:
    """`?label=key=value`, any number of times."""
    found = dict(value.partition("=")[::2] for value in request.query.get(name, ()))
    if not all("=" in value and value[0] != "=" for value in request.query.get(name, ())):
        raise Problem(422, f"?{name}= is written {name}=key=value")
    return found
