"""What `inspect` found, for people: who it is, how it is, its OS processes, its screen and its stacks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from natsproc_cli.describe import asked, ending, pairs, value, watching
from natsproc_cli.durations import format_age
from natsproc_cli.sizes import format_size
from natsproc_cli.table import columns
from natsproc_cli.terminal import one_line, plain

WIDTH = 9
MEMBER = ("PID", "NAME", "STATE", "CPU", "MEMORY")
_SHOWN = {"record", "epoch", "run", "offset", "stored", "spooled", "inbox", "checkpoint", "node", "writer", "command", "paused", "loop_age",
          "members", "screen", "stack", "turns"}  # fmt: skip

Found = Mapping[str, Any]


def lines(found: Found, now: datetime | None = None) -> Iterator[str]:
    """The whole of it. What a newer version adds comes last, as it is."""
    record = found.get("record") or {}
    yield f"{_name(record)}  {_state(record, found)}"
    for name, text in _facts(record, found, now or datetime.now(UTC)):
        if text:
            yield f"  {name:<{WIDTH}} {text}"
    if members := found.get("members"):
        yield "  members"
        yield from (f"    {line}" for line in columns(MEMBER, [_member(member) for member in members]))
    if screen := (found.get("screen") or {}).get("text"):
        yield "  screen"
        yield from _block(str(screen))
    for name, stack in (found.get("stack") or {}).items():
        yield f"  {one_line(str(name))}"
        yield from _block("".join(stack) if isinstance(stack, list) else str(stack))
    yield from (
        f"  {one_line(name):<{WIDTH}} {value(item)}" for name, item in found.items() if name not in _SHOWN
    )


def _name(record: Found) -> str:
    namespace, id = value(record.get("namespace")), value(record.get("id"))
    return id if namespace == "default" else f"{namespace}/{id}"


def _state(record: Found, found: Found) -> str:
    state = one_line(str(record.get("state", "")))
    if record.get("ended"):
        return ending(state, record.get("code"))
    return "paused" if found.get("paused") else state


def _facts(record: Found, found: Found, now: datetime) -> Iterator[tuple[str, str]]:
    yield "kind", value(record.get("kind"))
    yield "title", value(record.get("title"))
    if command := found.get("command"):
        yield "command", one_line(shlex.join(map(str, command)))
    yield "labels", pairs(record.get("labels") or {})
    yield "parent", value(record.get("parent"))
    for name in ("started", "ended"):
        yield name, _ago(str(record.get(name) or ""), now)
    yield "gone", _ago(str(record.get("unreachable_since") or ""), now)
    yield "epoch", value(found.get("epoch") or record.get("epoch"))
    yield "run", value(found.get("run") or record.get("run"))
    yield "offset", _offset(found)
    yield "asks", "; ".join(f"{value(ask.get('ask'))}: {asked(ask)}" for ask in record.get("asks") or ())
    yield "viewers", watching(record.get("viewers") or {})
    yield "turn", ", ".join(map(value, found.get("turns") or ()))
    if "inbox" in found:
        yield "inbox", f"{value(found['inbox'])} waiting"
    if saved := found.get("checkpoint"):
        version = value(saved.get("version"))
        yield (
            "state",
            f"saved at event {value(saved.get('offset'))}: {format_size(saved.get('size') or 0)}, version {version}",
        )
    yield "node", _node(found.get("node") or {"name": record.get("node")})
    if (age := found.get("loop_age")) is not None:
        yield "loop", f"has not turned for {value(age)} s" if age else "turns"
    yield "trouble", value((found.get("writer") or {}).get("trouble"))


def _ago(time: str, now: datetime) -> str:
    try:
        return f"{format_age((now - datetime.fromisoformat(time)).total_seconds())} ago, {one_line(time)}"
    except (ValueError, TypeError):
        return one_line(time)


def _offset(found: Found) -> str:
    offset, stored = found.get("offset"), found.get("stored")
    behind = f", stored up to {value(stored)}" if stored != offset else ""
    if spooled := found.get("spooled"):
        behind += f", {format_size(spooled)} of it on disk"
    return "" if offset is None else f"{value(offset)}{behind}"


def _node(node: Found) -> str:
    where = {"host": "on {}", "pid": "pid {}", "load": "load {:.2f}"}
    said = [text.format(node[name]) for name, text in where.items() if name in node]
    return one_line(" ".join([str(node.get("name") or ""), ", ".join(said)]).strip())


def _member(member: Found) -> Sequence[str]:
    memory = f"{member.get('rss', 0) / 1e6:.1f} MB"
    cpu = f"{member.get('cpu', 0):.2f} s"
    return (*(value(member.get(name)) for name in ("pid", "name", "state")), cpu, memory)


def _block(text: str) -> Iterator[str]:
    return (f"    {line}".rstrip() for line in plain(text).rstrip().split("\n"))
