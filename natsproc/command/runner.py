"""A wrapped command as a process of the mesh: its output becomes events, its inbox stdin, commands become signals.

All of it lives on the I/O thread, but for reading and echoing output (`pump.py`): a verb never waits behind work.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from natsproc import local
from natsproc.bus.handoff import Handoff
from natsproc.errors import Closed, Error
from natsproc.protocol.messages import Command, Message, Outcome

from .pump import LIMIT, Pump
from .session import Ended, Session
from .stdin import Feeder, typed
from .terminal import Size, Terminal

if TYPE_CHECKING:
    from natsproc.hosted import Hosted
    from natsproc.owner import Process

    from .screen import Screen

GRACE_SECONDS = 10.0
SIGNAL_SECONDS = (
    0.05  #: between a signal and what to do instead: a program that is stopped may drop its input
)
LINGER_SECONDS = 2.0
KEYS_SECONDS = 5.0
NOT_FOUND, CANNOT_RUN = 127, 126


@dataclass(frozen=True)
class Wrapped:
    """What to run, and how."""

    argv: tuple[str, ...]
    pty: bool = False  #: give it a terminal
    merge: bool = False  #: stdout and stderr through one pipe: exact order, all of it called stdout
    echo: bool = True  #: show the output here as well
    stdin: int | None = None  #: a descriptor to pass on to it; its inbox is passed on in any case
    receive: bool = False  #: keep messages for `natsproc receive` and `current()`: none goes to its stdin
    size: Size | None = None  #: of its terminal; that of stdout's, or 24 rows of 80, unless given
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    grace: float = GRACE_SECONDS  #: between SIGTERM and SIGKILL, unless `cancel` says otherwise
    linger: float = LINGER_SECONDS  #: for what it leaves behind to end by itself, and again after SIGTERM


class Runner:
    """Runs one command, and is what commands to its address act on. Lives on the I/O thread."""

    def __init__(self, hosted: Hosted, process: Process, wrapped: Wrapped, limit: int = LIMIT) -> None:
        self.status = "failed"  #: what the terminal event says
        self.started: Callable[[], object] = lambda: None  #: called once the command runs
        self._hosted = hosted
        self._process = process
        self._wrapped = wrapped
        self._limit = limit  # bytes of output in one event
        self._loop = asyncio.get_running_loop()
        self.over = asyncio.Event()  #: nothing of the command is left; what it said may not be written yet
        self._session: Session | None = None
        self._tried = asyncio.Event()  # to start it
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._pumps: list[Pump] = []
        self._feeder: Feeder
        self._terminal: Terminal | None = None
        self._screen: Screen | None = None
        self._messages: Handoff[Message] = Handoff()  # for the program to receive
        self._asked = wrapped.receive  # whether it has ever asked to receive
        self._end: Message | None = None  # of its input
        self._local = local.LocalServer(process, self._next_message, self._settle)
        self._delays: dict[object, float] = {}
        self._stopped_by = ""  # cancelled or killed, once one of them was asked for
        self._grace_ends = 0.0
        self.paused = False
        self._pausing = asyncio.Lock()  # so that what was done last is recorded last

    async def run(self) -> Ended:
        """Run it until nothing of it is left and all that it said is written.

        Raises: what writing its output raised, OwnershipLost above all; by then nothing of it runs any more.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.over.set)
            stack.push_async_callback(self._local.close)
            path = await self._local.start()
            reading = asyncio.create_task(self._read_inbox())
            stack.callback(reading.cancel)
            try:
                self._session = await self._start(path, stack)
            except OSError as error:
                code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
                return Ended(code, error=f"{self._wrapped.argv[0]}: {error.strerror or error}")
            finally:
                self._tried.set()
            stack.push_async_callback(self._session.close)
            self.started()
            if self._wrapped.stdin is not None:
                self._feeder.pass_on(self._wrapped.stdin)
            return await self._to_the_end(self._session)

    def call_off(self) -> None:
        """It is never run: whatever it is told from now on is too late."""
        self._tried.set()
        self.over.set()

    async def _start(self, socket: str, stack: AsyncExitStack) -> Session:
        wrapped = self._wrapped
        env = dict(os.environ if wrapped.env is None else wrapped.env)
        env |= {local.ADDRESS: str(self._process.address), local.SOCKET: socket}
        env.setdefault("PYTHONUNBUFFERED", "1")
        with ExitStack() as theirs:  # the program's ends, which we close once it has them
            if wrapped.pty:
                if env.get("TERM", "dumb") == "dumb":
                    env["TERM"] = "xterm-256color"
                into, out, err = await self._open_terminal(stack, theirs)
            else:
                into, ours = os.pipe()
                theirs.callback(os.close, into)
                self._feeder = Feeder(ours)
                out = self._pipe("stdout", 1, theirs)
                err = out if wrapped.merge else self._pipe("stderr", 2, theirs)
            stack.callback(self._feeder.close)
            return await Session.start(
                wrapped.argv,
                stdin=into,
                stdout=out,
                stderr=err,
                env=env,
                cwd=wrapped.cwd,
                terminal=wrapped.pty,
            )

    async def _open_terminal(self, stack: AsyncExitStack, theirs: ExitStack) -> tuple[int, int, int]:
        from .screen import Screen

        size = self._wrapped.size or Size.of(1) or Size()
        terminal = self._terminal = Terminal(size)
        stack.callback(terminal.close)
        theirs.callback(os.close, terminal.slave)
        self._screen = Screen(size)
        self._feeder = Feeder(os.dup(terminal.master), terminal)
        await self._process.emit("screen", size._asdict())
        self._pump(os.dup(terminal.master), "stdout", 1)
        return terminal.slave, terminal.slave, terminal.slave

    def _pipe(self, stream: str, echo: int, theirs: ExitStack) -> int:
        source, into = os.pipe()
        theirs.callback(os.close, into)
        self._pump(source, stream, echo)
        return into

    def _pump(self, source: int, stream: str, echo: int) -> None:
        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits for this pump any more
                self._loop.call_soon_threadsafe(self._heard_of, pump)

        echo_to = echo if self._wrapped.echo else None
        pump = Pump(source, stream, self._write, echo=echo_to, tell=tell, limit=self._limit)
        pump.start()
        self._pumps.append(pump)

    def _write(self, chunk: str | bytes, stream: str) -> None:
        offset = self._process.sync.output(chunk, stream)
        if self._screen:
            self._screen.feed(chunk.encode() if isinstance(chunk, str) else chunk, offset)

    async def _settle(self) -> None:
        """What the program says through its socket comes behind what it has printed."""
        for pump in self._pumps:
            await asyncio.wrap_future(pump.settled())

    def _heard_of(self, pump: Pump) -> None:
        if pump.failed:
            self._fail(pump.failed)
        elif pump.cut_off and self._terminal and self._session:  # as when a terminal's window is closed
            asyncio.ensure_future(self._session.signal(signal.SIGHUP))

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _to_the_end(self, session: Session) -> Ended:
        main = asyncio.create_task(session.ended())
        first: list[asyncio.Future[Any]] = [main, self._failure]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not main.done():
            await session.cancel(self._wrapped.grace)
        ended = await main
        if self._stopped_by:
            self.status = self._stopped_by
        elif ended.code == 128 + signal.SIGINT:
            self.status = "interrupted"
        elif not ended.code:
            self.status = "completed"
        left: list[int] = []
        if not await session.gone(max(self._wrapped.linger, self._grace_ends - self._loop.time())):
            left = session.members()
            await session.cancel(self._wrapped.linger)
        self.over.set()
        for pump in self._pumps:
            await asyncio.to_thread(pump.join, 1.0)
            pump.stop()  # something outside the session holds the stream open
            await asyncio.to_thread(pump.join)
        if self._failure.done():
            self._failure.result()
        if left:
            text = f"{len(left)} OS processes that the command left behind were ended"
            await self._process.log(text, "warning")
        lost = [pump.cut_off for pump in self._pumps if pump.cut_off and pump.cut_off.errno != errno.EPIPE]
        return ended._replace(unshown=os.strerror(lost[0].errno or 0)) if lost else ended

    # What comes from outside: messages, commands and questions.

    async def _read_inbox(self) -> None:
        await self._tried.wait()
        try:
            while True:
                await self._take(await self._process.receive())
                await self._feeder.room()
        except Closed:
            pass
        except Error as error:
            self._fail(error)

    async def _take(self, message: Message) -> None:
        data = message.data if isinstance(message.data, dict) else {}
        if message.kind == "resize":
            await self.resize(Size.parse(data))
        elif message.kind == "keys":
            if not self._is_stale(message, data):
                self._feeder.put(str(data.get("text", "")).encode())
        elif message.kind == "eof":
            self._take_end(message)
        elif self._asked and not self._end:
            self._messages.put(message)
        elif self._asked or not self._feeder.put(typed(message.data), message):
            text = f"message {message.id} from {message.sender} reached nobody: the input is closed"
            await self._process.log(text, "warning")

    def _take_end(self, message: Message) -> None:
        if not self._asked:
            self._feeder.end()
            if self._terminal:  # there it is a key like any other
                return
        self._end = self._end or message
        if self._asked:
            self._messages.close()

    async def _next_message(self) -> Message:
        """What the program receives: what lies unread on its stdin, then what comes, then the end for ever."""
        if not self._asked:
            self._asked = True
            for message in self._feeder.take_back():
                self._messages.put(message)
            if self._end:
                self._messages.close()
        try:
            return await self._messages.take()
        except Handoff.Done:
            assert self._end
            return self._end

    def _is_stale(self, message: Message, data: dict[str, Any]) -> bool:
        """Whether keys were typed so long ago that they would do what nobody means any more.

        Two machines' clocks are never compared: what counts is how much later than this viewer's quickest.
        """
        if data.get("epoch", self._process.epoch) != self._process.epoch:
            return True
        viewer = (message.sender, str(data.get("viewer")))
        with suppress(ValueError):
            delay = time.time() - datetime.fromisoformat(message.time).timestamp()
            least = self._delays[viewer] = min(delay, self._delays.get(viewer, delay))
            return delay - least > KEYS_SECONDS
        return False

    async def resize(self, size: Size | None) -> None:
        """Change the size of the program's terminal, if it has one."""
        if self._terminal and self._screen and size:
            self._terminal.resize(size)
            self._screen.resize(size)
            await self._process.emit("screen", size._asdict())

    async def signal(self, number: int) -> None:
        """Pass a signal on to all that was started."""
        await self._tried.wait()
        if self._session:
            await self._session.signal(number)

    async def apply(self, command: Command) -> Outcome:
        """Do what the command says to all that was started, and return when it is done."""
        await self._tried.wait()
        session = self._session
        if session is None or session.is_gone:
            return Outcome("too_late", "the command has ended")
        match command.verb:
            case "interrupt" if command.turn is not None:
                return Outcome("refused", "a wrapped command takes no turns")
            case "interrupt":
                return await self._interrupt(session, command)
            case "pause":
                async with self._pausing:
                    self.paused = True
                    running = await session.pause()
                    why = f"{running} of its OS processes have not stopped yet" if running else ""
                    self._note("paused", command, why)
                return Outcome("unconfirmed" if running else "applied", why)
            case "resume":
                async with self._pausing:
                    self.paused = False
                    self._note("resumed", command)
                    await session.resume()
                return Outcome()
            case "cancel":
                self._note("cancelled", command)
                self._stopped_by = self._stopped_by or "cancelled"
                grace = self._wrapped.grace if command.grace is None else command.grace
                self._grace_ends = self._loop.time() + grace
                gone = await session.cancel(grace)
            case "kill":
                self._stopped_by = "killed"
                gone = await session.kill()
            case verb:
                return Outcome("refused", f"a wrapped command cannot {verb}")
        if gone:
            return Outcome()
        return Outcome("unconfirmed", f"after SIGKILL the OS has not let go of {session.members()} yet")

    def _note(self, kind: str, command: Command, why: str = "") -> None:
        """Record a command. Before the signal is sent, because what the program says of it comes behind."""
        with suppress(Error):  # the receipt says so
            self._hosted.note(
                kind, command.id, command.sender, command.reason, command.message, why=why, user=command.user
            )

    async def _interrupt(self, session: Session, command: Command) -> Outcome:
        why = "it is paused, and will notice when it is resumed" if self.paused else ""
        self._note("interrupted", command, why)
        if self._terminal:
            self._feeder.put(self._terminal.interrupt())
        else:
            await session.signal(signal.SIGINT)
        if command.message is not None:
            await asyncio.sleep(SIGNAL_SECONDS)
        if command.message is not None and not self._feeder.put(typed(command.message)):
            return Outcome(why="it got the signal, but not the message: its stdin is closed")
        return Outcome(why=why)

    async def lose(self, lost: Error) -> None:
        """End all of it, with its grace time."""
        self._fail(lost)

    async def inspect(self, stack: bool) -> dict[str, Any]:
        """The OS processes of it and what they use, and what its terminal shows."""
        await self._tried.wait()  # its output may be here before we know that it runs
        return await asyncio.to_thread(self._describe)

    def _describe(self) -> dict[str, Any]:
        pids = self._session.members() if self._session else []
        members = [usage for usage in map(_usage, pids) if usage]
        found = {"command": self._wrapped.argv, "paused": self.paused, "members": members}
        return found | ({"screen": self._screen.snapshot()} if self._screen else {})


def _usage(pid: int) -> dict[str, Any] | None:
    import psutil

    try:
        member = psutil.Process(pid)
        with member.oneshot():
            cpu = member.cpu_times()
            return {
                "pid": pid,
                "name": member.name(),
                "state": member.status(),
                "cpu": round(cpu.user + cpu.system, 2),  # seconds
                "rss": member.memory_info().rss,  # bytes
            }
    except psutil.Error:
        return None
