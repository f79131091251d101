"""Writes the vectors that random models make, for clients in every language: what Python does is what all do.

Run it after a change of the protocol code or of the models; `--search` looks for seeds that reach more of the code.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simulated import Choices, Log, Viewer, event, mark
from writers import Writers

from natsproc.bus import start
from natsproc.bus.history import History
from natsproc.bus.kv import marker_of
from natsproc.errors import BadName, BadPayload, NotAllowed
from natsproc.protocol.bundle import Bundle, StoredEntry, unbundle
from natsproc.protocol.compact import Compact
from natsproc.protocol.gate import is_stored, understand
from natsproc.protocol.messages import UNREADABLE, Cursor, Entry, Event, Notice, Receipt
from natsproc.protocol.names import Names
from natsproc.protocol.ownership import Fold, Verdict, cursor_at
from natsproc.protocol.reader import Read, Reader
from natsproc.protocol.records import Claim, Record

FOLDER = Path(__file__).resolve().parent.parent / "vectors"

SEEDS = {
    "reader": (*range(21), 34, 45, 55, 65, 78, 118, 235, 390, 484, 1906),
    "fold": (*range(20), 94, 581),
}  # fmt: skip
"""Of the worlds that are written down: some at random, and each that reaches what none before it does."""

Json = Any


def choices(seed: int) -> Choices:
    return Choices(random.Random(seed).randbytes(2000))


def written(entry: Entry) -> list[Json]:
    """An entry as the vectors have it."""
    if not entry.epoch:
        return [0, 0]
    if entry.is_mark:
        return [entry.epoch, 0, entry.run]
    return [entry.epoch, entry.offset, entry.run, entry.type]


def cuts(table: Any) -> list[Json]:
    return [cut.to_json() for cut in table]


# The reader: what a viewer with a lossy bus goes through, step by step.


def action(done: Any) -> list[Json]:
    """What a reader does, as the vectors have it."""
    match done:
        case Event():
            return ["show", done.offset]
        case Notice():
            return ["say", done.type, done.data]
        case Read(after):
            return ["read", after]
        case _:
            return [done.name.lower()]


class Recorder:
    """A reader that writes down what it is told and what it does."""

    def __init__(self, reader: Reader) -> None:
        self.steps: list[dict[str, Json]] = []
        self._reader = reader

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            step = {name: self._given(name, given)}
            try:
                done = getattr(self._reader, name)(*given)
            except BadPayload:
                self.steps.append(step | {"then": [["refuse"]]})
                raise
            self.steps.append(step | {"then": [action(each) for each in done]})
            return done

        return call

    @staticmethod
    def _given(name: str, given: tuple[Any, ...]) -> Json:
        match name:
            case "history" | "live":
                return [*given[:-1], written(given[-1])]
            case "first":
                return [given[0], cuts(given[1]), given[2]]
            case "last":
                return given[0]
        return True


def reader_case(seed: int) -> dict[str, Json]:
    """A viewer of a random log, from somewhere, that more is written to meanwhile."""
    chosen = choices(seed)
    trims = chosen.one_in(2)
    log = Log()
    writers = Writers(log, chosen, trims=trims, holes=not trims or chosen.one_in(2))
    for _ in range(chosen.below(60)):
        writers.step()
    start: dict[str, Json] = {"cuts": cuts(chosen.pick([(), log.recorded])), "buffer": chosen.below(6)}
    start |= {"followRuns": chosen.one_in(2)} | _beginning(log, chosen)
    case: dict[str, Json] = {"name": f"world {seed}", "start": start}
    try:
        reader = Reader(**options(start))
    except BadPayload:
        return case | {"refused": True, "steps": []}
    recorder = Recorder(reader)
    viewer = _Watching(log, recorder, chosen)  # type: ignore[arg-type]
    try:
        for _ in range(60):
            if chosen.one_in(3):
                for stored in writers.step():
                    viewer.hear(stored)
            viewer.step()
        viewer.quiet()
    except (BadPayload, AssertionError):
        pass  # of another log; or one that the models do not allow for, with the same outcome everywhere
    return case | {"steps": recorder.steps}


class _Watching(Viewer):
    """A viewer that judges nothing: the tests of the reader do."""

    def _event(self, event: Event) -> None:
        self.shown.append(event)

    def _notice(self, notice: Notice) -> None:
        self.notices.append(notice)


def _beginning(log: Log, chosen: Choices) -> dict[str, Json]:
    match chosen.below(6):
        case 0 | 1 if log.counted:
            position, entry = chosen.pick(log.counted)
            return {"cursor": [position, entry.epoch, entry.run, entry.offset]}
        case 2 if log.recorded:
            return _of_run(chosen.pick(log.recorded), chosen)
        case 3:
            return {"position": 1 + chosen.below(max(log.position, 1)), "offset": chosen.below(6)}
        case 4:
            return {"cursor": [1 + chosen.below(40), 1 + chosen.below(20), 1, chosen.below(9)]}
    return {}


def _of_run(cut: Any, chosen: Choices) -> dict[str, Json]:
    at = cursor_at(cut)
    return {"cursor": [at.position, at.epoch, at.run, at.offset]} | (
        {"run": cut.run} if chosen.one_in(2) else {}
    )


def options(start: dict[str, Json]) -> dict[str, Any]:
    """What a start says, as arguments of Reader and Fold."""
    from natsproc.protocol.records import Cut

    given = {"follow_runs" if name == "followRuns" else name: value for name, value in start.items()}
    given["cuts"] = [Cut(*cut) for cut in start.get("cuts", ())]
    if "cursor" in start:
        given["cursor"] = Cursor(*start["cursor"])
    return given


# The fold: the same logs, read in order by one who asks for the record's cuts when in doubt.


def fold_case(seed: int) -> dict[str, Json]:
    chosen = choices(seed)
    log = Log()
    writers = Writers(log, chosen, trims=chosen.one_in(3))
    for _ in range(20 + chosen.below(60)):
        writers.step()
    start = {"cuts": cuts(chosen.pick([(), log.recorded]))} | _beginning(log, chosen)
    for name in ("offset", "run"):
        start.pop(name, None)
    fold = Fold(**options(start))
    steps: list[Json] = []
    behind = start.get("cursor", [start.get("position", 0)])[0]
    for position, _, entry in log.stored(behind):
        for _ in range(3):
            verdict = fold.feed(position, entry)
            steps.append([position, written(entry), verdict.value])
            if verdict is not Verdict.UNSURE:
                break
            trimmed = chosen.one_in(4)
            steps.append({"refresh": cuts(log.recorded), "trimmed": trimmed})
            fold.refresh(log.recorded, trimmed=trimmed)
    case = {
        "name": f"log {seed}",
        "start": start,
        "steps": steps,
        "next": fold.next_offset,
        "cuts": cuts(fold.cuts),
    }
    return case | ({"missing": list(fold.missing)} if fold.missing else {})


# Where a tail begins: the last events, those above an offset, and what came since, of logs that are long enough to search.


class LogHistory(History):
    """Reads of a log in memory, where what is at position p was stored in second p."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def _stored(self, after: int) -> list[StoredEntry]:
        return [StoredEntry(at, _stored_as(entry), "", "", {}) for at, _, entry in self._log.stored(after)]

    async def first(self, subject: str, at: int = 1) -> StoredEntry | None:
        return next(iter(self._stored(at - 1)), None)

    async def last(self, subject: str) -> StoredEntry | None:
        return next(iter(self._stored(self._log.last - 1)), None)

    async def _batch(self, body: dict[str, Any]) -> tuple[list[StoredEntry], int]:
        return self._stored(body["seq"] - 1), 0


def _stored_as(entry: Entry) -> bytes:
    if not entry.epoch:
        return b""
    names = ("epoch", "run", "time", "type", "data", *(() if entry.is_mark else ("offset",)))
    return json.dumps({name: getattr(entry, name) for name in names}).encode()


def long_log(dice: random.Random) -> Log:
    """Four owners who write a few hundred events each, densely or not, with repeats, zombies, garbage and others between."""
    log, before = Log(), 2
    for epoch, run in ((3, 1), (7, 1), (20, 2), (22, 2)):
        log.append(mark(epoch, run))
        log.record()
        for _ in range(dice.randrange(3, 7)):
            sparse = dice.choice([1, 1, 4])
            for _ in range(dice.randrange(150)):
                log.append(event(epoch, len(log.counted) + 1, run), dice.randrange(sparse))
            match dice.randrange(5):
                case 0:
                    log.append(event(before, len(log.counted) + 1))
                case 1:
                    for offset in range(
                        max(log.cuts[-1].offset, len(log.counted) - 40), len(log.counted) + 1
                    ):
                        log.append(event(epoch, offset, run))
                case 2:
                    log.append(UNREADABLE)
                case 3:
                    log.append(mark(before), 1000)
        before = epoch
    return log


def begin_case(seed: int) -> dict[str, Json]:
    dice = random.Random(seed)
    log = long_log(dice)
    if seed % 2:
        log.trim(dice.randrange(log.position))
        log.record()
    end = len(log.counted)
    asked = [{"last": n} for n in (0, 1, 300, 5000)] + [
        {"above": offset} for offset in (-5, end - 1, end + 9)
    ]
    asked += [{"above": dice.randrange(end)} for _ in range(8)]
    asked += [{"since": dice.randrange(log.position + 2)} for _ in range(8)]
    cases = [ask | {"shown": _ranges(asyncio.run(begun(log, **ask)))} for ask in asked]
    return {"name": f"log {seed}", "cuts": cuts(log.recorded), "log": _rows(log), "asked": cases}


async def begun(log: Log, *, last: int = 0, above: int | None = None, since: int | None = None) -> list[int]:
    """The offsets that a tail from there shows."""
    history, table, end = LogHistory(log), log.recorded, log.stored(log.last - 1)[0]
    stored = StoredEntry(end[0], _stored_as(end[2]), "", "", {})
    found: dict[str, Any] = {"position": end[0]}
    if last:
        found = await start._behind(
            history, "", await start._newest(history, "", table, stored) - last, table
        )
    elif above is not None:
        found = await start._behind(history, "", above, table)
    elif since is not None and (entry := await history.first("", since)):
        found = await start._from(history, "", entry, table)
    viewer = _Watching(log, Reader(cuts=table, follow_runs=True, **found), Choices(b""))
    viewer.quiet()
    shown = [event.offset for event in viewer.shown]
    counted = [entry.offset for position, entry in log.counted if position > log.floor]
    if since is None and not log.floor:  # else repeats may stand for what was trimmed
        assert shown == (
            [offset for offset in counted if offset > above]
            if above is not None
            else counted[-last:]
            if last
            else []
        )
    return shown


def _ranges(offsets: list[int]) -> Json:
    """First and last; they have no holes."""
    assert offsets == list(range(offsets[0], offsets[-1] + 1)) if offsets else True
    return [offsets[0], offsets[-1]] if offsets else []


def _rows(log: Log) -> list[Json]:
    """Entries as `[position, entry, count]`: so many, whose positions and offsets follow each other."""
    rows: list[Json] = []
    for position, _, entry in log.stored():
        what = written(entry)
        before = rows[-1] if rows else [0, [0, 0], 0]
        count = before[2]
        if (
            what[1]
            and before[0] + count == position
            and [*before[1][:1], before[1][1] + count, *before[1][2:]] == what
        ):
            before[2] += 1
        else:
            rows.append([position, what, 1])
    return rows


# Compact: three streams of tokens, closed, left open, and closed by what covers less.


def compact_case(seed: int) -> dict[str, Json]:
    chosen = choices(seed)
    limit = chosen.pick([3, 8, 10_000])
    compact = Compact(limit)
    steps: list[Json] = []
    for offset in range(1, 40):
        given = _said(offset, chosen)
        items = compact.flush() if given == "flush" else compact.feed(_item(given))
        steps.append([given, [each.offset if isinstance(each, Event) else each.type for each in items]])
    return {"name": f"talk {seed}", "limit": limit, "steps": steps}


def _item(given: Json) -> Event | Notice:
    if isinstance(given, str):
        return Notice(given)  # type: ignore[arg-type]
    return Event(given[0], 5, 1, "", given[1], given[2], position=given[0])


def _said(offset: int, chosen: Choices) -> Json:
    stream = chosen.pick(["a", "b", 7, None])
    match chosen.below(16):
        case 0 | 1 | 2 | 3 | 4 | 5 | 6:
            return [offset, "token", {"stream": stream, "text": "x"}]
        case 7 | 8:
            first = 1 + chosen.below(offset)
            return [offset, "text", {"stream": stream, "text": "xx", "first": first, "last": offset - 1}]
        case 9:
            return [
                offset,
                "text",
                chosen.pick([{"stream": "a"}, {"stream": "a", "first": "1", "last": 3}, None, []]),
            ]
        case 10:
            return chosen.pick(["gap", "takeover", "unreachable"])
        case 11:
            return "caught_up" if offset > 25 else [offset, "token", "x"]
        case 12:
            return "flush" if offset > 20 else [offset, "output", {}]
    return [offset, "output", {"text": "line\n"}]


# What lies on an events subject, whoever wrote it.

_NUMBERS = (
    "1", "7", "0", "-1", "-0", "1.0", "7.5", "1e3", "1E+2", "01", "1.", ".5", "true", "null", '"1"', "[1]",
    "9007199254740991", "9007199254740992", "90071992547409910", "1e999", "NaN", "Infinity", "-Infinity", "+1", "0x1",
)  # fmt: skip
_DATA = (
    "null", "{}", '"x"', '"\\u00e9\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00x"', '"\\u0000"', '"\t"', '"\\x"', "[1,]",
    '{"a":1,}', "{'a':1}", '{"\\ud800":1}', '"é😀"', '{"a":1,"a":2}', '{"__proto__":{"epoch":1}}', "1 2", "//", "0.1", "NaN",
    '"\\/\\b\\f\\n\\r\\t\\"\\\\"', '"\x7f"', '"\u2028"', "-1.5e-7",
)  # fmt: skip


def payloads() -> Iterator[bytes]:
    """Entries that are one, are nearly one, or only look like it."""
    for name in ("epoch", "run", "offset"):
        for number in _NUMBERS:
            numbers = {"epoch": "9", "run": "1", "offset": "3"} | {name: number}
            yield _payload(numbers, '"output"', "null")
    for data in _DATA:
        yield _payload({"epoch": "9", "run": "1", "offset": "3"}, '"output"', data)
    for kind in ('"mark"', '""', "null", '"\\ud800"', '"exited"', "{}", '"é"'):
        for offset in ("0", "3"):
            yield _payload({"epoch": "9", "run": "1", "offset": offset}, kind, "null")
    whole = {"epoch": "9", "run": "1", "offset": "3"}
    for depth in (199, 200, 201):
        yield _payload(whole, '"output"', "[" * depth + "]" * depth)
        yield _payload(whole, '"output"', '{"a":' * depth + "1" + "}" * depth)
    yield _payload(whole, '"output"', json.dumps("[" * 300))
    yield _payload(whole, '"output"', "1" * 4400)
    good = _payload(whole, '"output"', '"x"')
    yield from (
        b"\xef\xbb\xbf" + good,
        good + b"\n",
        b" \t\r\n" + good,
        b"\xc2\xa0" + good,
        b"\x0c" + good,
        good + b"\x00",
    )
    yield from (
        good.replace(b"x", b"\xff"),
        good.replace(b"x", b"\xed\xa0\x80"),
        good.replace(b"x", b"\xc0\xaf"),
    )
    yield from (good[:-1], good + b"}", good + good, b"[" + good + b"]", good.replace(b'"', b"'"))


def _payload(numbers: dict[str, str], kind: str, data: str) -> bytes:
    fields = [f'"{name}":{value}' for name, value in numbers.items()]
    return ("{" + ",".join([*fields, f'"type":{kind}', f'"data":{data}']) + "}").encode()


def payload_case(payload: bytes) -> dict[str, Json]:
    entry = Entry.parse(payload)
    names = ("offset", "epoch", "run", "time", "type", "data", "cause")
    found = None if entry is UNREADABLE else {name: getattr(entry, name) for name in names}
    try:
        return {"payload": payload.decode(), "entry": found}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode(), "entry": found}


# Receipts, claims and records, whole, short, and wrong.

_RECEIPT = {
    "command": "c7n2", "verb": "interrupt", "status": "applied", "why": "", "sender": "alice", "node": "laptop-k3f9qa",
    "epoch": 41, "offset": 12, "data": {"a": [1]}, "verified": False,
}  # fmt: skip
_CLAIM = {
    "nonce": "n", "node": "laptop-k3f9qa", "epoch": 41, "run": 2, "ended": True,
    "cuts": [[41, 1, 1, 4705], [60, 2, 9, 5000]], "born": 41, "last": 30, "later": {"x": 1},
}  # fmt: skip
_RECORD = {
    "namespace": "lab", "id": "build", "kind": "make", "node": "laptop-k3f9qa", "epoch": 41, "run": 1,
    "state": "waiting", "started": "s", "updated": "u", "labels": {"user": "7"}, "title": "make -j4",
    "parent": "x", "pty": True, "allow": ["next"], "asks": [{"ask": "a1", "question": "Deploy?", "choices": ["yes", 0]}],
    "code": 3, "ended": "e", "later": [],
}  # fmt: skip


def variants(whole: dict[str, Json], wrong: dict[str, Json]) -> Iterator[str]:
    """The whole, each field left out, and some fields wrong."""
    yield json.dumps(whole)
    for name in whole:
        yield json.dumps({key: value for key, value in whole.items() if key != name})
    for name, value in wrong.items():
        yield json.dumps(whole | {name: value})
    yield from ("", "null", "[]", '"x"', "{}", "{")


def record_cases() -> dict[str, Json]:
    def receipt(raw: bytes) -> Json:
        return {"verified": True} | Receipt.parse(raw).to_json()

    def claim(raw: bytes) -> Json:
        found = Claim.parse(raw)
        known: dict[str, Json] = {name: int(found.extra.get(name, 0)) for name in ("born", "last")}
        known["ended"] = found.ended
        return {"epoch": found.epoch_at(77), "run": found.run, "cuts": cuts(found.cuts)} | known

    def record(raw: bytes) -> Json:
        found = Record.parse(raw)
        names = ("parent", "title", "pty", "ended", "code", "allow", "asks")
        return json.loads(json.dumps(found.to_json() | {name: getattr(found, name) for name in names}))

    made = {
        "receipts": (receipt, variants(_RECEIPT, {"status": "levitated", "sender": "é"})),
        "claims": (claim, variants(_CLAIM, {"cuts": 7, "epoch": "x", "run": None})),
        "records": (record, variants(_RECORD, {"code": None})),
    }
    return {kind: [_parsed(text, read) for text in texts] for kind, (read, texts) in made.items()}


def _parsed(text: str, read: Callable[[bytes], Json]) -> dict[str, Json]:
    try:
        return {"payload": text, "value": read(text.encode())}
    except BadPayload:
        return {"payload": text, "value": None}


# What of JetStream is asked for where.


def gate_cases() -> Iterator[dict[str, Json]]:
    direct, get, info = "$JS.API.DIRECT.GET.", "$JS.API.STREAM.MSG.GET.", "$JS.API.STREAM.INFO."
    events, claim = "proc.default.build.events", "$KV.PROC_CLAIMS.default.build"
    registry, lease = "$KV.PROC_REGISTRY.chat.r1", "$KV.PROC_LEASES.laptop-1"
    reads = [
        ("PROC_EVENTS", [events]), ("PROC_EVENTS", [events, "proc.default.b.events"]), ("KV_PROC_CLAIMS", [claim]),
        ("PROC_EVENTS", [events, "proc.lab.build.events"]), ("PROC_EVENTS", ["proc.default.*.events"]),
        ("PROC_EVENTS", ["proc.default.build.live"]), ("PROC_EVENTS", ["other.default.build.events"]),
        ("PROC_EVENTS", [events, claim]), ("KV_PROC_CLAIMS", ["$KV.PROC_CLAIMS.default.*"]), ("KV_PROC_REGISTRY", [registry]),
        ("KV_PROC_REGISTRY", ["$KV.PROC_REGISTRY.chat.*"]), ("KV_PROC_ENDED", ["$KV.PROC_ENDED.*.*"]),
        ("KV_PROC_ENDED", ["$KV.PROC_ENDED.*.r1"]), ("KV_PROC_REGISTRY", ["$KV.PROC_REGISTRY.>"]), ("KV_PROC_LEASES", [lease]),
        ("KV_PROC_LEASES", [lease, "$KV.PROC_LEASES.b"]), ("KV_PROC_LEASES", ["$KV.PROC_LEASES.*"]),
        ("PROC_INBOX", ["proc.default.build.inbox.alice"]), ("OTHER", ["x"]), ("KV_PROC_CLAIMS", ["$KV.OTHER.default.build"]),
        ("KV_PROC_REGISTRY", ["$KV.PROC_REGISTRY.chat.r1.x"]), ("PROC_EVENTS", ["proc._nodes.build.events"]),
    ]  # fmt: skip
    for stream, subjects in reads:
        if len(subjects) == 1:
            yield gate_case(f"{direct}{stream}.{subjects[0]}", "")
            for seq in ({}, {"seq": 7}):
                yield gate_case(
                    f"{direct}{stream}", seq | {"next_by_subj": subjects[0], "batch": 10, "max_bytes": 99}
                )
                yield gate_case(f"{get}{stream}", seq | {"next_by_subj": subjects[0]})
            yield gate_case(f"{get}{stream}", {"last_by_subj": subjects[0]})
        yield gate_case(f"{direct}{stream}", {"multi_last": subjects, "max_bytes": 99})
    for stream in ("PROC_EVENTS", "PROC_INBOX", "KV_PROC_LEASES", "KV_PROC_CLAIMS", "OTHER"):
        yield gate_case(f"{info}{stream}", "")
    for call in (
        "STREAM.PURGE.PROC_EVENTS",
        "CONSUMER.CREATE.PROC_EVENTS",
        "STREAM.NAMES",
        "DIRECT.GET.PROC_EVENTS",
    ):
        yield gate_case(f"$JS.API.{call}", "")
    held = {"id": "m1", "time": "t", "kind": "command", "data": {"id": "m1", "verb": "pause"}}
    for payload in ({"id": "m1", "data": 1}, held, {"kind": "command", "data": 1}, [], "", "text"):
        for id in (
            "build.inbox.alice",
            "build.inbox.bob",
            "*.inbox.alice",
            "build.inbox.*",
            "build.outbox.alice",
        ):
            yield gate_case(f"proc.default.{id}", payload)
    yield gate_case("my-mesh.lab.b.inbox.alice", {"id": "m1", "data": 1}, prefix="my-mesh")
    yield gate_case("$JS.API.DIRECT.GET.MY_MESH_EVENTS.my-mesh.lab.b.events", "", prefix="my-mesh")
    for target in (
        "proc.default.build.control.alice",
        "proc.default.build.live",
        "_INBOX.alice.x",
        "$SRV.PING",
        "$KV",
        events,
        claim,
    ):
        yield gate_case(target, "")


def gate_case(target: str, payload: Json, prefix: str = "proc") -> dict[str, Json]:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    names = Names(prefix)
    try:
        scope, _ = understand(names, "alice", target, text.encode(), {})
        asked: str | None = scope.subject(names)
    except (NotAllowed, BadPayload, BadName):
        asked = None
    stored = is_stored(names, target)
    return {
        "prefix": prefix,
        "sender": "alice",
        "target": target,
        "payload": text,
        "stored": stored,
        "asked": asked,
    }


# Entries in bundles.


def bundle_cases() -> Iterator[dict[str, Json]]:
    time, log, key = (
        "2026-01-01T00:00:00.123456789Z",
        "proc.default.build.events",
        "$KV.PROC_REGISTRY.default.",
    )
    plain = [StoredEntry(7, b"{}", time, log), StoredEntry(9, b"", time, log)]
    odd = StoredEntry(1 << 53, bytes(range(256)), time, 'proc.a.\u00fc"\\\u2603.events')
    marked = [
        StoredEntry(3, b"1", time, f"{key}a"),
        StoredEntry(4, b"", time, f"{key}a", {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}),
        StoredEntry(5, b"2", time, f"{key}b", {}),
        StoredEntry(6, b"", time, f"{key}b", {"Nats-Marker-Reason": "MaxAge", "Nats-TTL": "30"}),
    ]
    for after, entries in ((0, plain), (6, plain[1:]), (0, [odd]), (2, marked), (0, [plain[0], odd])):
        yield bundle_case(bundled(after, entries))
    good = bundled(0, plain)
    for bad in (
        good[:-1], good + b"x", b"", b"\n", b"{}\n", good.replace(b"7", b"9"), good.replace(b"7", b"0"), good.replace(b"7", b"null"),
        good.replace(b"proc.default.build.events", b""), good.replace(b",2,", b",-2,"), good.replace(b'"after":0', b'"after":"0"'),
        b'{"after":0,"entries":[]}\n', b'{"after":0,"entries":7}\n', b'{"after":0,"entries":[7]}\n', b'{"after":0,"entries":[[1]]}\n',
        b'{"entries":[[1,"t",0,"s"]]}\n', b'{"after":0,"entries":[[1,"t",0]]}\n', b'{"after":0,"entries":[[1,"t",0,"s",7]]}\n', b"text",
    ):  # fmt: skip
        yield bundle_case(bad)


def bundled(after: int, entries: list[StoredEntry]) -> bytes:
    bundle = Bundle(1 << 20)
    for entry in entries:
        assert bundle.add(entry, after)
        after = entry.position
    return bundle.take()


def bundle_case(payload: bytes) -> dict[str, Json]:
    try:
        after, entries = unbundle(payload)
    except BadPayload:
        return {"base64": base64.b64encode(payload).decode(), "after": None, "entries": None}
    rows: list[Json] = []
    for entry in entries:
        marker = bool(marker_of(entry.headers or {}))
        rows.append(
            [entry.position, entry.time, entry.subject, base64.b64encode(entry.payload).decode(), marker]
        )
    return {"base64": base64.b64encode(payload).decode(), "after": after, "entries": rows}


ABOUT = "Written by tests/unit/write_vectors.py, from what Python does. "


def files() -> dict[str, str]:
    """Every file that is written, by name."""
    reader = [reader_case(seed) for seed in SEEDS["reader"]]
    fold = [fold_case(seed) for seed in SEEDS["fold"]]
    found: dict[str, dict[str, Json]] = {
        "readers": {"about": ABOUT + "As reader.json; `refused`: the start itself is.", "cases": reader},
        "folds": {"about": ABOUT + "As fold.json.", "cases": fold},
        "starts": {
            "about": ABOUT
            + "Protocol: section 2.2. A log, as [position, entry, so many that follow each other], and the claim's "
            "cuts; where a tail begins (the last n events, above an offset, what is stored there or behind) "
            "and the first and last offset that it shows.",
            "cases": [begin_case(seed) for seed in range(8)],
        },
        "compact": {
            "about": ABOUT
            + "Protocol: section 2.5. A step is what is fed (an event [offset, type, data], a notice's "
            "type, or a flush) and what is shown of it: offsets, and types of notices. `limit`: items kept.",
            "cases": [compact_case(seed) for seed in range(40)],
        },
        "payloads": {
            "about": ABOUT + "As events.json.",
            "entries": [payload_case(each) for each in payloads()],
        },
        "records": {
            "about": ABOUT
            + "Protocol: sections 4 to 6. null: an error. A claim has revision 77. What else is there may be kept."
        }
        | record_cases(),
        "bundles": {
            "about": ABOUT
            + "Protocol: section 9. `base64`: what the gate answers; `entries`: position, time, subject, payload "
            "in base64, and whether it is a marker; null: an error. `parts`: of an answer too large for one message, with their headers.",
            "cases": list(bundle_cases()),
            "parts": [
                {"parts": [["1/1", "a"]], "whole": "a"},
                {"parts": [["1/3", "a"], ["2/3", ""], ["3/3", "bc"]], "whole": "abc"},
                {"parts": [["1/3", "a"], ["3/3", "b"]], "whole": None},
                {"parts": [["2/2", "a"]], "whole": None},
                {"parts": [["1/2", "a"], ["1/2", "a"]], "whole": None},
                {"parts": [["x", "a"]], "whole": None},
            ],
        },
        "gate": {
            "about": ABOUT
            + "Protocol: section 9. `stored`: whether JetStream takes what is published there; `asked`: "
            "where a credential without rights there asks for it, null for what none can.",
            "cases": list(gate_cases()),
        },
    }
    return {f"{name}.json": _lines(found[name]) for name in found}


def _lines(vectors: dict[str, Json]) -> str:
    """A line for each case."""
    parts = []
    for name, value in vectors.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in value)
            parts.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def search(make: Callable[[int], object], upto: int) -> list[int]:
    """Seeds of which each goes a way through the code, or does something, that none before it does."""
    known: set[object] = set()
    chosen = []
    for seed in range(upto):
        found: set[object] = set()
        before: dict[int, int] = {}

        def trace(frame: Any, event: str, _: Any, found=found, before=before) -> Any:
            if not frame.f_code.co_filename.endswith(("reader.py", "ownership.py")):
                return None
            if event == "line":
                found.add((before.get(id(frame)), frame.f_lineno, frame.f_code.co_name))
                before[id(frame)] = frame.f_lineno
            elif event == "return":
                before.pop(id(frame), None)
            return trace

        sys.settrace(trace)
        try:
            make(seed)
        finally:
            sys.settrace(None)
        if found - known:
            known |= found
            chosen.append(seed)
    return chosen


if __name__ == "__main__":
    if "--search" in sys.argv:
        print("reader", search(reader_case, 3000))
        print("fold", search(fold_case, 2000))
    else:
        for name, text in files().items():
            (FOLDER / name).write_text(text, "utf-8")
