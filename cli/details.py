"""What `inspect` found, as indented lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from natsproc_cli.describe import value
from natsproc_cli.terminal import one_line, plain

WIDTH = 12


def lines(found: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """One line a value; nested ones below their name, text of several lines as it is."""
    space = "  " * indent
    for name, item in found.items():
        head = f"{space}{one_line(str(name)):<{WIDTH}}"
        if isinstance(item, Mapping) and item:
            yield head.rstrip()
            yield from lines(item, indent + 1)
        elif isinstance(item, str) and "\n" in item.strip():
            yield head.rstrip()
            yield from (f"{space}  {line}" for line in plain(item).rstrip().split("\n"))
        elif isinstance(item, list) and item and isinstance(item[0], Mapping | str):
            yield head.rstrip()
            for element in item:
                yield from (
                    lines(element, indent + 1) if isinstance(element, Mapping) else _element(element, space)
                )
        else:
            yield f"{head} {value(item) or '-'}"


def _element(item: Any, space: str) -> Iterator[str]:
    yield from (f"{space}  {line}" for line in plain(str(item)).rstrip().split("\n"))
