"""How code has ended, by the exception that it ended with."""

from __future__ import annotations

import asyncio

from natsproc.errors import Cancelled, Interrupted


def how(error: BaseException | None) -> tuple[str, int, str | None]:
    """Status, exit code and error text of a run or a turn that ended with that exception."""
    if error is None:
        return "completed", 0, None
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted", 130, str(error) or None
    if isinstance(error, asyncio.CancelledError | Cancelled):
        return "cancelled", 143, None
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return ("failed" if error.code else "completed"), error.code or 0, None
    return "failed", 1, f"{type(error).__name__}: {error}"
