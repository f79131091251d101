"""What JetStream's API says when it refuses."""

from __future__ import annotations

from typing import Any

from natsproc.errors import Error
from natsproc.errors import NoMesh as PublicNoMesh

NO_STREAM = 10059
NO_SPACE = (10002, 10023, 10047, 10077)
FULL = "is its disk full, or a limit on storage reached? Make room there, then restart it (`natsproc down`, `natsproc up`)"


class ApiError(Error):
    """JetStream's API answered with an error. `code` is like HTTP's, `err_code` is the server's own."""

    def __init__(self, subject: str, error: dict[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))
        self.description = str(error.get("description", ""))
        text = f"JetStream refused {subject}: {self.description} ({self.err_code or self.code})"
        super().__init__(f"{text}; {FULL}" if self.err_code in NO_SPACE else text)


class NoMesh(ApiError, PublicNoMesh):
    """The public error, where JetStream has no such stream, or has it no more."""

    def __init__(self, subject: str, error: dict[str, Any]) -> None:
        super().__init__(subject, error)
        self.args = (f"the mesh is not there, or a part of it is gone: {self}. `natsproc setup` makes it",)
