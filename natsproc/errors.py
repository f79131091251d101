"""Every error natsproc raises, at one glance.

    Error
    ├── NoServer              nothing answers where a nats-server was expected
    ├── ServerUnfit           the server answers, but is too old or has no JetStream
    ├── NoMesh                the server is fine, but has no streams and buckets of ours yet
    ├── MeshMismatch          a stream or bucket of our name has other settings than we need
    ├── NotAllowed            the server refused it to this credential
    │   └── CredentialEnded   it expired or was revoked, and the connection with it (a Closed, too)
    ├── TimedOut              no answer in time; whether it happened is unknown
    ├── BadName               an id, namespace, label or pattern that cannot be one
    ├── BadPayload            data that is not JSON, or a cursor that is not one of ours
    ├── TooLarge              more bytes than the server takes in one message
    ├── NoSuchProcess         no process of that id has ever run here, or it was pruned
    ├── Unreachable           the process's node does not answer
    ├── Refused               the process, or its state, said no
    │   ├── AlreadyRunning    the id belongs to a live process
    │   ├── AlreadyEnded      the run of that id has ended; a new run must be asked for
    │   ├── OwnershipLost     a newer epoch owns the id
    │   └── StateUnfit        the saved state is not one that this code can begin with
    ├── ProcessFailed         `result()` of a run that did not complete
    └── Closed                used after it was closed

Three exceptions are not errors but control flow inside a process, and so stand outside: `Interrupted`;
for code that never awaits, `HardInterrupt`; and `Cancelled` (the last two are no `Exception`).
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Base of everything natsproc raises on purpose; its text says what happened and what to do next."""

    exit_code = 1  #: what the command line exits with when this reaches it


class NoServer(Error):
    """Nothing answers where a nats-server was expected."""

    exit_code = 4


class ServerUnfit(Error):
    """The server answers, but cannot carry a mesh: too old, or without JetStream."""

    exit_code = 4


class NoMesh(Error):
    """The server has no streams and buckets of ours yet; `natsproc setup` makes them."""

    exit_code = 4


class MeshMismatch(Error):
    """A stream or bucket of our name exists with settings we cannot work with, and was left alone."""


class NotAllowed(Error):
    """The server refused the operation to this credential.

    `subject` is the subject the server named, `operation` is ``publish`` or ``subscribe``.
    """

    exit_code = 5

    def __init__(self, text: str, *, subject: str = "", operation: str = "") -> None:
        super().__init__(text)
        self.subject = subject
        self.operation = operation


class TimedOut(Error):
    """No answer came in time, so whether it happened is unknown; repeating it is safe where it says so."""

    exit_code = 124


class BadName(Error):
    """An id, namespace, kind, label or pattern that cannot be one."""

    exit_code = 2


class BadPayload(Error):
    """Data that cannot be sent as JSON, or text that is not what it claims to be."""

    exit_code = 2


class TooLarge(Error):
    """The payload is larger than the server takes; nothing was sent and no offset was used."""

    def __init__(self, text: str, *, size: int, limit: int) -> None:
        super().__init__(text)
        self.size = size  #: bytes it would have taken
        self.limit = limit  #: bytes the server takes


class NoSuchProcess(Error):
    """No process of that address is known to the mesh."""

    exit_code = 3


class Unreachable(Error):
    """The process is on record but its node does not answer."""


class Refused(Error):
    """The process, or the state it is in, said no."""

    exit_code = 5


class AlreadyRunning(Refused):
    """The id belongs to a live process; `node` and `epoch` say whose."""

    def __init__(self, text: str, *, node: str = "", epoch: int = 0) -> None:
        super().__init__(text)
        self.node = node
        self.epoch = epoch


class AlreadyEnded(Refused):
    """The id's last run has ended; a next run has to be asked for."""


class OwnershipLost(Refused):
    """A newer epoch owns the id, so nothing this owner writes counts any more."""


class StateUnfit(Refused):
    """The saved state cannot be what this code begins with: no migration leads to it, or it is damaged."""


class ProcessFailed(Error):
    """The run ended without completing; `status`, `code` and `data` are those of its terminal event."""

    def __init__(self, text: str, *, status: str, code: int, data: dict[str, Any]) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.data = data


class Closed(Error):
    """The mesh, process or tail was closed before."""


class CredentialEnded(NotAllowed, Closed):
    """The credential expired or was revoked, and was not renewed, so the connection is closed for good."""


class Interrupted(Exception):
    """Somebody asked the process to stop what it is doing, as Ctrl-C does.

    `reason` is for people, `message` says what to do instead (any JSON, or None), `sender` asked,
    `command` is the id of the command. If a message that was to land now did it, `received` is that message.
    """

    partial: Any = None  #: `turns.Partial`, once it has ended a turn: what was said in it, all of it stored
    received: Any = None
    user = ""  #: for whom `sender` asked, by its word alone

    def __init__(self, reason: str = "", *, message: Any = None, sender: str = "", command: str = "") -> None:
        super().__init__(reason or "interrupted")
        self.reason = reason
        self.message = message
        self.sender = sender
        self.command = command


class HardInterrupt(BaseException):
    """An interrupt raised in code that never awaits; not an `Exception`, so that `except Exception` lets it by."""


class Cancelled(BaseException):
    """Somebody cancelled or killed the process; not an `Exception`, so that `except Exception` lets it by.

    Uncaught it ends the program with a traceback, except out of `natsproc.run`, which turns it into SystemExit.
    """

    code = 143  #: what the program may exit with; 137 if it was killed
