"""The keys that detach from a terminal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natsproc_cli.exits import Usage
from natsproc_cli.keys import DetachKeys, parse_keys

KEYS = b"\x10\x10\x11"  # begins with a part of itself


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("CTRL-A,d", b"\x01d"), ("ctrl-[", b"\x1b"), ("ctrl-], D", b"\x1dD")],
)
def test_keys_are_read_as_they_are_written(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-1", "ctrl-p,", "alt-x", "ab", "ä"])
def test_what_are_no_keys_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage, match="ctrl-p,ctrl-q"):
        parse_keys(text)


@given(st.lists(st.binary(max_size=4).map(lambda raw: bytes(0x10 + byte % 3 for byte in raw)), max_size=8))
@example([b"\x10\x10\x10\x11"])  # the keys, begun anew within themselves
def test_all_that_is_typed_before_the_keys_goes_on_and_nothing_behind_them(blocks: list[bytes]) -> None:
    found = DetachKeys(KEYS)
    passed, complete = b"", False
    for block in blocks:
        if not complete:
            more, complete = found.feed(block)
            passed += more
    typed = b"".join(blocks)
    before, keys, _ = typed.partition(KEYS)
    assert complete == bool(keys)
    if complete:
        assert passed == before
    else:
        held = typed[len(passed) :]
        assert typed.startswith(passed)
        assert KEYS.startswith(held)
