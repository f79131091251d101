"""`make demo`: a real job and a shell command under an address, driven from a second client. Under a minute.

Everything that it shows happens for real: the job is examples/train.py in an OS process of its own, and this
one finds it by id alone.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import natsproc

HERE = Path(__file__).resolve().parent
NATSPROC = Path(sys.executable).parent / "natsproc"
COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS else text


def say(text: str) -> None:
    """What this client does."""
    print(paint(f"\n▶ {text}", "1;36"), flush=True)


def show(item: natsproc.Event | natsproc.Notice) -> None:
    """What the process says."""
    if isinstance(item, natsproc.Notice):
        print(paint(f"          · {item.type}", "2"), flush=True)
        return
    data = item.data if isinstance(item.data, dict) else {}
    match item.type:
        case "progress":
            filled = int(24 * data["done"] / data["total"])
            text = f"{'█' * filled}{'░' * (24 - filled)} {data['done']:>3}/{data['total']} {data.get('text', '')}"
        case "metric":
            text = "  ".join(f"{name} {value}" for name, value in data.items())
        case "output" | "log":
            text = data.get("text", "").rstrip("\n")
        case _:
            text = "  ".join(
                f"{name}={value}"
                for name, value in data.items()
                if name not in ("command", "position", "title")
            )
    for line in text.split("\n") or [""]:
        print(f"{paint(f'{item.offset:>8}', '2')}  {paint(f'{item.type:<12}', '33')} {line}", flush=True)


class Watcher:
    """Tails a process, shows some of what it says, and lets the story wait for something to happen."""

    def __init__(self, handle: natsproc.ProcessHandle) -> None:
        self.handle = handle
        self.seen: list[natsproc.Event] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        progress = 0
        async for item in self.handle.tail():
            if isinstance(item, natsproc.Event):
                async with self._changed:
                    self.seen.append(item)
                    self._changed.notify_all()
                if item.type in ("progress", "metric"):
                    progress += 1
                    if progress % 24 > 1:  # a pair of them now and then is enough to see
                        continue
            show(item)

    async def until(self, what: str, found) -> natsproc.Event:  # type: ignore[no-untyped-def]
        """Wait for an event after everything seen so far."""
        seen = len(self.seen)
        async with asyncio.timeout(40), self._changed:
            while True:
                for event in self.seen[seen:]:
                    if found(event):
                        return event
                seen = len(self.seen)
                if self._task.done():
                    raise RuntimeError(f"the process ended before: {what}")
                await self._changed.wait()

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, 40)


def receipt(answer: natsproc.Receipt) -> None:
    text = f"receipt: {answer.verb} {answer.status}, recorded at offset {answer.offset} as sent by {answer.sender}"
    print(paint(f"          ✓ {text}", "32"), flush=True)


async def present(mesh: natsproc.Mesh, id: str) -> natsproc.ProcessHandle:
    """Wait until a process of that id is on the mesh."""
    async with asyncio.timeout(30):
        while not any(info.address.id == id for info in await mesh.list()):
            await asyncio.sleep(0.05)
    return mesh.process(id)


async def stop(job: asyncio.subprocess.Process) -> None:
    if job.returncode is None:
        job.terminate()
    await job.wait()


async def training(mesh: natsproc.Mesh) -> None:
    say("start a training job in an OS process of its own:  python examples/train.py demo-train")
    job = await asyncio.create_subprocess_exec(sys.executable, HERE / "train.py", "demo-train")
    try:
        handle = await present(mesh, "demo-train")
        say("tail it from its first event, by its id alone:  natsproc tail demo-train")
        watcher = Watcher(handle)
        await watcher.until("progress", lambda e: e.type == "progress" and e.data["done"] >= 20)

        say("send it work:  natsproc send demo-train --json '{\"learning_rate\": 0.001}'")
        sent = await handle.send({"learning_rate": 0.001})
        print(paint(f"          ✓ stored in its inbox at position {sent.position}", "32"))
        await watcher.until(
            "new learning rate", lambda e: e.type == "metric" and e.data["learning_rate"] == 0.001
        )

        say("pause it, and look whether it says anything for a second")
        receipt(await handle.pause())
        before = len(watcher.seen)
        await asyncio.sleep(1)
        print(f"          {len(watcher.seen) - before} events while paused")
        receipt(await handle.resume())

        say("redirect it: stop this model, train a neural network instead")
        receipt(await handle.interrupt({"model": "mlp"}, reason="the linear one will not get better"))
        better = await watcher.until(
            "a better model", lambda e: e.type == "metric" and e.data["accuracy"] > 0.97
        )
        print(f"          accuracy {better.data['accuracy']} at offset {better.offset}")

        say("that is good enough: interrupt it")
        receipt(await handle.interrupt(reason="good enough"))
        end = await handle.wait(timeout=20)
        await watcher.ended()
        print(
            f"          run {end.run} ended {end.status} ({end.code}); {len(watcher.seen)} events, each seen once"
        )
    finally:
        await stop(job)


SHELL = r"""
trap 'echo "interrupted; what now?"; read -r next' INT
echo "counting lines of $1"
read -r word
echo "you said: $word"
n=0
while [ -z "$next" ]; do
  n=$((n + 1)); [ $((n % 5)) -eq 0 ] && echo "tick $n"; sleep 0.1
done
echo "doing this instead: $next"
wc -l <"$1"
exit 3
"""


async def command(mesh: natsproc.Mesh) -> None:
    say("the same for a plain shell command:  natsproc run --id demo-shell -- bash -c '…'")
    argv = ["run", "--id", "demo-shell", "--", "bash", "-c", SHELL, "bash", os.fspath(HERE / "train.py")]
    wrapped = await asyncio.create_subprocess_exec(NATSPROC, *argv, stdout=asyncio.subprocess.DEVNULL)
    try:
        handle = await present(mesh, "demo-shell")
        watcher = Watcher(handle)
        await watcher.until("its first line", lambda e: e.type == "output" and "counting" in e.data["text"])
        say("its stdin is its inbox:  natsproc send demo-shell hello")
        await handle.send("hello")
        await watcher.until("a tick", lambda e: e.type == "output" and "tick" in e.data["text"])
        say("Ctrl-C from afar, and what to do instead:  natsproc interrupt demo-shell -m 'count them'")
        receipt(await handle.interrupt("count them"))
        end = await handle.wait(timeout=20)
        await watcher.ended()
        print(
            f"          it ended with exit code {end.code}, and so did natsproc run: {await wrapped.wait()}"
        )
    finally:
        await stop(wrapped)


async def main() -> None:
    say("start a nats-server in the background, for this demo alone")
    async with natsproc.connect(start=True) as mesh:
        print(f"          {mesh.url}, connected as {mesh.sender}")
        await training(mesh)
        await command(mesh)
        say("what ran here:  natsproc ps -a")
        for info in await mesh.list(ended=True):
            print(
                f"          {info.address!s:<14} {info.record.kind:<8} {info.state:<12} exit code {info.record.code}"
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="natsproc-demo-") as home:
        os.environ["NATSPROC_HOME"] = home
        for name in ("NATS_URL", "NATSPROC_ADDRESS", "NATSPROC_SOCKET"):
            os.environ.pop(name, None)
        try:
            asyncio.run(main())
        except natsproc.Error as error:
            sys.exit(f"natsproc: {error}")
        finally:
            subprocess.run(
                [Path(sys.executable).parent / "natsproc", "down"], stderr=subprocess.DEVNULL, check=False
            )
    print(paint("\nThat was all real. Next: README.md, and `natsproc --help`.", "1"))
