"""A wrapped command and everything that it starts, as one thing that can be signalled and is known to be gone.

All of it hangs on a guard of its own (`guard.py`), which does the signalling; this is the near end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import guard

KILL_SECONDS = 5.0


class Ended(NamedTuple):
    """How a command ended: its exit code, 128 + N where signal N ended it."""

    code: int
    signal: int | None = None
    error: str | None = None  #: why it could not be run
    unshown: str | None = (
        None  #: why its output could not be echoed; not that of a reader that has had enough
    )

    @classmethod
    def of(cls, wait_status: int) -> Ended:
        code = os.waitstatus_to_exitcode(wait_status)
        return cls(code) if code >= 0 else cls(128 - code, -code)


class Session:
    """A running command with all its descendants, jobs with groups and sessions of their own included."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0  #: the command's own
        self._guard = process
        self._channel = channel
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[Ended] = loop.create_future()
        self._gone = asyncio.Event()
        self._answers: deque[asyncio.Future[int]] = deque()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str],
        cwd: str | None = None,
        terminal: bool = False,
    ) -> Session:
        """Start a command on these descriptors, in a session of its own; with `terminal`, stdin is a tty to control.

        Raises: OSError as `exec` does: FileNotFoundError, PermissionError, …
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        kind = "tty" if terminal else "-"
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), kind, *argv,
                    stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd,
                    pass_fds=[theirs.fileno()], start_new_session=True,
                )  # fmt: skip
        except BaseException:
            ours.close()  # at which the guard ends whatever has started
            raise
        session = cls(process, ours)
        try:
            await session._started
        except OSError:
            await session._listener  # the guard is reaped before the loop may close
            raise
        except BaseException:
            session._tell("kill")
            raise
        return session

    async def _listen(self) -> None:
        # not through a stream, which forgets what has come in once something cannot be written
        loop, heard = asyncio.get_running_loop(), b""
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(self._channel, 4096):
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    what, number = line.split()
                    self._hear(what.decode(), int(number))
        if not self._started.done():
            self._started.set_exception(OSError(0, "its guard did not start"))
        if not self._gone.is_set():
            await self._without_guard()
        while self._answers:
            self._answers.popleft().set_result(0)
        self._channel.close()
        await self._guard.wait()

    def _hear(self, what: str, number: int) -> None:
        if what == "started":
            self.pid = number
            self._started.set_result(None)
        elif what == "failed":
            self._started.set_exception(OSError(number, os.strerror(number)))
            self._gone.set()
        elif what == "done":
            self._answers.popleft().set_result(number)
        elif what == "exited":
            self._ended.set_result(Ended.of(number))
        elif what == "gone":
            self._gone.set()

    async def _without_guard(self) -> None:
        """Somebody killed the guard: the command died with it, and so does what shares its session."""
        while self.pid and (
            members := [pid for pid, member in guard.processes().items() if self._ours(member)]
        ):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(guard.SWEEP_SECONDS)
        if not self._ended.done():
            self._ended.set_result(Ended(128 + signal.SIGKILL, signal.SIGKILL))
        self._gone.set()

    def _ours(self, member: tuple[int, int, int, str]) -> bool:
        *_, session, state = member
        return session == self.pid and state not in "ZX"

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the guard is gone, and `_listen` finds out
            self._channel.send(f"{line}\n".encode())

    async def _ask(self, line: str) -> int:
        if self._gone.is_set():
            return 0
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._tell(line)
        return await asyncio.shield(answer)

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it: no member, no zombie."""
        return self._gone.is_set()

    async def ended(self) -> Ended:
        """Wait for the command itself, which may leave others behind."""
        return await asyncio.shield(self._ended)

    async def gone(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left of it; False if that takes longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    async def signal(self, number: int) -> int:
        """Signal every process group of it; returns how many there were."""
        return await self._ask(f"signal {number}")

    async def pause(self) -> int:
        """Stop all of it; returns how many members would not stop within a second."""
        return await self._ask("pause")

    async def resume(self) -> None:
        """Let all of it go on."""
        await self._ask("resume")

    async def cancel(self, grace: float) -> bool:
        """SIGTERM, also to what is paused; SIGKILL after `grace` seconds. Returns whether all of it is gone."""
        await self.signal(signal.SIGTERM)
        await self.resume()
        return await self.gone(grace) or await self.kill()

    async def kill(self, timeout: float = KILL_SECONDS) -> bool:
        """SIGKILL until nothing is left. Returns whether all of it is gone, within `timeout` seconds."""
        self._tell("kill")
        return await self.gone(timeout)

    def members(self) -> list[int]:
        """The pids of the command and all its descendants, parents first. Reads the whole process table."""
        return list(guard.descendants(self._guard.pid))

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.kill()
        await self._listener
