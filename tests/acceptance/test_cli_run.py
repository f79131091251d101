"""`natsproc run`, and steering what it runs from a second command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cli_harness import NATSPROC, NOWHERE, Cli, cli_with_server
from harness import running, wait_for
from writing import leased

import natsproc

ECHO = 'echo ready; while read line; do echo "got $line"; done; echo over'


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with cli_with_server(tmp_path_factory.mktemp("run")) as (cli, _):
        yield cli


def begun(cli: Cli, id: str, *command: str, options: tuple[str, ...] = ()) -> None:
    """Start a command in the background."""
    assert cli.ok("run", "--detach", "--id", id, *options, "--", *command) == f"{id}\n"


def output(cli: Cli, id: str) -> str:
    return cli.ok("logs", id, "--type", "output")


def test_output_and_exit_code_are_the_commands_own(cli: Cli) -> None:
    done = cli("run", "--id", "own", "--", "sh", "-c", "printf 'out\\r\\n\\033[31mred'; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\r\n\x1b[31mred", "err\n")
    events = {e["type"]: e for e in cli.json("logs", "own") if "offset" in e}
    assert events["started"]["data"]["title"].startswith("sh -c")
    assert events["exited"]["data"] == {"status": "failed", "code": 3}
    streams = [e["data"] for e in cli.json("logs", "own", "--type", "output") if "offset" in e]
    assert {"stream": "stderr", "text": "err\n"} in streams
    assert cli("wait", "own").returncode == 3


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
        (["true"], 0),
    ],
)
def test_exit_codes_of_commands(cli: Cli, command: list[str], code: int) -> None:
    id = f"code-{code}"
    done = cli("run", "--id", id, "--", *command)
    assert done.returncode == code
    assert cli("wait", id).returncode == code
    if code in (126, 127):
        assert done.stderr.startswith(f"natsproc: {command[0]}: ")
        assert cli("run", "--detach", "--", *command).returncode == code


def test_an_id_that_is_taken_or_has_ended_is_refused_with_the_way_out(cli: Cli) -> None:
    begun(cli, "taken", "sleep", "1000")
    done = cli("run", "--id", "taken", "--", "true")
    assert done.returncode == 125
    assert "taken" in done.stderr
    assert "node" in done.stderr
    done = cli("run", "--detach", "--id", "taken", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("natsproc: ")
    cli.ok("kill", "taken")
    done = cli("run", "-o", "json", "--id", "taken", "--", "true")
    assert done.returncode == 125
    assert "--restart" in done.stderr
    assert json.loads(done.stdout)["error"] == "AlreadyEnded"
    assert cli("run", "--id", "taken", "--restart", "--", "sh", "-c", "exit 9").returncode == 9


def test_run_in_the_background_outlives_what_started_it(cli: Cli) -> None:
    begun(cli, "behind", "sh", "-c", ECHO, options=("--label", "a=b", "--kind", "echo"))
    info = next(info for info in cli.json("ps") if info["id"] == "behind")
    assert (info["labels"], info["kind"], info["state"]) == ({"a": "b"}, "echo", "running")
    cli.ok("send", "behind", "hello", "there")
    cli.ok("send", "behind", "-", stdin="one\ntwo\n")
    cli.ok("send", "behind", "last", "--eof")
    assert cli("wait", "behind", "--timeout", "30s").returncode == 0
    assert output(cli, "behind").splitlines() == [
        "ready", "got hello there", "got one", "got two", "got last", "over"
    ]  # fmt: skip


def test_a_password_in_the_url_is_nobodys_argument_and_not_for_the_command(cli: Cli) -> None:
    url = cli.env["NATS_URL"].replace("//", "//alice:hunter2secret@")
    at = ("--server", url, "-N", "apart")
    cli.ok("run", "--detach", "--id", "kept", *at, "--", "sh", "-c", "env; sleep 1000", NATS_URL=NOWHERE)
    wait_for(lambda: "PATH=" in cli.ok("logs", "apart/kept", "--type", "output"), 30, "its output")
    said = cli.ok("logs", "apart/kept", "--type", "output")
    assert "hunter2secret" not in said
    assert f"NATS_URL={NOWHERE}" in said
    ours = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if "--id=kept" in (p.info["cmdline"] or ())
    ]
    assert ours
    assert "hunter2secret" not in str([p.info["cmdline"] for p in psutil.process_iter(["cmdline"])])
    cli.ok("kill", "apart/kept")


def test_without_an_id_it_gets_one_after_the_program(cli: Cli) -> None:
    id = cli.ok("run", "--detach", "--", "sleep", "1000").strip()
    assert id.startswith("sleep-")
    cli.ok("kill", id)


def test_a_kind_that_cannot_be_one_is_refused(cli: Cli) -> None:
    done = cli("run", "--kind", "a b", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "'a b' cannot be a process kind" in done.stderr


def test_an_empty_stdin_is_no_message_unless_it_is_meant(cli: Cli) -> None:
    begun(cli, "emptied", "sh", "-c", 'read line; echo "got <$line>"')
    done = cli("send", "emptied", "-")
    assert done.returncode == 2
    assert done.stderr == "natsproc: stdin was empty, and nothing was sent; for an empty message say ''\n"
    cli.ok("send", "emptied", "")
    assert cli("wait", "emptied", "--timeout", "60s").returncode == 0
    assert output(cli, "emptied") == "got <>\n"


def test_stdin_is_passed_on_when_asked_for(cli: Cli) -> None:
    assert cli.ok("run", "-i", "--", "cat", stdin="passed on\n") == "passed on\n"


def test_events_as_json_instead_of_the_output(cli: Cli) -> None:
    done = cli("run", "-o", "json", "--", "sh", "-c", "echo hi; exit 4")
    assert done.returncode == 4
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines if "offset" in line] == ["started", "output", "exited"]
    assert lines[-1]["type"] == "ended"


def test_interrupt_reaches_the_command_and_says_what_to_do_instead(cli: Cli) -> None:
    script = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("stopped", flush=True))
print("working", flush=True)
print("told to", sys.stdin.readline().strip(), flush=True)
"""
    begun(cli, "redirected", sys.executable, "-c", script)
    wait_for(lambda: "working" in output(cli, "redirected"))
    said = cli.ok("interrupt", "redirected", "-m", "do this", "--reason", "not that")
    assert said.startswith("redirected: interrupt applied (event ")
    assert cli("wait", "redirected").returncode == 0
    assert output(cli, "redirected") == "working\nstopped\ntold to do this\n"
    (event,) = (e for e in cli.json("logs", "redirected", "--type", "interrupted") if "offset" in e)
    assert event["data"]["reason"] == "not that"
    assert event["data"]["message"] == "do this"
    assert event["data"]["sender"]


def test_pause_resume_cancel_and_what_comes_too_late(cli: Cli) -> None:
    begun(cli, "steered", "sh", "-c", "echo ready; trap 'exit 7' TERM; while :; do sleep 0.05; done")
    (receipt,) = cli.json("pause", "steered", "--reason", "lunch")
    assert (receipt["process"], receipt["verb"], receipt["status"]) == ("steered", "pause", "applied")
    wait_for(lambda: "paused" in cli.ok("ps"), what="ps shows that it is paused")
    cli.ok("resume", "steered")
    cli.ok("cancel", "steered", "--grace", "20s")
    assert cli("wait", "steered").returncode == 7
    done = cli("cancel", "steered", "-o", "json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["status"] == "too_late"
    assert done.stderr.startswith("natsproc: steered: cancel too late: ")
    assert cli("send", "steered", "x").returncode == 5


def test_several_are_steered_at_once_and_the_first_failure_counts(cli: Cli) -> None:
    for id in ("group-1", "group-2"):
        begun(cli, id, "sleep", "1000", options=("--kind", "group"))
    done = cli("kill", "group-1", "nobody", "group-2")
    assert done.returncode == 3
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["group-1", "group-2"]
    for id in ("group-1", "group-2"):
        assert cli("wait", id).returncode == 137


def test_ctrl_c_in_the_foreground_interrupts_the_command(cli: Cli) -> None:
    with cli.started(
        "run", "--id", "front", "--", "sh", "-c", "trap 'exit 6' INT; echo up; sleep 1000 & wait"
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 6
    assert "interrupted" in cli.ok("logs", "front")


def test_attach_shows_the_output_and_sends_lines(cli: Cli) -> None:
    begun(cli, "attached", "sh", "-c", ECHO + "; exit 5")
    with cli.started("attach", "attached", stdin=-1) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(b"hello\nno newline")
        attached.stdin.close()
        wait_for(lambda: "got no newline" in output(cli, "attached"))
        assert attached.poll() is None  # the end of our input is not that of the command's
        cli.ok("send", "attached", "--eof")
        shown = attached.stdout.read().decode()
        assert attached.wait(30) == 5
    assert (
        "ready\ngot hello\ngot no newline\nover\n"
        in "\n".join(line for line in shown.splitlines() if " received " not in line) + "\n"
    )


def test_attach_to_what_has_ended_exits_as_it_did(cli: Cli) -> None:
    cli("run", "--id", "gone", "--", "sh", "-c", "echo bye; exit 8")
    done = cli("attach", "gone", "-o", "json")
    assert done.returncode == 8
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert types[:3] == ["started", "output", "exited"]


def test_a_closed_pipe_ends_a_run_with_it(cli: Cli) -> None:
    with cli.started("run", "--id", "piped", "--", "yes") as run:
        assert run.stdout is not None
        run.stdout.read(10)
        run.stdout.close()
        run.wait(60)
    assert cli("wait", "piped", "--timeout", "10s").returncode == 128 + signal.SIGPIPE


def test_output_that_cannot_be_written_is_no_success(cli: Cli) -> None:
    with (
        open("/dev/full", "wb") as full,
        cli.started("run", "--id", "full", "--", "echo", "hi", stdout=full) as run,
    ):
        _, said = run.communicate(timeout=60)
    assert said.decode() == (
        "natsproc: the output could not be written here: No space left on device; natsproc logs full has it until then\n"
    )
    assert run.returncode == 125
    assert output(cli, "full") == "hi\n"
    assert cli("wait", "full").returncode == 0


def test_a_program_reaches_its_address_from_inside(cli: Cli) -> None:
    script = f"""
{NATSPROC} receive --timeout 100ms
echo "timed out with $?"
{NATSPROC} emit metric loss=0.3 epoch=4
{NATSPROC} emit progress 3/10 third
{NATSPROC} emit log "half way" --level warning
{NATSPROC} emit message "free text"
{NATSPROC} emit verdict --json '{{"passed": true}}'
while message=$({NATSPROC} receive --timeout 30s); do echo "received $message"; done
"""
    begun(cli, "inside", "sh", "-c", script)
    wait_for(lambda: "timed out" in output(cli, "inside"))
    cli.ok("send", "inside", "text")
    cli.ok("send", "inside", "--json", '{"a": [1]}')
    cli.ok("send", "inside", "--eof")
    assert cli("wait", "inside", "--timeout", "60s").returncode == 0
    events = [e for e in cli.json("logs", "inside") if "offset" in e]
    said = {event["type"]: event["data"] for event in events}
    assert said["metric"] == {"loss": 0.3, "epoch": 4}
    assert said["progress"] == {"done": 3, "total": 10, "text": "third"}
    assert said["log"] == {"level": "warning", "text": "half way"}
    assert said["message"] == "free text"
    assert said["verdict"] == {"passed": True}
    assert [line for line in output(cli, "inside").splitlines() if not line.startswith("natsproc")] == [
        "timed out with 124", "received text", 'received {"a":[1]}'
    ]  # fmt: skip


def test_emit_outside_says_where_it_belongs(cli: Cli) -> None:
    done = cli("emit", "metric", "loss=1")
    assert done.returncode == 3
    assert "natsproc run" in done.stderr


def test_the_first_run_starts_the_embedded_server_and_says_so(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    assert cli("ps").returncode == 4
    try:
        done = cli("run", "--id", "first", "--", "echo", "hello")
        assert (done.returncode, done.stdout) == (0, "hello\n")
        assert done.stderr.startswith("natsproc: started a nats-server")
        done = cli("run", "--id", "second", "--", "echo", "again")
        assert (done.returncode, done.stdout, done.stderr) == (0, "again\n", "")
        assert cli.ok("ps", "-a", "-o", "id").split() == ["first", "second"]
        (status,) = cli.json("status")
        websocket = ("--server", status["ws_url"], "--creds", status["creds"])
        assert cli.ok("ps", "-a", "-o", "id", *websocket).split() == ["first", "second"]
    finally:
        cli("down")
    assert cli("ps").returncode == 4


def test_a_detached_run_holds_nothing_open(cli: Cli) -> None:
    ours, theirs = os.pipe()
    with cli.started(
        "run", "--detach", "--id", "quiet", "--", "sleep", "1000", stdout=theirs, stderr=theirs
    ) as run:
        os.close(theirs)
        assert run.wait(30) == 0
        deadline = time.monotonic() + 20
        with open(ours, "rb") as reading:
            assert reading.read() == b"quiet\n"  # to the end of file
        assert time.monotonic() < deadline
    cli.ok("kill", "quiet")


def test_a_server_that_is_gone_for_good_does_not_hold_what_was_told_to_end(tmp_path: Path) -> None:
    with running(tmp_path / "nats") as server:
        cli = Cli(tmp_path, server.url)
        cli.ok("setup")
        with cli.started("run", "--id", "orphan", "--", "sleep", "100") as run:
            wait_for(lambda: "orphan" in cli.ok("ps", "-o", "id"), what="orphan runs")
            server.kill()
            run.send_signal(signal.SIGTERM)
            assert run.wait(40) == 125
            assert run.stderr is not None
            said = run.stderr.read().decode()
            assert "waiting for" in said
            assert "did not store how" in said
            assert "Traceback" not in said


def test_ctrl_c_leaves_a_server_that_does_not_store_how_it_ended(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with running(tmp_path / "nats") as server:
        cli = Cli(tmp_path, server.url)
        cli.ok("setup")
        script = f"while ! [ -e {go} ]; do sleep 0.05; done"
        with cli.started("run", "--id", "done", "--", "sh", "-c", script) as run:
            wait_for(lambda: "done" in cli.ok("ps", "-o", "id"), what="it runs")
            server.kill()
            go.touch()
            assert run.stderr is not None
            said = b""
            while b"Ctrl-C leaves" not in said:
                line = run.stderr.readline()
                assert line, said
                said += line
            run.send_signal(signal.SIGTSTP)  # which is not for whoever has ended
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(5)
            run.send_signal(signal.SIGINT)
            assert run.wait(20) == 125
            said = run.stderr.read()
            assert b"did not store how" in said
            assert b"Traceback" not in said


def test_nor_does_it_hold_one_whose_output_waits_for_room(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    with running(tmp_path / "nats") as server, shown.open("wb") as stdout:
        cli = Cli(tmp_path, server.url)
        cli.ok("setup")
        with cli.started("run", "--spool", "0", "--id", "flood", "--", "yes", stdout=stdout) as run:
            wait_for(lambda: shown.stat().st_size, 60, "its output")
            server.kill()

            def blocked() -> bool:
                before = shown.stat().st_size
                time.sleep(0.5)
                return before == shown.stat().st_size

            wait_for(blocked, 60, "a full buffer")
            run.send_signal(signal.SIGTERM)
            assert run.wait(60) == 125
            assert run.stderr is not None
            assert "did not store how" in run.stderr.read().decode()


def test_a_refused_connection_is_said_soon_and_with_what_to_do(tmp_path: Path) -> None:
    done = Cli(tmp_path, "nats://127.0.0.1:1")("ps")
    assert (done.returncode, "natsproc up" in done.stderr) == (4, True)


def test_a_command_is_held_for_an_id_that_does_not_run_yet(cli: Cli) -> None:
    assert cli("interrupt", "later").returncode == 3
    said = cli.ok("interrupt", "later", "--hold", "10m", "--reason", "not today")
    assert said.startswith("later: interrupt accepted: nobody serves later now: held until 20")
    (receipt,) = cli.json("cancel", "never", "--hold", "1m30s")
    assert (receipt["status"], receipt["process"]) == ("accepted", "never")
    assert receipt["data"]["held_until"].endswith("Z")
    assert cli("run", "--id", "later", "--", "sleep", "60").returncode == 130
    (event,) = [e for e in cli.json("logs", "later") if e["type"] == "interrupted"]
    assert (event["data"]["reason"], event["cause"]) == ("not today", event["data"]["command"])
    assert cli("run", "--id", "later", "--restart", "--", "true").returncode == 0


async def refused(cli: Cli, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line while a node that was killed holds its lease, as it does for four seconds."""
    async with natsproc.connect(cli.env["NATS_URL"]) as mesh, leased(mesh, node):
        return await asyncio.to_thread(cli, *arguments)


def test_the_run_of_an_owner_that_was_killed_is_ended_by_the_next_of_that_id(cli: Cli) -> None:
    with cli.started("run", "--id", "crashed", "--", "sleep", "600"):
        wait_for(lambda: "crashed" in cli.ok("ps", "-o", "id").split(), 30, "crashed has started")
    (before,) = [row for row in cli.json("ps") if row["id"] == "crashed"]
    silent = asyncio.run(refused(cli, before["node"], "run", "--id", "crashed", "--", "true"))
    assert silent.returncode == 125
    assert f"its node {before['node']} (epoch {before['epoch']}) holds a lease" in silent.stderr
    assert cli.ok("run", "--id", "crashed", "--", "echo", "here I am") == "here I am\n"
    assert [e["type"] for e in cli.json("logs", "crashed", "--run", "all") if "offset" in e] == [
        "started", "killed", "exited", "restarted", "output", "exited",
    ]  # fmt: skip
