"""`natsproc leave`: forget the mesh that was joined."""

from __future__ import annotations

from natsproc_cli import exits


def leave() -> int:
    """Forget the mesh of another machine that this one has joined, credential included.

    What runs here under an address goes on, and has its connection until it ends. To end the credential, too,
    `natsproc revoke` it on the server's machine.
    """
    from natsproc.server import joined
    from natsproc.server.home import Home

    home = Home.find()
    with home.changing(shared=True):
        left = joined.leave(home)
    exits.remark(
        "forgot the mesh that this machine had joined" if left else "this machine has joined no mesh"
    )
    return 0
