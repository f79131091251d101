"""`natsproc revoke`: end a credential."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli import exits, options


def revoke(
    sender: Annotated[str, typer.Argument(metavar="SENDER", help="Whose credentials.")],
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only this one, as `natsproc grants` shows it; all unless said."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The server to tell, if not the embedded one.")
    ] = None,
    keys: options.Keys = None,
) -> int:
    """End what SENDER was granted. Who is connected with it is cut off at once; a server that is down learns it
    when it starts. Prints the keys of what was revoked.
    """
    import natsproc

    for grant in natsproc.revoke(sender, key=key, server=server, keys=keys):
        print(grant.key)
    exits.remark(f"{sender} may no longer use {'it' if key else 'what was granted'}")
    return 0
