"""Watching from the command line: ps, tail, logs, inspect, wait; piped, as programs use it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cli_harness import NATSPROC, Cli, cli_with_server
from harness import Server, wait_for

NUMBERS = """
for number in range(1, 31):
    await proc.output(f"line {number}\\n")
await proc.log("half way", epoch=3)
await proc.metric(loss=0.25)
async with proc.stream("answer") as answer:
    for word in ("Once ", "upon ", "a time"):
        await answer.token(word)
return {"answer": 42}
"""

WAITING = """
await proc.output("ready\\n")
while True:
    message = await proc.receive()
    if message.data == "fail":
        raise ValueError("as told")
    if message.data == "end":
        return
    await proc.output(f"got {message.data}\\n")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Server]]:
    with cli_with_server(tmp_path_factory.mktemp("view")) as both:
        yield both


@pytest.fixture(scope="module")
def cli(running: tuple[Cli, Server]) -> Cli:
    cli = running[0]
    with cli.owner(NUMBERS, "numbers", labels={"size": "small"}, kind="counter") as process:
        process.wait(60)
    return cli


@pytest.fixture(scope="module")
def idle(cli: Cli) -> Iterator[str]:
    """A process that waits."""
    with cli.owner(WAITING, "idle"):
        yield "idle"


LINES = [f"line {number}" for number in range(1, 31)]


def test_logs_of_an_ended_run_are_complete_and_in_order(cli: Cli) -> None:
    events = cli.json("logs", "numbers")
    stored = [event for event in events if "offset" in event]
    assert [event["offset"] for event in stored] == list(range(1, len(stored) + 1))
    assert [event["data"]["text"].strip() for event in stored if event["type"] == "output"] == LINES
    assert {event["epoch"] for event in stored} == {stored[0]["epoch"]}
    assert {event["run"] for event in stored} == {1}
    assert stored[0]["type"] == "started"
    assert stored[-1]["type"] == "exited"
    assert stored[-1]["data"]["result"] == {"answer": 42}
    assert all(event["time"].endswith("Z") and event["cursor"] for event in stored)


def test_notices_are_told_from_events_by_having_no_offset(cli: Cli) -> None:
    notices = [line for line in cli.json("tail", "numbers") if "offset" not in line]
    assert {notice["type"] for notice in notices} <= {"caught_up", "ended"}
    assert notices[-1]["type"] == "ended"


def test_output_alone_is_verbatim(cli: Cli) -> None:
    assert cli.ok("logs", "numbers", "--type", "output").splitlines() == LINES


def test_text_is_for_people_and_has_no_colour_when_piped(cli: Cli) -> None:
    text = cli.ok("tail", "numbers")
    assert "\x1b" not in text
    assert "line 30\n" in text
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  info +half way  epoch=3$", text, re.MULTILINE)
    assert "Once upon a time" in text
    assert text.rstrip().endswith('completed → {"answer": 42}')


def test_the_last_events_and_those_behind_a_cursor(cli: Cli) -> None:
    everything = [event for event in cli.json("logs", "numbers") if "offset" in event]
    last = [event for event in cli.json("logs", "numbers", "-n", "3") if "offset" in event]
    assert last == everything[-3:]
    behind = [e for e in cli.json("logs", "numbers", "--after", everything[4]["cursor"]) if "offset" in e]
    assert behind == everything[5:]
    assert [e for e in cli.json("logs", "numbers", "-n", "0") if "offset" in e] == []


def test_since_begins_by_the_clock(cli: Cli) -> None:
    offsets = [event.get("offset") for event in cli.json("logs", "numbers", "--since", "1h")]
    assert 1 in offsets
    assert [e for e in cli.json("logs", "numbers", "--since", "0s") if "offset" in e] == []


def test_a_cursor_that_is_none_is_a_usage_error(cli: Cli) -> None:
    done = cli("logs", "numbers", "--after", "nonsense")
    assert done.returncode == 2
    assert "not a cursor" in done.stderr


def test_types_choose_events(cli: Cli) -> None:
    events = cli.json("logs", "numbers", "--type", "metric", "--type", "log")
    assert [event["type"] for event in events if "offset" in event] == ["log", "metric"]


def test_compact_shows_a_streamed_text_once(cli: Cli) -> None:
    types = [event["type"] for event in cli.json("logs", "numbers", "--compact")]
    assert "token" not in types
    assert types.count("text") == 1
    assert cli.ok("logs", "numbers", "--compact").count("Once upon a time") == 1


def test_runs_are_told_apart(cli: Cli) -> None:
    for number in (1, 2):
        with cli.owner(f'await proc.output("run {number}\\n")', "twice", restart=number > 1) as process:
            process.wait(60)
    assert cli.ok("logs", "twice", "--type", "output") == "run 2\n"
    assert cli.ok("logs", "twice", "--type", "output", "--run", "1") == "run 1\n"
    assert cli.ok("logs", "twice", "--type", "output", "--run", "all") == "run 1\nrun 2\n"


def test_several_processes_are_told_apart(cli: Cli) -> None:
    for id in ("many-1", "many-2"):
        with cli.owner(f'await proc.output("I am {id}\\n")', id, kind="eval") as process:
            process.wait(60)
    for choice in (["many-1", "many-2"], ["many-*"], ["--kind", "eval"], ["many-?", "--kind", "eval"]):
        lines = cli.ok("logs", *choice, "--type", "output").splitlines()
        assert sorted(re.split(r" +│ ", line) for line in lines) == [
            ["many-1", "I am many-1"],
            ["many-2", "I am many-2"],
        ]
    events = cli.json("logs", "many-*", "--type", "output")
    assert {event["process"] for event in events if "offset" in event} == {"many-1", "many-2"}


def test_a_process_in_a_namespace_is_found_by_either_form(cli: Cli) -> None:
    script = 'await proc.output("in the team\\n")'
    with cli.owner(script, "alpha", namespace="team") as process:
        process.wait(60)
    assert cli.ok("logs", "team/alpha", "--type", "output") == "in the team\n"
    assert cli.ok("logs", "-N", "team", "alpha", "--type", "output") == "in the team\n"
    assert cli("logs", "alpha").returncode == 3
    assert cli.ok("ps", "-a", "-N", "team", "-o", "id") == "alpha\n"
    assert "team/alpha" in cli.ok("ps", "-a", "-N", "*", "-o", "id").split()


def test_what_does_not_exist_has_its_own_exit_code(cli: Cli) -> None:
    for command in ("tail", "logs", "inspect", "pause", "interrupt", "kill"):
        done = cli(command, "nobody")
        assert (done.returncode, done.stdout) == (3, ""), command
        assert re.match(r"natsproc: no process '?nobody'? ", done.stderr)
    assert cli("send", "nobody", "x").returncode == 3
    for command in ("wait", "attach"):
        done = cli(command, "nobody", "-o", "json")
        assert done.returncode == 125
        assert json.loads(done.stdout)["error"] == "NoSuchProcess"


def test_ps_as_table_as_json_and_as_ids(cli: Cli) -> None:
    with cli.owner(WAITING, "listed", labels={"size": "big"}, kind="waiter"):
        header, *rows = cli.ok("ps").splitlines()
        assert header.split()[:3] == ["ID", "STATE", "KIND"]
        row = next(row for row in rows if row.startswith("listed "))
        assert row.split()[1:3] == ["running", "waiter"]
        assert "size=big" in row
        assert not any(row.startswith("numbers ") for row in rows)
        assert "listed" in cli.ok("ps", "-o", "id").split()
        info = next(info for info in cli.json("ps") if info["id"] == "listed")
        assert (info["state"], info["labels"], info["namespace"]) == ("running", {"size": "big"}, "default")
        assert info["quiet"] >= 0
        assert cli.ok("ps", "-o", "id", "-l", "size=big", "--kind", "waiter") == "listed\n"
        assert cli.ok("ps", "-o", "id", "-l", "size=medium") == ""
        assert cli.ok("ps", "-o", "id", "--kind", "nobody") == ""


def test_ps_does_not_import_what_takes_long_and_is_not_needed(cli: Cli) -> None:
    script = "import sys; from natsproc_cli.main import main; main(['ps']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=cli.env, capture_output=True, text=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "nats" in modules
    assert not modules & {"aiohttp", "pydantic", "rich", "pyte", "psutil"}


def test_ps_shows_ended_ones_when_asked(cli: Cli) -> None:
    assert "numbers" not in cli.ok("ps", "-o", "id").split()
    assert "numbers" in cli.ok("ps", "-a", "-o", "id").split()
    info = next(info for info in cli.json("ps", "-a") if info["id"] == "numbers")
    assert (info["state"], info["code"]) == ("completed", 0)


def test_ps_says_what_changes(cli: Cli) -> None:
    with cli.started("ps", "-w", "-o", "json") as watching:
        assert watching.stdout is not None
        with cli.owner(WAITING, "coming"):
            seen = {}
            while seen.get("id") != "coming":
                seen = json.loads(watching.stdout.readline())
            cli.ok("send", "coming", "end")
            while seen.get("id") != "coming" or seen["state"] == "running":
                seen = json.loads(watching.stdout.readline())
            assert seen["state"] == "completed"


def test_tail_follows_until_the_end_of_the_run(cli: Cli) -> None:
    with cli.owner(WAITING, "followed"), cli.started("tail", "followed", "--type", "output") as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == b"ready\n"
        cli.ok("send", "followed", "one")
        assert tail.stdout.readline() == b"got one\n"
        cli.ok("send", "followed", "end")
        assert tail.stdout.read() == b""
        assert tail.wait(30) == 0


def test_a_pattern_follows_what_starts_later(cli: Cli) -> None:
    with cli.started("tail", "later-*", "--type", "output") as tail:
        assert tail.stderr is not None
        assert tail.stdout is not None
        assert tail.stderr.readline() == b"natsproc: nothing matches yet; waiting for what starts\n"
        with cli.owner(WAITING, "later-1"):
            assert tail.stdout.readline().decode() == "later-1     │ ready\n"


def test_wait_exits_as_the_process_did(cli: Cli) -> None:
    assert cli("wait", "numbers").returncode == 0
    (end,) = cli.json("wait", "numbers")
    assert (end["process"], end["status"], end["code"], end["run"]) == ("numbers", "completed", 0, 1)
    assert end["result"] == {"answer": 42}
    with cli.owner(WAITING, "failing"), cli.started("wait", "failing") as waiting:
        cli.log_has("failing", "output")
        cli.ok("send", "failing", "fail")
        assert waiting.wait(60) == 1
    done = cli("wait", "failing", "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "failed"
    assert "as told" in json.loads(done.stdout)["error"]


def test_wait_gives_up_when_told_to(cli: Cli, idle: str) -> None:
    done = cli("wait", idle, "--timeout", "200ms")
    assert done.returncode == 124
    assert done.stderr.startswith("natsproc: idle still runs after 0.2 s")


@pytest.mark.parametrize(("command", "code"), [("tail", 130), ("wait", 125), ("attach", 0)])
def test_an_interrupted_viewer_leaves_the_process_alone_and_says_how_not_to(
    cli: Cli, command: str, code: int
) -> None:
    id = f"left-{command}"
    with cli.owner(WAITING, id) as process, cli.started(command, id) as viewer:
        assert viewer.stdout is not None
        assert viewer.stderr is not None
        if command != "wait":
            assert b"started" in viewer.stdout.readline()
        else:
            connected = [NATSPROC, "inspect", id]  # as long as it takes to connect, and more
            subprocess.run(connected, env=cli.env, capture_output=True, check=True)
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(30) == code
        assert viewer.stderr.read().decode() == (
            f"natsproc: detached from {id}, which goes on; to stop it: natsproc interrupt {id}\n"
        )
        assert process.poll() is None
        cli.ok("send", id, "x")
        wait_for(lambda: "got x" in cli.ok("logs", id), what="the process goes on")


@pytest.mark.parametrize("arguments", [["tail", "numbers"], ["ps", "-a", "-o", "id"], ["tail", "idle"]])
def test_a_closed_pipe_ends_quietly(cli: Cli, idle: str, arguments: list[str]) -> None:
    with cli.started(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_tail_goes_on_through_a_restart_of_the_server(running: tuple[Cli, Server], cli: Cli) -> None:
    server = running[1]
    with cli.owner(WAITING, "steady"), cli.started("tail", "steady", "--type", "output") as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == b"ready\n"
        server.kill()
        server.start()
        cli.ok("send", "steady", "hello")
        cli.ok("send", "steady", "end")
        assert tail.stdout.read() == b"got hello\n"
        assert tail.wait(60) == 0


@pytest.mark.parametrize("command", ["tail", "attach"])
def test_who_watches_is_told_that_the_server_is_away_and_back(
    running: tuple[Cli, Server], cli: Cli, command: str
) -> None:
    server, id = running[1], f"away-{command}"
    with cli.owner(WAITING, id), cli.started(command, id, stdin=subprocess.PIPE) as viewer:
        assert viewer.stdout is not None
        assert viewer.stderr is not None
        assert viewer.stdout.readline()
        server.kill()
        try:
            assert viewer.stderr.readline().startswith(b"natsproc: cut off from nats://127.0.0.1:")
        finally:
            server.start()
        assert viewer.stderr.readline() == b"natsproc: connected again\n"
        cli.ok("send", id, "end")
        assert viewer.wait(60) == 0


def test_inspect_shows_record_epoch_offsets_and_node(cli: Cli) -> None:
    with cli.owner(WAITING, "looked-at") as process:
        cli.log_has("looked-at", "output")
        (found,) = cli.json("inspect", "looked-at", "--stack")
        assert found["record"]["id"] == "looked-at"
        assert found["epoch"] == found["record"]["epoch"]
        assert found["offset"] == 2
        assert found["node"]["pid"] == process.pid
        assert "receive" in json.dumps(found)
        text = cli.ok("inspect", "looked-at")
        assert text.startswith("looked-at  running\n")
        assert re.search(r"^  epoch +\d+$", text, re.MULTILINE)
        assert re.search(rf"^  node +\S+ on \S+, pid {process.pid}, load ", text, re.MULTILINE)


def test_inspect_shows_the_record_of_what_has_ended(cli: Cli) -> None:
    done = cli("inspect", "numbers", "-o", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["record"]["state"] == "completed"
    assert "has ended" in done.stderr


def test_ids_are_completed(cli: Cli, idle: str) -> None:
    env = {"COMP_WORDS": "natsproc tail id", "COMP_CWORD": "2", "_NATSPROC_COMPLETE": "complete_bash"}
    wait_for(lambda: cli(**env).stdout.split() == [idle], what="the id is completed")


@pytest.mark.parametrize("options", [[], ["-o", "json"]], ids=["table", "json"])
def test_a_watched_list_that_nobody_reads_ends(cli: Cli, options: list[str]) -> None:
    with cli.started("ps", "-a", "-w", *options) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(30) == 0


def test_what_is_unreachable_is_said_with_the_way_out(cli: Cli) -> None:
    with cli.owner("await proc.receive()", "gone", labels={"test": "gone"}) as process:
        pass
    assert process.poll() is not None  # killed

    def listed() -> bool:
        return "unreachable" in cli.ok("ps", "-l", "test=gone")

    wait_for(listed, 20, "unreachable")
    shown = cli("ps", "-l", "test=gone")
    assert re.search(r"^gone +unreachable \d+s ", shown.stdout, re.MULTILINE)
    assert shown.stderr.count("\n") == 1
    for way in ("natsproc kill gone", "natsproc run --id gone --"):
        assert way in shown.stderr
    (row,) = cli.json("ps", "-l", "test=gone")
    assert row["state"] == "unreachable"
    assert row["unreachable_since"].endswith("Z")
    inspected = cli("inspect", "gone", "-o", "json")
    assert inspected.returncode == 1
    assert json.loads(inspected.stdout)["record"]["state"] == "unreachable"
    assert "natsproc kill gone" in inspected.stderr
    assert "unreachable" in cli("inspect", "gone").stdout.splitlines()[0]
    with cli.started("wait", "gone", "--timeout", "3s") as waiting:
        _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 124
    assert said.decode().count("is unreachable") == 1
    with cli.started("tail", "gone") as tail:
        assert tail.stderr
        line = tail.stderr.readline().decode()
    assert "does not answer" in line
    assert "natsproc kill gone" in line
    killed = cli("kill", "gone", "-o", "json")
    assert (killed.returncode, json.loads(killed.stdout)["status"]) == (1, "unconfirmed")
    assert "kill unconfirmed: its owner is gone" in killed.stderr
    assert cli.ok("ps", "-l", "test=gone", "-o", "id") == ""
    assert cli("wait", "gone").returncode == 137
