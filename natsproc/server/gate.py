"""Running a gate: as a child of the supervisor, or by itself (`natsproc gate`).

`python -m natsproc.server.gate HOME` answers for the embedded server of that home until its stdin ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from natsproc.access import FULL, Authority
from natsproc.bus.connection import Connection, Endpoint, NoResponders
from natsproc.bus.gate import Gate
from natsproc.errors import Closed, Error, NoServer, NotAllowed, TimedOut
from natsproc.protocol.names import DEFAULT_PREFIX, Address, Names

from .find import endpoint_of
from .home import Home

SENDER = "_gate"  #: no grant can have that name, so nobody else hears what comes into its inboxes
RIGHTS = FULL | {"pub": (*FULL["pub"], "*.*.*.inbox.*")}  #: a gate stores messages in the name of who asks
RETRY_SECONDS = 0.2


async def serve(endpoint: Endpoint, *, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Answer what narrow credentials ask, until cancelled. Raises: Closed, NotAllowed, NoServer, ServerUnfit."""
    connection = await Connection.open(endpoint)
    try:
        await _insist_on_rights(connection, Names(endpoint.prefix or DEFAULT_PREFIX))
        gate = Gate(connection)
        await gate.start()
        await connection.ping()
        on_ready(connection.url)
        await connection.closed.wait()
        raise Closed(f"the nats-server at {connection.url} has turned the gate away")
    finally:
        await connection.close()


async def _insist_on_rights(connection: Connection, names: Names) -> None:
    """A gate that could not store what others send would refuse its share of that: tried, where nothing gets stored."""
    subject = names.inbox(Address("default", "nowhere"), f"not-{connection.sender[:50]}")
    try:
        await connection.request(subject, headers={"Nats-Expected-Stream": "nowhere"})
    except NotAllowed:
        raise NotAllowed(
            f"{connection.sender} may leave messages in its own name only, and a gate stores them in the name of who asks: "
            "give it the rights of the role `gate` (`natsproc setup --print`); beside its own server `natsproc up` runs one"
        ) from None
    except (NoResponders, TimedOut):
        pass  # there is no mesh yet


async def _beside(home: Home) -> None:
    """Answer for the home's server for as long as there is somebody at the other end of stdin."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard() -> None:
        if not os.read(0, 1):
            over.set()

    loop.add_reader(0, heard)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    serving = asyncio.create_task(_serve_home(home))
    ending = asyncio.create_task(over.wait())
    await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _serve_home(home: Home) -> None:
    while True:
        state, authority = home.load(), Authority.load(home.keys)
        if state is None or authority is None:
            raise Error(f"{home.folder} holds no server")
        endpoint = replace(
            endpoint_of(home, state), creds=None, secret=authority.credential(SENDER, RIGHTS), sender=SENDER
        )
        try:
            await serve(endpoint)
        except NoServer:  # it is just being started
            await asyncio.sleep(RETRY_SECONDS)


def main(folder: str) -> int:
    try:
        asyncio.run(_beside(Home(Path(folder))))
    except Error as error:
        print(f"gate: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
