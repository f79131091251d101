"""Narrow credentials for tests, made with the keys of a home."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import natsproc
from natsproc.access import Authority, write_private
from natsproc.access.rights import Scope, grants_of
from natsproc.server.home import Home


def credential(authority: Authority, folder: Path, sender: str, can: str, on: str, **options) -> Path:
    """Write a .creds file of `sender`; rights and scopes have commas between."""
    grants = grants_of(can.split(","), [Scope.parse(scope) for scope in on.split(",")])
    path = Path(mkdtemp(dir=folder)) / f"{sender}.creds"
    write_private(path, authority.credential(sender, grants, **options))
    return path


def granted(home: Home, sender: str, can: str, on: str, **options) -> natsproc.Mesh:
    """A mesh to be opened, seen with such a credential."""
    state, authority = home.load(), Authority.load(home.keys)
    assert state
    assert authority
    creds = credential(authority, home.folder, sender, can, on, **options)
    return natsproc.connect(state.url, creds=str(creds))
