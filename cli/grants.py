"""`natsproc grants`: what was granted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.durations import format_age

if TYPE_CHECKING:
    from natsproc.access import Grant


def grants(
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="A table, or one JSON object a line.")
    ] = "table",
    keys: options.Keys = None,
) -> int:
    """List the credentials that were made here: whose, for what, until when. Ended ones stay for 30 days."""
    import natsproc

    found = natsproc.grants(keys=keys)
    if output == "json":
        for grant in found:
            exits.print_json(_record(grant))
        return 0
    from natsproc_cli.table import columns

    header = ("SENDER", "CAN", "STATE", "EXPIRES", "KEY", "ON")
    if found:
        print("\n".join(columns(header, [_row(grant) for grant in found])))
    else:
        exits.remark("nothing was granted here; `natsproc grant` does")
    return 0


def _row(grant: Grant) -> tuple[str, ...]:
    left = "" if grant.state != "valid" else _left(grant.expires)
    return grant.sender, ",".join(grant.can), grant.state, left, grant.key[:12], ",".join(grant.on)


def _left(expires: int | None) -> str:
    return "never" if expires is None else f"in {format_age(expires - time.time())}"


def _record(grant: Grant) -> dict[str, object]:
    times = {"issued": grant.issued, "expires": grant.expires, "revoked": grant.revoked}
    return {
        "sender": grant.sender,
        "key": grant.key,
        "can": list(grant.can),
        "on": list(grant.on),
        "prefix": grant.prefix,
        "state": grant.state,
        **{
            name: at and f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items()
        },
    }
