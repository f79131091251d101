"""What a credential says of its holder."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natsproc.errors import BadPayload
from natsproc.protocol.names import sanitize

from .keys import claims_of, creds_text

_SAID_BY_SENDERS = ("inbox", "control", "history", "viewers", "send", "hold", "own", "*")
"""The fourth token of subjects whose last one is the sender, or a wildcard for it."""

_ASKS = "$JS.API.STREAM.INFO.X"


LINE = "natsproc_"
"""How a credential in one line begins; behind it is JSON in base64url."""


@dataclass(frozen=True)
class Credential:
    """What a credential says of its holder, and what it is."""

    sender: str
    pinned: bool  #: whether the server holds the holder to that name
    expires: float | None = None  #: seconds since 1970, UTC
    direct: bool = True  #: whether the holder may ask JetStream itself, and not only the gate
    granted: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, compare=False)
    """By right, the namespaces and ids, or `*`, that it covers, if it is a narrow one."""
    text: str = field(default="", repr=False, compare=False)  #: as in a .creds file
    issuer: str = field(default="", compare=False)  #: public key of the account that it is for
    key: str = field(default="", compare=False)  #: its own public key
    url: str = field(default="", compare=False)  #: of the server, if it came in one line
    prefix: str = field(default="", compare=False)  #: of the mesh, likewise
    ca: str = field(
        default="", compare=False, repr=False
    )  #: by which the server's certificate is known, likewise
    tls_name: str = field(default="", compare=False)  #: the name in that

    @classmethod
    def read(cls, path: str | Path) -> Credential:
        """Read a file with a .creds text or a line in it. Raises: BadPayload, naming the file."""
        try:
            return cls.of(Path(path).read_text(), str(path))
        except OSError as error:
            raise BadPayload(f"cannot read the credentials in {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _unreadable(str(path)) from None

    @classmethod
    def of(cls, text: str, where: str) -> Credential:
        """Read what a .creds file has, or a credential in one line. Raises: BadPayload, naming `where` it is from."""
        try:
            around = {}
            if text.strip().startswith(LINE):
                around = _unpacked(text.strip().removeprefix(LINE))
                text = creds_text(around["jwt"], around["seed"])
            claims = claims_of(text.split("BEGIN NATS USER JWT-----")[1].split()[0])
            name, nats = str(claims["name"]), claims["nats"]
            may = nats.get("pub", {})
            allowed, denied = may.get("allow") or [">"], may.get("deny") or []
            sender = sanitize(name, "anonymous")
            return cls(
                sender,
                sender == name and _pins(allowed, name),
                claims.get("exp"),
                any(_covers(p, _ASKS) for p in allowed) and not any(_covers(p, _ASKS) for p in denied),
                _granted(allowed, name),
                text,
                str(nats.get("issuer_account") or claims.get("iss", "")),
                str(claims.get("sub", "")),
                str(around.get("nats") or around.get("url") or ""),
                *(str(around.get(name, "")) for name in ("prefix", "ca", "tls_name")),
            )
        except (IndexError, KeyError, ValueError, AttributeError, TypeError):
            raise _unreadable(where) from None

    @property
    def watches(self) -> tuple[tuple[str, str], ...]:
        """Namespaces and ids, or `*`, whose logs it may have read."""
        return self.granted.get("watch", ())

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()

    @property
    def signed(self) -> str:
        """What its issuer has signed: the same for whoever writes it otherwise."""
        return parts_of(self.text)[0].rpartition(".")[0]

    @property
    def has_its_key(self) -> bool:
        """Whether its seed is that of the key that it names. Whether its issuer has signed it, the server knows."""
        import nkeys

        try:
            pair = nkeys.from_seed(parts_of(self.text)[1].encode())
            return bool(pair.public_key.decode() == self.key)
        except (nkeys.NkeysError, ValueError, IndexError):
            return False


_RIGHTS = {"history": "watch", "send": "send", "hold": "control", "own": "own"}
"""By the fourth token of the subjects on which the gate is asked."""


def _granted(allowed: Sequence[str], sender: str) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for tokens in (pattern.split(".") for pattern in allowed):
        if len(tokens) == 5 and tokens[3] in _RIGHTS and tokens[4] == sender and tokens[1] != "_nodes":
            right = _RIGHTS[tokens[3]]
            found[right] = (*found.get(right, ()), (tokens[1], tokens[2]))
    return found


def parts_of(text: str) -> tuple[str, str]:
    """JWT and seed of a .creds text."""
    jwt, seed = (
        text.split(f"BEGIN {what}-----")[1].split()[0] for what in ("NATS USER JWT", "USER NKEY SEED")
    )
    return jwt, seed


def to_line(text: str, **around: str) -> str:
    """Write a .creds text in one line, as a browser takes it, with what else it has to know (section 8.2)."""
    jwt, seed = parts_of(text)
    packed = json.dumps({name: value for name, value in around.items() if value} | {"jwt": jwt, "seed": seed})
    return LINE + base64.urlsafe_b64encode(packed.encode()).rstrip(b"=").decode()


def _unpacked(packed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    return found


def _unreadable(where: str) -> BadPayload:
    return BadPayload(f"{where} is not a .creds file: there is no NATS user JWT in it")


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
