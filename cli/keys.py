"""Keys that detach: how they are written, and how they are found among the keys that are typed."""

from __future__ import annotations

from natsproc_cli import exits


def parse_keys(text: str) -> bytes:
    """Read `ctrl-p,ctrl-q` or `ctrl-a,d` as the bytes that a terminal sends for them. Raises: Usage."""
    keys = b""
    for name in text.split(","):
        word = name.strip().lower()
        if len(word) == 1 and word.isascii() and word.isprintable():
            keys += name.strip().encode()
        elif word.startswith("ctrl-") and len(word) == 6 and word[5] in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            keys += bytes([ord(word[5].upper()) & 0x1F])
        else:
            raise exits.Usage(f"{text!r} are no keys: write ctrl-p,ctrl-q, or ctrl-a,d")
    return keys


class DetachKeys:
    """Finds a sequence of keys among those that are typed. What may become the sequence is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what to pass on, and whether the sequence is complete; what was typed behind it is dropped."""
        passed = b""
        for byte in typed:
            self._held += bytes([byte])
            if self._held == self._keys:
                return passed, True
            while self._held and not self._keys.startswith(self._held):
                passed, self._held = passed + self._held[:1], self._held[1:]
        return passed, False
