"""How often a server that is away is tried: often at first, and the seldomer the longer it is away."""

import asyncio

from harness import running
from hypothesis import given
from hypothesis import strategies as st

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


async def test_each_absence_begins_with_short_pauses(tmp_path):
    async def until(condition):
        async with asyncio.timeout(30):
            while not condition(connection.nc.options["reconnect_time_wait"]):
                await asyncio.sleep(0.005)

    with running(tmp_path / "nats") as server:
        connection = await Connection.open(Endpoint((server.url,), sender="someone"))
        try:
            server.kill()
            await until(lambda wait: wait > 0.03)
            server.start()
            await asyncio.wait_for(connection.wait_connected(), 30)
            gone = asyncio.Event()
            connection.on_disconnect(gone.set)
            server.kill()
            await asyncio.wait_for(gone.wait(), 30)
            await until(lambda wait: wait <= 0.02)
            server.start()
            await asyncio.wait_for(connection.wait_connected(), 30)
        finally:
            await connection.close()
