"""What the README and examples/ show is run, as a person would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

NATSPROC = Path(sys.executable).parent / "natsproc"


@pytest.fixture
def environment(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "NATSPROC_"))}
    environment["NATSPROC_HOME"] = str(tmp_path / "home")
    yield environment
    subprocess.run([NATSPROC, "down"], env=environment, capture_output=True, check=False)


def test_the_demo_runs_to_its_end(environment):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"], env=environment, capture_output=True, text=True, timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for expected in (
        "learning rate is 0.001 now",
        "0 events while paused",
        "wants another model: mlp",
        "run 1 ended interrupted (130)",
        "you said: hello",
        "doing this instead: count them",
        "it ended with exit code 3, and so did natsproc run: 3",
    ):
        assert expected in done.stdout, done.stdout[-4000:]


def test_the_readme_s_python_runs(environment, tmp_path):
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    owner, viewer = (block.split("```")[0] for block in blocks[:2])
    program = tmp_path / "readme.py"
    asynchronous = "import asyncio\nasync def main():\n" + "".join(
        f"    {line}\n" for line in viewer.splitlines()
    )
    # the viewer of the README meets a process that has ended: its interrupt comes too late, and says so
    program.write_text(f"{owner}\n{asynchronous}\n    print(receipt.status, result)\nasyncio.run(main())\n")
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "log {'level': 'info', 'text': 'reading about nats'}" in done.stdout
    assert "too_late {'topic': 'nats'}" in done.stdout


def test_training_is_found_steered_and_read_by_the_command(environment):
    job = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "train.py", "t1"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        tail = subprocess.Popen(
            ["sh", "-c", f"until {NATSPROC} tail -o json t1 2>/dev/null; do sleep 0.1; done"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seen = []
        for line in tail.stdout:
            seen.append(json.loads(line))
            if seen[-1]["type"] == "progress" and seen[-1]["data"]["done"] == 5:
                command = [NATSPROC, "interrupt", "t1", "--reason", "enough"]
                subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
        assert job.wait(20) == 0
        assert "stopped: enough" in job.stdout.read()
        offsets = [line["offset"] for line in seen if "offset" in line]
        assert offsets == list(range(1, len(offsets) + 1))
        assert seen[-1]["type"] == "ended"
    finally:
        job.kill()
        job.wait()
