"""`natsproc emit`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from natsproc_cli import exits, options


def emit(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="metric, progress, log, message, or your own.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE]...", help="name=value; DONE/TOTAL for progress; text for log, message."
        ),
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="JSON", help="The event's data, instead of values.")
    ] = None,
    level: Annotated[str, typer.Option(metavar="LEVEL", help="Of a log line.")] = "info",
) -> None:
    """Write an event to the log of the process that this runs in.

    For scripts under `natsproc run`: the wrapper writes it, in order with the program's output.
    """
    if json is not None and values:
        raise exits.Usage("give the data as values or with --json, not both")
    data = options.json_value(json, "--json") if json is not None else _data(type, values or [], level)

    import natsproc

    process = natsproc.current()
    process.emit(type, data)
    process.flush()


def _data(type: str, values: list[str], level: str) -> Any:
    text = " ".join(values)
    if type == "log":
        return {"level": level, "text": text}
    if type == "message":
        return text
    if type == "progress":
        return _progress(values)
    if any("=" not in value for value in values):
        raise exits.Usage(f"{type} takes name=value, or --json; {text!r} is neither")
    data = {name: _value(value) for name, _, value in (value.partition("=") for value in values)}
    if type == "metric":
        from natsproc.speaking import metric_data

        return metric_data(data)
    return data


def _progress(values: list[str]) -> dict[str, Any]:
    numbers, *words = values or [""]
    done, slash, total = numbers.partition("/")
    try:
        data: dict[str, Any] = {"done": _number(done)} | ({"total": _number(total)} if slash else {})
    except ValueError:
        raise exits.Usage(f"progress takes DONE or DONE/TOTAL, such as 3/10, not {numbers!r}") from None
    return data | ({"text": " ".join(words)} if words else {})


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _value(text: str) -> Any:
    """A number, true, false, null or JSON where it is one; text otherwise."""
    from json import loads

    try:
        return loads(text)
    except ValueError:
        return text
