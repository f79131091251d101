"""May this request do that, and as whom: what the host's `authorize` says, and nothing by default."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, Union

from natsproc.client import Mesh

from .problems import Problem
from .request import Request
from .routes import Right

ANY: Final = "*"
"""In place of an id, or of a namespace, when the list is asked for."""

Verdict: TypeAlias = Union[bool, str, Mesh, None]  # noqa: UP007  # `|` is evaluated, and mypy knows it as a value then
"""False: no. None, or an empty text: we do not know who asks. True: yes. A text: yes, for the user of that name. A mesh: yes, and by that
connection, which has a credential of the user's own."""

Authorize: TypeAlias = Callable[[Request, str, str, Right], Union[Verdict, Awaitable[Verdict]]]  # noqa: UP007


@dataclass(frozen=True)
class Actor:
    """By which connection something is done, and for whom."""

    mesh: Mesh
    user: str = ""  #: as the host knows them; the log has it beside the sender, who is the host


class Gate:
    """Asks the host about one request."""

    def __init__(self, authorize: Authorize, mesh: Mesh, request: Request) -> None:
        self.mesh = mesh
        self._authorize = authorize
        self._request = request

    async def ask(self, namespace: str, id: str, right: Right) -> Actor | None:
        """Who does it; None if the host says no. Raises: Problem (401), if it does not know who asks."""
        said = self._authorize(self._request, namespace, id, right)
        verdict = await said if inspect.isawaitable(said) else said
        if verdict is None or verdict == "":
            raise Problem(
                401,
                "it is not known who asks: sign in, or send a token that is known here",
                headers={"WWW-Authenticate": 'Bearer realm="natsproc"'},
            )
        if isinstance(verdict, Mesh):
            return Actor(verdict)
        if isinstance(verdict, str):
            return Actor(self.mesh, verdict)
        return Actor(self.mesh) if verdict is True else None

    async def insist(self, namespace: str, id: str, right: Right) -> Actor:
        """Who does it. Raises: Problem (401, 403), unless the host says yes."""
        actor = await self.ask(namespace, id, right)
        if actor is None:
            raise Problem(403, f"you may not {right} {namespace}/{id}", error="NotAllowed")
        return actor
