"""JSON-RPC 2.0, as A2A has it: one request, one answer or a stream of them. Raised as `Refusal`, said as an error object."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from natsproc import errors
from natsproc.protocol.messages import decode

T = TypeVar("T", bound=BaseModel)

PARSE, REQUEST, METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
NOT_FOUND, NOT_CANCELABLE, NO_PUSH, UNSUPPORTED, VERSION = -32001, -32002, -32003, -32004, -32009

_REASONS: Final = {
    NOT_FOUND: "TASK_NOT_FOUND",
    NOT_CANCELABLE: "TASK_NOT_CANCELABLE",
    NO_PUSH: "PUSH_NOTIFICATION_NOT_SUPPORTED",
    UNSUPPORTED: "UNSUPPORTED_OPERATION",
    VERSION: "VERSION_NOT_SUPPORTED",
}
_CODES: Final[dict[type[errors.Error], int]] = {
    errors.Refused: UNSUPPORTED,
    errors.AlreadyEnded: UNSUPPORTED,
    errors.TooLarge: PARAMS,
    errors.BadPayload: PARAMS,
}


class Refusal(Exception):
    """What cannot be done, and the code for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def of(cls, error: errors.Error) -> Refusal:
        """What an error of ours is here."""
        return cls(
            next((code for kind, code in _CODES.items() if isinstance(error, kind)), INTERNAL), str(error)
        )

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"code": self.code, "message": str(self)}
        if reason := _REASONS.get(self.code):
            info = "type.googleapis.com/google.rpc.ErrorInfo"
            said["data"] = [{"@type": info, "reason": reason, "domain": "a2a-protocol.org"}]
        return said


class Call:
    """What is asked: the id that answers carry, the method and its parameters."""

    def __init__(self) -> None:
        self.id: str | int | float | None = None
        self.method = ""
        self._params: Any = {}

    def read(self, raw: bytes) -> None:
        """Read a request. Raises: Refusal; `id` is known by then, if there is one."""
        try:
            value = decode(raw, "the body")
        except errors.BadPayload as error:
            raise Refusal(PARSE, str(error)) from None
        if not isinstance(value, dict):
            raise Refusal(REQUEST, "a request is one JSON object; batches are not taken")
        id = value.get("id")
        if isinstance(id, str | int | float) and not isinstance(id, bool):
            self.id = id
        elif id is not None:
            raise Refusal(REQUEST, "`id` is a text or a number")
        if value.get("jsonrpc") != "2.0" or not isinstance(value.get("method"), str):
            raise Refusal(REQUEST, 'a request has "jsonrpc": "2.0" and a `method`')
        self.method, self._params = value["method"], value.get("params", {})

    def params(self, model: type[T]) -> T:
        """The parameters. Raises: Refusal."""
        try:
            return model.model_validate(self._params)
        except ValidationError as error:
            text = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']}" for e in error.errors()
            )
            raise Refusal(PARAMS, f"{self.method} cannot be done with this: {text}") from None

    def result(self, value: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": self.id, "result": value}

    def error(self, refusal: Refusal) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": self.id, "error": refusal.to_json()}
