"""From a path to a process, and what is asked of it. Pure.

`/` is the list, `/openapi.json` the description. A process is `/{id}` or `/{namespace}/{id}`, and what is asked of
it follows: `/{id}/events`, `/{namespace}/{id}/interrupt`. A last part that is such a word is always taken as one; so the
record of a process that is named like one, in a namespace, is `/{namespace}/{id}/record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from natsproc.errors import BadName
from natsproc.protocol.names import Address

from .problems import Problem

Right = Literal["watch", "send", "control"]

VERBS: Final[dict[str, Right]] = {
    "send": "send",
    "request": "send",
    "answer": "control",
    "interrupt": "control",
    "pause": "control",
    "resume": "control",
    "cancel": "control",
    "kill": "control",
}
"""What is posted, and the right that it takes."""

LIST: Final = "list"
OPENAPI: Final = "openapi.json"
RECORD: Final = "record"
EVENTS: Final = "events"
A2A: Final = "a2a"
CARD: Final = "agent-card.json"
AGUI: Final = "ag-ui"

_CARD_PATH: Final = f"{A2A}/.well-known/{CARD}"
_WORDS: Final = (*VERBS, RECORD, EVENTS, A2A, AGUI)


@dataclass(frozen=True)
class Route:
    """What a path names."""

    what: str  #: LIST, OPENAPI, RECORD, EVENTS, A2A, CARD, AGUI or one of VERBS
    address: Address | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        return ("POST", "OPTIONS") if self.what in (*VERBS, A2A, AGUI) else ("GET", "HEAD", "OPTIONS")


def route(path: str, namespace: str) -> Route:
    """Read a path; ids that name no namespace are in `namespace`. Raises: Problem (404)."""
    path, is_card = path.strip("/"), False
    if path.endswith(f"/{_CARD_PATH}"):
        path, is_card = path.removesuffix(f"/{_CARD_PATH}"), True
    parts = path.split("/")
    if parts == [""]:
        return Route(LIST)
    if parts == [OPENAPI]:
        return Route(OPENAPI)
    what = CARD if is_card else RECORD
    if len(parts) > 1 and parts[-1] in _WORDS and not is_card:
        what = parts.pop()
    if len(parts) > 2:
        raise Problem(404, f"there is no /{path}: a process is /ID or /NAMESPACE/ID, and behind it may come "
                      f"{', '.join(_WORDS)}")  # fmt: skip
    try:
        return Route(what, Address.parse("/".join(parts), namespace if len(parts) == 1 else None))
    except BadName as error:
        raise Problem(404, str(error), error="BadName") from None
