"""`natsproc cheat`."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import typer

from natsproc_cli import exits


def topics() -> list[str]:
    """The names of the cheat sheets."""
    folder = files("natsproc_cli") / "cheats"
    return sorted(item.name.removesuffix(".md") for item in folder.iterdir() if item.name.endswith(".md"))


def complete_topics(incomplete: str) -> list[str]:
    return [topic for topic in topics() if topic.startswith(incomplete)]


def cheat(
    topic: Annotated[
        str | None,
        typer.Argument(help="What about; without it the topics are listed.", autocompletion=complete_topics),
    ] = None,
) -> None:
    """Print examples that can be pasted."""
    known = topics()
    if topic is None:
        print("\n".join(f"natsproc cheat {name}" for name in known))
    elif topic in known:
        print((files("natsproc_cli") / "cheats" / f"{topic}.md").read_text(encoding="utf-8"), end="")
    else:
        raise exits.Usage(f"there is no cheat sheet {topic!r}, only {', '.join(known)}")
