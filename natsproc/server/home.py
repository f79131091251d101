"""Where the embedded server lives: one directory, what it remembers, and who is alive in it.

Two homes are two meshes. There are no pid files to go stale: the supervisor and its nats-server each hold a
lock on a file for as long as they live, and the lock goes with them whatever ends them, a reboot included.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from natsproc.access import write_private
from natsproc.errors import Error, TimedOut

Durable = Literal["interval", "always"]
LOOPBACK = "127.0.0.1"
PAGES_PORT = 9223  #: unless it is taken
_LOOPBACK_OF = {"0.0.0.0": LOOPBACK, "::": "::1"}


def is_wildcard(host: str) -> bool:
    """Whether it stands for all addresses of the machine."""
    return host in _LOOPBACK_OF


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_port(host: str, port: int) -> str:
    """Host and port, as URLs have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class State:
    """What a home remembers of its server; `state.json`."""

    name: str  #: the server's own name, by which it is told from a stranger on its port
    port: int
    ws_port: int
    store: str = "store"  #: relative to the home, unless absolute
    durable: Durable = "interval"
    host: str = LOOPBACK  #: the address that it listens on
    tls: bool = False
    cert: str = ""  #: a certificate that was given, its key and its authority, as paths; else the home's own
    key: str = ""
    ca: str = ""
    pages_port: int = 0  #: of the pages for browsers; 0 in a home that an earlier version made
    origins: tuple[str, ...] = ()  #: whose pages besides ours may open a WebSocket
    tls_name: str = ""  #: in the certificate, by which clients know the server
    certificate_ends: float = 0.0  #: seconds since 1970
    version: str = ""  #: of the nats-server that ran last
    started: float = 0.0  #: seconds since 1970
    restarts: int = 0  #: since `natsproc up`

    def __post_init__(self) -> None:
        object.__setattr__(self, "origins", tuple(self.origins))  # JSON has lists

    @property
    def near(self) -> str:
        """The address by which this machine itself reaches it."""
        return _LOOPBACK_OF.get(self.host, self.host)

    @property
    def url(self) -> str:
        return self.url_at(self.near)

    def url_at(self, host: str, port: int = 0) -> str:
        """Its URL for clients by another host name or address of it."""
        return f"{'tls' if self.tls else 'nats'}://{host_port(host, port or self.port)}"

    @property
    def ws_url(self) -> str:
        return self.ws_url_at(self.near)

    def ws_url_at(self, host: str) -> str:
        """The same for WebSocket."""
        return f"{'wss' if self.tls else 'ws'}://{host_port(host, self.ws_port)}"

    def pages_url_at(self, host: str, port: int = 0) -> str:
        """Where its pages are by that host name or address, which is their origin, too."""
        return f"{'https' if self.tls else 'http'}://{host_port(host, port or self.pages_port)}"

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether this very server greets on its port."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            with socket.create_connection((self.near, self.port), timeout) as peer:
                peer.settimeout(timeout)
                greeting = peer.makefile("rb").readline().partition(b" ")[2]
            return bool(json.loads(greeting)["server_name"] == self.name)
        return False


class LifeLock:
    """A file that is locked for as long as a process lives, with that process's id in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, timeout: float = 2.0) -> int | None:
        """Lock it and return the descriptor that holds the lock, or None if another process has it.

        The holder writes its id there (`sign`). A child that inherits the descriptor holds the lock, too.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(descriptor, fcntl.LOCK_EX, timeout):  # `holder` has it for a moment
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        return descriptor

    @staticmethod
    def sign(descriptor: int) -> None:
        """Write this process's id into the lock that it holds."""
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def holder(self) -> int | None:
        """The id of the living process that holds it; 0 while that has not signed yet, None if nobody does."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            if _lock(descriptor, fcntl.LOCK_SH, 0):
                return None
            return int(os.pread(descriptor, 20, 0) or 0)
        finally:
            os.close(descriptor)

    def stop_holder(self, grace: float = 10.0) -> bool:
        """Ask the holder to end, make it after `grace` seconds, and return once it is gone.

        Says whether there was one. Raises: TimedOut if even SIGKILL does not end it.
        """
        deadline = time.monotonic() + grace
        asked = 0
        while (pid := self.holder()) is not None:
            late = time.monotonic() - deadline
            if late > 5:
                raise TimedOut(f"process {pid} does not end, even by SIGKILL; see {self.path}")
            wanted = signal.SIGKILL if late > 0 else signal.SIGTERM
            if pid and asked != wanted:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, wanted)
                asked = wanted
            time.sleep(0.01)
        return bool(asked)


def _lock(descriptor: int, kind: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)


@dataclass(frozen=True)
class Home:
    """The directory that holds all that natsproc keeps on this machine."""

    folder: Path

    @classmethod
    def find(cls) -> Home:
        """The home that is meant: `NATSPROC_HOME`, or the platform's place for a user's data."""
        chosen = os.environ.get("NATSPROC_HOME")
        if not chosen:
            import platformdirs

            chosen = platformdirs.user_data_dir("natsproc", appauthor=False)
        return cls(Path(chosen).expanduser().absolute())

    @property
    def keys(self) -> Path:
        return self.folder / "keys.json"

    @property
    def creds(self) -> Path:
        return self.folder / "local.creds"

    @property
    def tls(self) -> Path:
        """Where certificates of its own are."""
        return self.folder / "tls"

    @property
    def authority_pem(self) -> Path:
        return self.tls / "authority.pem"

    @property
    def ca_pem(self) -> Path:
        return self.tls / "ca.pem"

    @property
    def server_pem(self) -> Path:
        return self.tls / "server.pem"

    @property
    def links(self) -> Path:
        """What the pages give out to whoever opens a link: credentials without their keys, each named by its public key."""
        return self.folder / "links"

    @property
    def opening(self) -> Path:
        """What a browser is started with: a link with a secret is nothing for its arguments."""
        return self.folder / "console.html"

    @property
    def joined(self) -> Path:
        """Where a mesh on another machine is remembered that this one has joined."""
        return self.folder / "joined"

    def certificate(self, state: State) -> tuple[Path, Path]:
        """The files with the server's certificate and its key, if it has TLS."""
        own = self.server_pem
        return (Path(state.cert), Path(state.key)) if state.cert else (own, own)

    def ca(self, state: State) -> str:
        """The authority by which clients know the server, as PEM; empty where it is one that the system knows.

        Raises: Error if it cannot be read.
        """
        if not state.tls or (state.cert and not state.ca):
            return ""
        path = Path(state.ca) if state.cert else self.ca_pem
        try:
            return path.read_text()
        except OSError as error:
            raise Error(
                f"cannot read {path}, by which the server's certificate is known ({error.strerror}): restore it, or "
                "`natsproc down` and `natsproc up`"
            ) from None

    @property
    def supervisor(self) -> LifeLock:
        return LifeLock(self.folder / "supervisor.lock")

    @property
    def server(self) -> LifeLock:
        return LifeLock(self.folder / "server.lock")

    @property
    def running(self) -> bool:
        """Whether a server runs here, or is being kept running."""
        return self.supervisor.holder() is not None or self.server.holder() is not None

    @contextlib.contextmanager
    def changing(self, timeout: float = 90.0, *, shared: bool = False) -> Iterator[None]:
        """Keep others from starting or stopping the server meanwhile; `shared` only waits for them.

        Raises: TimedOut; Error in place of an OSError in here, a full disk for one.
        """
        try:
            if not shared:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not (self.folder / "lock").exists():  # nobody has ever started one
                yield
                return
            descriptor = os.open(
                self.folder / "lock", os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o600
            )
            try:
                if not _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout):
                    raise TimedOut(f"another natsproc keeps {self.folder}/lock for more than {timeout:g} s")
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Error(f"cannot keep a server in {self.folder}: {error}") from None

    def load(self) -> State | None:
        """What is remembered, or None. Raises: Error if it cannot be read."""
        path = self.folder / "state.json"
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
            return State(**{field.name: raw[field.name] for field in fields(State) if field.name in raw})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Error(
                f"cannot read {path} ({error}): remove it to begin with the default ports and store"
            ) from None

    def save(self, state: State) -> None:
        """Remember it; for other programs, with where the server is found."""
        text = json.dumps({**self.describe(state), **asdict(state)}, indent=2)
        write_private(self.folder / "state.json", text)

    def describe(self, state: State) -> dict[str, Any]:
        """Where the server is found, in full."""
        store = str(self.folder / state.store)
        pages = {"pages_url": state.pages_url_at(state.near)} if state.pages_port else {}
        where = {
            "url": state.url,
            "ws_url": state.ws_url,
            "creds": str(self.creds),
            "store": store,
        }
        ca = {"ca": str(self.ca_pem)} if state.tls and not state.cert else {}
        return {**asdict(state), **where, **pages, **ca}

    def last_words(self, lines: int = 6) -> str:
        """The end of what server and supervisor logged, for people."""
        said = []
        for path in (self.folder / "server.log", self.folder / "supervisor.log"):
            with contextlib.suppress(OSError), path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - 8192))
                said += log.read().decode("utf-8", "replace").splitlines()[-lines:]
        return "\n".join(said)
