"""Questions from a terminal and a shell script: asking, finding what waits, answering."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, cli_with_server
from harness import wait_for

DEPLOY = """
import subprocess, sys
for arguments in (["Deploy it?", "--choices", "yes, no, later"], ["Why?"], ["Still?", "--timeout", "100ms"]):
    done = subprocess.run(["natsproc", "ask", *arguments], stdout=subprocess.PIPE, text=True)
    print(done.returncode, done.stdout.strip(), flush=True)
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder: Path = tmp_path_factory.mktemp("asking")
    with cli_with_server(folder) as (cli, _):
        yield cli


def waiting(cli: Cli, question: str) -> None:
    wait_for(lambda: question in cli.ok("ps", "--waiting"), 30, f"{question} is asked")


def test_a_script_asks_and_goes_by_the_answer(cli: Cli) -> None:
    cli.ok("run", "--detach", "--id", "deploy", "--", "python", "-c", DEPLOY)
    cli.ok("run", "--detach", "--id", "busy", "--", "sleep", "60")
    waiting(cli, "Deploy it?")
    table = cli.ok("ps", "--waiting").splitlines()
    assert len(table) == 2
    assert re.match(r"deploy +waiting .* Deploy it\? \[yes/no/later\]$", table[1])
    assert cli.ok("ps", "--waiting", "-o", "id") == "deploy\n"
    wrong = cli("answer", "deploy", "perhaps")
    assert wrong.returncode == 5
    assert "refused: 'perhaps' is not among the choices: yes, no, later" in wrong.stderr
    (record,) = [json.loads(line) for line in cli.ok("ps", "--waiting", "-o", "json").splitlines()]
    (asked,) = record["asks"]
    assert cli.ok("answer", "deploy", "no").startswith("deploy: answer applied (event ")
    waiting(cli, "Why?")
    late = cli("answer", "deploy", asked["ask"], "yes")
    assert (late.returncode, "has answered 'Deploy it?' already: no" in late.stderr) == (5, True)
    assert cli("answer", "deploy", "not", "a", "good", "day").returncode == 2
    assert cli.ok("answer", "deploy", "not a good day").startswith("deploy: answer applied")
    assert cli.ok("wait", "deploy") == ""
    outputs = [e["data"] for e in cli.json("logs", "deploy", "--type", "output") if "offset" in e]
    assert "".join(d["text"] for d in outputs if d["stream"] == "stdout") == "1 no\n0 not a good day\n124 \n"
    said = cli.ok("logs", "deploy")
    assert re.search(r"asked +Deploy it\? \[yes/no/later\]\n", said)
    assert re.search(r"answered +by \w+ \(unverified\): no\n", said)
    assert re.search(r"answered +by nobody: it timed out\n", said)
    assert cli.ok("ps", "--waiting", "-o", "id") == ""
    cli.ok("kill", "busy")


def test_ctrl_c_takes_the_question_of_a_script_back(cli: Cli) -> None:
    ask = "natsproc ask Sure? --choices yes,no; echo $?"
    with cli.started("run", "--id", "asks", "--", "bash", "-c", f"trap : INT; {ask}") as run:
        waiting(cli, "Sure?")
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 0
        assert run.stdout.read() == b"130\n"
    assert re.search(r"answered +by nobody: it was taken back\n", cli.ok("logs", "asks"))


def test_a_script_whose_machine_is_lost_gets_the_answer_when_it_runs_again(cli: Cli) -> None:
    run = ["run", "--id", "lost", "--", "natsproc", "ask", "Deploy?", "--choices", "yes,no"]
    with cli.started(*run) as first:
        waiting(cli, "Deploy?")
        first.kill()
        first.wait(20)
        wait_for(lambda: "unreachable" in cli.ok("ps", "--waiting"), 30, "its owner is gone")
    assert "held" in cli.ok("answer", "lost", "no", "--hold", "10m")
    with cli.started(*run) as second:
        assert second.wait(30) == 1
        assert second.stdout.read() == b"no\n"
    kinds = [
        e["type"] for e in cli.json("logs", "--run", "all", "lost") if e["type"] in ("asked", "answered")
    ]
    assert kinds == ["asked", "answered", "asked"]


def test_who_watches_is_told_how_to_answer(cli: Cli) -> None:
    body = 'await proc.log("here");  print(await proc.ask("Go on?", ["yes", "no"]));  await proc.ask("Name?")'
    with cli.owner(body, "watched"), cli.terminal("tail", "watched") as screen:
        screen.expect(r"asked +.*Go on\? \[yes/no\]")
        screen.expect(r"natsproc: watched waits for an answer: natsproc answer watched (\w+) yes\|no")
        ask = screen.match[1]
        cli.ok("answer", "watched", ask, "yes")
        screen.expect(r"answered +.*by \w+ \(unverified\): yes")
        screen.expect(r"natsproc: watched waits for an answer: natsproc answer watched (\w+) ANSWER")
        with cli.terminal("tail", "watched") as later:
            later.expect("natsproc: watched waits for an answer: natsproc answer watched " + screen.match[1])
            assert ask + " yes" not in later.before
        cli.ok("answer", "watched", "Ada")
        screen.expect("exited")


def test_asking_needs_a_process(cli: Cli) -> None:
    outside = cli("ask", "Anybody?")
    assert outside.returncode == 125
    assert "does not run under natsproc" in outside.stderr
    assert cli("answer", "nobody", "yes").returncode == 3
