"""The spool's file: first in, first out, within its bound, and nothing left behind."""

import os
import tempfile
from collections import deque
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from natsproc.bus import spool
from natsproc.bus.spool import Spool

STEPS = st.lists(st.one_of(st.just("take"), st.integers(0, 300)), max_size=80)


@given(steps=STEPS, size=st.integers(0, 1500))
def test_what_is_put_comes_out_once_and_in_order(steps, size):
    with tempfile.TemporaryDirectory() as folder:
        queue, expected = Spool(Path(folder), size), deque()
        for n, step in enumerate(steps):
            if step == "take":
                for payload in queue.take():
                    assert payload == expected.popleft()
            else:
                payload = bytes([n % 256]) * step
                queue.put(payload)
                expected.append(payload)
            assert queue.used <= size
            assert queue.empty == (not expected)
        while not queue.empty:
            for payload in queue.take():
                assert payload == expected.popleft()
        assert not expected
        assert os.listdir(folder) == []


@given(lengths=st.lists(st.integers(0, 200), max_size=60))
def test_a_payload_longer_than_one_read_comes_out_whole(lengths):
    before, spool._READ_BYTES = spool._READ_BYTES, 64
    try:
        with tempfile.TemporaryDirectory() as folder:
            queue = Spool(Path(folder), 10_000)
            payloads = [bytes([n]) * length for n, length in enumerate(lengths)]
            for payload in payloads:
                queue.put(payload)
            found = []
            while not queue.empty:
                found += queue.take()
            assert found == payloads
    finally:
        spool._READ_BYTES = before


def test_it_is_full_at_its_bound_and_takes_more_all_the_same(tmp_path):
    queue = Spool(tmp_path, 100)
    queue.put(b"x" * 80)
    assert not queue.full
    queue.put(b"y" * 80)
    assert queue.full
    assert queue.used == 84
    assert queue.take() + queue.take() == [b"x" * 80, b"y" * 80]
    assert not queue.full


def test_it_is_nobody_elses_and_its_space_is_given_back_once_it_is_empty(tmp_path):
    queue = Spool(tmp_path / "home" / "spool", 1000)
    queue.put(b"x")
    made = (tmp_path / "home", tmp_path / "home" / "spool")
    assert {folder.stat().st_mode & 0o777 for folder in made} == {0o700}
    descriptor = queue._file.fileno()
    assert os.fstat(descriptor).st_nlink == 0
    queue.take()
    assert queue._file is None
    assert queue.used == 0


def test_a_folder_that_cannot_be_used_is_said_and_nothing_is_lost(tmp_path):
    (tmp_path / "file").touch()
    queue = Spool(tmp_path / "file" / "spool", 1000)
    queue.put(b"one")
    assert "file/spool: Not a directory" in queue.trouble
    assert queue.full
    queue.put(b"two")
    assert queue.take() == [b"one", b"two"]
    assert queue.empty
    assert not queue.full
    assert queue.trouble == ""
