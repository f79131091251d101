"""Starting and stopping the embedded nats-server of a home, and saying how it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from natsproc.access import Authority, local_sender, write_private
from natsproc.bus.limits import Limits
from natsproc.errors import Error
from natsproc.protocol.names import DEFAULT_PREFIX, Names, new_token

from . import certificates, joined, links
from .config import find_program, version_of
from .home import PAGES_PORT, Durable, Home, State
from .ports import choose_port, is_free

PORT, WS_PORT = 4222, 9222
READY_SECONDS = 60.0
LEAVE_SECONDS = 2.0  #: until pages whose supervisor was killed have let go of their port


@dataclass(frozen=True)
class Wishes:
    """What `natsproc up` was asked for; None leaves it as it was, or at the default."""

    port: int | None = None
    ws_port: int | None = None
    store: str | None = None  #: an absolute path
    durable: Durable | None = None
    host: str | None = None  #: the address to listen on
    tls: bool | None = None
    cert: str | None = None  #: absolute paths, as `key` and `ca`; empty for a certificate of the home's own
    key: str | None = None
    ca: str | None = None
    pages_port: int | None = None
    origins: tuple[str, ...] | None = None  #: of people's own pages, as `check_origin` has them

    def over(self, state: State) -> State:
        """The settings of a home with these instead."""
        return replace(state, **{name: value for name, value in vars(self).items() if value is not None})


def start(
    home: Home,
    wishes: Wishes | None = None,
    *,
    prefix: str = DEFAULT_PREFIX,
    limits: Limits | None = None,
) -> bool:
    """Make sure that the home's server runs and has a mesh, with these limits; say whether it had to be started.

    Blocks until both are so. However many start it at once, one server runs.

    Raises: Error with the end of its log if it does not come up, or if it runs otherwise than wished, or on a
    machine that has joined another's mesh;
    NoServer, ServerUnfit if there is no fit nats-server program; TimedOut.
    """
    wishes = wishes or Wishes()
    with home.changing():
        joined.refuse_if_joined(home)
        prepare(home)
        started = home.supervisor.holder() is None
        state = _launch(home, wishes) if started else home.load()
        if state is None:
            raise Error(f"{home.folder}/state.json is gone: `natsproc down`, then `natsproc up`")
        if wishes.over(state) != state:
            raise Error(
                f"the nats-server at {state.url} runs already, with other settings (`natsproc status`): "
                "`natsproc down` first to change them"
            )
        if not started and not _comes_up(home, state):
            raise _failure(home)
        _make_mesh(home, state, prefix, limits)
    return started


def prepare(home: Home) -> Authority:
    """Make the keys and the local credential, unless they are there. Raises: Error."""
    home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.load(home.keys)
    if authority is None:
        authority = Authority.create()
        authority.save(home.keys)
        home.creds.unlink(missing_ok=True)  # of keys that are gone
    if not home.creds.exists():
        write_private(home.creds, authority.credential(local_sender()))
    return authority


def _launch(home: Home, wishes: Wishes) -> State:
    """Start the supervisor with settings under which nats-server comes up. Raises: Error, NoServer."""
    version_of(find_program())
    home.server.stop_holder()  # left by a supervisor that was killed
    # it runs elsewhere, and still has to find what was found from here
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    for _ in range(3):  # a port that was free may be taken by now
        state = _settle(home, wishes)
        home.save(state)
        descriptor = os.open(home.folder / "supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "ab") as log:
            subprocess.run(
                [sys.executable, "-m", "natsproc.server.supervisor", home.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home.folder, env=environment, check=False,
                umask=0o077,  # what nats-server writes is for us alone, too
            )  # fmt: skip
        if _comes_up(home, state):
            return state
        if is_free(state.host, state.port) and is_free(state.host, state.ws_port):
            break
    raise _failure(home)


def _comes_up(home: Home, state: State) -> bool:
    """Wait until the server answers; False if it does not, or its supervisor has given up."""
    deadline = time.monotonic() + READY_SECONDS
    while not state.answers():
        if home.supervisor.holder() is None or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _failure(home: Home) -> Error:
    return Error(f"nats-server does not come up. The end of its log, in {home.folder}:\n{home.last_words()}")


def _settle(home: Home, wishes: Wishes) -> State:
    """Choose ports and store: as wished, else as remembered, else the default, else any free port."""
    state = wishes.over(home.load() or State(f"natsproc-{new_token(8)}", PORT, WS_PORT))
    remembered = state.pages_port != 0
    state = replace(state, pages_port=state.pages_port or PAGES_PORT)
    if not is_free(state.host, 0):
        raise Error(f"{state.host} is no address of this machine that a server could listen on")
    port = choose_port(state.host, state.port, asked=wishes.port is not None)
    ws_port = choose_port(state.host, state.ws_port, asked=wishes.ws_port is not None, besides=(port,))
    pages_port = choose_port(
        state.host, state.pages_port, asked=wishes.pages_port is not None, besides=(port, ws_port),
        patience=LEAVE_SECONDS if remembered else 0.0,
    )  # fmt: skip
    state = replace(state, port=port, ws_port=ws_port, pages_port=pages_port)
    state = certificates.settle(home, state)
    certificates.prove(home, state)
    return state


def _make_mesh(home: Home, state: State, prefix: str, limits: Limits | None) -> None:
    from natsproc.bus import streams
    from natsproc.bus.connection import Connection
    from natsproc.bus.thread import apart

    from .find import endpoint_of

    async def make() -> None:
        connection = await Connection.open(endpoint_of(home, state))
        try:
            await streams.setup(connection, Names(prefix), limits=limits or Limits())
        finally:
            await connection.close()

    apart(make())


def stop(home: Home) -> bool:
    """Stop the server and its supervisor, and return when both are gone; say whether there was one.

    Raises: TimedOut.
    """
    if not home.folder.exists():
        return False
    with home.changing():
        supervised = home.supervisor.stop_holder(grace=15.0)
        return home.server.stop_holder() or supervised


def status(home: Home) -> dict[str, Any]:
    """How the home's server is, in the form that `natsproc status -o json` prints."""
    state = home.load()
    pid = home.server.holder()
    if state is None or not home.running:
        return {"running": False, "home": str(home.folder), **joined.describe(home)}
    supervisor = {"supervisor": home.supervisor.holder(), "home": str(home.folder)}
    there = {"running": state.answers(), "pages_answer": links.answer(home, state)}
    return {**there, "pid": pid, **home.describe(state), **supervisor}
