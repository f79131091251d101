"""What runs: one process's record, and the list, of what the asker may see."""

from __future__ import annotations

from natsproc.client import ProcessInfo
from natsproc.handle import ProcessHandle

from . import query, responses
from .access import ANY, Gate
from .problems import Problem
from .request import Request, Send


async def record(handle: ProcessHandle, request: Request, send: Send) -> None:
    """Answer `GET …/{id}`. Raises: Problem (404), Error."""
    info = await handle.info()
    if info is None:
        raise Problem(404, f"no process {handle.address} has run here", error="NoSuchProcess")
    await responses.reply(send, info.to_json(), head=request.method == "HEAD")


async def listing(gate: Gate, request: Request, send: Send) -> None:
    """Answer `GET …/`: the oldest first. Raises: Problem, Error.

    Whoever may watch all of a namespace (`*`) sees all of it, others what they may watch.
    """
    namespace = query.text(request, "namespace") or gate.mesh.namespace
    kind, labels = query.text(request, "kind"), query.pairs(request, "label")
    ended, waiting = query.flag(request, "ended", False), query.flag(request, "waiting", False)
    everything = await gate.ask(namespace, ANY, "watch")
    mesh = everything.mesh if everything else gate.mesh
    infos = await mesh.list(namespace=namespace, ended=ended, kind=kind, labels=labels)
    found = [info for info in infos if info.record.asks or not waiting]
    if everything is None:
        found = [info for info in found if await gate.ask(*_named(info), "watch")]
    found.sort(key=lambda info: (info.record.started, str(info.address)))
    await responses.reply(
        send, {"processes": [info.to_json() for info in found]}, head=request.method == "HEAD"
    )  # fmt: skip


def _named(info: ProcessInfo) -> tuple[str, str]:
    return info.address.namespace, info.address.id
