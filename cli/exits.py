"""Exit codes, and the one place where an error becomes a sentence on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final

import typer

from natsproc_cli.terminal import harmless_json, plain

FAILURE: Final = 1
USAGE: Final = 2
REFUSED: Final = 5
TIMED_OUT: Final = 124
OURS: Final = 125
INTERRUPTED: Final = 130

PASS_ON: Final = frozenset({"run", "attach", "wait", "ask"})
"""Commands whose exit code is the process's own, or the answer; so every failure of natsproc is 125."""

MOST_CHOICES: Final = 100

UsageError: Final[Any] = typer.BadParameter.__base__  # typer names it nowhere that all its versions share


class Failure(Exception):
    """A failure that the command line itself finds; its text is for the reader."""

    def __init__(self, text: str, exit_code: int = FAILURE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Usage(Failure):
    """A command line that contradicts itself."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)


def remark(text: str) -> None:
    """Say something of ours on stderr, where it is told from what was asked for."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f"natsproc: {plain(text)}", file=sys.stderr, flush=True)


def report(error: BaseException, command: str) -> int:
    """Tell the reader what went wrong and return the exit code for it.

    `command` is the sub-command that failed, empty if it never came so far. Codes that a command chose
    by itself (`typer.Exit`) pass.
    """
    if isinstance(error, typer.Exit):
        return error.exit_code
    code = _tell(error)
    return OURS if command in PASS_ON else code


def _tell(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, UsageError):
        path = error.ctx.command_path if error.ctx else "natsproc"
        remark(f"{error.format_message().rstrip('.')}. Try '{path} --help'.")
        return USAGE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
        remark(f"the output cannot be written: {error.strerror}")
        return FAILURE
    if isinstance(error, Failure | _errors()):
        remark(str(error))
        return int(error.exit_code)
    remark(f"this should not have happened: {type(error).__name__}: {error}")
    traceback.print_exception(error)
    return FAILURE


def _errors() -> Any:
    from natsproc.errors import Error

    return Error


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object on a line of stdout."""
    print(json_line(record), flush=True)


def json_line(record: dict[str, Any]) -> str:
    """One JSON object as stdout may have it."""
    from natsproc.protocol.messages import encode

    line = encode(record).decode()
    return harmless_json(line) if sys.stdout.isatty() else line


@contextlib.contextmanager
def told_as_json(output: str) -> Iterator[None]:
    """With `-o json`, say a failure of ours on stdout, too, so that it is told from the process's own end."""
    try:
        yield
    except _errors() as error:
        if output == "json":
            print_failure(error)
        raise


def print_failure(error: Exception) -> None:
    """Print a failure of ours as JSON: `error` names it, and no event or end of a run has that field alone."""
    print_json({"error": type(error).__name__, "message": str(error)})


def flushed(code: int) -> int:
    """Flush stdout while a closed pipe can still be met quietly, and return the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
    return code
