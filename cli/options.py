"""What the commands share: where the mesh is, how a process is named, and options of the same meaning."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from natsproc_cli import exits
from natsproc_cli.durations import parse_duration
from natsproc_cli.sizes import parse_size

if TYPE_CHECKING:
    from natsproc.client import Mesh
    from natsproc.protocol.names import Address

T = TypeVar("T")
_HANDED = "NATSPROC_TARGET"


@dataclass(frozen=True)
class Target:
    """Which mesh a command is for."""

    server: str | None = None
    creds: str | None = None
    context: str | None = None
    prefix: str | None = None
    namespace: str | None = None

    def connect(self, *, start: bool = False) -> Mesh:
        """Make the mesh's async context manager; `start` starts the embedded server if none is named."""
        url = self.server or os.environ.get("NATS_URL", "")
        unseen = self.context is not None or "NATSPROC_GRANT" in os.environ  # these name a URL, too
        _import_client(websocket=unseen or "ws://" in url or "wss://" in url)
        import natsproc

        return natsproc.connect(
            self.server,
            creds=self.creds,
            context=self.context,
            namespace="default" if self.namespace in (None, "*") else self.namespace,
            prefix=self.prefix,
            start=start,
        )

    def address(self, text: str) -> Address:
        """Read `id` or `namespace/id`. Raises: BadName."""
        from natsproc.protocol.names import Address

        return Address.parse(text, self.namespace)

    def handed_on(self) -> dict[str, str]:
        """The environment that names this mesh to another natsproc: a URL may hold a password, and arguments are for all to see."""
        return {_HANDED: json.dumps(asdict(self))}

    @classmethod
    def taken_over(cls) -> Target:
        """What `handed_on` named; it is gone from the environment, which the command inherits, afterwards."""
        return cls(**json.loads(os.environ.pop(_HANDED, "{}")))


def _import_client(websocket: bool) -> None:
    """Import the SDK, and spare the 150 ms that nats-py takes for aiohttp, which only ws:// needs."""
    if websocket or "nats" in sys.modules or "aiohttp" in sys.modules:
        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]
    try:
        import natsproc.client  # noqa: F401
    finally:
        del sys.modules["aiohttp"]


_PANEL: dict[str, Any] = {
    "server": Annotated[str | None, typer.Option(help="URL of the nats-server.", metavar="URL")],
    "creds": Annotated[str | None, typer.Option(help="Credentials file for it.", metavar="FILE")],
    "context": Annotated[str | None, typer.Option(help="A context of the nats CLI.", metavar="NAME")],
    "prefix": Annotated[
        str | None, typer.Option(help="First token of the mesh's subjects.", metavar="TOKEN")
    ],
    "namespace": Annotated[
        str | None, typer.Option("--namespace", "-N", help="Namespace of the ids.", metavar="NAME")
    ],
}


def with_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name its mesh, and pass them as `target`, its first parameter."""

    def command(**given: Any) -> Any:
        target = Target(**{name: given.pop(name) for name in _PANEL})
        return function(target, **given)

    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    mesh = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in _PANEL.items()
    ]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameter in own
    ]
    command.__signature__ = inspect.Signature([*parameters, *mesh])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*parameters, *mesh)}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C comes out as KeyboardInterrupt."""
    import asyncio

    return asyncio.run(work)


def duration(text: str) -> float:
    """A typer parser for durations."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def size(text: str) -> int:
    """A typer parser for sizes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def labels(texts: list[str] | None) -> dict[str, str]:
    """Read `key=value` labels. Raises: Usage."""
    found = dict(text.partition("=")[::2] for text in texts or ())
    for key in found:
        if not key or not all("=" in text for text in texts or ()):
            raise exits.Usage("a label is written key=value")
    return found


def json_value(text: str, what: str) -> Any:
    """Read JSON that was given on the command line. Raises: Usage."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise exits.Usage(f"{what} is not JSON: {error}") from None


def is_pattern(text: str) -> bool:
    """Whether `text` selects processes rather than naming one."""
    return "*" in text or "?" in text


def words(given: list[str] | None) -> list[str]:
    """What an option lists that may be repeated, and have commas."""
    return [word.strip() for text in given or () for word in text.split(",") if word.strip()]


def place(text: str) -> tuple[str, int]:
    """Read the HOST[:PORT] of `--at`; port 0 if there is none. Raises: Usage."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path:
        raise exits.Usage(f"--at takes HOST or HOST:PORT, not {text!r}")
    return host, port or 0


def exclusive(**given: object) -> None:
    """Refuse options that contradict each other. Raises: Usage."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False, ())]
    if len(named) > 1:
        raise exits.Usage(f"{' and '.join(named)} exclude each other")


def complete_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of what runs, for shell completion; nothing if no server answers soon."""
    from natsproc_cli.completion import ids

    return ids(Target(**{name: ctx.params.get(name) for name in _PANEL}), incomplete)


Id = Annotated[
    str, typer.Argument(metavar="ID", help="The process: id, or namespace/id.", autocompletion=complete_ids)
]
Ids = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="The processes: ids, or namespace/id.", autocompletion=complete_ids),
]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID|PATTERN]...",
        help="Processes, or a pattern such as 'build-*'.",
        autocompletion=complete_ids,
    ),
]
Output = Annotated[
    Literal["text", "json"], typer.Option("--output", "-o", help="For people, or one JSON object a line.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label; may be given several times."),
]
Timeout = Annotated[
    float | None,
    typer.Option(parser=duration, metavar="DURATION", help="Give up after this time, as in 10s or 1h30m."),
]
Keep = Annotated[
    float | None,
    typer.Option(
        parser=duration,
        metavar="DURATION",
        help="How long events, messages and ended processes are kept; 30d unless said, 0 for ever.",
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        parser=size,
        metavar="SIZE",
        help="Of all logs together; 10GB or what there is room for, 0 without a bound.",
    ),
]
MaxEvents = Annotated[
    int | None,
    typer.Option(
        "--max-events-per-process", min=0, metavar="N", help="2000000 unless said, 0 without a bound."
    ),
]


def lasting(help: str) -> Any:
    """The option that says for how long a credential is good."""
    return typer.Option("--for", parser=duration, metavar="DURATION", help=help)


Keys = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The keys to do it with; keys.json of NATSPROC_HOME unless said."),
]
PagesAt = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="HOST[:PORT]", help="Where browsers reach the pages, if not by their own address."
    ),
]
Hold = Annotated[
    float | None,
    typer.Option(
        parser=duration,
        metavar="DURATION",
        help="If nobody serves it now, keep this for whoever starts it or takes it over within that time.",
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for people; kept in the log.")]
Last = Annotated[
    int | None,
    typer.Option("--last", "-n", min=0, metavar="N", help="Begin with the last N events."),
]
Since = Annotated[
    float | None,
    typer.Option(parser=duration, metavar="DURATION", help="Begin with events this old, as in 10m."),
]
After = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on behind this event: the `cursor` of -o json.")
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events of this type; may be given several times."),
]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Only processes of this kind.")]
Run = Annotated[
    str | None, typer.Option(metavar="N|all", help="This run of the id, or all; the latest unless said.")
]
Compact = Annotated[
    bool, typer.Option("--compact", help="Show a stream of tokens as the one text that it became.")
]


def run_choice(text: str | None) -> int | Literal["all"] | None:
    """Read the value of `--run`. Raises: Usage."""
    if text is None:
        return None
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise exits.Usage(f"--run takes a number from 1, or 'all', not {text!r}")
    return int(text)
