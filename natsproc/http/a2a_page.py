"""One page of a run's tasks, the newest first, of as many as there are: only what is on it is kept. Pure."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from typing import Any

from .a2a_params import ListParams
from .a2a_task import Task, state_name


class Page:
    """Fed with tasks, in any order, once they do not change any more."""

    def __init__(self, wish: ListParams) -> None:
        self._wish = wish
        self._found = 0  # tasks that are wanted
        self._behind = 0  # of these, those behind the page's beginning
        self._kept: list[tuple[str, int, Task]] = []  # a heap, the oldest first

    def add(self, task: Task) -> None:
        """Take a task into account."""
        wish, place = self._wish, _place(task)
        if wish.contextId not in ("", task.context) or wish.status not in ("", state_name(task.work.state)):
            return
        if wish.statusTimestampAfter is not None and _time(task) < wish.statusTimestampAfter:
            return
        self._found += 1
        if wish.pageToken and place >= wish.pageToken:
            return
        self._behind += 1
        heapq.heappush(self._kept, (place, self._behind, task))
        if len(self._kept) > wish.pageSize:
            heapq.heappop(self._kept)

    def to_json(self) -> dict[str, Any]:
        """The answer to `ListTasks`."""
        wish, page = self._wish, sorted(self._kept, reverse=True)
        return {
            "tasks": [
                task.to_json(history=wish.historyLength, artifacts=wish.includeArtifacts) for *_, task in page
            ],
            "nextPageToken": page[-1][0] if self._behind > len(page) else "",
            "pageSize": len(page),
            "totalSize": self._found,
        }


def _place(task: Task) -> str:
    return f"{task.work.time}_{task.work.position:016}"


def _time(task: Task) -> datetime:
    try:
        return datetime.fromisoformat(task.work.time).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
