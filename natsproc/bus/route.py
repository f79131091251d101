"""The way of a request that is meant for JetStream, where a credential has to ask the gate. Protocol: section 9."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from nats.aio.msg import Msg

from natsproc.errors import BadPayload, Error, NotAllowed, TimedOut
from natsproc.protocol.bundle import BUNDLE, PART, Parts
from natsproc.protocol.gate import TARGET, is_stored, understand
from natsproc.protocol.names import Names

GATE = "Natsproc-Gate"  #: the header that a gate's answers have
HEADROOM = 512  #: bytes for what a request to the gate says besides its payload

Headers = dict[str, str]


class NoResponders(Error):
    """Nobody listens on the subject of a request."""


class NoGate(NoResponders):
    """Nobody carries out what is meant for JetStream."""

    def __init__(self) -> None:
        super().__init__(
            "this credential reads and writes through the mesh's gate, and none answers: `natsproc up` runs one beside "
            "its server, and `natsproc gate` does elsewhere"
        )


@dataclass(frozen=True)
class Route:
    """Where `sender` sends what is meant for the streams of a mesh; everything else goes its own way."""

    names: Names
    sender: str

    def of(self, subject: str, payload: bytes, headers: Headers) -> tuple[str, Headers]:
        """Where to send a message, and with which headers. Raises: NotAllowed, BadPayload for what no gate does."""
        if not is_stored(self.names, subject):
            return subject, headers
        scope, _ = understand(self.names, self.sender, subject, payload, headers)
        return scope.subject(self.names), {**headers, TARGET: subject, BUNDLE: "1"}

    def where(self, subject: str) -> str:
        """Where the server may deny what is sent to a subject, as far as that can be told without the payload."""
        with suppress(NotAllowed, BadPayload):
            return self.of(subject, b"", {})[0]
        return subject


class Answers:
    """What a gate answers to one request: what is too large for one message is put together again."""

    def __init__(self) -> None:
        self._parts = Parts()

    def whole(self, msg: Msg) -> Msg | Error | None:
        """A message as it was meant, or what is wrong with it; None if more of it is to come."""
        if (part := (msg.headers or {}).get(PART)) is None:
            return msg
        try:
            data = self._parts.join(part, msg.data)
        except BadPayload as error:
            return TimedOut(f"a part of an answer was lost on the way: {error}")
        return None if data is None else replace(msg, data=data)


def failure_of(reply: Msg, subject: str, sender: str, *, gated: bool) -> Error | None:
    """What an answer says of a request that came to nothing, if it does; one with a payload never."""
    if reply.data:
        return None
    headers = reply.headers or {}
    status = headers.get("Status")
    if status == "503":
        asked = gated and subject.startswith("$") and GATE not in headers
        return NoGate() if asked else NoResponders(f"nobody listens on {subject}")
    if status == "403" and GATE in headers and "Nats-Sequence" not in headers:
        return NotAllowed(f"{sender} may not: {headers.get('Description')}", subject=subject)
    return None
