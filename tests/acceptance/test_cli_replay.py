"""Runs once more: play on a terminal and piped, export as an asciicast and as JSON lines."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from cli_harness import NATSPROC, Cli, cli_with_server, exit_code

SPEAKS = """
await proc.output("\\x1b[32mgreen\\x1b[0m\\n")
await proc.log("half way", epoch=3)
async with proc.stream("answer") as answer:
    for word in ("Once ", "upon ", "a time"):
        await answer.token(word)
await asyncio.sleep({pause})
await proc.output("later\\n")
"""
DRAWS = "printf '\\033[?1049h\\033]0;title\\007\\033[6n\\033[2;3Hdrawn'; sleep 0.2; printf '\\033[?1049l'"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with cli_with_server(tmp_path_factory.mktemp("replay")) as (cli, _):
        with cli.owner(SPEAKS.format(pause=1), "quick") as process:
            process.wait(60)
        yield cli


def test_piped_it_is_what_tail_shows_in_its_own_time(cli: Cli) -> None:
    began = time.monotonic()
    played = cli.ok("play", "quick")
    assert time.monotonic() - began >= 1
    assert played == cli.ok("tail", "quick")


def test_a_terminal_shows_output_as_it_was(cli: Cli) -> None:
    with cli.terminal("play", "quick", "--speed", "max") as played:
        played.expect_exact("\x1b[32mgreen\x1b[0m\r\n")
        played.expect("half way")
        played.expect("Once upon a time")
        played.expect_exact("later\r\n")
        played.expect("exited")
        assert exit_code(played) == 0


def test_a_screen_is_drawn_again_and_left_as_it_was_found(cli: Cli) -> None:
    cli.ok("run", "--id", "draws", "--pty", "--", "sh", "-c", DRAWS)
    assert next(event["data"] for event in cli.json("logs", "draws", "--type", "screen")) == {
        "rows": 24,
        "cols": 80,
    }
    with cli.terminal("play", "draws") as played:
        played.expect_exact("\x1b[?1049h\x1b[2;3Hdrawn")
        played.expect_exact("\x1b[?1049l\x1b[?1000l")
        played.expect("completed")
        shown = played.before
        assert exit_code(played) == 0
    assert "title" not in shown


@pytest.fixture
def endless(cli: Cli, tmp_path: Path) -> str:
    """A file with a run of which an hour passes between two lines, three times."""
    events = [event for event in cli.json("logs", "quick") if event.get("type") == "output"]
    lines = [
        event
        | {
            "offset": n,
            "time": f"2026-01-31T0{n}:00:00Z",
            "data": {"stream": "stdout", "text": f"line {n}\n"},
        }
        for n, event in enumerate(events[:1] * 4, 1)
    ]
    file = tmp_path / "endless.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def test_keys_skip_ahead_pause_change_the_speed_and_quit(cli: Cli, endless: str) -> None:
    with cli.terminal("play", endless, "--max-pause", "5s") as played:
        played.expect_exact("line 1\r\n")
        played.send("\x1b[C")
        played.expect_exact("line 2\r\n")
        played.send(" ")
        played.expect("paused; space goes on")
        played.send("\x1b[C")  # nothing is left to wait once it goes on
        played.send("++")
        played.expect("2x")
        played.expect("4x")
        played.send("-")
        played.expect("2x")
        with pytest.raises(pexpect.TIMEOUT):
            played.expect_exact("line 3", timeout=0.5)
        played.send(" ")
        played.expect("goes on")
        played.expect_exact("line 3\r\n")
        played.send("\x1b[24;80R\x1bPq\x1b\\q")  # an answer of the terminal's is no key; q is
        assert exit_code(played) == 0


def test_ctrl_c_leaves_the_terminal_as_it_was(cli: Cli, endless: str) -> None:
    shell = "stty -g; natsproc play $0; echo $?; stty -g"
    child = pexpect.spawn("sh", ["-c", shell, endless], env=cli.env, encoding="utf-8", timeout=30)
    before = child.readline().strip()
    child.expect_exact("line 1\r\n")
    child.sendintr()
    child.expect_exact("130\r\n")
    assert child.readline().strip() == before
    child.close(force=True)


def test_max_pause_shortens_silences(cli: Cli, endless: str) -> None:
    assert cli.ok("play", endless, "--max-pause", "100ms") == "line 1\nline 2\nline 3\nline 4\n"
    assert cli.ok("play", endless, "--speed", "max") == "line 1\nline 2\nline 3\nline 4\n"


def test_ctrl_c_of_a_piped_one_and_a_reader_that_has_enough(cli: Cli, endless: str) -> None:
    with cli.started("play", endless) as played:
        assert played.stdout
        assert played.stdout.readline() == b"line 1\n"
        played.send_signal(signal.SIGINT)
        assert played.wait(20) == 130
    with cli.started("play", endless) as played:
        assert played.stdout
        assert played.stdout.readline() == b"line 1\n"
        played.stdout.close()
        assert played.wait(20) == 0


def test_of_a_run_that_goes_on_it_plays_what_is_stored_and_says_so(cli: Cli) -> None:
    with cli.owner(SPEAKS.format(pause=30), "live"):
        cli.log_has("live", "text")
        done = cli("play", "live", "--speed", "max")
        assert (done.returncode, "Once upon a time" in done.stdout, "later" in done.stdout) == (
            0,
            True,
            False,
        )
        assert "caught up with live, which goes on" in done.stderr
        done = cli("export", "live")
        assert "goes on: this is what it has said so far" in done.stderr
        with cli.started("play", "live", "--speed", "max", "--follow") as played:
            assert played.stdout
            lines = iter(played.stdout.readline, b"")
            assert any(b"Once upon a time" in line for line in lines)
            cli.ok("interrupt", "live")
            assert any(b"exited" in line for line in lines)
            assert played.wait(20) == 0


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_who_waits_for_what_a_live_run_says_can_leave(cli: Cli, key: str, code: int) -> None:
    id = f"waits-{code}"
    with cli.owner("await proc.log('here')\nawait asyncio.sleep(300)", id):
        cli.log_has(id, "log")
        with cli.terminal("play", id, "--speed", "max", "--follow") as played:
            played.expect("here")
            played.send(key)
            assert exit_code(played) == code
        cli.ok("kill", id)


def test_jsonl_is_what_tail_prints_and_can_be_played(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "quick.jsonl"
    cli.ok("export", "quick", "--out", str(file))
    assert (
        file.read_text()
        == cli.ok("logs", "quick", "-o", "json")
        == cli.ok("export", "quick", "--format", "jsonl")
    )
    assert cli.ok("play", str(file), "--speed", "max") == cli.ok("logs", "quick")
    assert cli.ok("play", "-", "--speed", "max", stdin=file.read_bytes()) == cli.ok("logs", "quick")
    assert "token" not in cli.ok("export", "quick", "--compact")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".stderr"] == ["quick.jsonl"]


def test_an_asciicast_is_what_was_on_the_screen(cli: Cli) -> None:
    header, *events = map(json.loads, cli.ok("export", "quick", "--format", "asciicast").splitlines())
    assert (header["version"], header["width"], header["height"], header["title"]) == (2, 80, 24, "quick")
    text = "".join(data for _, code, data in events if code == "o")
    assert "\x1b[32mgreen\x1b[0m\r\n" in text
    times = [time for time, code, data in events if "later" in data]
    assert times
    assert times[0] >= 1
    assert [data.split(":")[0] for _, code, data in events if code == "m"] == ["started", "exited"]


def test_what_retention_took_is_said_and_marked(cli: Cli) -> None:
    with cli.owner("for n in range(20):\n    await proc.emit('count', n)", "trimmed") as process:
        process.wait(60)
    positions = [event["cursor"] for event in cli.json("logs", "trimmed") if "offset" in event]
    assert len(positions) == 22
    subprocess.run(
        [NATSPROC.replace("natsproc", "python"), "-c", PURGE, "proc.default.trimmed.events"],
        env=cli.env,
        check=True,
    )
    done = cli("export", "trimmed", "--format", "asciicast")
    assert "are gone" in done.stderr
    _, *events = map(json.loads, done.stdout.splitlines())
    assert [code for _, code, data in events if "are gone" in data] == ["m", "o"]
    done = cli("export", "trimmed")
    assert "are gone" in done.stderr
    assert next(line["type"] for line in map(json.loads, done.stdout.splitlines())) == "gap"


PURGE = """
import asyncio, sys, natsproc
async def main():
    async with natsproc.connect() as mesh:
        await mesh.io.call(mesh.connection.api("STREAM.PURGE.PROC_EVENTS", {"filter": sys.argv[1], "keep": 5}))
asyncio.run(main())
"""


def test_runs_are_told_apart(cli: Cli) -> None:
    for number in (1, 2):
        with cli.owner(f'await proc.output("run {number}\\n")', "twice", restart=number > 1) as process:
            process.wait(60)
    assert "run 1\n" in cli.ok("play", "twice", "--run", "1", "--speed", "max")
    assert "run 2\n" in cli.ok("play", "twice", "--speed", "max")
    assert '"text":"run 1\\n"' in cli.ok("export", "twice", "--run", "1")
    assert cli("export", "twice", "--run", "3").returncode == 3


def test_a_bar_on_stderr_and_nothing_of_it_on_stdout(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "out"
    with cli.terminal("export", "quick", "--out", str(file)) as exported:
        assert exit_code(exported) == 0
    assert file.read_text() == cli.ok("logs", "quick", "-o", "json")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["play", "no-such"], 3, "no process"),
        (["export", "no-such"], 3, "no process"),
        (["play", "no/such.jsonl"], 1, "cannot be read"),
        (["play", "/"], 1, "cannot be read"),
        (["play", "quick", "--speed", "fast"], 2, "is no speed"),
        (["play", "quick", "--run", "0"], 2, "from 1"),
        (["play", "a.jsonl", "--follow"], 2, "not for a file"),
        (["export", "quick", "--run", "1", "--since", "1h"], 2, "exclude each other"),
        (["export", "quick", "--format", "gif"], 2, "gif"),
        (["export", "quick", "--out", "/no/such/folder/x"], 1, "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said(cli: Cli, arguments: list[str], code: int, says: str) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("natsproc: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_export_is_refused_where_it_is_wrong(cli: Cli) -> None:
    good = cli.ok("export", "quick").splitlines()[0]
    done = cli("play", "-", "--speed", "max", stdin=f"{good}\n\nnonsense\n")
    assert done.returncode == 1
    assert "-, line 3: this is not JSON" in done.stderr


def test_nothing_stored_of_that_time_is_said(cli: Cli) -> None:
    done = cli("export", "quick", "--since", "0s", "--format", "asciicast")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert "no events of quick are stored of that time" in done.stderr


def test_an_export_that_fails_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "there.jsonl"
    file.write_text("before")
    assert cli("export", "no-such", "--out", str(file)).returncode == 3
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
