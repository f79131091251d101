"""A wall clock that jumps decides nothing: neither who owns an id, nor whether they live, nor what comes first."""

from __future__ import annotations

import asyncio
import time

import pytest
from meshes import make_mesh

import natsproc
from natsproc.bus.streams import LEASE_SECONDS
from natsproc.errors import AlreadyRunning


@pytest.fixture
def jump(monkeypatch):
    """Set this machine's wall clock so many seconds ahead, or back."""
    seconds, nanoseconds = time.time, time.time_ns

    def by(offset):
        monkeypatch.setattr(time, "time", lambda: seconds() + offset)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(offset * 1e9))

    return by


@pytest.mark.parametrize("offset", [86_400.0, -86_400.0])
async def test_an_owner_whose_clock_jumps_goes_on_and_no_other_takes_its_id(server, jump, offset):
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url, sender="viewer") as other:
        async with mesh.own("job") as proc:
            shown = []

            async def watch():
                async for item in other.process("job").tail():
                    shown.append(item)

            watching = asyncio.create_task(watch())
            await proc.emit("said", 1)
            await proc.flush()
            jump(offset)
            for n in range(2, 100):
                await proc.emit("said", n)
                await asyncio.sleep((LEASE_SECONDS + 2) / 100)  # past a lease
            await proc.flush()
            (info,) = await other.list()
            assert (info.state, info.gone) == ("running", None)
            assert info.quiet < 60  # by the server's clock
            with pytest.raises(AlreadyRunning):
                async with other.own("job"):
                    pass
            assert (await other.process("job").pause()).applied
            await other.process("job").resume()
            jump(0)
            await proc.emit("said", 100)
        await asyncio.wait_for(watching, 20)
        events = [item for item in shown if isinstance(item, natsproc.Event)]
        assert [event.data for event in events if event.type == "said"] == list(range(1, 101))
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        assert not [item for item in shown if item.type in ("unreachable", "takeover", "gap")]


async def test_a_claimant_whose_clock_is_a_day_off_still_waits_for_the_lease(server, jump):
    await make_mesh(server.url)
    jump(86_400.0)
    async with (
        natsproc.connect(server.url) as mesh,
        natsproc.connect(server.url, sender="heir") as heir,
        mesh.own("job") as proc,
    ):
        await proc.flush()
        (hosted,) = (await mesh.node()).hosted.values()
        await mesh.io.call(hosted._control.close())  # it does not answer, and its node holds a lease
        with pytest.raises(AlreadyRunning, match="lease"):
            async with heir.own("job"):
                pass
        await proc.flush()
