"""A credential that ends: the next one is shown in time, and if there is none, it is said. Protocol: section 8.2.

nats-py closes for good when the server ends a session, and tries for ever with a credential that is refused. Here the
server's word counts, never this machine's clock: what is refused is asked for anew, and given up when nothing comes.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from nats.aio.client import RawCredentials

if TYPE_CHECKING:
    from .endpoint import Endpoint

EARLY = (0.7, 0.8)  #: when to renew, as a part of the time that is left at first; two of them, for jitter
RENEW_SECONDS = 30.0
AGAIN = 1.0
GRACE = 5.0  #: seconds for which the next credential is waited for once the server has refused this one
PATIENCE = 10.0  #: the same while nobody says why: a cluster may not know all accounts yet

REFUSED = re.compile(
    r"authorization violation|(user|account) authentication (expired|revoked)", re.IGNORECASE
)

REASONS = re.compile("expired|revoked")


class Secret(Protocol):
    """A credential as the bus needs it; `natsproc.access.Credential` is one."""

    @property
    def sender(self) -> str: ...
    @property
    def expires(self) -> float | None: ...
    @property
    def text(self) -> str: ...


Renew = Callable[[], Awaitable[Secret]]
"""Gives the credential of now. May raise anything, and is asked again then."""


class Renewal:
    """What one connection shows to servers, and how it goes on when that ends."""

    def __init__(
        self, endpoint: Endpoint, *, switch: Callable[[], Awaitable[None]], end: Callable[[], None]
    ) -> None:
        """`switch` begins a new session with what is `shown` by then, `end` gives up."""
        self.shown = RawCredentials(endpoint.secret)  #: nats-py reads it at every attempt
        self._sender = endpoint.sender
        self._expires = endpoint.expires
        self._renew = endpoint.renew
        self._switch = switch
        self._end = end
        self.over = ""  #: why nothing goes on with this connection, once that is so
        self._refused = asyncio.Event()
        self._since: float | None = None  # when the server refused it first
        self._said = ""
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Renew from now on. Does nothing where there is no credential of this kind."""
        if self.shown.data:
            self._task = asyncio.create_task(self._keep())

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    def refused(self, said: str) -> None:
        """The server has ended the session, or does not let it in again, with these words."""
        self._since = time.monotonic() if self._since is None else self._since
        said = said.lower()
        if self._expires is not None and self._expires < time.time() and "revoked" not in said:
            said = "expired"  # a server that was away says no more than that it does not let it in
        if not REASONS.search(self._said):
            self._said = said
        self._refused.set()
        if self._task and self._renew is None and self._is_over():
            self.stop()
            self._give_up()

    def accepted(self) -> None:
        """The server has let it in again."""
        self._since, self._said = None, ""

    def why_not(self, said: str) -> str:
        """For people: what the server refused, with these words, when it was shown first, and why if that can be told."""
        if not self.shown.data:
            return "these credentials"
        whose = f"the credential of {self._sender!r}"
        if "expired" in said.lower():
            return f"{whose}: it expired{self._at()}. Ask for a new one (`natsproc grant` makes it)"
        return (
            f"{whose}: it was revoked (`natsproc grants` shows that where it was granted), or it is of another server. Ask for "
            "a new one"
        )

    async def _keep(self) -> None:
        wait = self._early()
        while True:
            self._refused.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._refused.wait()
            cut_off = self._since is not None
            if await self._take_next():
                self.accepted()
                if not cut_off:
                    await self._switch()
            elif self._since is not None and self._is_over():
                self._give_up()
                return
            wait = self._early() if self._since is None else AGAIN
            await asyncio.sleep(AGAIN if cut_off else 0)

    def _early(self) -> float | None:
        """Seconds until the next one is asked for; None if this one does not end by itself."""
        if self._expires is None or self._renew is None:
            return None
        return max(AGAIN, (self._expires - time.time()) * random.uniform(*EARLY))

    async def _take_next(self) -> bool:
        """Show the next credential from now on; False if there is none yet."""
        if self._renew is None:
            return False
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                found = await self._renew()
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"[:300]
            return False
        self._trouble = ""
        if found.sender != self._sender:
            self._trouble = f"what came is for {found.sender!r}"
        if self._trouble or found.text == self.shown.data:
            return False
        self.shown.data, self._expires = found.text, found.expires
        return True

    def _is_over(self) -> bool:
        known = "revoked" in self._said or ("expired" in self._said and self._renew is None)
        waited = time.monotonic() - (self._since or 0.0)
        return known or waited > (GRACE if "expired" in self._said else PATIENCE)

    def _give_up(self) -> None:
        self.over = self._why()
        self._end()

    def _why(self) -> str:
        whose = f"the credential of {self._sender!r}"
        if "expired" in self._said:
            failed = f", and was not renewed ({self._trouble or 'no other came'})" if self._renew else ""
            return f"{whose} expired{self._at()}{failed}: ask for a new one"
        if "revoked" in self._said:
            return f"{whose} was revoked: ask for a new one"
        return (
            f"the nats-server does not accept {whose} any more: it was revoked, or the server goes by other keys "
            "now. Ask for a new one"
        )

    def _at(self) -> str:
        return (
            f" at {datetime.fromtimestamp(self._expires, UTC):%Y-%m-%d %H:%M:%S} UTC" if self._expires else ""
        )
