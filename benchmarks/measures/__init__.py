"""One file a measure; each has a SECTION."""

from importlib import import_module

from benchmarks.harness import Section

NAMES = (
    "emit", "latency", "live", "replay", "opening", "interrupt", "fanout", "cost", "cli", "reconnect", "growth",
)  # fmt: skip


def section(name: str) -> Section:
    found: Section = import_module(f"benchmarks.measures.{name}").SECTION
    return found
