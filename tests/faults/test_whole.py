"""The promise on the front page, with nothing but the command: the server killed under a running tail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

NATSPROC = str(Path(sys.executable).parent / "natsproc")
LINES = 8000
# a thousand numbered lines a second, and which nothing else paces
PROGRAM = f"""
import sys, time
start = time.monotonic()
for number in range(1, {LINES} + 1):
    print("line", number, flush=True)
    time.sleep(max(0, start + number / 1000 - time.monotonic()))
"""


@pytest.fixture
def environment(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "NATSPROC_"))}
    environment["NATSPROC_HOME"] = str(tmp_path / "home")
    yield environment
    subprocess.run([NATSPROC, "down"], env=environment, capture_output=True, check=False)


def test_every_line_is_shown_once_in_order_while_the_server_is_killed(environment):
    def call(*arguments):
        return subprocess.run(
            [NATSPROC, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    call("up")
    kills = []

    def kill_now_and_then():
        while job.poll() is None and len(kills) < 3:
            time.sleep(1.5)
            pid = json.loads(call("status", "-o", "json"))["pid"]
            os.kill(pid, signal.SIGKILL)
            kills.append(pid)

    job = subprocess.Popen(
        [NATSPROC, "run", "--id", "lines", "--", sys.executable, "-c", PROGRAM],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert job.stdout.readline() == "line 1\n"
        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        tail = subprocess.Popen(
            [NATSPROC, "tail", "-o", "json", "lines"], env=environment, stdout=subprocess.PIPE, text=True
        )
        echoed = job.stdout.read()
        job.wait(30)
        shown, _ = tail.communicate(timeout=60)
        killer.join()
    finally:
        job.kill()
        job.wait()
    expected = [f"line {number}" for number in range(1, LINES + 1)]
    assert len(set(kills)) == 3
    assert echoed.splitlines() == expected[1:]
    items = [json.loads(line) for line in shown.splitlines()]
    text = "".join(item["data"]["text"] for item in items if item["type"] == "output")
    assert text.splitlines() == expected
    offsets = [item["offset"] for item in items if "offset" in item]
    assert offsets == list(range(1, len(offsets) + 1))
    assert items[-1]["type"] == "ended"
    assert (job.returncode, tail.returncode) == (0, 0)
    assert call("logs", "lines").count("line ") >= LINES
