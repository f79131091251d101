"""By which certificates a server is known."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any

from natsproc.errors import BadPayload


def trusting(ca: str, name: str) -> dict[str, Any]:
    """Options for a server whose certificate is for `name`, by that authority (PEM; empty: one the system knows).

    Raises: BadPayload.
    """
    return {"tls": context_for(ca), "tls_hostname": name}


@lru_cache(maxsize=8)
def context_for(ca: str) -> ssl.SSLContext:
    """The same for who opens the socket alone."""
    try:
        return ssl.create_default_context(cadata=ca or None)
    except (ValueError, ssl.SSLError) as error:
        raise BadPayload(f"the authority of the server's certificate cannot be read: {error}") from None
