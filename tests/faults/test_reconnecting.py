"""How often a server that is away is tried: often at first, and the seldomer the longer it is away."""

import asyncio
import time

import pytest
from harness import running
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.transport import TcpTransport

from natsproc.bus import mended
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.mended import pause

AWAY = st.floats(0, 1e6)


@given(AWAY)
def test_the_pause_is_a_fiftieth_of_the_absence_within_bounds(away):
    longest = min(max(away / 50, 0.02), 1)
    assert longest / 2 <= pause(away) <= longest


@given(AWAY)
def test_clients_that_lost_a_server_at_the_same_time_do_not_come_back_as_one(away):
    assert len({pause(away) for _ in range(10)}) > 1


async def test_an_absence_begins_with_short_pauses_and_lasts_until_a_connection_holds(tmp_path):
    waits = asyncio.Queue()

    async def back():
        server.start()
        await asyncio.wait_for(connection.wait_connected(), 30)

    with running(tmp_path / "nats") as server:
        connection = await Connection.open(Endpoint((server.url,), sender="someone"))
        try:
            options = connection.nc.options
            connection.on_disconnect(lambda: waits.put_nowait(options["reconnect_time_wait"]))
            await asyncio.sleep(mended._HELD_FOR)
            server.kill()
            assert await asyncio.wait_for(waits.get(), 30) <= 0.02
            async with asyncio.timeout(30):
                while options["reconnect_time_wait"] < 0.04:  # more than two seconds
                    await asyncio.sleep(0.005)
            await back()
            connection.nc._found = time.monotonic()  # however slow this machine is
            server.kill()
            assert await asyncio.wait_for(waits.get(), 30) > 0.02
            await back()
            await asyncio.sleep(mended._HELD_FOR)
            server.kill()
            assert await asyncio.wait_for(waits.get(), 30) <= 0.02
            await back()
        finally:
            await connection.close()


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_trying_again_ends_though_a_cancellation_is_swallowed(tmp_path, monkeypatch, how):
    """As Python 3.11's `wait_for` does if an attempt fails in the very turn in which it is cancelled."""
    trying = asyncio.Event()

    async def connect(*args, **options):
        first = not trying.is_set()
        trying.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if first:
                raise ConnectionRefusedError from None
            raise

    with running(tmp_path / "nats") as server:
        connection = await Connection.open(Endpoint((server.url,), sender="someone"))
        monkeypatch.setattr(TcpTransport, "connect", connect)
        server.kill()
        await asyncio.wait_for(trying.wait(), 30)
        task = connection.nc._reconnection_task
        if how == "cancelled":
            task.cancel()
        else:
            await connection.close()
        await asyncio.wait([task], timeout=10)
        assert task.done()
        await connection.close()
