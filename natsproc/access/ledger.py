"""What was granted, and what was revoked: a list beside the keys, with no secret in it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from natsproc.errors import BadPayload

from .keys import write_private

KEPT = 30 * 86400.0  #: seconds that a grant is listed after its end


@dataclass(frozen=True)
class Grant:
    """One credential that was given out."""

    sender: str
    key: str  #: its public key, by which it is revoked
    can: tuple[str, ...]
    on: tuple[str, ...]  #: scopes
    prefix: str
    issued: int  #: seconds since 1970, as are all of these
    expires: int | None = None
    revoked: int | None = None

    @property
    def state(self) -> Literal["valid", "expired", "revoked"]:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= time.time() else "valid"


def load(path: Path) -> list[Grant]:
    """Read the list; it is empty if there is none. Raises: BadPayload."""
    try:
        raw = json.loads(path.read_text())
        return [Grant(**{**item, "can": tuple(item["can"]), "on": tuple(item["on"])}) for item in raw]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadPayload(f"cannot read what was granted in {path} ({error}): restore it") from None


def save(path: Path, grants: Sequence[Grant]) -> None:
    """Write the list, for its owner's eyes only, without what ended long ago."""
    old = time.time() - KEPT
    kept = [asdict(grant) for grant in grants if grant.expires is None or grant.expires > old]
    write_private(path, json.dumps(kept, indent=1))
