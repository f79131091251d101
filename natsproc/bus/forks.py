"""Forks: how a child knows that threads, locks and connections are its parent's, without asking for its pid each time."""

from __future__ import annotations

import os

generation = 0
"""How many forks lie between the first OS process and this one; remember it, and compare."""


def _after_fork() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_after_fork)
