"""Polling a table of a database, every 100 ms: rows that the work writes, and a column that tells it to stop.

Rows are written in transactions of 100, or of what has come within 10 ms. The URL is PostgreSQL's, or a folder for
SQLite.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.roles import Body, Text

POLL = 0.1
BATCH, AGE = 100, 0.01


def _connect(url: str) -> tuple[Any, str]:
    """A connection, and how it marks a parameter."""
    if url.startswith("postgresql:"):
        import psycopg

        return psycopg.connect(url), "%s"
    database = sqlite3.connect(f"{url}/table.db", timeout=30, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    return database, "?"


def _open(url: str) -> tuple[Any, str]:
    while True:
        try:
            return _made(url)
        except Exception as error:  # writer and viewer both make the tables: the later one tries again
            if "already exists" not in str(error) and "locked" not in str(error):
                raise


def _made(url: str) -> tuple[Any, str]:
    database, mark = _connect(url)
    number = "bigserial" if mark == "%s" else "integer"
    database.execute(f"CREATE TABLE IF NOT EXISTS events (n {number} PRIMARY KEY, process text, data text)")
    database.execute("CREATE INDEX IF NOT EXISTS by_process ON events (process, n)")
    database.execute("CREATE TABLE IF NOT EXISTS runs (process text PRIMARY KEY, stop integer)")
    database.commit()
    return database, mark


async def write(url: str, id: str, body: Body, how: str) -> None:
    database, mark = _open(url)
    insert = f"INSERT INTO events (process, data) VALUES ({mark}, {mark})"
    rows: list[tuple[str, str]] = []
    since = 0.0

    def commit() -> None:
        database.cursor().executemany(insert, rows)
        database.commit()
        rows.clear()

    async def emit(text: str) -> None:
        nonlocal since
        if not rows:
            since = time.monotonic()
        rows.append((id, text))
        if len(rows) >= BATCH or time.monotonic() - since > AGE:
            commit()

    async def flush() -> None:
        commit()

    async def tick() -> None:
        while True:
            await asyncio.sleep(AGE)
            if rows:
                commit()

    ticking = asyncio.create_task(tick())
    await body(emit, flush)
    ticking.cancel()


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    database, mark = _open(url)
    last = 0
    while True:
        last = _poll(database, mark, id, last, on)
        await asyncio.sleep(POLL)


def _poll(database: Any, mark: str, id: str, last: int, on: Callable[[Text], None]) -> int:
    query = f"SELECT n, data FROM events WHERE process = {mark} AND n > {mark} ORDER BY n LIMIT 10000"
    rows = database.execute(query, (id, last)).fetchall()
    for _, data in rows:
        on(data)
    database.commit()
    return int(rows[-1][0]) if rows else last


async def replay(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    database, mark = _open(url)
    last = before = 0
    while (last := _poll(database, mark, id, before, on)) > before:
        before = last
        await asyncio.sleep(0)


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    database, mark = _open(url)
    database.execute(f"INSERT INTO runs VALUES ({mark}, 0)", (id,))
    database.commit()
    while True:
        started()
        while not database.execute(f"SELECT stop FROM runs WHERE process = {mark}", (id,)).fetchone()[0]:
            database.commit()
            await asyncio.sleep(POLL)
        stopped()
        database.execute(f"UPDATE runs SET stop = 0 WHERE process = {mark}", (id,))
        database.commit()


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    database, mark = _connect(url)

    async def stop() -> None:
        database.execute(f"UPDATE runs SET stop = 1 WHERE process = {mark}", (id,))
        database.commit()

    yield stop
    database.close()
