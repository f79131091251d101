"""The command line on a terminal: colours, redrawing, Ctrl-C, typing, and detaching."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pexpect
import pyte
import pytest
from cli_harness import Cli, cli_with_server, exit_code
from harness import Server, wait_for

from natsproc.command.screen import _Emulator as Emulator

BUSY = """
await proc.log("begin")
await proc.output("\\x1b[32mgreen\\x1b[0m \\x1b]0;title\\x07\\x1b[6nend\\n")
for number in range(1, 4):
    await proc.progress(number, 3)
while True:
    message = await proc.receive()
    await proc.output(f"got {message.data}\\n")
    if message.data == "end":
        return
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Server]]:
    with cli_with_server(tmp_path_factory.mktemp("terminal")) as both:
        yield both


@pytest.fixture(scope="module")
def cli(running: tuple[Cli, Server]) -> Cli:
    return running[0]


@pytest.fixture(scope="module")
def busy(cli: Cli) -> Iterator[str]:
    """A process that has said something of each kind, and waits."""
    with cli.owner(BUSY, "busy", labels={"a": "b"}):
        cli.log_has("busy", "progress")
        yield "busy"


def test_a_terminal_gets_colours_and_one_line_of_progress(cli: Cli, busy: str) -> None:
    with cli.terminal("tail", busy) as tail:
        tail.expect("3/3")
        shown = tail.before
        assert "\x1b[2m" in shown  # dimmed
        assert shown.count("\r\x1b[K") == 2
        assert "\x1b[32mgreen\x1b[0m" in shown


def test_a_program_cannot_do_harm_to_the_terminal_of_who_watches(cli: Cli, busy: str) -> None:
    with cli.terminal("tail", busy) as tail:
        tail.expect("end\r\n")
        assert "title" not in tail.before
        assert "\x1b]" not in tail.before
        assert "\x1b[6n" not in tail.before


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_nor_to_the_terminal_of_who_attaches_line_by_line(cli: Cli, busy: str, kind: str) -> None:
    with cli.terminal("attach", busy, TERM=kind) as attached:
        attached.expect("end\r\n")
        assert "\x1b]" not in attached.before
        assert "\x1b[6n" not in attached.before


def test_nor_by_what_it_is_called(cli: Cli) -> None:
    cli.ok("run", "--id", "called", "--", "true", "\x9b6n")
    for arguments in (["ps", "-a"], ["inspect", "called"]):
        with cli.terminal(*arguments, "-o", "json") as shown:
            shown.expect_exact("\\u009b6n")


def test_no_color_is_honoured(cli: Cli, busy: str) -> None:
    with cli.terminal("tail", busy, "--type", "log", "--type", "progress", NO_COLOR="1") as tail:
        tail.expect("3/3")
        assert not re.search(r"\x1b\[[\d;]*m", tail.before)
    with cli.terminal("ps", NO_COLOR="1") as ps:
        ps.expect("busy")
        assert "\x1b" not in ps.before


def test_ctrl_c_leaves_the_process_alone_and_says_how_not_to(cli: Cli, busy: str) -> None:
    with cli.terminal("tail", busy) as tail:
        tail.expect("3/3")
        tail.sendintr()
        tail.expect_exact(
            "natsproc: detached from busy, which goes on; to stop it: natsproc interrupt busy\r\n"
        )
        assert exit_code(tail) == 130
    assert "running" in cli.ok("ps")


def test_ps_keeps_its_table_up_to_date(cli: Cli, busy: str) -> None:
    with cli.terminal("ps", "-w") as ps:
        ps.expect("busy.*running")
        with cli.owner(BUSY, "appearing"):
            ps.expect(r"\x1b\[2K.*appearing")
            cli.ok("pause", "appearing")
            ps.expect("appearing.*paused")
            cli.ok("kill", "appearing")
            ps.expect(r"ID ((?!appearing).)*\x1b\[2K")  # a whole table without it
        ps.sendintr()
        assert exit_code(ps) == 130


def test_ps_cuts_its_lines_to_the_width(cli: Cli, busy: str) -> None:
    with cli.terminal("ps", columns=40, NO_COLOR="1") as ps:
        ps.expect(pexpect.EOF)
        assert all(len(line) <= 40 for line in ps.before.splitlines())
        assert "…" in ps.before


def test_attach_sends_what_is_typed_line_by_line(cli: Cli) -> None:
    with cli.owner(BUSY, "typed"), cli.terminal("attach", "typed") as attached:
        attached.expect("3/3")
        attached.sendline("hello")
        attached.expect("got hello\r\n")
        attached.sendeof()
        attached.expect("no more input from here")
        cli.ok("send", "typed", "end")
        attached.expect("completed")
        assert exit_code(attached) == 0


def test_ctrl_c_detaches_from_a_process_without_a_terminal(cli: Cli, busy: str) -> None:
    with cli.terminal("attach", busy) as attached:
        attached.expect("3/3")
        attached.sendintr()
        attached.expect_exact("natsproc: detached from busy, which goes on")
        assert exit_code(attached) == 0


@pytest.fixture
def shell(cli: Cli) -> Iterator[str]:
    """A shell on a terminal of its own, whose screen shows something."""
    cli.ok("run", "--detach", "--id", "shell", "--restart", "--pty", "--", "sh", "-i")
    cli.ok("send", "shell", "PS1='<'; PS1=$PS1'$ '; echo first $((1000 + 1))")
    wait_for(lambda: "first 1001" in cli.ok("logs", "shell", "--type", "output"))
    yield "shell"
    cli("kill", "shell")


def test_attaching_to_a_terminal_repaints_it_and_every_key_goes_there(cli: Cli, shell: str) -> None:
    with cli.terminal("attach", shell) as attached:
        attached.expect("first 1001")  # from before
        attached.sendline("echo second $((2000 + 2))")
        attached.expect("second 2002")
        attached.sendline("stty size")
        attached.expect("30 100")
        attached.sendline("sleep 1000")
        attached.expect_exact("sleep 1000")
        attached.sendintr()
        attached.expect_exact("<$")
        attached.sendline("echo still $((3000 + 3))")
        attached.expect("still 3003")
        attached.sendline("exit 7")
        assert exit_code(attached) == 7
    assert cli("wait", shell).returncode == 7


def test_keys_detach_from_a_terminal_without_harm(cli: Cli, shell: str) -> None:
    with cli.terminal("attach", shell) as attached:
        attached.expect("first 1001")
        attached.send("\x10\x11")
        attached.expect_exact("natsproc: detached from shell, which goes on")
        assert exit_code(attached) == 0
    with cli.terminal("attach", "--detach-keys", "ctrl-a,d", shell) as attached:
        attached.expect("first 1001")
        attached.send("\x10\x11\x01d")
        attached.expect_exact("natsproc: detached from shell")
        assert exit_code(attached) == 0
    assert "running" in cli.ok("ps")


def test_a_terminal_is_itself_again_after_attaching(cli: Cli, shell: str) -> None:
    script = f"natsproc attach {shell}; stty -a | grep -o '[-]*icanon'"
    child = pexpect.spawn("sh", ["-c", script], env=cli.env, timeout=30, encoding="utf-8")
    try:
        child.expect("first 1001")
        child.send("\x10\x11")
        child.expect(r"\r\nicanon\r\n")
    finally:
        child.close(force=True)


@pytest.mark.parametrize(("enter", "row"), [("", 28), ("\\033[?1049h", 4)])
def test_what_comes_after_attaching_is_below_what_was_drawn(cli: Cli, enter: str, row: int) -> None:
    id = f"drawn-{row}"
    script = f"printf '{enter}\\033[2J\\033[Hone\\r\\ntwo\\r\\nthree\\033[H'; exec sleep 1000"
    cli.ok("run", "--detach", "--id", id, "--pty", "--", "sh", "-c", script)
    cli.log_has(id, "output")
    screen = Emulator(100, 30)
    stream = pyte.Stream(screen)
    stream.feed("\r\n" * 3)
    with cli.terminal("attach", id) as attached:
        attached.expect("three")
        stream.feed(attached.before + attached.after)
        attached.send("\x10\x11")
        attached.expect(pexpect.EOF)
        stream.feed(attached.before)
    cli.ok("kill", id)
    lines = [text.rstrip() for text in screen.display]
    assert [y for y, text in enumerate(lines) if text.startswith("natsproc: detached")] == [row]
    assert lines[0] == ("" if enter else "three")  # the two lines above it have scrolled away


def test_keys_typed_while_cut_off_are_dropped(running: tuple[Cli, Server], shell: str) -> None:
    cli, server = running
    with cli.terminal("attach", shell) as attached:
        attached.expect("first 1001")
        server.kill()
        attached.expect_exact("natsproc: cut off from nats://")
        wait_for(lambda: bell(attached), 30, "a bell")
        server.start()
        attached.expect_exact("natsproc: connected again")
        wait_for(lambda: cli("send", shell, "echo back $((4000 + 4))").returncode == 0, 30)
        attached.expect("back 4004")
        assert "lost" not in attached.before
        attached.sendline("echo typed $((5000 + 5))")
        attached.expect("typed 5005")
        attached.send("\x10\x11")
        assert exit_code(attached) == 0
    assert "lost" not in cli.ok("logs", shell, "--type", "output")


def bell(attached: pexpect.spawn) -> bool:
    """Type while cut off; true once that was answered by a bell."""
    attached.send("lost")
    return attached.expect(["\a", pexpect.TIMEOUT], timeout=0.2) == 0


def test_a_foreground_command_on_a_terminal_gets_its_keys(cli: Cli) -> None:
    with cli.terminal(
        "run", "-it", "--id", "front", "--", "sh", "-c", "read line; echo got $line; exit 5"
    ) as run:
        wait_for(lambda: "front" in cli.ok("ps", "-o", "id").split())
        run.sendline("typed")
        run.expect("got typed")
        assert exit_code(run) == 5


def test_a_foreground_command_without_an_id_says_it(cli: Cli) -> None:
    with cli.terminal("run", "--", "true") as run:
        run.expect(r"natsproc: running as true-\w{10}\r\n")
        assert exit_code(run) == 0


def test_ctrl_c_on_a_terminal_interrupts_the_foreground_command(cli: Cli) -> None:
    with cli.terminal(
        "run", "--id", "stoppable", "--", "sh", "-c", "trap 'exit 6' INT; echo up; sleep 1000 & wait"
    ) as run:
        run.expect("up")
        run.sendintr()
        assert exit_code(run) == 6
    assert cli("wait", "stoppable").returncode == 6


def test_ctrl_z_pauses_the_foreground_command_and_says_how_to_go_on(cli: Cli) -> None:
    with cli.terminal("run", "--id", "halted", "--", "sh", "-c", "echo up; exec cat") as run:
        run.expect("up")
        run.send("\x1a")
        run.expect_exact("natsproc: pausing it; to go on: Ctrl-Z again, or natsproc resume halted\r\n")
        wait_for(lambda: "paused" in cli.ok("ps"))
        run.send("\x1a")
        cli.log_has("halted", "resumed")
        cli.ok("cancel", "halted")
        assert exit_code(run) == 143


def test_closing_the_terminal_cancels_the_foreground_command(cli: Cli) -> None:
    with cli.terminal("run", "--id", "hung-up", "--", "sh", "-c", "echo up; sleep 1000") as run:
        run.expect("up")
        run.ptyproc.fileobj.close()  # as when its window is closed
        assert cli("wait", "hung-up", "--timeout", "30s").returncode == 128 + signal.SIGTERM
