"""The description of all paths, OpenAPI 3.1: for documentation pages and for generators of clients."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from natsproc.protocol.names import TOKEN

from . import problems, responses
from .formats import MEDIA_TYPES
from .request import Request, Send
from .routes import VERBS
from .verbs import BODIES, STATUSES

Json = dict[str, Any]

_REF: Final = "#/components/schemas/"
_TEXT: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "integer"}
_OBJECT: Final[Json] = {"type": "object"}

_PROBLEMS: Final = {
    401: "It is not known who asks.",
    403: "Not allowed.",
    404: "No such process.",
    409: "The process, or the state it is in, says no; `receipt` has its receipt, if it is one.",
    410: "The run has ended.",
    413: "Too large.",
    415: "Not JSON.",
    422: "What was asked for is not understood; `errors` names the fields.",
    503: "The nats-server, or the mesh on it, is not there now.",
    504: "No answer in time, or nobody serves the process.",
}


def _object(about: str, required: tuple[str, ...], **properties: Json) -> Json:
    return {"type": "object", "description": about, "properties": properties, "required": list(required)}


def _text(about: str, **more: Any) -> Json:
    return {"type": "string", "description": about, **more}


_SCHEMAS: Final[dict[str, Json]] = {
    "Event": _object(
        "What the process said, stored.",
        ("offset", "epoch", "run", "time", "type", "data", "cursor"),
        offset={**_NUMBER, "minimum": 1, "description": "1, 2, 3 … without holes."},
        epoch=_NUMBER,
        run=_NUMBER,
        time=_text("By the owner's clock.", format="date-time"),
        type=_TEXT,
        data={"description": "Any JSON."},
        cause=_text("Id of the command or message that led to it."),
        cursor=_text("Where a stream goes on behind it: `?after=`, or `Last-Event-ID`."),
    ),
    "Notice": _object(
        "What the reader itself has to say: not stored, without an offset.",
        ("type", "data", "cursor"),
        type={"enum": ["gap", "takeover", "caught_up", "unreachable", "ended"]},
        data=_OBJECT,
        cursor=_text("Of the event before it."),
    ),
    "Item": {"oneOf": [{"$ref": f"{_REF}Event"}, {"$ref": f"{_REF}Notice"}]},
    "Receipt": _object(
        "What became of a command.",
        ("command", "verb", "status", "why", "sender", "node", "epoch", "offset", "data"),
        command=_text("Its id."),
        verb=_TEXT,
        status={"enum": list(STATUSES)},
        why=_text("For people."),
        sender=_TEXT,
        node=_TEXT,
        epoch=_NUMBER,
        offset={**_NUMBER, "description": "Of the event that records it."},
        data=_OBJECT,
        verified={"type": "boolean"},
    ),
    "Process": _object(
        "What the registry says of a process.",
        ("namespace", "id", "kind", "node", "epoch", "run", "state", "started", "updated", "labels"),
        namespace=_TEXT,
        id=_TEXT,
        kind=_TEXT,
        node=_TEXT,
        epoch=_NUMBER,
        run=_NUMBER,
        state=_text("running, paused, waiting, unreachable; how it ended, once it has."),
        started=_TEXT,
        updated=_TEXT,
        ended=_TEXT,
        code=_NUMBER,
        labels={"type": "object", "additionalProperties": _TEXT},
        title=_TEXT,
        asks={"type": "array", "items": _OBJECT, "description": "What it waits for people to answer."},
        viewers={"type": "object", "additionalProperties": _NUMBER},
        quiet={"type": ["number", "null"], "description": "Seconds since its last event."},
        unreachable_since={"type": ["string", "null"]},
    ),
    "Processes": _object(
        "The oldest first.", ("processes",), processes={"type": "array", "items": {"$ref": f"{_REF}Process"}}
    ),
    "Sent": _object(
        "A message that is stored.",
        ("id", "position", "duplicate"),
        id=_TEXT,
        position=_NUMBER,
        duplicate={"type": "boolean", "description": "One of that id was stored before."},
        offset={**_NUMBER, "description": "With `wait`: of the event that says that it was taken."},
        run=_NUMBER,
        when=_TEXT,
    ),
    "Reply": _object("What the process replied.", ("process", "reply"), process=_TEXT, reply={}),
    "Problem": _object(
        "What went wrong (RFC 9457).",
        ("type", "title", "status", "detail"),
        type=_TEXT,
        title=_TEXT,
        status=_NUMBER,
        detail=_text("For the reader."),
        error=_text("The name of natsproc's error."),
        receipt={"$ref": f"{_REF}Receipt"},
        errors={"type": "array", "items": _object("", ("field", "problem"), field=_TEXT, problem=_TEXT)},
    ),
}


def _query(name: str, about: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": about, "schema": schema or _TEXT}


_FLAG: Final[Json] = {"enum": ["0", "1"]}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_MANY: Final[Json] = {"type": "array", "items": _TEXT}

_EVENTS: Final = [
    _query("after", "Go on behind the event with this cursor."),
    _query("n", "Begin with the last n events.", _COUNT),
    _query("since", "Begin so many seconds ago.", {"type": "number", "minimum": 0}),
    _query("run", "The number of an earlier run, or `all`."),
    _query("follow", "0: end at the end of what is stored.", _FLAG),
    _query("compact", "1: one event for a streamed text.", _FLAG),
    _query("type", "Only events of these types.", _MANY),
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Where an EventSource goes on; goes before the query.",
        "schema": _TEXT,
    },
]
_LISTED: Final = [
    _query("namespace", "`*` for all."),
    _query("ended", "1: ended ones, too.", _FLAG),
    _query("waiting", "1: only what waits for an answer.", _FLAG),
    _query("kind", "Only those of this kind."),
    _query("label", "`key=value`: only those that have it.", _MANY),
]


def _name(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "pattern": f"^{TOKEN}$"}}


def _answers(about: str, content: Json, status: int, *problems_of: int) -> Json:
    found: Json = {str(status): {"description": about, "content": content}}
    for number in problems_of:
        problem = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}}
        found[str(number)] = {"description": _PROBLEMS[number], "content": problem}
    return found


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"{_REF}{schema}"}}}


def _of_process(path: str, suffix: str) -> dict[str, Json]:
    """The paths of one process; `suffix` tells the operations of both forms apart."""
    stream, lines, array = MEDIA_TYPES
    form: Json = {
        stream: {"schema": _text("Server-Sent Events; the data of each is an Item.")},
        lines: {"schema": _text("An Item a line.")},
        array: {"schema": {"type": "array", "items": {"$ref": f"{_REF}Item"}}},
    }
    events = _answers(
        "What it says, in the form that `Accept` likes best.", form, 200, 401, 403, 404, 422, 503
    )
    events["204"] = {"description": "To an EventSource that comes back: the run is over."}
    found: dict[str, Json] = {
        path: {
            "get": {
                "operationId": f"record{suffix}",
                "summary": "What the registry says of it.",
                "responses": _answers("Its record.", _json("Process"), 200, 401, 403, 404, 503),
            }
        },
        f"{path}/events": {
            "get": {
                "operationId": f"events{suffix}",
                "summary": "What it says, from the first event of its latest run, live, until that ends.",
                "parameters": _EVENTS,
                "responses": events,
            }
        },
    }
    for verb in VERBS:
        found[f"{path}/{verb}"] = {"post": _post(verb, suffix)}
    return found


def _post(verb: str, suffix: str) -> Json:
    body = BODIES[verb]
    said, status = {"send": ("Sent", 202), "request": ("Reply", 200)}.get(verb, ("Receipt", 200))
    answers = _answers("What came of it.", _json(said), status, *_PROBLEMS)
    other = {"send": "200", "request": ""}.get(verb, "202")
    if other:
        about = "The process has taken it." if verb == "send" else "Accepted, and not yet seen to be done."
        answers[other] = {"description": about, "content": _json(said)}
    return {
        "operationId": f"{verb}{suffix}",
        "summary": (body.__doc__ or "").strip(),
        "requestBody": {
            "required": verb in ("send", "request", "answer"),
            "content": _json(_schema_of(verb)),
        },
        "responses": answers,
    }


def _schema_of(verb: str) -> str:
    return str(BODIES[verb].model_config["title"])


@cache
def _whole() -> Json:
    schemas = dict(_SCHEMAS)
    for verb, body in BODIES.items():
        schemas[_schema_of(verb)] = TypeAdapter(body).json_schema()
    lists = _answers("What the asker may see.", _json("Processes"), 200, 401, 403, 422, 503)
    paths = {
        "/": {
            "get": {"operationId": "list", "summary": "What runs.", "parameters": _LISTED, "responses": lists}
        },
        **{path: {**item, "parameters": [_name("id")]} for path, item in _of_process("/{id}", "").items()},
        **{
            path: {**item, "parameters": [_name("namespace"), _name("id")]}
            for path, item in _of_process("/{namespace}/{id}", "InNamespace").items()
        },
    }
    from natsproc import __version__

    return {
        "openapi": "3.1.0",
        "info": {"title": "natsproc", "version": __version__, "description": "An address for every process."},
        "paths": paths,
        "components": {"schemas": schemas},
    }


async def described(request: Request, send: Send) -> None:
    """Answer `GET …/openapi.json`; it is the same for all, and says nothing of what runs."""
    root = str(request.scope.get("root_path", "")).rstrip("/")
    await responses.reply(send, _whole() | {"servers": [{"url": root or "/"}]}, head=request.method == "HEAD")
