"""The supervisor: a small process of its own session that keeps one nats-server running, a gate and the pages beside it.

`python -m natsproc.server.supervisor HOME` returns once the daemon holds its lock. It imports neither NATS
nor pydantic, so it stays small.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from natsproc.access import Authority, write_private
from natsproc.errors import Error

from . import certificates
from .config import find_program, server_config, version_of
from .home import PAGES_PORT, Home, State
from .ports import choose_port

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
LOOK_SECONDS = 0.1
RENEW_SECONDS = 6 * 3600.0  #: between looks at the certificate
WELL_AFTER = 30.0  #: seconds of running after which a crash is a first one again


def supervise(home: Home) -> None:
    """Run nats-server until told to stop, starting it anew whenever it dies.

    One that never came up is not tried again: whoever started it is waiting to hear why. Afterwards
    nothing makes it give up, a full disk or a program that is just being upgraded included.
    """
    beside = Beside(Keeper("gate", lambda: str(home.folder)), Keeper("pages", lambda: pages_settings(home)))
    try:
        _supervise(home, beside)
    finally:
        for keeper in beside:
            keeper.stop()


def _supervise(home: Home, beside: Beside) -> None:
    run(home, beside, restarts=0)
    delay = FIRST_DELAY
    for restarts in itertools.count(1):
        _log(f"starting it again in {delay:g} s")
        time.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY)
        began = time.monotonic()
        try:
            run(home, beside, restarts)
        except (Error, OSError) as error:
            _log(f"cannot start nats-server: {error}")
        if time.monotonic() - began > WELL_AFTER:
            delay = FIRST_DELAY


def run(home: Home, beside: Beside, restarts: int) -> None:
    """Run nats-server once, until it ends. Raises: Error if it ended before it was ready."""
    process, state = spawn(home, restarts)
    while not (up := state.answers()) and process.poll() is None:
        time.sleep(0.02)
    _log(f"nats-server {state.version}, pid {process.pid}: {state.url if up else 'not ready'}")
    due = time.monotonic() + RENEW_SECONDS
    while up and process.poll() is None:
        for keeper in beside:
            keeper.look()
        if time.monotonic() > due:
            state = renew(home, state, process.pid, *beside.pages.pids)
            due = time.monotonic() + RENEW_SECONDS
        time.sleep(LOOK_SECONDS)
    code = process.wait()
    _log(f"nats-server, pid {process.pid}, ended with {code}")
    if not up:
        raise Error("it ended before it was ready")


def renew(home: Home, state: State, *pids: int) -> State:
    """Have the running nats-server, and the pages, take up a new certificate, if it is time or one was put there; who is connected stays so."""
    now = _certified(home, state)
    if now.certificate_ends != state.certificate_ends:
        with contextlib.suppress(OSError):
            home.save(now)
        for pid in pids:
            os.kill(pid, signal.SIGHUP)
        _log("a new certificate is taken up")
    return now


def pages_settings(home: Home) -> str:
    """What the pages have to know, as the one argument of their process. Raises: Error."""
    state = home.load()
    if state is None:
        raise Error(f"{home.folder}/state.json is gone")
    cert, key = home.certificate(state) if state.tls else ("", "")
    return json.dumps({
        "name": state.name, "host": state.host, "port": state.pages_port,
        "connect": [state.ws_url_at(host) for host in certificates.hosts_of(state)],
        "ws": ["wss" if state.tls else "ws", state.ws_port], "cert": str(cert), "key": str(key),
        "links": str(home.links),
    })  # fmt: skip


class Keeper:
    """Keeps a helper running, a process of its own: nothing of NATS or HTTP is loaded here."""

    def __init__(self, module: str, argument: Callable[[], str]) -> None:
        self._module, self._argument = module, argument
        self._process: subprocess.Popen[bytes] | None = None
        self._delay = FIRST_DELAY
        self._due = 0.0

    def look(self) -> None:
        """Start it, if it does not run and is due."""
        now = time.monotonic()
        if (self._process and self._process.poll() is None) or now < self._due:
            return
        if self._process:
            _log(f"{self._module}, pid {self._process.pid}, ended with {self._process.returncode}")
        self._delay = FIRST_DELAY if now - self._due > WELL_AFTER else min(self._delay * 2, LONGEST_DELAY)
        self._due = now + self._delay
        with contextlib.suppress(OSError, Error):
            command = [sys.executable, "-m", f"natsproc.server.{self._module}", self._argument()]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)  # which ends with this process

    @property
    def pids(self) -> tuple[int, ...]:
        """Its process, if it runs."""
        return (self._process.pid,) if self._process and self._process.poll() is None else ()

    def stop(self) -> None:
        """End it, and return when it is gone."""
        if self._process:
            self._process.kill()
            self._process.wait()


class Beside(NamedTuple):
    """What runs beside the nats-server."""

    gate: Keeper
    pages: Keeper


def spawn(home: Home, restarts: int) -> tuple[subprocess.Popen[bytes], State]:
    """Start nats-server with a configuration for its version, holding the lock that says it lives."""
    state, authority = home.load(), Authority.load(home.keys)
    if state is None or authority is None:
        raise Error(f"{home.folder} holds no server: `natsproc up` makes one")
    program = find_program()
    state = replace(state, version=version_of(program), restarts=restarts, started=time.time())
    config = home.folder / "server.conf"
    with contextlib.suppress(OSError):  # on a full disk those of the last start will do
        if not state.pages_port:  # the home is of an earlier version
            taken = (state.port, state.ws_port)
            state = replace(state, pages_port=choose_port(state.host, PAGES_PORT, besides=taken))
        state = _certified(home, state)
        home.save(state)
        write_private(config, server_config(home, state, authority))
    (home.folder / state.store).mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = home.server.take()
    if lock is None:
        raise Error("another nats-server runs here: never two on one store")
    try:
        process = subprocess.Popen(
            [program, "-c", config],
            stdin=subprocess.DEVNULL,
            pass_fds=[lock],
            preexec_fn=partial(home.server.sign, lock),
        )
    finally:
        os.close(lock)
    return process, state


def _certified(home: Home, state: State) -> State:
    """With a new certificate, if the one there is comes near its end; whatever fails, the old one will do."""
    try:
        return certificates.settle(home, state)
    except Error as error:
        _log(f"the certificate stays as it is: {error}")
        return state


def _log(text: str) -> None:
    with contextlib.suppress(OSError):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


def main(folder: str) -> int:
    """Become a daemon and supervise; the caller gets its answer when the lock is held."""
    home = Home(Path(folder))
    lock = home.supervisor.take()
    if lock is None:
        return 1
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which nats-server would inherit
    signal.signal(signal.SIGTERM, _stop)
    home.supervisor.sign(lock)
    try:
        supervise(home)
    except (Error, OSError) as error:
        _log(f"giving up: {error}")
        return 1
    finally:
        home.server.stop_holder()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
