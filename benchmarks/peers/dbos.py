"""DBOS: streams for what is watched, `send` and `recv` and cancelling a workflow for what is stopped.

The URL is PostgreSQL's, where readers are woken by LISTEN/NOTIFY, or a folder for SQLite, where they poll: once a
second unless said, here every 10 ms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID

from benchmarks.roles import Body, Text

POLL = 0.01

_body: Body
_started: Callable[[], None]
_stopped: Callable[..., None]


def _database(url: str) -> str:
    return url if url.startswith("postgresql:") else f"sqlite:///{url}/dbos.sqlite"


def _launch(url: str, id: str) -> None:
    config: DBOSConfig = {
        "name": "bench", "system_database_url": _database(url), "log_level": "ERROR",
        "notification_listener_polling_interval_sec": POLL,
        "executor_id": id,  # so that it takes up nothing of earlier rounds
    }  # fmt: skip
    DBOS(config=config)
    DBOS.launch()
    logging.getLogger("dbos").setLevel(logging.CRITICAL)


@DBOS.workflow()
async def writing() -> None:
    await _body(partial(DBOS.write_stream_async, "events"), _nothing)


async def _nothing() -> None:
    """Each write was stored when it returned."""


@DBOS.workflow()
async def told() -> None:
    while True:
        _started()
        await DBOS.recv_async("stop", timeout_seconds=3600)
        _stopped()


@DBOS.step()
async def piece() -> None:
    await asyncio.sleep(0.01)


@DBOS.workflow()
async def cancelled() -> None:
    _started()
    while True:
        await piece()


async def write(url: str, id: str, body: Body, how: str) -> None:
    global _body
    _body = body
    _launch(url, id)
    with SetWorkflowID(id):
        handle = await DBOS.start_workflow_async(writing)
    await handle.get_result()


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    client = await _client(url)
    while not await client.list_workflows_async(workflow_ids=[id]):
        await asyncio.sleep(0.05)
    async for text in client.read_stream_async(id, "events", polling_interval_sec=POLL):
        on(text)


async def _client(url: str) -> DBOSClient:
    """A client, once the application has made its tables."""
    listens = url.startswith("postgresql:")
    while True:
        try:
            client = DBOSClient(
                system_database_url=_database(url), use_listen_notify=listens, retry_connection_errors=False
            )
            await client.list_workflows_async(limit=1)
            return client
        except Exception:
            await asyncio.sleep(0.2)


async def replay(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    await watch(url, id, on, how)


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    global _started, _stopped
    _started, _stopped = started, stopped
    _launch(url, id)
    number = 0
    while True:
        with SetWorkflowID(f"{id}-{number}"):
            handle = await DBOS.start_workflow_async(cancelled if how == "cancel" else told)
        number += 1
        try:
            await handle.get_result()
        except Exception:  # it was cancelled
            stopped()


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    client = await _client(url)
    number = -1

    async def cancel() -> None:
        nonlocal number
        number += 1
        await client.cancel_workflow_async(f"{id}-{number}")

    async def send() -> None:
        await client.send_async(f"{id}-0", "stop", "stop")

    yield cancel if how == "cancel" else send
