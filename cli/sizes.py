"""Sizes as people write them: `10GB`, `512MiB`, `64k`, or plain bytes."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?")
_MOST = 2**63 - 1


def parse_size(text: str) -> int:
    """Read `10GB` (thousands), `512MiB` (1024s), `64k` or plain bytes, as bytes.

    Raises: ValueError, with a sentence for the reader.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    size = float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ") if found else -1
    if not 0 <= size <= _MOST:
        raise ValueError(f"{text!r} is not a size: write 10GB, 512MiB, or plain bytes")
    return int(size)


def format_size(size: float) -> str:
    """Write a number of bytes in one unit, as in `512 B`, `1.5 MB` or `10 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
