"""Messages from a terminal: waiting until they are taken, asking and replying."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, cli_with_server
from harness import wait_for


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder: Path = tmp_path_factory.mktemp("ask")
    with cli_with_server(folder) as (cli, _):
        yield cli


def test_send_waits_and_request_prints_the_reply(cli: Cli) -> None:
    body = """
    await proc.reply(message := await proc.receive(), {"got": message.data})
    await proc.reply(await proc.receive(), "as it is")
    await proc.receive()
    await proc.receive()
    """
    with cli.owner(body, "clerk") as clerk:
        assert cli.ok("request", "clerk", "hello", "--timeout", "20s") == '{"got":"hello"}\n'
        assert cli.ok("request", "clerk", "again", "--timeout", "20s") == "as it is\n"
        line = cli.ok("send", "clerk", "x", "--wait", "--timeout", "20s")
        assert re.fullmatch(r"clerk: took message \w+ \(event 6\)\n", line)
        (taken,) = cli.json("send", "clerk", "x", "--wait", "--timeout", "20s")
        assert (taken["offset"], taken["when"]) == (7, "idle")
        clerk.wait(20)
    assert cli("send", "clerk", "x", "--wait").returncode == 5
    assert cli("send", "clerk", "x", "--timeout", "1s").returncode == 2


def test_what_nobody_takes_times_out_or_is_told_of_the_end(cli: Cli) -> None:
    with cli.owner("await asyncio.sleep(60)", "deaf"):
        for arguments in (["request", "deaf", "anybody?"], ["send", "deaf", "x", "--wait"]):
            done = cli(*arguments, "--timeout", "300ms")
            assert (done.returncode, done.stdout) == (124, "")
            assert re.match(r"natsproc: deaf has not (replied to|taken) message", done.stderr)
        with cli.started("request", "deaf", "x") as asked, cli.started("send", "deaf", "x", "--wait") as sent:
            wait_for(lambda: cli.json("inspect", "deaf")[0]["inbox"] == 4, 20, "all messages in the inbox")
            cli.ok("kill", "deaf")
            assert (asked.wait(20), sent.wait(20)) == (5, 5)
            assert b"ended (killed) without replying to message" in asked.stderr.read()
            assert b"ended (killed) without taking message" in sent.stderr.read()


def test_a_script_replies_to_what_it_received(cli: Cli) -> None:
    script = """
    natsproc receive; natsproc reply first
    id=$(natsproc receive -o json | sed 's/.*"id":"//; s/".*//')
    natsproc receive; natsproc reply --to $id --json '{"to": 2}'
    natsproc reply --to nobody x; echo code $?
    """
    with cli.started("run", "--id", "shell", "--receive", "--", "sh", "-c", script) as shell:
        wait_for(lambda: "shell" in cli.ok("ps", "-o", "id").split(), 20, "shell has started")
        assert cli.ok("request", "shell", "1", "--timeout", "20s") == "first\n"
        with cli.started("request", "shell", "2", "--timeout", "20s") as asked:
            received = lambda: cli.ok("logs", "shell", "--type", "received").count("\n") == 2  # noqa: E731
            wait_for(received, 20, "the second message")
            cli.ok("send", "shell", "3")
            assert asked.stdout
            assert asked.stdout.read() == b'{"to":2}\n'
        assert shell.wait(20) == 0
        assert shell.stdout
        assert shell.stdout.read().endswith(b"code 2\n")
