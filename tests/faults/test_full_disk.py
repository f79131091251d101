"""A full disk under the embedded server: everyone who waits for it says so, and what to do helps."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest
from harness import small_disk
from homes import NATSPROC, a_home, natsproc

from natsproc.server import embedded


def test_whoever_meets_a_full_disk_says_so_and_how_to_go_on(tmp_path, monkeypatch):
    with small_disk(tmp_path / "home") as folder, a_home(folder, monkeypatch) as home:
        embedded.start(home)
        sleeper = subprocess.Popen([NATSPROC, "run", "--id", "sleeper", "--", "sleep", "300"])
        try:
            while "sleeper" not in natsproc("ps", "-o", "id").stdout:
                assert sleeper.poll() is None
            assert natsproc("doctor").returncode == 1  # too little is free, which is said
            filler = folder / "filler"
            filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - 200_000))
            run = ("run", "--spool", "0", "--id", "full", "--", "seq", "100000")
            full = subprocess.Popen([NATSPROC, *run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                said = b""
                while b"disk full" not in said:  # asked by the test's own time limit
                    said += full.stderr.readline()
                assert b"natsproc up" in said
                sent = natsproc("send", "sleeper", "x" * 100_000)
                assert (sent.returncode, "disk full" in sent.stderr) == (124, True)
                found = natsproc("doctor")
                assert found.returncode == 1
                assert [
                    line
                    for line in found.stdout.splitlines()
                    if "✗ storage: PROC_EVENTS" in line and "disk" in line
                ]
            finally:
                filler.unlink()
                embedded.stop(home)
                embedded.start(home)
                assert full.wait(60) == 0
            assert [line for line in natsproc("doctor").stdout.splitlines() if "✗ storage" in line] == []
            assert said.count(b"disk full") == 1
        finally:
            sleeper.kill()
            sleeper.wait()


def test_what_cannot_even_begin_on_a_full_disk_says_so(tmp_path, monkeypatch):
    with small_disk(tmp_path / "home") as folder, a_home(folder, monkeypatch) as home:
        embedded.start(home)
        with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
            filler.write(bytes(shutil.disk_usage(folder).total))
        late = natsproc("run", "--id", "late", "--", "true")
        assert (late.returncode, "disk full" in late.stderr) == (125, True), late.stderr


@pytest.mark.parametrize("code", [10002, 10023, 10047, 10077])
def test_every_refusal_for_want_of_room_says_what_to_do(code):
    from natsproc.bus.connection import ApiError

    text = str(
        ApiError(
            "$KV.PROC_LEASES.vm", {"code": 503, "err_code": code, "description": "insufficient resources"}
        )
    )
    assert "disk full" in text
    assert "`natsproc up`" in text
