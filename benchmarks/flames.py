"""Flame graphs of a writer and a viewer of natsproc at full speed, by py-spy: `python -m benchmarks.flames`.

Both are sampled where they run, with all their threads, into benchmarks/results/flame-emit.svg and flame-watch.svg.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from .children import Child, child
from .servers import BIN, Pool

RESULTS = Path(__file__).parent / "results"
SECONDS = 6


def sampled(process: Child, name: str) -> subprocess.Popen[bytes]:
    """Sample a child that runs, for as long as the writer writes."""
    into = RESULTS / f"flame-{name}.svg"
    how = [
        "--nonblocking",
        "--threads",
        "--rate",
        "200",
        "--duration",
        str(SECONDS),
        "--format",
        "flamegraph",
    ]
    return subprocess.Popen([BIN / "py-spy", "record", *how, "-o", into, "--pid", str(process.pid)])


async def main() -> None:
    pool = Pool()
    try:
        url = (await pool.get("nats")).url
        about = {"peer": "ours", "url": url, "id": "flames"}
        async with (
            child("roles:stream", **about, rate=0, seconds=SECONDS + 3) as writer,
            child("roles:view", **about) as viewer,
        ):
            await writer.hear()
            await viewer.hear()
            writer.say(go=True)
            samplers = [sampled(writer, "emit"), sampled(viewer, "watch")]
            await writer.hear(120)
            await viewer.hear(120)
            for sampler in samplers:
                await asyncio.to_thread(sampler.wait, 60)
        for path in RESULTS.glob("flame-*.svg"):  # py-spy writes its own command line into the title
            text = path.read_text()
            path.write_text(re.sub(r"[^<>]*py-spy[^<]*", path.stem, text))
    finally:
        pool.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
