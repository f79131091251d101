"""The embedded nats-server, and finding any other one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from natsproc.protocol.names import DEFAULT_PREFIX

if TYPE_CHECKING:
    from natsproc.access.renewing import Source
    from natsproc.bus.connection import Endpoint


def find_server(
    *,
    server: str | None = None,
    creds: str | None = None,
    context: str | None = None,
    sender: str | None = None,
    start: bool = False,
    prefix: str = DEFAULT_PREFIX,
    credentials: Source | None = None,
) -> Endpoint:
    """Choose the server to connect to, as `natsproc.server.find.find` does.

    With `start` the embedded server is started, and given a mesh of that `prefix`, if none is named or joined and it
    does not run; blocks meanwhile, and says so once on stderr. Raises: what `find` and `embedded.start` raise.
    """
    from . import find, home, joined

    started = False
    place = home.Home.find()
    named = server or context or os.environ.get("NATS_URL") or os.environ.get(find.GRANT)
    if start and not (named or joined.load(place.joined)):
        from . import embedded

        started = embedded.start(place, prefix=prefix)
    endpoint = find.find(server, creds, context, sender=sender, credentials=credentials)
    if started:
        where = endpoint.servers[0]
        print(f"natsproc: started a nats-server at {where} (`natsproc down` stops it)", file=sys.stderr)
    return endpoint
