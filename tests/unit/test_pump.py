"""What a program writes, cut into events: nothing lost, nothing reordered, text where it is text."""

from __future__ import annotations

import os

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natsproc.command.pump import GATHER_SECONDS, PARTIAL_SECONDS, Chunker, Pump, merge_redraws


def raw(chunk: str | bytes) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else chunk


def drain(chunker: Chunker, now: float) -> list[str | bytes]:
    taken = chunker.take(now)
    return [*taken, *chunker.take(now, end=True)]


pieces = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=20).map(lambda text: text.encode()),
        st.sampled_from([b"\n", b"\xe2", b"\x82", b"\xac", "€\n".encode(), b"a" * 50]),
    ).map(lambda data: data.replace(b"\r", b"")),
    max_size=30,
)


@given(pieces, st.lists(st.floats(0, 0.1), min_size=30, max_size=30), st.integers(4, 64))
def test_chunks_are_the_bytes_in_order_and_within_the_limit(
    data: list[bytes], pauses: list[float], limit: int
) -> None:
    chunker, now, out = Chunker(limit), 0.0, []
    for piece, pause in zip(data, pauses, strict=False):
        chunker.feed(piece, now)
        out += chunker.take(now)
        now += pause
        out += chunker.take(now)
    out += drain(chunker, now)
    assert b"".join(map(raw, out)) == b"".join(data)
    assert all(0 < len(raw(chunk)) <= limit for chunk in out)


@given(st.text().map(lambda text: text.replace("\r", "")), st.data())
def test_text_stays_text_wherever_reads_cut_it(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    chunker, out = Chunker(16), []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(encoded)], strict=True)):
        chunker.feed(encoded[start:end], float(number))
        out += chunker.take(number + 0.9)
    out += drain(chunker, 100.0)
    assert all(isinstance(chunk, str) for chunk in out)
    assert "".join(map(str, out)) == text


def test_invalid_bytes_come_as_bytes_and_the_rest_as_text() -> None:
    chunker, out = Chunker(), []
    for number, line in enumerate([b"caf\xc3\xa9\n", b"caf\xe9\n", b"fin\n"]):
        chunker.feed(line, float(number))
        out += chunker.take(float(number))
    assert out == ["café\n", b"caf\xe9\n", "fin\n"]


def test_an_incomplete_character_waits_for_its_rest_and_at_the_end_is_bytes() -> None:
    chunker = Chunker()
    chunker.feed(b"euro \xe2\x82", 0.0)
    assert chunker.take(1.0) == ["euro "]
    assert chunker.due is None
    chunker.feed(b"\xac", 2.0)
    assert chunker.take(3.0) == ["€"]
    chunker.feed(b"\xe2", 4.0)
    assert drain(chunker, 5.0) == [b"\xe2"]


def test_a_partial_line_is_due_within_50_ms_and_not_at_once() -> None:
    chunker = Chunker()
    chunker.feed(b"first\nPassword: ", 1.0)
    assert chunker.take(1.0) == ["first\n"]
    assert chunker.take(1.001) == []
    assert chunker.due is not None
    assert chunker.due <= 1.0 + 0.050
    assert chunker.take(chunker.due) == ["Password: "]
    assert PARTIAL_SECONDS + GATHER_SECONDS <= 0.050


def test_a_steady_flood_never_ends_an_event_within_a_line() -> None:
    chunker, now, out = Chunker(1000), 0.0, []
    for number in range(3000):
        chunker.feed(b"%d a line of text\n%d and" % (number, number), now)
        now += 0.001
        out += chunker.take(now)
        chunker.feed(b" its end\n", now)
        out += chunker.take(now)
    assert all(raw(chunk).endswith(b"\n") for chunk in out)
    assert len(out) < 1000  # many lines an event


def test_lines_are_gathered_and_a_single_one_goes_at_once() -> None:
    chunker = Chunker()
    chunker.feed(b"one\n", 1.0)
    assert chunker.take(1.0) == ["one\n"]
    chunker.feed(b"two\n", 1.001)
    assert chunker.take(1.001) == []
    chunker.feed(b"three\n", 1.004)
    assert chunker.take(1.006) == ["two\nthree\n"]


@pytest.mark.parametrize(
    ("written", "logged"),
    [
        (b"10%\r20%\r30%", b"30%"),
        (b"10%\r20%\r30%\n", b"30%\n"),
        (b"\r10%\r20%", b"\r20%"),
        (b"10%\r20%\r", b"20%\r"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\r\n", b"a\r\r\n"),
        (b"done\r", b"done\r"),
        (b"\x1b[32m10%\x1b[0m\r\x1b[K\x1b[32m20%\x1b[0m", b"\x1b[0m\x1b[K\x1b[32m20%\x1b[0m"),
        (b"\x1b[31m9\r\x1b[32m8\r7", b"\x1b[31m\x1b[32m7"),
        (b"abcdef\rXY\n", b"abcdef\rXY\n"),  # shown as XYcdef
        (b"abcdef\rXY\x1b[K\n", b"XY\x1b[K\n"),
        (b"abcdef\r\x1b[2KXY\n", b"\x1b[2KXY\n"),
        (b"abcdef\r      \rXY\n", b"      \rXY\n"),
        (b"one\r\x1b[0m\n", b"one\r\x1b[0m\n"),
        ("漢字\rabc".encode(), "漢字\rabc".encode()),
        ("漢字\rabcd".encode(), b"abcd"),
        (b"abcdefgh\r\tX", b"abcdefgh\r\tX"),
        ("━━╸  10%\r━━━━━ 100%\n".encode(), "━━━━━ 100%\n".encode()),
        (b"kept\n10%\r20%\nkept, too", b"kept\n20%\nkept, too"),
        (b"\x1b[2Jup\x1b[A\rdown", b"\x1b[2Jup\x1b[A\rdown"),  # moves the cursor: all of it counts
    ],
)
def test_redraws_of_a_line_leave_the_last_one(written: bytes, logged: bytes) -> None:
    assert merge_redraws(written, continues=False) == logged


drawings = st.lists(
    st.sampled_from(
        ["\r", "\r", "\r", "\n", "a", "bc", "xyz", "12345 ", "█", "漢", "e\u0301", "\t", "\b", "\x1b[K", "\x1b[0K", "\x1b[2K",
         "\x1b[1K", "\x1b[31m", "\x1b[44m", "\x1b[7;1m", "\x1b[m", "\x1b[0;32m", "\x1b[A", "\x1b[3C"]
    ),
    max_size=20,
)  # fmt: skip


def shown(written: bytes) -> list[object]:
    """The cells of a terminal with its colours, and where its cursor is."""
    screen = pyte.Screen(200, 30)
    pyte.ByteStream(screen).feed(written.replace(b"\n", b"\r\n"))
    cells = [[screen.buffer[y][x] for x in range(200)] for y in range(30)]
    return [cells, screen.cursor.x, screen.cursor.y, screen.cursor.attrs]


@settings(deadline=None)
@given(st.lists(drawings, min_size=1, max_size=3))
def test_a_terminal_shows_what_is_merged_as_what_was_written(parts: list[list[str]]) -> None:
    chunker, out = Chunker(), b""
    written = ["".join(part).encode() for part in parts]
    for number, part in enumerate(written):
        chunker.feed(part, float(number))
        out += b"".join(map(raw, chunker.take(number + 0.9)))
    out += b"".join(map(raw, chunker.take(100.0, end=True)))
    assert shown(out) == shown(b"".join(written))


def test_a_bar_that_is_drawn_a_thousand_times_becomes_a_few_drawings() -> None:
    def bar(number: int) -> str:
        return f"\r{number // 10:3}%|{'█' * (number // 20):50}| {number}/1000 [{number * 7 % 13:.2f}it/s]"

    logged = merge_redraws("".join(map(bar, range(1001))).encode() + b"\n", continues=False).decode()
    assert logged.count("\r") <= 4
    assert logged.endswith(f"{bar(1000)}\n")


def test_a_redraw_of_a_line_that_was_shown_in_part_returns_to_its_beginning() -> None:
    chunker = Chunker()
    chunker.feed(b"10%", 0.0)
    assert chunker.take(1.0) == ["10%"]
    chunker.feed(b"\r20%\r30%", 2.0)
    assert chunker.take(3.0) == ["\r30%"]
    chunker.feed(b"\r40%\r50%\n", 4.0)
    assert chunker.take(4.0) == ["\r50%\n"]


def pumped(data: bytes, **options: object) -> tuple[list[str | bytes], Pump]:
    read, write = os.pipe()
    out: list[str | bytes] = []
    pump = Pump(read, "stdout", lambda chunk, _: out.append(chunk), **options)  # type: ignore[arg-type]
    pump.start()
    os.write(write, data)
    os.close(write)
    pump.join(20)
    assert not pump.is_alive()
    return out, pump


def test_the_echo_is_verbatim_where_the_log_is_merged() -> None:
    echoed, echo = os.pipe()
    out, _ = pumped(b"10%\r20%\rdone\n\xff", echo=echo)
    assert b"".join(map(raw, out)) == b"done\n\xff"
    assert os.read(echoed, 100) == b"10%\r20%\rdone\n\xff"
    os.close(echoed)
    os.close(echo)


def test_a_failing_log_does_not_stop_the_program_or_its_echo() -> None:
    echoed, echo = os.pipe()
    told = []

    def refuse(chunk: str | bytes, stream: str) -> None:
        raise RuntimeError("no")

    read, write = os.pipe()
    pump = Pump(read, "stdout", refuse, echo=echo, tell=lambda: told.append(pump.failed))
    pump.start()
    for _ in range(3):
        os.write(write, b"line\n")
        assert os.read(echoed, 100) == b"line\n"
    os.close(write)
    pump.join(20)
    assert [str(error) for error in told] == ["no", "no"]  # at the failure, and at the end
    os.close(echoed)
    os.close(echo)


def test_a_stopped_pump_has_read_what_was_there() -> None:
    read, write = os.pipe()  # somebody keeps the write end open
    out: list[str | bytes] = []
    pump = Pump(read, "stdout", lambda chunk, _: out.append(chunk))
    os.write(write, b"x" * 50_000 + b"\nend")
    pump.stop()
    pump.start()
    pump.join(20)
    assert not pump.is_alive()
    assert b"".join(map(raw, out)) == b"x" * 50_000 + b"\nend"
    os.close(write)


def test_a_closed_echo_closes_the_stream_as_a_closed_pipe_does() -> None:
    echoed, echo = os.pipe()
    os.close(echoed)
    read, write = os.pipe()
    out: list[str | bytes] = []
    pump = Pump(read, "stdout", lambda chunk, _: out.append(chunk), echo=echo)
    pump.start()
    os.write(write, b"line\n")
    pump.join(20)
    with pytest.raises(BrokenPipeError):
        os.write(write, b"more")
    assert out == ["line\n"]
    os.close(write)
    os.close(echo)


def test_settled_means_that_whole_lines_written_before_are_delivered() -> None:
    read, write = os.pipe()
    out: list[str | bytes] = []
    pump = Pump(read, "stdout", lambda chunk, _: out.append(chunk))
    pump.start()
    expected = b""
    for number in range(200):
        os.write(write, b"%d\npart" % number)
        pump.settled().result(20)
        expected += b"%d\n" % number
        assert b"".join(map(raw, out)).startswith(expected)
        expected += b"part"
    pump.settled().cancel()
    os.close(write)
    pump.join(20)
    pump.settled().result(20)


def test_bytes_that_are_no_text_lose_nothing_to_redraws():
    data = b"\xff\x01abc\rdef\xfe\rghi\n" * 3
    assert merge_redraws(data, False) == data
    assert merge_redraws(b"a\rb\n", False) == b"b\n"
