"""What `natsproc inspect` shows to people."""

from __future__ import annotations

from datetime import UTC, datetime

from natsproc_cli.details import lines

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
RECORD = {
    "namespace": "chat", "id": "r1", "kind": "bash", "node": "n1", "epoch": 3, "run": 2, "state": "running",
    "started": "2026-01-31T11:58:30Z", "labels": {"team": "ml"}, "title": "bash -c x",
}  # fmt: skip
FOUND = {
    "record": RECORD, "epoch": 3, "run": 2, "offset": 9, "stored": 7, "spooled": 0, "inbox": 1,
    "checkpoint": {"offset": 5, "size": 2_000, "version": 2}, "paused": False,
    "node": {"name": "n1", "host": "vm", "pid": 77, "load": 0.5}, "writer": {"stored": 7, "trouble": None},
    "command": ["bash", "-c", "echo hi"],
    "members": [{"pid": 78, "name": "bash", "state": "sleeping", "cpu": 0.1, "rss": 3_166_208}],
    "loop_age": 4.25, "stack": {"thread main": ["  File x\n", "    spin()\n"]},
}  # fmt: skip


def test_everything_has_its_line():
    assert list(lines(FOUND, NOW)) == [
        "chat/r1  running",
        "  kind      bash",
        "  title     bash -c x",
        "  command   bash -c 'echo hi'",
        "  labels    team=ml",
        "  started   1m30s ago, 2026-01-31T11:58:30Z",
        "  epoch     3",
        "  run       2",
        "  offset    9, stored up to 7",
        "  inbox     1 waiting",
        "  state     saved at event 5: 2 kB, version 2",
        "  node      n1 on vm, pid 77, load 0.50",
        "  loop      has not turned for 4.25 s",
        "  members",
        "    PID  NAME  STATE     CPU     MEMORY",
        "    78   bash  sleeping  0.10 s  3.2 MB",
        "  thread main",
        "      File x",
        "        spin()",
    ]


def test_of_what_has_ended_the_record_is_all():
    record = RECORD | {"namespace": "default", "state": "failed", "code": 2, "ended": "2026-01-31T11:59:58Z"}
    shown = list(lines({"record": record}, NOW))
    assert shown[0] == "r1  failed, exit code 2"
    assert "  ended     2s ago, 2026-01-31T11:59:58Z" in shown
    assert "  node      n1" in shown
    assert not [line for line in shown if "offset" in line or "inbox" in line]


def test_words_of_others_come_out_harmless_and_news_are_shown_as_they_are():
    found = FOUND | {"record": RECORD | {"title": "a\x1b]0;x\x07b\nc"}, "novel": {"a": 1}}
    shown = list(lines(found, NOW))
    assert "  title     ab⏎c" in shown
    assert '  novel     {"a": 1}' in shown
