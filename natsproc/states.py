"""What a process's saved state is to its code: any JSON or a pydantic model, with a version and migrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from natsproc.errors import BadPayload, StateUnfit
from natsproc.protocol.messages import decode, encode
from natsproc.protocol.names import Address

if TYPE_CHECKING:
    from pydantic import BaseModel

Migrations = Mapping[int, Callable[[Any], Any]]


@dataclass(frozen=True)
class Shape:
    """What a state looks like to this version of the code."""

    model: type[BaseModel] | None = None
    version: int = 1
    migrate: Migrations = field(default_factory=dict)  #: version → what makes a state of the next one of it

    def write(self, state: Any) -> bytes:
        """A state as it is saved. Raises: BadPayload."""
        try:
            return encode(state if self.model is None else self.model.model_validate(state), "state")
        except ValueError as error:
            raise BadPayload(f"the state is no {_name(self.model)}: {error}") from None

    def read(self, payload: bytes, version: int, address: Address) -> Any:
        """A state that code of that version has saved, as this one knows it.

        Raises: StateUnfit, if no migration leads here, one fails, or what comes out is no such model.
        """
        if version > self.version:
            raise self._unknown(address, version, "run the newer code, or end the run with `natsproc kill`")
        state = decode(payload, "state")
        for step in range(version, self.version):
            if step not in self.migrate:
                raise self._unknown(address, version, f"declare migrate={{{step}: …}}")
            try:
                state = self.migrate[step](state)
            except Exception as error:
                raise StateUnfit(
                    f"the state of {address} (version {version}) cannot be used: its migration from version {step} "
                    f"failed with {error!r}"
                ) from error
        if self.model is None:
            return state
        try:
            return self.model.model_validate(state)
        except ValueError as error:
            raise StateUnfit(
                f"the state of {address} (version {version}) is no {_name(self.model)}: {error}. If that has changed, "
                "raise its version and declare a migration from the one before"
            ) from None

    def _unknown(self, address: Address, version: int, remedy: str) -> StateUnfit:
        return StateUnfit(
            f"the state of {address} is of version {version}, and this code knows version {self.version}: {remedy}"
        )


def _name(model: type[BaseModel] | None) -> str:
    return getattr(model, "__name__", "state")
