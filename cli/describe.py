"""What an event or notice says, as one line for people. Text of others comes out harmless."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from typing import Any

from natsproc.protocol.messages import Event, Notice
from natsproc_cli.terminal import one_line

Data = Mapping[str, Any]

BAR = 20


def describe(event: Event) -> str:
    """Say what an event says, without its time and type."""
    data = event.data
    if isinstance(data, Mapping) and event.type == "turn_began":
        return f"turn {event.offset}" + (f" for {value(data['sender'])}" if data.get("sender") else "")
    if isinstance(data, Mapping) and (say := _SENTENCES.get(event.type)):
        return say(data)
    return value(data)


def value(data: Any) -> str:
    """Write any JSON value: text as it is, numbers short, the rest as JSON."""
    if isinstance(data, str):
        return one_line(data)
    if isinstance(data, float):
        return f"{data:.6g}"
    if data is None:
        return ""
    return one_line(json.dumps(data, ensure_ascii=False))


def pairs(data: Data, *, without: tuple[str, ...] = ()) -> str:
    """Write `name=value name=value`."""
    return "  ".join(
        f"{one_line(str(name))}={value(item)}" for name, item in data.items() if name not in without
    )


def _started(data: Data) -> str:
    where = f"{data.get('kind', 'process')} on {data.get('host') or data.get('node', '?')}"
    title = f": {value(data['title'])}" if data.get("title") else ""
    labels = f"  [{pairs(data['labels'])}]" if isinstance(data.get("labels"), dict) and data["labels"] else ""
    return one_line(f"{where}, pid {data.get('pid', '?')}{title}") + labels


def _sender(data: Data) -> str:
    """Who it was, whether that is only what they say, and for whom they say that it was."""
    sender = value(data.get("sender") or "someone") + (
        " (unverified)" if data.get("verified") is False else ""
    )
    return sender + (f" for {value(data['user'])}" if data.get("user") else "")


def _commanded(data: Data) -> str:
    text = f"by {_sender(data)}"
    if data.get("reason"):
        text += f": {value(data['reason'])}"
    if data.get("message") is not None:
        text += f" → {value(data['message'])}"
    return text + (f" ({value(data['why'])})" if data.get("why") else "")


def _refused(data: Data) -> str:
    return f"{value(data.get('verb', 'a command'))} by {_sender(data)}: {value(data.get('why'))}"


def _received(data: Data) -> str:
    said = value(data["data"]) if "data" in data else f"message {value(data.get('message'))}"
    if data.get("refused"):
        said = f"refused: {value(data['refused'])}"
    return f"from {_sender(data)}: {said}" + (f" ({value(data['when'])})" if "when" in data else "")


def watching(viewers: Mapping[str, int]) -> str:
    """Write who watches, and in how many places if in several."""
    return ", ".join(value(who) + (f" ({count})" if count > 1 else "") for who, count in viewers.items())


def asked(data: Data) -> str:
    """Write a question, with its choices if there are any."""
    choices = data.get("choices")
    listed = f" [{'/'.join(map(value, choices))}]" if isinstance(choices, list) and choices else ""
    return value(data.get("question")) + listed


def _answered(data: Data) -> str:
    if not data.get("sender"):
        return f"by nobody: {value(data.get('why'))}"
    return f"by {_sender(data)}: {value(data.get('value'))}"


def how_to_answer(event: Event) -> str:
    """Say how a question is answered, on the command line."""
    data, who = event.data, event.address or "ID"
    choices = data.get("choices")
    said = "|".join(map(value, choices)) if isinstance(choices, list) and choices else "ANSWER"
    return f"{who} waits for an answer: natsproc answer {who} {value(data.get('ask'))} {said}"


def _turn_ended(data: Data) -> str:
    error = f": {value(data['error'])}" if data.get("error") else ""
    return f"turn {value(data.get('turn'))} {value(data.get('status'))}{error}"


def _exited(data: Data) -> str:
    text = ending(str(data.get("status", "")), data.get("code"), data.get("signal"))
    if data.get("error"):
        text += f": {value(data['error'])}"
    if data.get("result") is not None:
        text += f" → {value(data['result'])}"
    return text


def ending(status: str, code: Any, number: Any = None) -> str:
    """Write how a run ended, as in `failed, exit code 2` or `killed by SIGKILL`."""
    text = one_line(status or "ended")
    if isinstance(number, int) and number:
        try:
            return f"{text} by {signal.Signals(number).name}"
        except ValueError:
            return f"{text} by signal {number}"
    return text if code in (0, None) else f"{text}, exit code {value(code)}"


def _log(data: Data) -> str:
    fields = pairs(data, without=("level", "text"))
    return value(data.get("text")) + (f"  {fields}" if fields else "")


def _progress(data: Data) -> str:
    done, total, text = data.get("done"), data.get("total"), value(data.get("text"))
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return f"{value(done)}  {text}".rstrip()
    share = min(1.0, max(0.0, done / total))
    bar = ("━" * round(share * BAR)).ljust(BAR, "╌")
    return f"{bar} {share:4.0%}  {value(done)}/{value(total)}  {text}".rstrip()


def _screen(data: Data) -> str:
    return f"{value(data.get('cols'))}×{value(data.get('rows'))}"


_SENTENCES: Mapping[str, Callable[[Data], str]] = {
    "started": _started,
    "restarted": _started,
    "recovered": _started,
    "received": _received,
    "replied": lambda data: f"to {value(data.get('sender'))}: {value(data.get('data'))}",
    "checkpointed": lambda data: f"{value(data.get('size'))} bytes, version {value(data.get('version'))}",
    "turn_ended": _turn_ended,
    "asked": asked,
    "answered": _answered,
    "interrupted": _commanded,
    "paused": _commanded,
    "resumed": _commanded,
    "cancelled": _commanded,
    "killed": _commanded,
    "refused": _refused,
    "dropped": lambda data: (
        f"{value(data.get('count'))} events, {value(data.get('bytes'))} bytes: no room for them"
    ),
    "failed": lambda data: value(data.get("why")),
    "exited": _exited,
    "log": _log,
    "progress": _progress,
    "metric": pairs,
    "text": lambda data: value(data.get("text")),
    "screen": _screen,
}


def notice(item: Notice) -> str:
    """Say what a notice says; empty for those that a reader of text need not hear."""
    data, who = item.data, str(item.address or "the process")
    if item.type == "gap":
        between = f"{data.get('from', '?')} to {data.get('to', '?')}"
        return f"events {between} of {who} are gone: the server kept only what came later"
    if item.type == "takeover":
        return f"{who} has a new owner: epoch {data.get('epoch', '?')}, run {data.get('run', '?')}"
    if item.type == "unreachable":
        node = f"the node {data['node']}" if data.get("node") else "the node"
        return f"{node} of {who} does not answer; it may come back. {way_out(who)}"
    return ""


def way_out(name: str) -> str:
    """Say how to go on with an unreachable process."""
    return (
        f"`natsproc kill {name}` ends its run, `natsproc run --id {name} -- COMMAND` begins the next one; "
        "a Python program that is started again goes on with it"
    )
