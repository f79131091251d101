"""`natsproc prune`, and what `setup` and `up` say about how much is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, cli_with_server
from harness import wait_for
from homes import a_home


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with cli_with_server(tmp_path_factory.mktemp("prune")) as (cli, _):
        yield cli


def test_what_has_ended_is_forgotten_and_nothing_else(cli: Cli) -> None:
    for id in ("one", "two", "three"):
        cli.ok("run", "--id", id, "--", "echo", id)
    with cli.started("run", "--id", "lives", "--", "sleep", "60"):
        wait_for(lambda: "lives" in cli.ok("ps", "-o", "id"), 60, "its start")
        assert cli.ok("prune") == ""  # nothing is seven days old
        assert cli.ok("prune", "--dry-run", "two") == "two\n"
        assert cli.ok("prune", "two") == "two\n"
        assert cli("prune", "two").returncode == 3
        refused = cli("prune", "lives", "one")
        assert (refused.returncode, refused.stdout) == (5, "one\n")
        assert "natsproc kill lives" in refused.stderr
        assert cli.ok("prune", "--older", "0", "--dry-run") == "three\n"
        done = cli("prune", "--older", "0s")
        assert (done.stdout, done.stderr) == ("three\n", "natsproc: 1 process pruned\n")
        assert cli.ok("ps", "-a", "-o", "id") == "lives\n"
    assert cli("logs", "one").returncode == 3
    assert cli("prune", "one", "--older", "1d").returncode == 2


def test_a_bar_is_drawn_where_it_is_seen(cli: Cli) -> None:
    for id in ("bar-1", "bar-2"):
        cli.ok("run", "--id", id, "--", "true")
    with cli.terminal("prune", "--older", "0s") as terminal:
        text = terminal.read()
        assert "bar-1" in text
        assert "pruning" in text


def test_limits_are_said_at_setup_and_changed_only_when_asked(cli: Cli) -> None:
    printed = cli.ok(
        "setup", "--print", "--keep", "1d", "--max-bytes", "1GB", "--max-events-per-process", "9"
    )
    config = json.loads(printed)["streams"][0]
    assert config["max_age"] == 86400 * 10**9
    assert (config["max_bytes"], config["max_msgs_per_subject"]) == (10**9, 9)
    assert cli.ok("setup") == ""
    assert cli.ok("setup", "--keep", "40d") == "PROC_EVENTS\nPROC_INBOX\n"
    assert cli.ok("setup", "--keep", "40d") == ""


def test_up_sets_limits_of_a_server_that_runs_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_home(tmp_path, monkeypatch) as home:
        cli = Cli(tmp_path)
        cli.env["NATSPROC_HOME"] = str(home.folder)
        cli.ok("up")
        cli.ok("up", "--keep", "1d")
        assert cli.ok("setup", "--keep", "1d") == ""
