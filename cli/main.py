"""The `natsproc` command. It imports the module of the command that was asked for, and no other."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from natsproc_cli import exits

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Run and find": {
        "run": "Run a command under an address.",
        "ps": "List the processes of the mesh.",
        "inspect": "Show all that is known of a process.",
    },
    "Watch": {
        "tail": "Show a process's events, from its first, live, until it ends.",
        "logs": "Show the events stored so far.",
        "play": "Replay a run with its timing.",
        "export": "Write a run to a file: for terminal players, or as JSON lines.",
        "attach": "Watch a process and type to it.",
        "wait": "Wait for a process to end, and exit with its code.",
    },
    "Steer": {
        "send": "Leave a message in a process's inbox, or text for a command's stdin.",
        "request": "Ask a process something, and print its reply.",
        "answer": "Answer what a process asks.",
        "interrupt": "Stop what a process does now, as Ctrl-C does, and say what to do instead.",
        "pause": "Stop a process where it is.",
        "resume": "Let a paused process go on.",
        "cancel": "Ask a process to end, and make it after a grace time.",
        "kill": "End a process at once.",
    },
    "In a browser": {
        "console": "Open a page that shows what runs, watches and steers it.",
        "share": "Print a link, and a QR code, by which somebody may watch one process.",
    },
    "Access": {
        "grant": "Give out a credential: who may watch, send, control or own what.",
        "grants": "List what was granted, and what was revoked.",
        "revoke": "End a credential at once.",
    },
    "From inside a process": {
        "emit": "Write an event to the log of the process that this runs in.",
        "receive": "Take the next message from the inbox of the process that this runs in.",
        "reply": "Reply to a message that was received.",
        "ask": "Ask people something, and print the answer.",
    },
    "Server": {
        "up": "Start the embedded nats-server.",
        "down": "Stop the embedded nats-server.",
        "status": "Say whether the embedded nats-server runs, and where.",
        "doctor": "Check server, version, rights, disk, streams and clock.",
        "invite": "Print a line by which another machine joins this server's mesh.",
        "join": "Join the mesh of another machine, by such a line.",
        "leave": "Forget the mesh that was joined.",
        "setup": "Make the mesh's streams and buckets on a server of yours.",
        "prune": "Forget what has ended.",
        "gate": "Carry out what narrow credentials ask.",
        "serve-http": "Serve the mesh over HTTP, with Server-Sent Events.",
    },
    "Help": {
        "cheat": "Print runnable examples.",
    },
}
"""One line a command, so that `--help` need not import them. Each is `natsproc_cli.NAME`, function NAME."""


def _function(name: str) -> Any:
    module = name.replace("-", "_")
    return getattr(import_module(f"natsproc_cli.{module}"), module)


class _Commands(MutableMapping[str, Any]):
    """The commands by name, imported when they are looked up."""

    _names: Final = tuple(name for section in SECTIONS.values() for name in section)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        function = _function(name)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        settings = {"allow_interspersed_args": False} if name == "run" else {}
        app.command(name, context_settings=settings)(function)
        return typer.main.get_command(app)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __setitem__(self, name: str, command: Any) -> None:
        raise TypeError("commands are named in SECTIONS")

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are named in SECTIONS")


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": _Commands()})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        widest = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{widest}}", help) for name, help in commands.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(exits.report(error, ctx.invoked_subcommand or "")) from error


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"natsproc {version('natsproc')}")
        raise typer.Exit


def natsproc(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An address for every running process: watch, question, interrupt and redirect it over NATS."""


def build() -> Any:
    """Make the command group, without importing any command."""
    app = typer.Typer(cls=_Group, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(cls=_Group, context_settings={"help_option_names": ["--help", "-h"]})(natsproc)
    return typer.main.get_command(app)


def _prepare_streams() -> None:
    """Make sure that there is a stdout and a stderr, and that no character is too much for them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, as with >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _prepare_streams()
    try:
        code = build().main(
            args=arguments or sys.argv[1:] or ["--help"], prog_name="natsproc", standalone_mode=False
        )
    except exits.UsageError as error:  # of the group itself; a command's are told in _Group.invoke
        return exits.report(error, "")
    code = exits.flushed(code if isinstance(code, int) else 0)
    gc.freeze()  # or the interpreter goes through all that there is once more, as it exits
    return code
