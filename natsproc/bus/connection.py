"""One NATS connection, with what all of bus/ needs on top: replies, JetStream's API, and errors that say why.

nats-py reports a denied permission as a time-out and tells the reason only to its error callback; here
both meet, so that a denial is `NotAllowed` and a dead server is `NoServer`. Protocol: section 7.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ParamSpec, TypeVar

import nats.errors
from nats.aio.client import Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import Closed, CredentialEnded, Error, NoServer, NotAllowed, ServerUnfit, TimedOut
from natsproc.protocol.gate import in_words
from natsproc.protocol.messages import decode_object, encode
from natsproc.protocol.names import Names, client_inbox, new_token, node_inbox

from .api_error import FULL, NO_STREAM, NoMesh
from .api_error import NO_SPACE as NO_SPACE
from .api_error import ApiError as ApiError
from .endpoint import Endpoint as Endpoint
from .mended import MendedClient, stopped
from .renewal import REFUSED, Renewal
from .route import HEADROOM, Answers, NoGate, Route, failure_of
from .route import Headers as Headers
from .route import NoResponders as NoResponders
from .wire import Wire

OLDEST = (2, 11)
CONNECT_TIMEOUT = 5.0
REFUSED_TIMEOUT = 1.0  # where nothing listens, waiting longer helps nobody
REQUEST_TIMEOUT = 5.0

_VIOLATION = re.compile(r"permissions violation for (publish|subscription) to \\?\"([^\"\\]+)", re.IGNORECASE)

# of the same message id, or key: said by clusters only, and decides nothing
_UNDER_WAY = (10158, 10164)

_UNAUTHORIZED = re.compile(r"authori[sz]ation|authentication|expired", re.IGNORECASE)

Handler = Callable[[Msg], Awaitable[None]]
P = ParamSpec("P")
C = TypeVar("C", bound=Callable[..., None])

_UNPROVEN = (
    "somebody is in between, it has a new authority (join anew), a clock is wrong, or its authority is not known "
    "here: name its file by NATS_CA beside --server, or give --creds a file with the one-line form of the grant, "
    "which knows its server"
)


def check_version(version: tuple[int, int], url: str = "") -> None:
    """Raises: ServerUnfit if a nats-server of that version cannot carry a mesh."""
    if version < OLDEST:
        raise ServerUnfit(
            f"nats-server{url and f' at {url}'} is too old ({'.'.join(map(str, version))}): natsproc needs "
            f"{'.'.join(map(str, OLDEST))} or later, for expiring leases"
        )


class Connection:
    """A NATS connection that lives on the I/O thread. Everything here runs there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sender = endpoint.sender
        #: whether the server holds senders to their names, as far as is known
        self.verified = endpoint.verified
        self.nc = MendedClient()
        self.nc.look = endpoint.look
        self._renewal = Renewal(endpoint, switch=self._switch, end=self._end)
        self.nc.on_ended = self._renewal.refused
        self.closed = asyncio.Event()
        self.reads = asyncio.Semaphore(2)  #: long reads of a stream take turns (history.py)
        self._up = asyncio.Event()
        self._token = new_token(12)
        self._route: Route | None = None  # to the gate, where that is asked in place of JetStream
        self._waiting: dict[str, Callable[[Msg | Exception], None]] = {}
        self._asking: dict[str, str] = {}  # by token of who waits for the gate's answer, where it was asked
        self._denials: dict[str, list[tuple[str, Callable[[NotAllowed], None]]]] = {}  # by lower-case subject
        self._on_denial: dict[object, Callable[[str], None]] = {}
        self.shared: dict[tuple[object, str], Any] = {}  #: by what and for what, what all share who use it
        self._reconnected: dict[object, Callable[[], None]] = {}
        self._disconnected: dict[object, Callable[[], None]] = {}
        self._last_error = ""
        self._connected_once = False
        self._hopeless: Callable[[], None] = lambda: None  # called when a first connection is refused

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """Connect. Raises: NoServer, NotAllowed (bad credentials), ServerUnfit."""
        self = cls(endpoint)
        connecting = asyncio.create_task(self._dial())
        try:
            async with asyncio.timeout(timeout) as deadline:
                soon = asyncio.get_running_loop().time() + min(timeout, REFUSED_TIMEOUT)
                self._hopeless = lambda: deadline.reschedule(soon)
                await asyncio.shield(connecting)
        except (OSError, TimeoutError, nats.errors.Error, ValueError) as error:
            await stopped(connecting)
            await self._abandon()
            raise self._connect_error(error) from None
        except asyncio.CancelledError:
            await stopped(connecting)
            raise
        self._hopeless = lambda: None
        self._up.set()
        self._connected_once = True
        try:
            check_version(self.server_version, self.url)
        except ServerUnfit:
            await self.close()
            raise
        for prefix in (client_inbox(self.sender), node_inbox(self.sender)):
            await self.nc.listen(f"{prefix}.{self._token}.>", self._on_reply)
        self._renewal.start()
        return self

    async def _dial(self) -> None:
        """Connect for as long as it takes."""
        endpoint = self.endpoint
        await self.nc.connect(
            servers=list(endpoint.servers),
            name=f"natsproc {endpoint.sender}",
            user_credentials=self._renewal.shown if endpoint.secret else endpoint.creds,
            inbox_prefix=client_inbox(endpoint.sender).encode(),
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            closed_cb=self._on_closed,
            max_reconnect_attempts=-1,
            reconnect_to_server_handler=self._look_again if endpoint.look else None,
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            pending_size=16 * 1024 * 1024,
            **endpoint.options,
        )

    def _look_again(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server | None, float]:
        """Choose where to connect again; a server that has moved is the only one in the pool from the next time on."""
        assert self.endpoint.look
        url, _, options = self.endpoint.look()
        self.nc.set_server_pool([url])
        self.nc.options.update(options)
        return None, self.nc.pause()

    async def _abandon(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.nc.close()
        except (TimeoutError, OSError, nats.errors.Error):
            pass

    def _connect_error(self, error: Exception) -> Error:
        where = ", ".join(self.endpoint.servers) + (
            f" ({self.endpoint.origin})" if self.endpoint.origin else ""
        )
        if isinstance(error, ssl.SSLCertVerificationError):
            said = getattr(error, "certificate_error", error)  # aiohttp, for wss://, has it inside its own
            return NoServer(
                f"what answers at {where} cannot prove that it is the server meant "
                f"({getattr(said, 'verify_message', said)}): {_UNPROVEN}"
            )
        if _UNAUTHORIZED.search(said := f"{self._last_error} {error}"):
            return NotAllowed(
                f"the nats-server at {where} does not accept {self._renewal.why_not(said)}; "
                "name others with --creds, or a context with --context"
            )
        detail = self._last_error or str(error) or "no answer"
        return NoServer(
            f"no nats-server answers at {where}: {detail}. Start one with `natsproc up`, or name another with "
            "--server, --context or NATS_URL"
        )

    @property
    def url(self) -> str:
        """The server that it is connected to, without credentials."""
        parsed = self.nc.connected_url
        if not parsed:
            return ", ".join(self.endpoint.servers)
        return f"{parsed.scheme}://{parsed.netloc.rpartition('@')[2]}"

    @property
    def server_version(self) -> tuple[int, int]:
        version = self.nc.connected_server_version
        return (version.major, version.minor)

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        return int(self.nc.max_payload) - (HEADROOM if self._route else 0)

    @property
    def asks_who(self) -> bool:  # what a server that asks nobody is given proves nothing
        return bool(self.nc._server_info.get("auth_required"))

    @property
    def gated(self) -> bool:
        """Whether JetStream is asked through the gate, because this credential has no rights on it."""
        return self._route is not None

    @property
    def wire(self) -> Wire | None:
        """What other threads may send by, if they may: not where there is a gate, which wants it in a form of its own."""
        return None if self._route or not self.connected else self.nc.wire

    def use_gate(self, names: Names) -> None:
        """Ask the gate of that mesh whatever is meant for JetStream, from now on."""
        self._route = Route(names, self.sender)

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Return when there is a connection. Raises: Closed; CredentialEnded, which is one, too."""
        if self.closed.is_set():
            raise self._ending()
        await self._up.wait()

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], object]:
        """Call `callback` after every reconnect; returns how to stop that."""
        return _added(self._reconnected, callback)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], object]:
        """Call `callback` whenever the connection is lost; returns how to stop that."""
        return _added(self._disconnected, callback)

    def on_denial(self, callback: Callable[[str], None]) -> Callable[[], object]:
        """Call `callback` with every subject that the server denies, in lower case; returns how to stop that."""
        return _added(self._on_denial, callback)

    # nats-py's read loop dies with an error callback that raises, so these four never do
    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error)
        if isinstance(error, ConnectionRefusedError):
            self._hopeless()
        unproven = isinstance(error, ssl.SSLCertVerificationError)
        if not self._connected_once and (unproven or _UNAUTHORIZED.search(str(error))):
            raise error  # … but these, which end the first attempt to connect: others would go the same way
        if self._connected_once and REFUSED.search(str(error)):
            self._renewal.refused(str(error))
        found = _VIOLATION.search(str(error))
        if not found:
            return
        _call(self._on_denial, found[2])
        operation = "publish" if found[1].lower() == "publish" else "subscribe"
        for subject, tell in self._denials.get(found[2].lower(), [])[:]:
            tell(self.denied(subject, operation))
        for token in [token for token, where in self._asking.items() if where.lower() == found[2].lower()]:
            self._waiting[token](self.denied(self._asking[token], operation))

    def denied(self, subject: str, operation: str) -> NotAllowed:
        """That the server does not allow it."""
        doing = f"{operation} {'to ' if operation == 'publish' else ''}{subject}"
        if operation == "publish" and self._route:
            doing = in_words(self._route.where(subject)) or doing
        text = f"{self.sender} may not {doing} on {self.url}: ask for a grant that covers it"
        return NotAllowed(text, subject=subject, operation=operation)

    async def _on_disconnect(self) -> None:
        self._up.clear()
        _call(self._disconnected)

    async def _on_reconnect(self) -> None:
        self._renewal.accepted()
        self._up.set()
        _call(self._reconnected)

    async def _on_closed(self) -> None:
        self._tell_closed()

    def _tell_closed(self) -> None:
        self.closed.set()
        self._up.set()
        for tell in list(self._waiting.values()):
            tell(self._ending())

    def _ending(self) -> Closed:
        why = self._renewal.over
        return CredentialEnded(why) if why else Closed("the connection is closed")

    def _end(self) -> None:
        """Close for good, and tell whoever waits why, before they hear of a lost connection."""
        self._tell_closed()
        _call(self._reconnected)  # who waits for what the server says learns it at the next call
        self._abandoned = asyncio.create_task(self._abandon())

    async def _switch(self) -> None:
        """Begin a new session with the credential of now, between two requests if there is such a moment."""
        await self.nc.leave_session(self._waiting)
        await self.nc.force_reconnect()

    @asynccontextmanager
    async def denials(self, subject: str, tell: Callable[[NotAllowed], None]) -> AsyncIterator[None]:
        """While inside, `tell` hears when the server denies this very subject.

        nats-py writes the server's errors in lower case, so subjects that differ in case only share theirs.
        """
        where = self._route.where(subject) if self._route else subject
        key, waiting = where.lower(), (subject, tell)
        self._denials.setdefault(key, []).append(waiting)
        try:
            yield
        finally:
            self._denials[key].remove(waiting)
            if not self._denials[key]:
                del self._denials[key]

    def _on_reply(self, msg: Msg) -> None:
        token = msg.subject.rsplit(".", 1)[1]
        if tell := self._waiting.get(token):
            tell(msg)

    @asynccontextmanager
    async def replies(
        self, subject: str, *, node: bool = False, limit: int = 0
    ) -> AsyncIterator[tuple[str, asyncio.Queue[Msg | Exception]]]:
        """Give a reply subject and the queue of what arrives there: messages, or why none will.

        `node` takes the inbox that no client may publish to. A denial to publish to `subject`, nobody
        listening there, a lost connection and a closed one arrive as exceptions.
        """
        queue: asyncio.Queue[Msg | Exception] = asyncio.Queue(limit)
        token = new_token(12)

        answers = Answers()

        def tell(item: Msg | Exception | None) -> None:
            if isinstance(item, Msg) and self._route:
                item = answers.whole(item)
            if isinstance(item, Msg):
                item = failure_of(item, subject, self.sender, gated=self.gated) or item
            if item is not None:
                queue.put_nowait(item)

        def lost() -> None:
            tell(NoServer(f"the connection to {self.url} was lost before {subject} was answered"))

        self._waiting[token] = tell
        forget = self.on_disconnect(lost)
        prefix = node_inbox(self.sender) if node else client_inbox(self.sender)
        try:
            async with self.denials(subject, tell):
                yield f"{prefix}.{self._token}.{token}", queue
        finally:
            forget()
            del self._waiting[token]
            self._asking.pop(token, None)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout: float = REQUEST_TIMEOUT,
        headers: Headers | None = None,
        node: bool = False,
    ) -> Msg:
        """Send a request and return its first reply.

        Raises: NotAllowed, NoResponders, NoServer (the connection was lost meanwhile), TimedOut, Closed.
        """
        async with self.replies(subject, node=node) as (reply, queue):
            await self.publish(subject, payload, reply=reply, headers=headers)
            try:
                async with asyncio.timeout(timeout):
                    item = await queue.get()
            except TimeoutError:
                if not self.connected:
                    raise NoServer(
                        f"the connection to {self.url} is lost, and did not return in {timeout:g} s"
                    ) from None
                whose = "from the mesh's gate" if self._route and subject.startswith("$") else f"on {subject}"
                raise TimedOut(f"no answer {whose} within {timeout:g} s") from None
        if isinstance(item, Exception):
            raise item
        return item

    async def api(
        self, call: str, body: dict[str, Any] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call JetStream's API, as in `api("STREAM.INFO.PROC_EVENTS")`.

        Raises: ApiError, NoMesh (no such stream), ServerUnfit (no JetStream), and what `request` raises.
        """
        subject = self.api_subject(call)
        try:
            reply = await self.request(
                subject, b"" if body is None else encode(body), timeout=timeout, node=True
            )
        except NoGate as nobody:
            raise ServerUnfit(str(nobody)) from None
        except NoResponders:
            raise ServerUnfit(
                f"the nats-server at {self.url} has no JetStream (for this account): natsproc keeps logs in it. "
                "Start it with -js, or use `natsproc up`"
            ) from None
        answer = decode_object(reply.data, subject)
        if error := answer.get("error"):
            raise (NoMesh if error.get("err_code") == NO_STREAM else ApiError)(subject, error)
        return answer

    def api_subject(self, call: str) -> str:
        """The subject of a JetStream API call, domain included; the gate has one of its own."""
        domain = "" if self._route else self.endpoint.domain
        return f"$JS.{domain}.API.{call}" if domain else f"$JS.API.{call}"

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Publish, without waiting for anything. Raises: Closed, NoServer; NotAllowed for what no gate does."""
        if self.closed.is_set():
            raise self._ending()
        if self._route:
            subject, headers = self._route.of(subject, payload, headers or {})
            if (token := reply.rpartition(".")[2]) in self._waiting:
                self._asking[token] = subject
        try:
            await self.nc.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)
        except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
            raise self._ending() from None
        except nats.errors.OutboundBufferLimitError:
            raise NoServer(f"not connected to {self.url}, and the outgoing buffer is full") from None

    async def store(
        self, subject: str, payload: bytes, *, headers: Headers | None = None, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Publish one message into a stream and return its acknowledgement (`seq`, `duplicate`).

        Raises: ApiError (a failed compare-and-set has err_code 10071), and what `request` raises;
        NoResponders means that no stream takes the subject.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            reply = await self.request(subject, payload, headers=headers, timeout=timeout, node=True)
            answer = decode_object(reply.data, subject) if reply.data else {}
            if not (error := answer.get("error")):
                break
            if error.get("err_code") not in _UNDER_WAY or asyncio.get_running_loop().time() > deadline:
                raise ApiError(subject, error)
            await asyncio.sleep(0.05)
        if "seq" not in answer:
            raise TimedOut(f"{subject}: the stream gave no acknowledgement (no leader?)")
        return answer

    async def subscribe(
        self,
        subject: str,
        handler: Handler,
        *,
        queue: str = "",
        max_messages: int = 65_536,
        max_bytes: int = 128 * 1024 * 1024,
    ) -> Subscription:
        """Subscribe; `handler` is awaited for one message after the other. Of a `queue` one member gets each."""
        return await self.nc.subscribe(
            subject, queue, cb=handler, pending_msgs_limit=max_messages, pending_bytes_limit=max_bytes
        )

    async def unsubscribe(self, subscription: Subscription | None) -> None:
        """End a subscription; what it has not handed over yet is dropped. The connection may be gone already."""
        if subscription:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def ping(self, timeout: float = 5.0) -> float:
        """Make a round trip to the server and return its seconds. Raises: TimedOut, Closed."""
        started = asyncio.get_running_loop().time()
        # never cancelled: nats-py's read loop dies of a pong that comes after its flush has timed out
        flush = asyncio.ensure_future(self.nc.flush(timeout=3600))
        if not (await asyncio.wait([flush], timeout=timeout))[0]:
            raise TimedOut(f"the nats-server at {self.url} does not answer within {timeout:g} s")
        if flush.cancelled() or flush.exception():
            raise self._ending()
        return asyncio.get_running_loop().time() - started

    async def why_silent(self) -> str:
        """For people: why nothing is stored. Only while the server answers pings is silence the disk's."""
        try:
            await self.ping(1.0)
        except Error:
            return f"the nats-server at {self.url} does not answer: it hangs, or the network does"
        return f"the nats-server at {self.url} answers, but stores nothing: {FULL}"

    async def close(self) -> None:
        """Send what is pending, for a second at most, and close."""
        self._renewal.stop()
        if self.connected and not self.closed.is_set():
            try:
                await self.ping(1.0)
            except Error:
                pass
        await self._abandon()
        await self._on_closed()


def _added(callbacks: dict[object, C], callback: C) -> Callable[[], object]:
    """Add one, and return how to take it away again."""
    callbacks[key := object()] = callback
    return lambda: callbacks.pop(key, None)


def _call(callbacks: dict[object, Callable[P, None]], *args: P.args, **options: P.kwargs) -> None:
    for callback in list(callbacks.values()):
        callback(*args, **options)
