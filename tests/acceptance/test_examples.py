"""What the README and examples/ show is run, as a person would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, wait_for

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


def call(environment, *arguments, **options):
    done = subprocess.run(
        [NATSPROC, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_answer_is_stopped_midway_and_the_conversation_goes_on(environment):
    job = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "answering.py"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: "answering" in call(environment, "up") + call(environment, "ps", "-o", "id"), 30)
        tail = subprocess.Popen(
            [NATSPROC, "tail", "-o", "json", "answering"], env=environment, stdout=subprocess.PIPE, text=True
        )
        call(environment, "send", "answering", "what is a bus?")
        seen = []
        for line in tail.stdout:
            seen.append(json.loads(line))
            kinds = [item["type"] for item in seen]
            if kinds.count("token") == 5 and "interrupted" not in kinds:
                call(environment, "interrupt", "answering", "-m", "shorter, please")
            if kinds.count("text") == 2 and seen[-1]["type"] == "text":
                call(environment, "cancel", "answering")
        texts = [item["data"] for item in seen if item["type"] == "text"]
        assert len(texts[1]["text"].split()) == 5
        assert texts[0]["text"].startswith(texts[1]["text"])
        assert [item["data"]["status"] for item in seen if item["type"] == "exited"] == ["cancelled"]
        said = job.communicate(timeout=20)[1]
        assert (job.returncode, "Traceback" in said) == (143, False), said
    finally:
        job.kill()
        job.wait()


def test_a_script_speaks_and_listens_through_its_wrapper(environment):
    path = f"{NATSPROC.parent}:{environment['PATH']}"
    job = subprocess.Popen(
        [NATSPROC, "run", "--id", "inside", "--receive", "--", "sh", ROOT / "examples" / "inside.sh"],
        env=environment | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: "inside" in call(environment, "up") + call(environment, "ps", "-o", "id"), 30)
        call(environment, "send", "inside", "a name")
        assert job.communicate(timeout=60)[0] == "hello, a name\n"
        log = [json.loads(line) for line in call(environment, "logs", "-o", "json", "inside").splitlines()]
        assert [item["data"]["done"] for item in log if item["type"] == "progress"] == [1, 2, 3]
        assert [item["data"]["text"] for item in log if item["type"] == "log"] == ["I run under inside"]
        assert sum(item["type"] == "metric" for item in log) == 3
    finally:
        job.kill()
        job.wait()


def test_a_viewer_that_keeps_its_cursor_goes_on_there(environment, tmp_path):
    call(environment, "run", "--id", "seen", "--", "sh", "-c", "echo one; sleep 0.2; echo two")

    def watch():
        return subprocess.run(
            [sys.executable, ROOT / "examples" / "watch.py", "seen"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    assert [line.split()[0] for line in watch().splitlines()] == [
        "started", "output", "output", "exited", "caught_up", "ended",
    ]  # fmt: skip
    assert [line.split()[0] for line in watch().splitlines()] == ["caught_up", "ended"]
