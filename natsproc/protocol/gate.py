"""What a JetStream request is about: which right it takes, and on which process. Protocol: section 9.

A narrow credential has no rights on JetStream, because whoever reaches it chooses where it answers, API subjects
included. It asks the gate, which carries out what these rules understand wholly, and nothing else. Asker and gate
use the same rules, so the asker knows the subject to ask on, and the server's permissions on it decide. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from natsproc.errors import BadPayload, NotAllowed

from .messages import COMMAND, Message, decode_object, encode
from .names import TOKEN, UNIQUE, Address, Names
from .records import Record

Right = Literal["history", "send", "hold", "own"]
RIGHTS: tuple[Right, ...] = get_args(Right)
TARGET = "Natsproc-Target"  #: the header with the subject that the request is for
WHOLE = "_"  #: in place of a namespace or id: all of them
NODES = "_nodes"  #: in place of a namespace: the node of that name

MAX_BATCH = 1000  #: entries in one answer, or subjects in one question
MAX_BYTES = 512 * 1024  #: of one answer; who asks for more gets that, and asks again
MAX_LINES = 256  #: events in one message
MAX_TTL = 7 * 86400  #: seconds for which a command is held
NODE = "_n_"  #: between sender and random part of the name of a narrow credential's node; in that of no other node

_API = "$JS.API."
_PROCESS = re.compile(rf"({TOKEN})\.({TOKEN})")
_SOME = re.compile(rf"({TOKEN}|\*)\.({TOKEN}|\*)")
_ONE = re.compile(TOKEN)
_OBJECT = re.compile(rf"({TOKEN})\.({TOKEN})\.\d+-\d+-\d+")
_COMMANDING = {COMMAND, "keys", "resize"}
_NUMBER = re.compile(r"\d{1,20}")
_TIME = re.compile(r"[0-9T:.Z+-]{10,40}")

Headers = Mapping[str, str]


class Scope(NamedTuple):
    """What somebody may do to which process. Written `<prefix>.<namespace>.<id>.<right>.<sender>`."""

    namespace: str
    id: str
    right: str
    sender: str

    def subject(self, names: Names) -> str:
        """Where the gate is asked for it."""
        return ".".join((names.prefix, *self))

    @classmethod
    def parse(cls, subject: str) -> tuple[Names, Scope]:
        """Read such a subject. Raises: BadName, ValueError."""
        prefix, *tokens = subject.split(".")
        return Names(prefix), cls(*tokens)


_IN_WORDS = {"history": "watch", "send": "send to", "hold": "command", "own": "own", "control": "command"}


def in_words(subject: str) -> str:
    """What somebody does who publishes there, in the words of grants; nothing if that is none of these."""
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[3] not in _IN_WORDS:
        return ""
    namespace, id, right = tokens[1:4]
    whom = {WHOLE: "the mesh", NODES: "nodes"}.get(namespace, f"{namespace}/{'*' if id == WHOLE else id}")
    return f"{_IN_WORDS[right]} {whom}"


@dataclass(frozen=True)
class Ask:
    """A JetStream request that is understood wholly, written anew."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)
    answers: Literal["one", "many", "info", "lines"] = "one"  #: `lines`: each line is an entry of its own


def is_stored(names: Names, subject: str) -> bool:
    """Whether JetStream takes what is published there, so that a narrow credential has to ask the gate for it."""
    if subject.startswith("$"):
        return subject.startswith(("$JS.", "$KV.", "$O."))
    prefix, _, rest = subject.partition(".")
    kind = rest.split(".")[2:3]
    return prefix == names.prefix and kind in (["events"], ["inbox"])


def understand(names: Names, sender: str, target: str, payload: bytes, headers: Headers) -> tuple[Scope, Ask]:
    """Say what scope a request takes, made by `sender`, and write it anew from what was understood.

    Raises: NotAllowed for one that no narrow credential can make; BadPayload for one that is not what it seems.
    """
    about = _about(names, sender)
    if target.startswith(_API):
        namespace, id, right, ask = about.call(target.removeprefix(_API), payload)
    else:
        namespace, id, right, ask = about.write(target, payload, headers)
    return Scope(namespace, id, right, sender), ask


Found = tuple[str, str, Right]
Understood = tuple[str, str, Right, Ask]


class _About:
    """The rules for one sender on one mesh; it keeps nothing of what it is asked."""

    def __init__(self, names: Names, sender: str) -> None:
        self._names = names
        self._sender = sender
        self._reads: dict[str, Callable[[str], Found | None]] = {
            names.event_stream: self._log,
            names.inbox_stream: self._inbox,
            f"KV_{names.claims}": self._key(names.claims, _PROCESS),
            f"KV_{names.registry}": self._key(names.registry, _SOME),
            f"KV_{names.ended}": self._key(names.ended, _SOME),
            f"KV_{names.leases}": self._lease,
            f"OBJ_{names.states}": self._state,
        }

    # JetStream's API.

    def call(self, call: str, payload: bytes) -> Understood:
        """One of the calls that read, and the one that removes a state."""
        if call.startswith("DIRECT.GET."):
            stream, dot, subject = call.removeprefix("DIRECT.GET.").partition(".")
            if dot:
                if payload:
                    raise BadPayload("a read of a subject's last entry has no payload")
                return *self._read(stream, [subject]), Ask(_API + call, b"")
            subjects, body, many = _direct(payload)
            return *self._read(stream, subjects), Ask(_API + call, encode(body), answers=many)
        verb, _, stream = call.rpartition(".")
        body = decode_object(payload, "request") if payload else {}
        if verb == "STREAM.MSG.GET":
            subject, body = _get(body)
            return *self._read(stream, [subject]), Ask(_API + call, encode(body))
        if verb == "STREAM.INFO" and stream in self._reads:
            found: Found = (NODES, WHOLE, "history")
            if body:
                found = self._read(stream, [_only(body, "subjects_filter")])
            return *found, Ask(_API + call, encode(body) if body else b"", answers="info")
        if verb == "STREAM.PURGE" and stream == f"OBJ_{self._names.states}":
            subject = _only(body, "filter")
            if not subject.endswith(">"):
                return *self._read(stream, [subject]), Ask(_API + call, encode({"filter": subject}))
        raise _denied(call)

    def _read(self, stream: str, subjects: Sequence[str]) -> Found:
        """Whose entries these are: one process's, a namespace's, or the mesh's."""
        if not subjects or stream not in self._reads:
            raise _denied(f"reading {stream}")
        found = [self._reads[stream](subject) for subject in subjects]
        if None in found:
            raise _denied(f"reading {subjects[found.index(None)]!r} of {stream}")
        namespaces, ids, rights = (set(part) for part in zip(*filter(None, found), strict=True))
        (right,) = rights
        (namespace,) = namespaces if len(namespaces) == 1 else (WHOLE,)
        (id,) = ids if len(ids) == 1 and namespace != WHOLE else (WHOLE,)
        if right == "own" and WHOLE in (namespace, id):
            raise _denied(f"reading several processes of {stream}")
        return namespace, id, right

    def _log(self, subject: str) -> Found | None:
        found = _PROCESS.fullmatch(self._within(subject, "events"))
        return (found[1], found[2], "history") if found else None

    def _inbox(self, subject: str) -> Found | None:
        head, _, sender = subject.rpartition(".")
        found = _PROCESS.fullmatch(self._within(head, "inbox"))
        return (found[1], found[2], "own") if found and (sender == "*" or _ONE.fullmatch(sender)) else None

    def _within(self, subject: str, last: str) -> str:
        """What lies between the mesh's prefix and that last token."""
        first, last = f"{self._names.prefix}.", f".{last}"
        whole = subject.startswith(first) and subject.endswith(last)
        return subject[len(first) : -len(last)] if whole else ""

    def _key(self, bucket: str, pattern: re.Pattern[str]) -> Callable[[str], Found | None]:
        def read(subject: str) -> Found | None:
            found = pattern.fullmatch(subject.removeprefix(f"$KV.{bucket}."))
            if not found or not subject.startswith("$KV."):
                return None
            namespace, id = (WHOLE if token == "*" else token for token in found.groups())
            return (namespace, id, "history") if namespace != WHOLE or id == WHOLE else None

        return read

    def _lease(self, subject: str) -> Found | None:
        head, _, node = subject.rpartition(".")
        known = head == f"$KV.{self._names.leases}" and _ONE.fullmatch(node)
        return (NODES, node, "history") if known else None

    def _state(self, subject: str) -> Found | None:
        """A state's chunks, or what describes it; `<namespace>.<id>.>` for the chunks of all of a process."""
        chunks, descriptions = (f"$O.{self._names.states}.{kind}." for kind in "CM")
        if subject.startswith(chunks):
            name = subject.removeprefix(chunks)
            found = _OBJECT.fullmatch(name) or (name.endswith(".>") and _PROCESS.fullmatch(name[:-2]))
        else:
            found = subject.startswith(descriptions) and _OBJECT.fullmatch(
                _decoded(subject.removeprefix(descriptions))
            )
        return (found[1], found[2], "own") if found else None

    # What is written.

    def write(self, target: str, payload: bytes, headers: Headers) -> Understood:
        """A message, or what an owner writes."""
        names = self._names
        if found := self._log(target):
            lines = payload.split(b"\n")
            if len(lines) > MAX_LINES or not all(lines):
                raise BadPayload(f"events are up to {MAX_LINES} lines, and none of them empty")
            return found[0], found[1], "own", Ask(target, payload, answers="lines")
        if found := self._inbox(target):
            return self._message(found[0], found[1], target, payload, headers)
        for bucket in (names.claims, names.registry, names.ended):
            if found := self._key(bucket, _PROCESS)(target):
                removable = bucket == names.registry
                if bucket != names.claims and "KV-Operation" not in headers:
                    _check_record(payload, *found[:2])
                kept = _kept(headers, expected=bucket != names.ended, removable=removable)
                return found[0], found[1], "own", Ask(target, payload, kept)
        if found := self._lease(target):
            if not re.fullmatch(rf"{self._sender}{NODE}[a-z0-9]{{{UNIQUE}}}", found[1]):
                raise _denied(f"the lease of {found[1]!r}, whose node is not {self._sender}'s,")
            return NODES, found[1], "own", Ask(target, payload, _kept(headers, removable=True, expires=True))
        found = self._state(target)
        if found and not target.endswith(">"):
            return found[0], found[1], "own", Ask(target, payload)
        raise _denied(f"writing to {target}")

    def _message(self, namespace: str, id: str, target: str, payload: bytes, headers: Headers) -> Understood:
        if not target.endswith(f".inbox.{self._sender}"):
            raise _denied(f"writing to {target} as {self._sender}")
        message = Message.parse(payload, self._sender, 0)
        # what interrupts is a command, whatever it is dressed as: so are keys, one of which is Ctrl-C
        commands = message.kind in _COMMANDING or message.when == "now"
        kept = _kept(headers, expires=message.kind == COMMAND)
        if (key := headers.get("Nats-Msg-Id")) is not None:
            if not key.startswith(f"{namespace}.{id}.{self._sender}."):
                raise BadPayload(f"a message to {namespace}/{id} has an id that is another's: {key!r}")
            kept["Nats-Msg-Id"] = key
        return namespace, id, "hold" if commands else "send", Ask(target, payload, kept)


@lru_cache(maxsize=1024)
def _about(names: Names, sender: str) -> _About:
    return _About(names, sender)


def _kept(
    headers: Headers, *, expected: bool = False, removable: bool = False, expires: bool = False
) -> dict[str, str]:
    """The headers that go on. A compare-and-set without the revision that it is `expected` to replace is refused."""
    kept = {}
    if expected:
        kept["Nats-Expected-Last-Subject-Sequence"] = headers.get("Nats-Expected-Last-Subject-Sequence", "")
    if expires and "Nats-TTL" in headers:
        kept["Nats-TTL"] = headers["Nats-TTL"]
    for name, value in kept.items():
        if not _NUMBER.fullmatch(value):
            raise BadPayload(f"{name} is {value!r}, not a number")
    if int(kept.get("Nats-TTL", 0)) > MAX_TTL:
        raise BadPayload(f"nothing is held for more than {MAX_TTL} seconds")
    if removable and "KV-Operation" in headers:
        kept |= {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
    return kept


def _check_record(payload: bytes, namespace: str, id: str) -> None:
    """A record speaks of the process whose key it has: lists go by what it says. Raises: BadPayload."""
    if Record.parse(payload).address != Address(namespace, id):
        raise BadPayload(f"a record of another process than {namespace}/{id}")


def _only(body: dict[str, Any], name: str) -> str:
    """The one field that a body has. Raises: BadPayload."""
    if list(body) != [name] or not isinstance(body[name], str):
        raise BadPayload(f"the request has to have {name!r}, and nothing else")
    return str(body[name])


def _numbers(body: dict[str, Any], **most: int) -> dict[str, int]:
    numbers = {}
    for name, limit in most.items():
        if name in body:
            value, least = body.pop(name), int(name != "seq")
            if type(value) is not int or not least <= value <= limit:
                raise BadPayload(f"{name} is {value!r}, not a number from {least} to {limit}")
            numbers[name] = value
    return numbers


def _get(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    body = dict(body)
    numbers = _numbers(body, seq=1 << 63)
    for name in ("next_by_subj", "last_by_subj"):
        if isinstance(subject := body.get(name), str) and len(body) == 1:
            return subject, numbers | body
    raise BadPayload("an entry is read by its subject")


def _direct(payload: bytes) -> tuple[list[str], dict[str, Any], Literal["one", "many"]]:
    body = decode_object(payload, "request")
    numbers = _numbers(body, seq=1 << 63, batch=MAX_BATCH, max_bytes=1 << 31)
    time = body.pop("start_time", None)
    if time is not None:
        if not isinstance(time, str) or not _TIME.fullmatch(time):
            raise BadPayload(f"start_time is {time!r}")
        numbers |= {"start_time": time}  # type: ignore[dict-item]
    many: Literal["one", "many"] = "many" if "batch" in numbers or "multi_last" in body else "one"
    if many == "many":
        numbers["max_bytes"] = min(numbers.get("max_bytes", MAX_BYTES), MAX_BYTES)
    if len(body) == 1:
        if isinstance(subject := body.get("next_by_subj"), str):
            return [subject], numbers | body, many
        subjects = body.get("multi_last")
        listed = isinstance(subjects, list) and len(subjects) <= MAX_BATCH
        if subjects and listed and all(isinstance(subject, str) for subject in subjects):
            return subjects, numbers | body, many
    raise BadPayload("entries are read by their subjects")


def _decoded(text: str) -> str:
    """What was written in base64; nothing for what no encoder writes, which might hide wildcards."""
    try:
        name = base64.urlsafe_b64decode(text.encode())
        return name.decode() if base64.urlsafe_b64encode(name).decode() == text else ""
    except (binascii.Error, ValueError):
        return ""


def _denied(what: str) -> NotAllowed:
    return NotAllowed(f"{what} takes rights on JetStream itself, which only a trusted machine has")
