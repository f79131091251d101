"""What is in the way of a process: its beginning and end at the wrong moment, rights it lacks, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
import time

import pytest
from harness import free_port
from meshes import appears, events, until

import natsproc
from natsproc.bus import inbox
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.registry import Registry


@pytest.fixture(scope="module")
def version():
    return None


def ended(seen):
    assert [e.type for e in seen].count("exited") == 1
    return seen[-1].data


async def test_a_process_cancelled_while_it_opens_is_free_again_or_ended_once(mesh, viewer, monkeypatch):
    began, going_on = threading.Event(), asyncio.Event()
    catch_up = inbox.InboxReader._catch_up

    async def slow(self):
        began.set()
        await going_on.wait()
        await catch_up(self)

    monkeypatch.setattr(inbox.InboxReader, "_catch_up", slow)

    async def agent(proc):
        await asyncio.sleep(60)

    task = asyncio.create_task(mesh.run(agent, id="stillborn"))
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert ended(await events(viewer.process("stillborn")))["status"] == "cancelled"
    async with viewer.own("stillborn", restart=True) as proc:
        assert proc.run_number == 2


async def test_a_process_cancelled_just_as_it_has_opened_is_ended(mesh, viewer):
    for delay in range(12):
        id = f"abrupt-{delay}"
        task = asyncio.create_task(
            mesh.run(lambda proc: time.sleep(0), id=id) if delay % 2 else _hold(mesh, id)
        )
        await asyncio.sleep(delay / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with viewer.own(id, restart=True) as proc:  # nobody holds it any more
            assert proc.id == id


async def _hold(mesh, id):
    async with mesh.own(id):
        await asyncio.sleep(60)


async def test_an_error_too_long_for_an_event_still_ends_the_run(mesh, viewer):
    with pytest.raises(ValueError, match="xxx"):
        async with mesh.own("verbose"):
            raise ValueError("x" * 2_000_000 + "\udce4")
    assert ended(await events(viewer.process("verbose")))["status"] == "failed"


async def test_closing_the_mesh_ends_what_runs_on_it_and_its_code_is_told(bus, viewer):
    closed = asyncio.Event()

    async def agent(proc):
        await closed.wait()
        await proc.log("still here")

    async with natsproc.connect(bus.url) as mesh:
        task = asyncio.create_task(mesh.run(agent, id="left-running"))
        handle = await appears(viewer, "left-running")
    closed.set()
    with pytest.raises((natsproc.AlreadyEnded, natsproc.Closed)):
        await asyncio.wait_for(task, 10)
    end = ended(await events(handle))
    assert (end["status"], "closed" in end["error"]) == ("cancelled", True)


async def test_a_mesh_can_be_opened_again(bus):
    mesh = natsproc.connect(bus.url)
    for number in (1, 2):
        async with mesh, mesh.own("again", restart=True) as proc:
            assert proc.run_number == number


async def test_a_mesh_whose_opening_is_cancelled_leaves_nothing_behind(bus):
    before = set(threading.enumerate())  # of whatever ran in this process
    for delay in range(10):
        mesh = natsproc.connect(bus.url)
        task = asyncio.create_task(mesh.__aenter__())
        await asyncio.sleep(delay / 500)
        task.cancel()
        if not isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException):
            await mesh.__aexit__(None, None, None)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "natsproc-io"]


async def test_many_plain_functions_run_at_once_each_in_a_thread_of_its_own(mesh):
    together = threading.Barrier(40)

    def meet(proc):
        return together.wait(20)

    assert len(await asyncio.gather(*(mesh.run(meet, id=f"meet-{n}") for n in range(40)))) == 40


async def test_cancelling_the_run_of_a_plain_function_cancels_the_function(mesh, viewer):
    def wait(proc):
        proc.receive()

    task = asyncio.create_task(mesh.run(wait, id="plainly"))
    await appears(viewer, "plainly")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert ended(await events(viewer.process("plainly")))["status"] == "cancelled"


CTRL_C = """
import asyncio, sys, time, natsproc
async def coroutine(proc):
    try:
        async with proc.interruptible():
            print("inside", flush=True)
            await asyncio.sleep(60)
    except natsproc.Interrupted as stop:
        print("stopped:", stop.reason, flush=True)
    await asyncio.sleep(60)
def plain(proc):
    try:
        with proc.interruptible():
            print("inside", flush=True)
            time.sleep(60)
    except natsproc.Interrupted as stop:
        print("stopped:", stop.reason, flush=True)
    time.sleep(60)
try: natsproc.run(globals()[sys.argv[2]], id=sys.argv[3], server=sys.argv[1])
except natsproc.Interrupted: print("interrupted")
except KeyboardInterrupt: print("killed")
"""


@pytest.mark.parametrize("function", ["coroutine", "plain"])
async def test_ctrl_c_is_an_interrupt_and_the_second_ends_it(bus, viewer, function):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CTRL_C, bus.url, function, f"keys-{function}", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            assert await child.stdout.readline() == b"inside\n"
            child.send_signal(signal.SIGINT)
            assert await child.stdout.readline() == b"stopped: Ctrl-C\n"
            child.send_signal(signal.SIGINT)
            await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    assert ended(await events(viewer.process(f"keys-{function}")))["status"] in ("interrupted", "cancelled")


SIGTERM = """
import asyncio, signal, sys, time, natsproc
async def coroutine(proc):
    print("inside", flush=True)
    await asyncio.sleep(60)
async def spinning(proc):
    print("inside", flush=True)
    while True: pass
def plain(proc):
    print("inside", flush=True)
    time.sleep(60)
def slow(proc):
    try: plain(proc)
    finally:
        print("tidying", flush=True)
        time.sleep(60)
def ignoring(proc):
    plain(proc) if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN else print("ignored", flush=True)
if sys.argv[2] == "ignoring": signal.signal(signal.SIGTERM, signal.SIG_IGN)
natsproc.run(globals()[sys.argv[2]], id=sys.argv[3], server=sys.argv[1])
"""


async def sigterm(bus, function):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SIGTERM, bus.url, function, f"term-{function}", stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize("function", ["coroutine", "spinning", "plain"])
async def test_sigterm_to_a_program_cancels_it(bus, viewer, function):
    child = await sigterm(bus, function)
    try:
        async with asyncio.timeout(40):
            assert await child.stdout.readline() == b"inside\n"
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == 143
    finally:
        if child.returncode is None:
            child.kill()
    last = ended(await events(viewer.process(f"term-{function}")))
    assert (last["status"], last["code"]) == ("cancelled", 143)


async def test_a_second_sigterm_ends_a_program_that_tidies_up_and_an_ignored_one_nothing(bus):
    child, ignoring = await sigterm(bus, "slow"), await sigterm(bus, "ignoring")
    try:
        async with asyncio.timeout(40):
            assert await child.stdout.readline() == b"inside\n"
            child.send_signal(signal.SIGTERM)
            assert await child.stdout.readline() == b"tidying\n"
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == -signal.SIGTERM
            assert await ignoring.stdout.readline() == b"ignored\n"
            assert await ignoring.wait() == 0
    finally:
        for started in (child, ignoring):
            if started.returncode is None:
                started.kill()


async def test_tails_that_are_closed_or_forgotten_leave_nothing_behind(mesh, viewer):
    async def state():
        return len(asyncio.all_tasks()), len(viewer.connection.nc._subs), len(viewer.connection._reconnected)

    async with mesh.own("watched") as proc:
        await proc.log("one")
        before = await viewer.io.call(state())
        for _ in range(10):
            tails = [viewer.process("watched").tail() for _ in range(25)]
            await asyncio.gather(*(anext(tail) for tail in tails))
            for tail in tails[::2]:
                await tail.aclose()
            del tails, tail
        gc.collect()

        async def gone():
            return await viewer.io.call(state()) == before

        await until(gone)


async def test_a_tail_whose_mesh_is_closed_says_so(bus, mesh):
    async with mesh.own("cut"):
        viewer = await natsproc.connect(bus.url, sender="viewer").__aenter__()
        tail = viewer.process("cut").tail()
        await anext(tail)
        waiting = asyncio.create_task(viewer.process("cut").wait())

        async def rest():
            return [item async for item in tail]

        reading = asyncio.create_task(rest())
        await asyncio.sleep(0.1)
        await viewer.__aexit__(None, None, None)
        for task in (reading, waiting):
            with pytest.raises(natsproc.Closed):
                await asyncio.wait_for(task, 10)


async def test_a_record_of_the_next_run_outlives_the_end_of_the_one_before(mesh, viewer, monkeypatch):
    end = Registry.end
    ending, going_on = asyncio.Event(), asyncio.Event()

    async def slow(self, record):
        ending.set()
        await going_on.wait()
        await end(self, record)

    monkeypatch.setattr(Registry, "end", slow)
    first = asyncio.create_task(mesh.run(_nothing, id="successor"))

    async def over():
        return ending.is_set()

    await until(over)
    assert (await viewer.process("successor").wait(timeout=10)).status == "completed"
    async with viewer.own("successor", restart=True):
        mesh.io.post(going_on.set)
        await first
        assert [info.address.id for info in await viewer.list()].count("successor") == 1


async def _nothing(proc):
    return None


async def test_a_command_too_large_for_the_server_is_refused_before_it_is_sent(mesh, viewer):
    async with mesh.own("small"):
        with pytest.raises(natsproc.TooLarge):
            await viewer.process("small").interrupt("x" * 2_000_000)


async def test_streamed_text_of_any_size_and_script_has_its_closing_events(mesh, viewer):
    async with mesh.own("storyteller") as proc, proc.stream("answer") as s:
        for _ in range(300):
            await s.token("😀" * 1000)
        await s.token("\0" * 150_000)
        await s.token("the end")
    shown = [
        e.data["text"] for e in await events(viewer.process("storyteller"), compact=True) if e.type == "text"
    ]
    assert "".join(shown) == "😀" * 300_000 + "\0" * 150_000 + "the end"


async def test_several_are_tailed_and_each_event_comes_once_over_restarts(mesh, viewer):
    seen = []

    async def watch():
        async for item in viewer.tail("twice-*", n=50):
            if isinstance(item, natsproc.Event):
                seen.append((item.address.id, item.offset))

    async with mesh.own("twice-a") as proc:
        await proc.log("one")
        task = asyncio.create_task(watch())
        await until(lambda: asyncio.sleep(0, ("twice-a", 2) in seen))
    for run in range(3):
        async with mesh.own("twice-a", restart=True) as proc:
            await proc.log("again")
            await until(lambda run=run: asyncio.sleep(0, ("twice-a", 5 + 3 * run) in seen))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(seen) == len(set(seen))


async def test_a_slow_viewer_of_several_gets_all_of_each(mesh, viewer):
    owners, total = ["wide-1", "wide-2", "wide-3", "wide-4"], 3000

    async def speak(proc):
        for number in range(total):
            await proc.emit("n", number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await proc.receive()

    tasks = [asyncio.create_task(mesh.run(speak, id=id)) for id in owners]
    for id in owners:
        await appears(viewer, id)
    seen = {id: [] for id in owners}
    async with viewer.tail(*owners, types=["n"]) as tail, asyncio.timeout(60):
        async for item in tail:
            if isinstance(item, natsproc.Event):
                seen[item.address.id].append(item.data)
                if len(seen[item.address.id]) % 500 == 1:
                    await asyncio.sleep(0.02)
            if all(len(numbers) == total for numbers in seen.values()):
                break
    assert all(numbers == list(range(total)) for numbers in seen.values())
    for id in owners:
        await viewer.process(id).send("end")
    await asyncio.gather(*tasks)


async def test_a_forked_childs_receive_raises_and_the_end_of_its_block_is_silent(bus, viewer):
    program = (
        "import asyncio, os, sys, natsproc\n"
        "async def main():\n"
        "    async with natsproc.connect(sys.argv[1]) as mesh:\n"
        "        async with mesh.own('forker') as proc:\n"
        "            pid = os.fork()\n"
        "            if not pid:\n"
        "                try: proc.sync.receive()\n"
        "                except natsproc.Closed: print('closed', flush=True)\n"
        "                os._exit(0)\n"
        "            await asyncio.to_thread(os.waitpid, pid, 0)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, bus.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(), 20)
    finally:
        if child.returncode is None:
            child.kill()
    assert out == b"closed\n"
    assert ended(await events(viewer.process("forker")))["status"] == "completed"


async def test_a_connection_that_is_refused_just_as_its_time_is_over_is_said_as_such():
    endpoint = Endpoint((f"nats://127.0.0.1:{free_port()}",))
    for number in range(400):
        with pytest.raises(natsproc.NoServer, match="no nats-server answers"):
            await Connection.open(endpoint, timeout=0.00001 * (number % 200))
