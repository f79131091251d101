"""nats-py's client, with what it lacks: it says nothing to a server that is not the one meant, nor without TLS."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence, Sized
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import nats.errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.command import unsub_cmd

from .parsing import ListParser, Raw
from .wire import Wire

_ENDED = re.compile(r"authentication (expired|revoked)", re.IGNORECASE)

Look = Callable[[], tuple[str, str, dict[str, Any]]]
"""Where a server that may move is now, its name, and options for nats-py."""


_WHITE = " \t\n\r\x0b\x0c"


@lru_cache(256)
def _header_name(name: str) -> str | None:
    """A header's name, without what surrounds it; None if there is white space in it."""
    name = name.strip(_WHITE)
    return None if any(c.isspace() for c in name) else name


Hear = Callable[[list[Raw]], object]
Read = Callable[[bytes, int], tuple[int, int]]
"""Reads whole messages out of bytes, from a place on: returns where it stopped, and how many that were."""


_LEAST, _MOST, _SHARE = 0.02, 1.0, 0.02
_HELD_FOR = 1.0  # seconds after which a connection that is lost again begins a new absence


def pause(away: float) -> float:
    """Seconds to wait before a server that has been away for `away` seconds is tried again.

    That makes an absence a fiftieth longer at most, or 20 ms, and the longer it lasts the fewer tries come of it. Many
    clients do not come at the same moment.
    """
    return min(max(_SHARE * away, _LEAST), _MOST) * random.uniform(0.5, 1.0)


class _Listening(Subscription):
    """A subscription with nothing but a handler, where nats-py gives each a queue, a task and some 5 KB."""

    _conn: MendedClient
    handler: Callable[[Any], object]
    read: Read | None = None

    def __init__(
        self, client: MendedClient, number: int, subject: str, handler: Callable[[Any], object]
    ) -> None:
        self._conn, self._id, self._subject, self.handler = client, number, subject, handler

    def hear(self, messages: list[Raw]) -> None:
        try:
            self.handler(messages)
        except Exception as error:
            self._conn.failed(error)


for _name, _value in vars(Subscription(None)).items():  # what nats-py looks at is the same for all of them
    setattr(_Listening, _name, _value)


class _OneByOne(_Listening):
    """One that hears a `Msg` at a time, and nothing of those that are not UTF-8, or have headers that are none."""

    def hear(self, messages: list[Raw]) -> None:
        for subject, reply, data, block in messages:
            with suppress(UnicodeError, IndexError, ValueError):
                headers = _at_once(self._conn._process_headers(block))
                msg = self._conn._build_message(self._id, subject, reply, data, headers)
                try:
                    self.handler(msg)
                except Exception as error:
                    self._conn.failed(error)


def _at_once(waiting: Awaitable[Any]) -> Any:
    """What comes of something to await that waits for nothing."""
    try:
        next(waiting.__await__())
    except StopIteration as done:
        return done.value
    raise RuntimeError("it waits")


class MendedClient(Client):
    """Turns away, before it says anything, from a server that is not the one it looks for.

    And reads on after a message that it cannot read, of which nats-py's read loop would die.
    """

    look: Look | None = None
    on_ended: Callable[[str], None] = staticmethod(lambda said: None)
    """Hears that the server has ended the session, because the credential has expired or was revoked."""
    wire: Wire | None = None  #: of this connection; None where no other thread may send

    def __init__(self) -> None:
        super().__init__()
        self._ps: ListParser = ListParser(self)
        self._lost = self._found = time.monotonic()
        self._reading_now: asyncio.Task[Any] | None = None

    def pause(self) -> float:
        """Seconds until the next attempt to connect."""
        return pause(time.monotonic() - self._lost)

    async def _attempt_reconnect(self) -> None:
        if (now := time.monotonic()) - self._found > _HELD_FOR:
            self._lost = now
        self.options["reconnect_time_wait"] = self.pause()
        await super()._attempt_reconnect()
        self._found = time.monotonic()

    async def _connect_to_server(self, server: Srv) -> None:
        task = asyncio.current_task()
        if task and task.cancelling():  # Python 3.11's `wait_for` may have swallowed it
            raise asyncio.CancelledError
        self.options["reconnect_time_wait"] = self.pause()  # nats-py waits for as long if this attempt fails
        await super()._connect_to_server(server)

    async def listen(self, subject: str, handler: Callable[[Msg], object]) -> Subscription:
        """Subscribe; `handler`, which must not wait, is called as a message is read, without queue and task between."""
        return await self._begin(_OneByOne, subject, handler)

    async def listen_in_lists(self, subject: str, hear: Hear) -> _Listening:
        """As `listen`, with all the messages that were read together, as they are: a tenth of what a `Msg` costs.

        Whoever knows what its messages look like may set `read`, and gets only what that leaves.
        """
        return await self._begin(_Listening, subject, hear)

    async def _begin(
        self, kind: type[_Listening], subject: str, handler: Callable[[Any], object]
    ) -> _Listening:
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        self._sid += 1
        subscription = self._subs[self._sid] = kind(self, self._sid, subject, handler)
        await self._send_subscribe(subscription)
        return subscription

    def listener(self, number: bytes) -> _Listening | None:
        """Who listens under that number, as it is on the wire."""
        subscription = self._subs.get(int(number)) if number.isdigit() else None
        return subscription if isinstance(subscription, _Listening) else None

    def hand_over(self, listener: _Listening, messages: list[Raw]) -> None:
        """Have messages heard, and counted as nats-py counts them: the bytes of their payloads."""
        self.stats["in_msgs"] += len(messages)
        self.stats["in_bytes"] += sum([len(payload) for _, _, payload, _ in messages])
        listener.hear(messages)

    def read_on(self, listener: _Listening, data: bytes, start: int) -> int:
        """Have a listener that can read what comes next, and return where it stopped; all bytes of it are counted."""
        if not listener.read:
            return start
        try:
            end, count = listener.read(data, start)
        except Exception as error:
            self.failed(error)
            return start
        self.stats["in_msgs"] += count
        self.stats["in_bytes"] += end - start
        return end

    def failed(self, error: Exception) -> None:
        """A handler has raised that."""
        _at_once(self._error_cb(error))

    async def _read_loop(self) -> None:
        # nats-py resets its parser when a connection is lost; what has been read by then may still be parsed after that,
        # and a server that does not answer in time leaves a loop behind
        self._ps.reset()
        former, self._reading_now = self._reading_now, asyncio.current_task()
        if former:
            former.cancel()
        if type(reader := getattr(self._transport, "_io_reader", None)) is asyncio.StreamReader:
            reader.feed_data = partial(self._feed, reader)  # type: ignore[method-assign]
        await super()._read_loop()

    def _feed(self, reader: asyncio.StreamReader, data: bytes) -> None:
        """Hand over at once what is listened to, if it is next; the rest nats-py reads, a turn of the loop later."""
        waiter = getattr(reader, "_waiter", None)
        if waiter and not waiter.done() and self.is_connected and self._ps.between:
            data = self._ps.take(data)
        asyncio.StreamReader.feed_data(reader, data)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and (wrong := self._wrong(info)):
            assert self._transport
            self._transport.close()  # type: ignore[no-untyped-call]
            raise nats.errors.Error(wrong)
        await super()._process_info(info, initial_connection)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Pass over what is not UTF-8, or has headers that are none: anybody may send that to anybody."""
        if isinstance(listener := self._subs.get(sid), _Listening):
            self.hand_over(listener, [(subject, reply, data, headers or b"")])
            return
        with suppress(UnicodeError, IndexError, ValueError):
            await super()._process_msg(sid, subject, reply, data, headers)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Read headers as nats-py does, in a third of the time where they are ASCII: each republished event has five."""
        try:
            lines = raw.decode("ascii").split("\r\n")
        except UnicodeDecodeError:
            return Client._parse_header_lines(raw)
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon and (key := _header_name(name)) is not None:
                headers[key] = value.strip(_WHITE)
        return headers

    async def _process_err(self, err_msg: str) -> None:
        """Connect again with the credential of then, where nats-py would close for good."""
        if _ENDED.search(err_msg):
            self.on_ended(err_msg)
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))
        else:
            await super()._process_err(err_msg)

    async def publish_all(self, messages: Sequence[bytes]) -> None:
        """Send what was made to be published and is known to be fit, while connected: cheaper than one by one."""
        await self._send_command(b"".join(messages))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def leave_session(self, waiting: Sized) -> None:
        """Have the server deliver nothing to this session but replies, and take what it has delivered before.

        Who asks something here meanwhile hears that nobody listens, in place of nothing. It begins when
        nothing is `waiting` for a reply, or after a second.
        """
        await _until_empty(waiting, 1.0)
        if not (self.is_connected and self._transport):
            return
        for number, subscription in self._subs.items():
            if not subscription.subject.startswith("_"):
                self._transport.write(unsub_cmd(number, 0))
        # never cancelled: nats-py's read loop dies of a pong that comes after its flush has timed out
        await asyncio.wait([asyncio.ensure_future(self.flush(timeout=3600))], timeout=1.0)
        await _until_empty(waiting, 0.1)

    def _wrong(self, info: dict[str, Any]) -> str:
        assert self._current_server
        url = self._current_server.uri.geturl()
        if self.look:
            url, name, _ = self.look()
            if info.get("server_name") != name:
                return "the nats-server there is a stranger, not the embedded one"
        tls = url.startswith("tls:") or (not self.look and self.options.get("tls"))
        if tls and not info.get("tls_required"):  # nats-py would go on
            return "it offers no TLS, so it is another server, or somebody is in between"
        return ""

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What the server's certificate says, as `ssl` has it; None without TLS."""
        if self._transport is None:
            return None
        writer = getattr(self._transport, "_io_writer", None)
        tls = writer.get_extra_info("ssl_object") if writer else None
        found: dict[str, Any] | None = tls.getpeercert() if tls else None
        return found

    def _connect_command(self) -> bytes:
        """The first thing said; before it asyncio is told of TLS, or it writes a warning to stderr at the end."""
        self.wire = None
        if writer := getattr(self._transport, "_io_writer", None):
            vars(writer.transport.get_protocol())["_over_ssl"] = (
                writer.get_extra_info("sslcontext") is not None
            )
            self.wire = Wire.of(writer.transport)
        return super()._connect_command()


async def _until_empty(things: Sized, timeout: float) -> None:
    """Wait until there are none, for `timeout` seconds at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while things:
                await asyncio.sleep(0.005)


async def stopped(task: asyncio.Future[Any]) -> None:
    """Cancel a task of nats-py's, as often as it takes: Python 3.11's `wait_for` may swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
    if not task.cancelled():
        task.exception()
