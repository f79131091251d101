"""Turns from a terminal: stopping the one that is meant, and messages that land at the time that is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, cli_with_server

AGENT = """
async for message in proc.inbox():
    if message.data == "bye":
        return
    try:
        async with proc.turn(message) as turn, proc.stream("answer") as answer:
            await answer.token(f"about {message.data}")
            while True:
                await asyncio.sleep(0.01)
                for more in await turn.boundary():
                    await answer.token(f", and {more.data}")
    except natsproc.Interrupted as stop:
        await proc.message(stop.partial.text)
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder: Path = tmp_path_factory.mktemp("turns")
    with cli_with_server(folder) as (cli, _):
        yield cli


def test_a_conversation_is_steered_and_stopped_turn_by_turn(cli: Cli) -> None:
    with cli.owner(AGENT, "agent") as agent:
        assert cli.ok("send", "agent", "cats", "--wait", "--timeout", "20s").startswith("agent: took message")
        line = cli.ok("send", "agent", "dogs", "--when", "next", "--wait", "--timeout", "20s")
        assert re.fullmatch(r"agent: took message \w+ \(event \d+, landed next\)\n", line)
        (turn,) = cli.json("inspect", "agent")[0]["turns"]
        assert cli.ok("interrupt", "agent", "--turn", str(turn)).startswith("agent: interrupt applied")
        late = cli("interrupt", "agent", "--turn", str(turn))
        assert (late.returncode, late.stderr) == (
            5,
            f"natsproc: agent: interrupt too late: turn {turn} is over\n",
        )
        idle = cli("interrupt", "agent")
        assert (idle.returncode, "no turn is under way" in idle.stderr) == (5, True)
        cli.ok("send", "agent", "bye")
        agent.wait(20)
    said = cli.ok("tail", "agent")
    assert re.search(rf"turn_began +turn {turn} for \w+\n", said)
    assert re.search(rf"turn_ended +turn {turn} interrupted\n", said)
    assert re.search(r"received +from \w+ \(unverified\): dogs \(next\)\n", said)
    assert re.search(r"message +about cats, and dogs\n", said)


def test_what_a_process_does_not_take_is_refused_on_the_command_line(cli: Cli) -> None:
    with cli.owner("await proc.receive()", "strict") as strict:
        assert cli("send", "strict", "x", "--when", "soon").returncode == 2
        cli.ok("send", "strict", "x", "--when", "now")
        strict.wait(20)
