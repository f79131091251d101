"""Terminals of ours, and those of programs."""

from __future__ import annotations

import os
import select

import pytest

from natsproc.command.terminal import raw


@pytest.mark.parametrize("forget", [True, False])
def test_leaving_a_raw_terminal_can_forget_what_it_has_answered(forget: bool) -> None:
    master, slave = os.openpty()
    with raw(slave, forget=forget):
        os.write(master, b"\x1b[24;80R\n")
        assert select.select([slave], [], [], 20)[0]
    assert bool(select.select([slave], [], [], 0)[0]) is not forget
    os.close(master)
    os.close(slave)
