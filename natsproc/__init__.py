"""natsproc: an address for every running process, over NATS.

    import natsproc

    @natsproc.process
    async def research(proc: natsproc.Process, topic: str) -> dict: ...

    natsproc.run(research, id="research-1", topic="nats")

    async with natsproc.connect() as mesh:
        async for event in mesh.process("research-1").tail(): ...

Names are imported when first used, so that a command that needs no server starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .client import Mesh, ProcessInfo, connect
    from .errors import (
        AlreadyEnded,
        AlreadyRunning,
        BadName,
        BadPayload,
        Cancelled,
        Closed,
        CredentialEnded,
        Error,
        HardInterrupt,
        Interrupted,
        MeshMismatch,
        NoMesh,
        NoServer,
        NoSuchProcess,
        NotAllowed,
        OwnershipLost,
        ProcessFailed,
        Refused,
        ServerUnfit,
        StateUnfit,
        TimedOut,
        TooLarge,
        Unreachable,
    )
    from .functions import process, run
    from .granting import Granted, grant, grants, revoke
    from .handle import Exit, ProcessHandle
    from .http import asgi
    from .local import current
    from .owner import BlockingProcess, Process
    from .protocol.messages import Event, Message, Notice, Receipt
    from .sent import Sent, Taken
    from .tail import Tail
    from .turns import BlockingTurn, Partial, Turn

_WHERE = {
    "client": ("Mesh", "ProcessInfo", "connect"),
    "errors": (
        "AlreadyEnded", "AlreadyRunning", "BadName", "BadPayload", "Cancelled", "Closed", "CredentialEnded", "Error", "HardInterrupt", "Interrupted",
        "MeshMismatch", "NoMesh", "NoServer", "NoSuchProcess", "NotAllowed", "OwnershipLost", "ProcessFailed",
        "Refused", "ServerUnfit", "StateUnfit", "TimedOut", "TooLarge", "Unreachable",
    ),
    "functions": ("process", "run"),
    "granting": ("Granted", "grant", "grants", "revoke"),
    "handle": ("Exit", "ProcessHandle"),
    "http": ("asgi",),
    "local": ("current",),
    "owner": ("BlockingProcess", "Process"),
    "protocol.messages": ("Event", "Message", "Notice", "Receipt"),
    "sent": ("Sent", "Taken"),
    "tail": ("Tail",),
    "turns": ("BlockingTurn", "Partial", "Turn"),
}  # fmt: skip
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "AlreadyEnded", "AlreadyRunning", "BadName", "BadPayload", "BlockingProcess", "BlockingTurn",
    "Cancelled", "Closed", "CredentialEnded", "Error", "Event", "Exit", "Granted", "HardInterrupt", "Interrupted", "Mesh",
    "MeshMismatch", "Message", "NoMesh", "NoServer", "NoSuchProcess", "NotAllowed", "Notice",
    "OwnershipLost", "Partial", "Process", "ProcessFailed", "ProcessHandle", "ProcessInfo", "Receipt",
    "Refused", "Sent", "ServerUnfit", "StateUnfit", "Tail", "Taken", "TimedOut", "TooLarge", "Turn",
    "Unreachable", "asgi", "connect", "current", "grant", "grants", "process", "revoke", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'natsproc' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE[name]}", __name__), name)
    globals()[name] = value
    return value
