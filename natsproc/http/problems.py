"""What went wrong, as a status and problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from natsproc import errors

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 2

STATUSES: Final[Mapping[type[errors.Error], int]] = {
    errors.NoServer: 503,
    errors.ServerUnfit: 503,
    errors.NoMesh: 503,
    errors.MeshMismatch: 503,
    errors.Closed: 503,
    errors.CredentialEnded: 503,
    errors.NotAllowed: 403,
    errors.TimedOut: 504,
    errors.Unreachable: 504,
    errors.BadName: 422,
    errors.BadPayload: 422,
    errors.TooLarge: 413,
    errors.NoSuchProcess: 404,
    errors.AlreadyEnded: 410,
    errors.Refused: 409,
}
"""By class; a class that is not here has the status of the one it is derived from."""


class Problem(Exception):
    """A response that says what went wrong; its text is for the reader."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.members = members

    @classmethod
    def of(cls, error: errors.Error) -> Problem:
        """What an error of ours is over HTTP; `error` names it for programs."""
        status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
        return cls(status, str(error), headers=headers, error=type(error).__name__)

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            **self.members,
        }
