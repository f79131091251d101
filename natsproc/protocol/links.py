"""The fragment of a page's address: as whom it connects to which server, and what it shows. Protocol: section 8.3.

A browser never sends it. The page takes the credential out of the address bar at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote

from natsproc.errors import BadName, BadPayload

from .names import Address


@dataclass(frozen=True)
class Link:
    """What a page is told: a credential in one line, or the key of one, or a server that asks for none; and what to show."""

    credential: str = field(default="", repr=False)
    process: Address | None = None
    server: str = ""  #: WebSocket URL of a server that asks for no credential
    sender: str = ""  #: who to be there
    key: str = field(default="", repr=False)  #: the seed of a credential whose rest the pages give out

    @property
    def fragment(self) -> str:
        """As it stands behind the `#`."""
        process = f"{self.process.namespace}/{self.process.id}" if self.process else ""
        said = {"k": self.key, "c": self.credential, "s": self.server, "as": self.sender, "p": process}
        return "&".join(f"{name}={quote(value, safe='/:')}" for name, value in said.items() if value)

    @classmethod
    def parse(cls, fragment: str) -> Link:
        """Read what `fragment` wrote, with or without the `#`. Raises: BadPayload, without showing it."""
        said = dict(parse_qsl(fragment.removeprefix("#")))
        try:
            process = Address.parse(said["p"]) if "p" in said else None
        except BadName:
            raise BadPayload("the link names a process that cannot be one") from None
        return cls(said.get("c", ""), process, said.get("s", ""), said.get("as", ""), said.get("k", ""))
