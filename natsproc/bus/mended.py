"""nats-py's client, with what it lacks: it says nothing to a server that is not the one meant, nor without TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client

Look = Callable[[], tuple[str, str, dict[str, Any]]]
"""Where a server that may move is now, its name, and options for nats-py."""


class MendedClient(Client):
    """Turns away, before it says anything, from a server that is not the one it looks for."""

    look: Look | None = None

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and (wrong := self._wrong(info)):
            assert self._transport
            self._transport.close()  # type: ignore[no-untyped-call]
            raise nats.errors.Error(wrong)
        await super()._process_info(info, initial_connection)

    def _wrong(self, info: dict[str, Any]) -> str:
        if self.look and info.get("server_name") != self.look()[1]:
            return "the nats-server there is a stranger, not the embedded one"
        assert self._current_server
        if self._current_server.uri.scheme == "tls" and not info.get("tls_required"):  # nats-py would go on
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
        if writer := getattr(self._transport, "_io_writer", None):
            vars(writer.transport.get_protocol())["_over_ssl"] = (
                writer.get_extra_info("sslcontext") is not None
            )
        return super()._connect_command()
