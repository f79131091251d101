"""What we do in nats-py's place does what it does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

from natsproc.bus.mended import MendedClient

ASCII = [b"Nats-Sequence", b"x", b":", b": ", b" ", b"\t", b"\x0b", b"\x1c", b"\r", b"\n", b"\r\n", b"17"]
OTHERS = [b"\x85", b"\xa0", b"\xc3\xa4", b"\xff"]


def blocks(pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(pieces), max_size=20).map(b"".join)


@settings(max_examples=400)
@given(blocks(ASCII) | blocks(ASCII + OTHERS) | st.binary(max_size=60))
def test_headers_read_as_nats_py_reads_them(raw: bytes) -> None:
    assert MendedClient._parse_header_lines(raw) == Client._parse_header_lines(raw)
