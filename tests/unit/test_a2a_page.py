"""A page of A2A tasks: all are counted, and only those on it kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from natsproc.http.a2a_page import Page
from natsproc.http.a2a_params import ListParams
from natsproc.http.a2a_task import Task
from natsproc.http.exchange import Exchange
from natsproc.protocol.names import Address


def task(position, second):
    work = Exchange(1, position)
    work.time = f"2026-01-01T00:00:{second:02}.000Z"
    return Task(Address("default", "chat"), work)


@given(
    seconds=st.lists(st.integers(0, 5), max_size=40),
    size=st.integers(1, 7),
    order=st.randoms(use_true_random=False),
)
def test_pages_together_are_all_tasks_newest_first(seconds, size, order):
    tasks = [task(position, second) for position, second in enumerate(seconds, 1)]
    shown, token = [], ""
    while True:
        page = Page(ListParams(pageSize=size, pageToken=token))
        for one in order.sample(tasks, len(tasks)):
            page.add(one)
        answer = page.to_json()
        assert answer["totalSize"] == len(tasks)
        assert answer["pageSize"] == len(answer["tasks"]) <= size
        assert len(page._kept) <= size
        shown += [said["id"] for said in answer["tasks"]]
        token = answer["nextPageToken"]
        if not token:
            break
    newest = sorted(tasks, key=lambda one: (one.work.time, one.work.position), reverse=True)
    assert shown == [one.id for one in newest]
