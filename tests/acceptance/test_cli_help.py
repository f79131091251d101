"""The command line where no server is needed: help, usage, exit codes, examples, completion."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import typer
from cli_harness import NOWHERE, Cli

from natsproc_cli.cheat import topics
from natsproc_cli.main import SECTIONS, build, main

COMMANDS = [name for section in SECTIONS.values() for name in section]
HEAVY = "nats", "nkeys", "pydantic", "pydantic_core", "rich", "asyncio", "pyte", "psutil"

IMPORTED = """
import contextlib, io, json, sys
from natsproc_cli.main import main
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*command, "--help"])
    print(json.dumps([code, out.getvalue(), list(sys.modules)]))
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and none named."""
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path))
    monkeypatch.delenv("NATS_URL", raising=False)


def helps(*commands: list[str]) -> list[tuple[str, set[str]]]:
    """What `--help` of each says, and what has been imported by then, in one interpreter."""
    script = [sys.executable, "-c", IMPORTED, json.dumps(commands)]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert {code for code, _, _ in found} == {0}
    return [(text, set(modules)) for _, text, modules in found]


def test_help_lists_every_command_and_imports_none() -> None:
    ((text, modules),) = helps([])
    for name, help in ((name, help) for section in SECTIONS.values() for name, help in section.items()):
        assert re.search(rf"^  {name} +{re.escape(help.split()[0])}", text, re.MULTILINE)
    assert not modules & {f"natsproc_cli.{name}" for name in COMMANDS}
    assert not modules & set(HEAVY)


def test_help_of_a_command_imports_nothing_that_takes_long() -> None:
    for command, (text, modules) in zip(COMMANDS, helps(*([name] for name in COMMANDS)), strict=True):
        assert f"natsproc {command}" in text
        assert not modules & set(HEAVY), command


def test_without_a_command_it_says_what_there_is(cli: Cli) -> None:
    assert cli.ok() == cli.ok("--help")
    assert cli.ok("--version").startswith("natsproc ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], 2, "No such command"),
        (["tial", "x"], 2, "Did you mean 'tail'"),
        (["--nonsense"], 2, "No such option"),
        (["ps", "--nonsense"], 2, "No such option"),
        (["ps", "-o", "xml"], 2, "'xml'"),
        (["ps", "-l", "novalue"], 2, "key=value"),
        (["ps", "-w", "-o", "id"], 2, "--watch"),
        (["tail"], 2, "name a process"),
        (["tail", "a", "-n", "1", "--since", "1m"], 2, "--last and --since exclude each other"),
        (["tail", "a", "b", "--run", "1"], 2, "one process"),
        (["tail", "a", "--run", "0"], 2, "from 1"),
        (["tail", "a", "--since", "soon"], 2, "not a duration"),
        (["tail", "a.b"], 2, "cannot be a process id"),
        (["tail", "x" * 10_000], 2, "10000 characters"),
        (["send", "a"], 2, "say what to send"),
        (["send", "a", "--json", "{"], 2, "not JSON"),
        (["interrupt", "a", "--json", "-m", "{"], 2, "not JSON"),
        (["pause", "a b"], 2, "cannot be a process id"),
        (["pause", "-N", "one", "two/a"], 2, "'one' was asked for"),
        (["cheat", "nonsense"], 2, "no cheat sheet"),
        (["emit", "metric", "loss"], 2, "name=value"),
        (["emit", "metric", "loss=low"], 2, "a metric is a number"),
        (["emit", "progress", "half"], 2, "DONE/TOTAL"),
        (["wait"], 125, "Missing argument"),
        (["wait", "a b"], 125, "cannot be a process id"),
        (["attach"], 125, "Missing argument"),
        (["run"], 125, "Missing argument"),
        (["run", "--id", "a b", "--", "true"], 125, "cannot be a process id"),
        (["ps"], 4, "natsproc up"),
        (["tail", "a"], 4, "natsproc up"),
        (["send", "a", "x"], 4, "natsproc up"),
        (["pause", "a"], 4, "natsproc up"),
        (["inspect", "a"], 4, "natsproc up"),
        (["wait", "a"], 125, "natsproc up"),
        (["attach", "a"], 125, "natsproc up"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_failures_have_their_exit_code_and_say_so_on_stderr(
    nowhere: None, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("natsproc: ")
    assert says in said.err
    assert "Traceback" not in said.err


def test_json_tells_a_failure_of_ours_from_the_end_of_a_process(cli: Cli) -> None:
    done = cli("wait", "a", "-o", "json")
    assert done.returncode == 125
    assert '"error":"NoServer"' in done.stdout


def test_a_server_that_does_not_answer_is_named(cli: Cli) -> None:
    done = cli("ps", "--server", NOWHERE)
    assert done.returncode == 4
    assert NOWHERE in done.stderr


def examples() -> list[tuple[str, str]]:
    folder = Path(__file__).parents[2] / "cli" / "cheats"
    return [
        (topic, line)
        for topic in topics()
        for line in (folder / f"{topic}.md").read_text().splitlines()
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize(("topic", "line"), examples())
def test_every_example_is_a_command_line_that_exists(topic: str, line: str) -> None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<")
    lexer.whitespace_split = True
    for word, group in groupby(lexer, "|".__eq__):
        words = [] if word else list(group)
        words = words[: words.index("<")] if "<" in words else words
        if "natsproc" in words:
            name, *arguments = words[words.index("natsproc") + 1 :]
            if "xargs" in words:
                arguments.append("an-id")
            with build().commands[name].make_context(name, arguments):
                pass


def test_each_topic_is_printed(cli: Cli) -> None:
    assert cli.ok("cheat").split("\n")[:-1] == [f"natsproc cheat {topic}" for topic in topics()]
    assert "natsproc tail build" in cli.ok("cheat", "tail")


def completed(cli: Cli, *words: str) -> list[str]:
    line = ["natsproc", *words]
    env = {"COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(words)), "_NATSPROC_COMPLETE": "complete_bash"}
    return cli(**env).stdout.split()


def test_the_shell_completes_commands_options_and_topics(cli: Cli) -> None:
    assert completed(cli, "in") == ["inspect", "interrupt", "invite"]
    assert "--reason" in completed(cli, "interrupt", "--r")
    assert completed(cli, "cheat", "ta") == ["tail"]
    shown = subprocess.run(
        ["bash", "-c", "natsproc --show-completion; true"],
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "complete_bash" in shown.stdout  # for the shell that asks


def test_completing_ids_without_a_server_is_silent(cli: Cli) -> None:
    done = cli(COMP_WORDS="natsproc tail bu", COMP_CWORD="2", _NATSPROC_COMPLETE="complete_bash")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_command_that_fails_for_no_known_reason_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from natsproc_cli import exits

    assert exits.report(ValueError("oops"), "ps") == 1
    assert exits.report(ValueError("oops"), "wait") == 125
    assert exits.report(typer.Exit(17), "wait") == 17
    assert "natsproc: this should not have happened: ValueError: oops" in capsys.readouterr().err
