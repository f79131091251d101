"""Threads that write to a connection's socket beside its event loop: whole messages, in the order of each."""

import asyncio
import os
import random
import socket
import threading
import time
from collections import deque
from contextlib import asynccontextmanager

import pytest

from natsproc.bus.wire import Wire

SMALL = 4096


def message(sender, number, size):
    return b"%d %d %s\n" % (sender, number, b"x" * size)


@asynccontextmanager
async def connected():
    """A connection with next to no room in its buffers: its wire, its writer, and the other end's socket."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    _, writer = await asyncio.open_connection(sock=ours)
    try:
        yield Wire.of(writer.transport), writer, theirs
    finally:
        writer.transport.abort()
        theirs.close()
        await asyncio.sleep(0)


def read_all(sock, into):
    while data := sock.recv(1 << 16):
        into += data


async def test_what_threads_and_the_loop_send_is_never_torn_apart():
    sizes = random.Random(3)
    async with connected() as (wire, writer, theirs):
        got, lines = bytearray(), {}
        reading = threading.Thread(target=read_all, args=(theirs, got))
        reading.start()
        counts, refused = [0, 0], [0, 0]

        def send(sender):
            while counts[sender] < 300:
                if wire.send(message(sender, counts[sender], sizes.randrange(6000))):
                    counts[sender] += 1
                else:
                    refused[sender] += 1
                    time.sleep(0.0002)

        threads = [threading.Thread(target=send, args=(sender,)) for sender in (0, 1)]
        for thread in threads:
            thread.start()
        for number in range(300):
            parts = message(2, number, sizes.randrange(6000))
            if number % 2:
                writer.write(parts)
            else:
                writer.writelines([parts[:7], parts[7:]])
            await writer.drain()
            await asyncio.sleep(0)
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0.01)
        writer.write_eof()
        while reading.is_alive():
            await asyncio.sleep(0.01)
        for line in bytes(got).splitlines():
            sender, number, text = line.split(b" ")
            assert set(text) <= set(b"x")
            lines.setdefault(int(sender), []).append(int(number))
        assert lines == {sender: list(range(300)) for sender in (0, 1, 2)}
        assert all(refused)  # the buffers were full, now and then


class Switching(deque):
    """Python 3.12's buffer of a transport, with what another thread may do while it is empty for a moment."""

    meanwhile = None

    def popleft(self):
        part = super().popleft()
        if not self and self.meanwhile:
            thread, self.meanwhile = threading.Thread(target=self.meanwhile), None
            thread.start()
            thread.join()
        return part


async def test_a_rest_that_the_loop_has_in_hand_is_not_passed():
    async with connected() as (wire, writer, theirs):
        if not isinstance(writer.transport._buffer, deque):
            pytest.skip("a transport's buffer is no deque before Python 3.12")
        theirs.setblocking(False)
        got, sent = bytearray(), []

        def drain():
            try:
                while True:
                    got.extend(theirs.recv(1 << 16))
            except BlockingIOError:
                pass

        def meanwhile():
            drain()
            sent.append(wire.send(b"<event>"))

        writer.transport._buffer = Switching()
        writer.transport._buffer.meanwhile = meanwhile
        writer.write(b"x" * 30_000)
        while len(got) < 30_000 + 7 * sum(sent) or not sent:
            await asyncio.sleep(0)
            drain()
        assert bytes(got) == b"x" * 30_000


async def test_nobody_waits_for_a_thread_that_was_interrupted_while_it_sent():
    """A signal's handler runs where it pleases, and may wait for the loop."""
    async with connected() as (wire, writer, theirs):
        theirs.setblocking(False)
        wire._lock.acquire()
        writer.write(b"1\n")
        writer.writelines([b"2\n", b"3\n"])
        await asyncio.sleep(0)
        assert not wire.send(b"no\n")
        wire._release()
        assert not wire.send(b"no\n")
        got = b""
        async with asyncio.timeout(20):
            while got.count(b"\n") < 3:
                await asyncio.sleep(0.001)
                try:
                    got += theirs.recv(100)
                except BlockingIOError:
                    pass
        assert got.split() == [b"1", b"2", b"3"]
        assert wire.send(b"4\n")


async def test_nothing_is_sent_into_a_connection_that_is_lost():
    into, out = os.pipe()
    os.set_blocking(into, False)
    async with connected() as (wire, writer, _):
        assert wire.send(b"one\n")
        number = writer.get_extra_info("socket").fileno()
        writer.transport.abort()
        await asyncio.sleep(0)
        os.dup2(out, number)  # as the next file to be opened would get it
        try:
            assert not wire.send(b"two\n")
            with pytest.raises(BlockingIOError):
                os.read(into, 10)
        finally:
            for each in (into, out, number):
                os.close(each)


async def test_a_socket_is_not_closed_while_somebody_sends():
    async with connected() as (wire, writer, _):
        number, found = writer.get_extra_info("socket").fileno(), []

        def done():
            found.append(os.fstat(number))
            wire._lock.release()

        wire._lock.acquire()
        threading.Timer(0.2, done).start()
        writer.transport.abort()
        await asyncio.sleep(0)
        assert found


async def test_a_transport_that_encrypts_has_none():
    assert Wire.of(asyncio.Transport()) is None
