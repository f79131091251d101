"""Which messages a program has read nothing of, whatever it has read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from simulated import examples

from natsproc.command.stdin import unread_messages
from natsproc.protocol.messages import Message

pieces = st.lists(st.tuples(st.binary(min_size=1, max_size=5), st.booleans()), max_size=8)


@examples(200)
@given(pieces, st.data())
def test_each_byte_is_read_once_and_messages_are_taken_back_whole(pieces, data):
    written = b"".join(text for text, _ in pieces)
    read = data.draw(st.integers(0, len(written)))
    forgotten = data.draw(st.integers(0, len(pieces)))
    known = [(text, Message("sender", n + 1, str(n), "", "", None) if is_one else None)
             for n, (text, is_one) in enumerate(pieces)][forgotten:]  # fmt: skip
    messages, rest = unread_messages(written[read:], [(len(text), message) for text, message in known])

    whole, left, at = [], b"", len(written) - sum(len(text) for text, _ in known)
    left += written[read:at]
    for text, message in known:
        if message and at >= read:
            whole.append(message)
        else:
            left += text[max(read - at, 0) :]
        at += len(text)
    assert messages == whole
    assert rest == left
