"""Temporal: workflow streams for what is watched; signals, updates and cancelled activities for what is stopped.

An activity publishes to its workflow's stream in batches, flushed every 10 ms (`batch_interval`; 2 s unless said) or
1,000 events; a subscriber polls again as soon as it has caught up, and not after the usual 100 ms. The dev server keeps
its store in memory, which is to its advantage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks.roles import Body, Text

BATCH = 1000
BEAT = timedelta(milliseconds=50)

_body: Body
_started: Callable[[], None]
_stopped: Callable[..., None]


@activity.defn
async def write_events() -> None:
    client = WorkflowStreamClient.from_within_activity(
        batch_interval=timedelta(milliseconds=10), max_batch_size=BATCH
    )
    events = client.topic("events", type=str)
    waiting = 0

    async def emit(text: str) -> None:
        nonlocal waiting
        events.publish(text)
        waiting += 1
        if waiting >= BATCH:  # no faster than the server takes it
            waiting = 0
            await client.flush()

    async with client:
        await _body(emit, client.flush)


@workflow.defn
class Streaming:
    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(write_events, start_to_close_timeout=timedelta(minutes=10))


@activity.defn
async def beating() -> None:
    try:
        _started()
        while True:
            activity.heartbeat()
            await asyncio.sleep(BEAT.total_seconds())
    except asyncio.CancelledError:
        _stopped()
        raise


@workflow.defn
class Cancelled:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            beating, start_to_close_timeout=timedelta(minutes=10), heartbeat_timeout=timedelta(seconds=5),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )  # fmt: skip


@workflow.defn
class Told:
    """Stopped by a signal or an update."""

    def __init__(self) -> None:
        self.told = 0

    @workflow.run
    async def run(self) -> None:
        while True:
            _started()
            before = self.told
            await workflow.wait_condition(lambda: self.told > before)  # noqa: B023
            _stopped()

    @workflow.signal
    def by_signal(self) -> None:
        self.told += 1

    @workflow.update
    def by_update(self) -> None:
        self.told += 1


async def _worker(url: str, id: str) -> tuple[Client, Worker]:
    client = await Client.connect(url)
    worker = Worker(
        client, task_queue=id, workflows=[Streaming, Cancelled, Told], activities=[write_events, beating],
        workflow_runner=UnsandboxedWorkflowRunner(), max_heartbeat_throttle_interval=BEAT,
        default_heartbeat_throttle_interval=BEAT,
    )  # fmt: skip
    return client, worker


async def write(url: str, id: str, body: Body, how: str) -> None:
    global _body
    _body = body
    client, worker = await _worker(url, id)
    async with worker:
        await client.execute_workflow(Streaming.run, id=id, task_queue=id)


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    client = await Client.connect(url)
    handle = client.get_workflow_handle(id)
    await _there(handle)
    stream = WorkflowStreamClient.create(client, id)
    async for item in stream.subscribe(["events"], result_type=str, poll_cooldown=timedelta(milliseconds=1)):
        on(item.data)


async def _there(handle: WorkflowHandle[Any, Any]) -> None:
    while True:
        try:
            await handle.describe()
            return
        except RPCError:
            await asyncio.sleep(0.05)


async def replay(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    await watch(url, id, on, how)


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    global _started, _stopped
    _started, _stopped = started, stopped
    client, worker = await _worker(url, id)
    async with worker:
        if how != "cancel":
            return await client.execute_workflow(Told.run, id=id, task_queue=id)
        number = 0
        while True:
            handle = await client.start_workflow(Cancelled.run, id=f"{id}-{number}", task_queue=id)
            number += 1
            try:
                await handle.result()
            except Exception:  # it was cancelled
                pass


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    client = await Client.connect(url)
    number = -1

    async def cancel() -> None:
        nonlocal number
        number += 1
        await client.get_workflow_handle(f"{id}-{number}").cancel()

    async def signal() -> None:
        await client.get_workflow_handle(id).signal(Told.by_signal)

    async def update() -> None:
        await client.get_workflow_handle(id).execute_update(Told.by_update)

    yield {"cancel": cancel, "signal": signal, "update": update}[how]
