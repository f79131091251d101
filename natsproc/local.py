"""The address from inside a wrapped program: `natsproc.current()`, over a private socket to its wrapper.

The wrapper serves a unix socket that only its user can reach, named by `NATSPROC_SOCKET`. On it one JSON object a
line asks, and one answers: {"do": "emit", "type", "data", "cause"} → {"offset"}; {"do": "receive", "timeout"} →
{"message"}, null when time runs out; {"do": "reply", "to", "data"} → {"offset"}; {"do": "ask",
"question", "choices", "id", "timeout"} → {"value"}; {"do": "flush"} and {"do": "about"}. {"error", "text"} is a refusal. Events
go through the wrapper's single writer, messages come from its single inbox. No NATS is imported here.
{"do": "stream", "name"} → {"name", "most"} gives a text stream a name of its own, and the bytes of a part of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc import errors
from natsproc.errors import BadPayload, Error, NoSuchProcess, TimedOut, Unreachable
from natsproc.protocol.messages import Json, Message, decode_object, encode
from natsproc.protocol.names import Address

from .speaking import BlockingSpeaking, Speaking, as_model, typed
from .streamed import BlockingTextStream, TextStream

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .owner import Process

M = TypeVar("M", bound="BaseModel")

ADDRESS = "NATSPROC_ADDRESS"
SOCKET = "NATSPROC_SOCKET"
LINE_BYTES = 64 * 1024 * 1024
REMEMBERED = 1000  #: messages to which a program can reply
PATH_BYTES = 100  # a unix socket's path may have 103 on macOS, 107 on Linux


def current() -> CurrentProcess:
    """The process that this program runs in, when `natsproc run` started it (or something that started this).

    Raises: NoSuchProcess if it does not run under natsproc; Unreachable if the natsproc it ran under is gone.
    """
    path, address = os.environ.get(SOCKET), os.environ.get(ADDRESS)
    if not path or not address:
        raise NoSuchProcess(
            "this program does not run under natsproc: start it with `natsproc run -- COMMAND`, "
            "or give your code an address with `natsproc.connect()` and `mesh.own()`"
        )
    return CurrentProcess(path, address)


class _Line:
    """One connection to the wrapper: a question, then its answer. A forked child makes one of its own."""

    def __init__(self, path: str, address: str) -> None:
        self._path = path
        self._address = address
        self._lock = threading.Lock()
        self._pid = 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        payload = encode(question) + b"\n"
        with self._lock:
            try:
                if self._pid != os.getpid():
                    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    peer.connect(self._path)
                    self._file = peer.makefile("rwb")
                    self._pid = os.getpid()
                self._file.write(payload)
                self._file.flush()
                line = self._file.readline()
            except OSError:
                line = b""
            if not line:
                self._pid = 0
                raise Unreachable(
                    f"the natsproc that ran {self._address} is gone: it does not answer on its socket"
                )
        answer = decode_object(line)
        if "error" in answer:
            raise _error(answer)
        return answer

    def close(self) -> None:
        if self._pid == os.getpid():
            self._pid = 0
            self._file.close()


def _error(answer: dict[str, Any]) -> Error:
    kind = getattr(errors, answer["error"], Error)
    error: Error = kind.__new__(kind, answer["text"])
    error.__dict__.update(answer.get("details", {}))
    return error


class CurrentProcess(BlockingSpeaking):
    """The process that this program runs in; blocking, for any thread and for forked children.

    Methods that write return the event's offset once the event has its place in the log's queue; `flush` returns
    when all of it is stored. `aio` has the same names as coroutines. Once the program has asked to receive,
    messages come here and no longer on its stdin; on Linux also those that lie there unread.
    """

    def __init__(self, path: str, address: str) -> None:
        self.address = Address.parse(address)
        self._where = path, address
        self._speaking = _Line(path, address)
        self._hearing = _Line(path, address)
        self._speaking.ask({"do": "about"})
        #: the same in coroutines
        self.aio = AsyncCurrentProcess(self)

    @property
    def id(self) -> str:
        return self.address.id

    @property
    def namespace(self) -> str:
        return self.address.namespace

    def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int:
        """See `Process.emit`."""
        type, data = typed(type, data)
        return int(self._speaking.ask({"do": "emit", "type": type, "data": data, "cause": cause})["offset"])

    def stream(self, name: str = "text") -> BlockingTextStream:
        """See `Process.stream`; used as `with proc.stream("answer") as s: s.token("…")`."""
        return BlockingTextStream(self, *self._open_stream(name))

    def _open_stream(self, name: str) -> tuple[str, int, Callable[[Json], int]]:
        opened = self._speaking.ask({"do": "stream", "name": name})
        return opened["name"], opened["most"], partial(self.emit, "text")

    def receive(self, model: type[M] | None = None, *, timeout: float | None = None) -> Message:
        """See `Process.receive`. At the end of the input it is, ever again, a message of kind `eof`."""
        raw = self._hearing.ask({"do": "receive", "timeout": timeout})["message"]
        if raw is None:
            raise TimedOut(f"{self.address} received nothing within {timeout:g} s")
        message = Message(**raw)
        return message if message.kind == "eof" else as_model(message, model)

    def inbox(self, model: type[M] | None = None) -> Iterator[Message]:
        """See `Process.inbox`. It ends with the input (`natsproc send --eof`)."""
        while (message := self.receive(model)).kind != "eof":
            yield message

    def reply(self, message: Message | str | None, data: Json = None) -> int:
        """See `Process.reply`. The message may be named by its id, and is the one received last if None is given."""
        to = message.id if isinstance(message, Message) else message
        return int(self._speaking.ask({"do": "reply", "to": to, "data": data})["offset"])

    def ask(
        self,
        question: str,
        choices: Sequence[Json] | None = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """See `Process.ask`. The question is taken back if this program ends, or waits no longer."""
        line = _Line(*self._where)  # of its own, as several threads may ask
        what = {"question": question, "choices": choices, "id": id, "timeout": timeout}
        try:
            return line.ask({"do": "ask", **what})["value"]
        finally:
            line.close()

    def flush(self) -> None:
        """See `Process.flush`."""
        self._speaking.ask({"do": "flush"})


class AsyncCurrentProcess(Speaking):
    """The twin of `CurrentProcess` in coroutines."""

    def __init__(self, process: CurrentProcess) -> None:
        self._process = process

    async def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int:
        """See `Process.emit`."""
        return await asyncio.to_thread(self._process.emit, type, data, cause=cause)

    def stream(self, name: str = "text") -> TextStream:
        """See `Process.stream`."""
        return TextStream(self, *self._process._open_stream(name))

    async def receive(self, model: type[M] | None = None, *, timeout: float | None = None) -> Message:
        """See `Process.receive`. Cancelling it gives the next message up."""
        return await asyncio.to_thread(self._process.receive, model, timeout=timeout)

    async def reply(self, message: Message | str | None, data: Json = None) -> int:
        """See `CurrentProcess.reply`."""
        return await asyncio.to_thread(self._process.reply, message, data)

    async def ask(
        self,
        question: str,
        choices: Sequence[Json] | None = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """See `Process.ask`. Cancelling it does not take the question back."""
        return await asyncio.to_thread(self._process.ask, question, choices, id=id, timeout=timeout)

    async def flush(self) -> None:
        """See `Process.flush`."""
        await asyncio.to_thread(self._process.flush)


class LocalServer:
    """The wrapper's end, on the loop that it was started in.

    The program receives what `take` returns. Events wait for `settle`, so that they have their place behind what was printed before.
    """

    def __init__(
        self,
        process: Process,
        take: Callable[[], Awaitable[Message]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._taken: deque[Message] = deque(maxlen=REMEMBERED)  # by the program, which may reply to them
        self._process = process
        self._take = take
        self._settle = settle

    async def start(self) -> str:
        """Listen, and return the path to put into `NATSPROC_SOCKET`."""
        self._folder = Path(tempfile.mkdtemp(prefix="natsproc-"))  # of our user alone
        if len(os.fsencode(self._folder)) > PATH_BYTES - len("/socket"):
            self._folder.rmdir()
            self._folder = Path(tempfile.mkdtemp(prefix="natsproc-", dir="/tmp"))
        path = self._folder / "socket"
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LINE_BYTES)
        path.chmod(0o600)
        return os.fspath(path)

    async def close(self) -> None:
        """Listen no more."""
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = asyncio.create_task(self._answer(line))
                # nothing is asked before the answer, so what comes first is the end of the program
                gone = asyncio.create_task(reader.read(1))
                await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    answer.cancel()
                    return
                gone.cancel()
                await asyncio.wait([gone])
                writer.write(encode(answer.result()) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # the program is gone, its line has no end, or we are closed
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = decode_object(line)
            match asked.get("do"):
                case "emit":
                    name = str(asked.get("type", ""))
                    await self._settle()
                    data, cause = asked.get("data"), asked.get("cause")
                    return {"offset": await self._process.emit(name, data, cause=cause)}
                case "stream":
                    stream = self._process.stream(str(asked.get("name", "")))
                    return {"name": stream.name, "most": stream.most}
                case "receive":
                    return {"message": await self._next(asked.get("timeout"))}
                case "reply":
                    await self._settle()
                    message = self._message(asked.get("to"))
                    return {"offset": await self._process.reply(message, asked.get("data"))}
                case "ask":
                    await self._settle()
                    question, chosen, id = asked.get("question", ""), asked.get("choices"), asked.get("id")
                    timeout = asked.get("timeout")
                    return {"value": await self._process.ask(question, chosen, id=id, timeout=timeout)}
                case "flush":
                    await self._process.flush()
                    return {}
                case "about":
                    return {}
            raise BadPayload(f"this natsproc cannot {asked.get('do')!r}")
        except (Error, TypeError, ValueError) as error:
            return {"error": type(error).__name__, "text": str(error), "details": vars(error)}

    def _message(self, id: str | None) -> Message:
        for message in reversed(self._taken):
            if id in (None, message.id):
                return message
        raise BadPayload(f"no message {id or ''} was received that can be replied to".replace("  ", " "))

    async def _next(self, timeout: float | None) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                message = await self._take()
        except TimeoutError:
            return None
        if message.kind != "eof":
            self._taken.append(message)
        return {name: getattr(message, name) for name in Message.__slots__}
