"""A wrapped command in the foreground of a shell: it looks and feels as it does without natsproc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
from harness import Server, wait_for
from wrapping import Shell

from natsproc.command.run import IMPATIENCE_SECONDS


@pytest.fixture(scope="module")
def version() -> None:
    return None


@pytest.fixture
def shell(bus: Server) -> Shell:
    return Shell(bus.url)


def line(stream: Any) -> bytes:
    return bytes(stream.readline())


def test_output_is_echoed_verbatim_and_the_exit_code_passed_on(shell: Shell) -> None:
    script = r"printf 'out\r50%%\r\377\n'; printf 'err' >&2; exit 7"
    with shell.started("sh", "-c", script) as process:
        assert process.communicate(timeout=60) == (b"out\r50%\r\xff\n", b"err")
        assert process.returncode == 7


def test_a_prompt_is_echoed_at_once_and_stdin_is_the_inbox(shell: Shell) -> None:
    with shell.started(
        "sh", "-c", "printf 'Name: '; read name; echo hello $name", stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(6) == b"Name: "
        process.stdin.write(b"nobody\n")
        process.stdin.flush()
        shell.send("you")
        assert line(process.stdout) == b"hello you\n"


def test_stdin_and_its_end_are_passed_on_if_asked(shell: Shell) -> None:
    argv = shell.argv("sh", "-c", "read name; echo hello $name; cat", stdin=0)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"you\nand more", timeout=60)[0] == b"hello you\nand more"
    assert process.returncode == 0


def test_ctrl_c_is_an_interrupt_then_a_cancel_then_a_kill(shell: Shell) -> None:
    # ignores both, and says what it gets
    code = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: print(signal.Signals(number).name))
print("ready")
for _ in range(120): time.sleep(1)
"""
    with shell.started(sys.executable, "-c", code) as process:
        assert line(process.stdout) == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert line(process.stdout) == b"SIGINT\n"
        process.send_signal(signal.SIGINT)
        assert line(process.stdout) == b"SIGTERM\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137
    events = {event.type: event.data for event in shell.events()}
    assert events["interrupted"]["reason"] == "Ctrl-C"
    assert events["exited"]["status"] == "killed"


def test_ctrl_c_again_after_a_while_is_an_interrupt_again(shell: Shell) -> None:
    code = """
import signal, time
signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
print("ready")
for _ in range(120): time.sleep(1)
"""
    with shell.started(sys.executable, "-c", code) as process:
        assert line(process.stdout) == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert line(process.stdout) == b"interrupted\n"
        time.sleep(IMPATIENCE_SECONDS + 0.1)
        process.send_signal(signal.SIGINT)
        assert line(process.stdout) == b"interrupted\n"


def test_sigterm_to_natsproc_cancels_the_command(shell: Shell) -> None:
    with shell.started("sh", "-c", "echo ready; exec sleep 1000") as process:
        assert line(process.stdout) == b"ready\n"
        process.terminate()
        assert process.wait(60) == 143
    (ending,) = [event.data for event in shell.events() if event.type == "exited"]
    assert ending == {"status": "cancelled", "code": 143, "signal": 15}


def test_ctrl_backslash_reaches_the_command_and_natsproc_lives_on(shell: Shell) -> None:
    code = """
import signal
signal.signal(signal.SIGQUIT, lambda *_: (signal.signal(signal.SIGQUIT, signal.SIG_DFL), print("dumped")))
print("ready")
while True: signal.pause()
"""
    with shell.started(sys.executable, "-c", code) as process:
        assert line(process.stdout) == b"ready\n"
        process.send_signal(signal.SIGQUIT)
        assert line(process.stdout) == b"dumped\n"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(60) == 131
    (ending,) = [event.data for event in shell.events() if event.type == "exited"]
    assert ending == {"status": "failed", "code": 131, "signal": 3}


def test_ctrl_z_pauses_the_command_and_again_resumes_it(shell: Shell) -> None:
    with shell.started("sh", "-c", "echo ready; exec cat") as process:
        assert line(process.stdout) == b"ready\n"
        process.send_signal(signal.SIGTSTP)
        wait_for(lambda: "paused" in [event.type for event in shell.events(follow=False)], 60)
        assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T"
        shell.send("after")
        process.send_signal(signal.SIGTSTP)
        assert line(process.stdout) == b"after\n"
        process.terminate()
        assert process.wait(60) == 143
    pressed = [
        event.type
        for event in shell.events()
        if isinstance(event.data, dict) and event.data.get("reason") == "Ctrl-Z"
    ]
    assert pressed == ["paused", "resumed"]


def test_a_reader_that_has_had_enough_ends_the_command_as_in_a_pipeline(shell: Shell) -> None:
    with shell.started("yes") as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        process.stdout = None
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_killing_natsproc_leaves_nothing_running(shell: Shell, tmp_path: Path) -> None:
    loop = f"trap '' INT TERM HUP; touch {tmp_path}/$BASHPID; while ((SECONDS < 120)); do sleep 0.05; done"
    with shell.started("bash", "-c", f"setsid bash -c '{loop}' & {loop}") as process:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, 60)
        process.kill()
        process.wait(30)
        for file in tmp_path.iterdir():
            wait_for(lambda file=file: not Path(f"/proc/{file.name}").exists(), 30)


def test_on_a_terminal_with_a_terminal_of_its_own(shell: Shell) -> None:
    argv = shell.argv("bash", "--norc", "-i", pty=True, stdin=0)
    env = {**os.environ, "PS1": "$ ", "TERM": "xterm"}
    child = pexpect.spawn(argv[0], argv[1:], dimensions=(31, 71), env=env, timeout=60, encoding="utf-8")  # type: ignore[arg-type]
    child.expect(r"\$ ")
    child.sendline("stty size; PS1='re''ady> '")
    child.expect("31 71")
    child.expect("ready> ")
    child.setwinsize(20, 60)
    child.sendline("sleep 0.5; stty size")
    child.expect("20 60")
    child.expect("ready> ")
    child.sendline("cat")
    child.sendline("typed twice")
    child.expect("typed twice\r\n.*typed twice")
    child.send("\x03")  # a key for the terminal's foreground job, not a signal for natsproc
    child.expect("ready> ")
    child.sendline("exit 9")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9
