"""What a credential says of its holder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from natsproc.errors import BadPayload
from natsproc.protocol.names import sanitize

from .keys import claims_of

_SAID_BY_SENDERS = ("inbox", "control", "history", "viewers", "send", "hold", "own", "*")
"""The fourth token of subjects whose last one is the sender, or a wildcard for it."""


@dataclass(frozen=True)
class Credential:
    """What a .creds file says of its holder."""

    sender: str
    pinned: bool  #: whether the server holds the holder to that name
    expires: float | None = None  #: seconds since 1970, UTC
    direct: bool = True  #: whether the holder may ask JetStream itself, and not only the gate

    @classmethod
    def read(cls, path: str | Path) -> Credential:
        """Read a .creds file. Raises: BadPayload, naming the file."""
        try:
            claims = claims_of(Path(path).read_text().split("BEGIN NATS USER JWT-----")[1].split()[0])
            name, may = str(claims["name"]), claims["nats"].get("pub", {})
            allowed, denied = may.get("allow") or [">"], may.get("deny") or []
        except OSError as error:
            raise BadPayload(f"cannot read the credentials in {path}: {error.strerror}") from None
        except (IndexError, KeyError, ValueError, AttributeError):
            raise BadPayload(f"{path} is not a .creds file: there is no NATS user JWT in it") from None
        sender = sanitize(name, "anonymous")
        asks = "$JS.API.STREAM.INFO.X"
        direct = any(_covers(p, asks) for p in allowed) and not any(_covers(p, asks) for p in denied)
        return cls(sender, sender == name and _pins(allowed, name), claims.get("exp"), direct)

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()


def _pins(allowed: Sequence[str], name: str) -> bool:
    """Whether these permissions let their holder speak to processes as `name`, and as nobody else."""
    names = {tokens[4] for tokens in map(_process_subject, allowed) if tokens}
    return names == {name}


def _process_subject(pattern: str) -> list[str] | None:
    """The five tokens of a pattern that may match what senders publish, `>` filled up; None of any other."""
    tokens = pattern.split(".")
    if tokens[-1] == ">" and len(tokens) <= 5:
        tokens = [*tokens[:-1], *["*"] * (6 - len(tokens))]
    said = len(tokens) == 5 and tokens[3] in _SAID_BY_SENDERS and tokens[0][:1] not in ("$", "_")
    return tokens if said else None


def _covers(pattern: str, subject: str) -> bool:
    """Whether a NATS subject pattern matches a subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">" and len(tokens) >= len(wanted):
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))
