"""Credentials that end while they are used: the next one takes over without a gap, or it is said that there is none."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest
from harness import SERVERS, binary
from homes import NATSPROC, a_home

import natsproc as sdk
from natsproc.errors import BadPayload, Closed, CredentialEnded, NotAllowed
from natsproc.server import embedded


@pytest.fixture(params=SERVERS, ids=[v or "newest" for v in SERVERS])
def home(tmp_path, monkeypatch, request):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(request.param)))
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        yield home


class Counted:
    """Gives a credential that lives for `seconds`, and counts how often it was asked."""

    def __init__(self, seconds, *, can=("all",), on=()):
        self.asked = 0
        self.make = lambda: sdk.grant("dash", can, on, seconds=seconds)

    def __call__(self):
        self.asked += 1
        self.made = self.make()
        return self.made.creds

    async def later(self):
        await asyncio.sleep(0.01)
        return self()


async def seen(tail, upto):
    """What a tail shows until the event that says `upto`; and that nothing is missing or shown twice."""
    numbers = []
    async for item in tail:
        if isinstance(item, sdk.Event) and item.type == "number":
            numbers.append(item.data["n"])
            if item.data["n"] == upto:
                return numbers


@pytest.mark.parametrize("how", ["plain", "async", "file"])
async def test_a_credential_is_renewed_without_a_gap_for_owners_and_viewers(home, tmp_path, how):
    """Some renewals under an owner that writes all the while, its viewer, and who sends and asks it."""
    source = Counted(5)
    path = tmp_path / "dash.creds"

    async def rewrite():
        while True:
            path.with_suffix(".new").write_text(source())
            path.with_suffix(".new").replace(path)  # whole at any time
            await asyncio.sleep(1.5)

    if how == "file":
        path.write_text(source())
        writing = asyncio.create_task(rewrite())
        holder = sdk.connect(creds=str(path))
    else:
        holder = sdk.connect(credentials=source if how == "plain" else source.later)
    count, answered = 0, 0
    cut_off = []
    async with holder as mesh, sdk.connect() as other, mesh.own("p") as proc:
        mesh.connection.nc.on_ended = cut_off.append
        mine = asyncio.create_task(seen(mesh.process("p").tail(), -1))
        theirs = asyncio.create_task(seen(other.process("p").tail(), -1))
        end = time.monotonic() + 12
        while time.monotonic() < end:
            count += 1
            await proc.emit("number", {"n": count})
            if count % 10 == 0:
                assert (await other.process("p").ping(timeout=20)).applied
                assert (await mesh.process("p").ping(timeout=20)).applied
                sent = await mesh.process("p").send(count)
                assert (await proc.receive()).data == count
                await sent.consumed()
                answered += 1
            await asyncio.sleep(0.005)
        await proc.emit("number", {"n": -1})
        for shown in (mine, theirs):
            assert await asyncio.wait_for(shown, 20) == [*range(1, count + 1), -1]
    if how == "file":
        writing.cancel()
    assert source.asked >= 3
    assert not cut_off  # always in time, never by the server
    assert mesh.connection.nc.stats["reconnects"] >= 2
    assert answered > 10


async def test_nothing_is_lost_on_the_way_from_one_session_to_the_next(home):
    """Many sessions one after the other, under commands from elsewhere and requests of its own."""
    async with sdk.connect() as mesh, sdk.connect() as other, mesh.own("p"):
        over = False
        slowest = 0.0
        done = [0, 0]

        async def command():
            nonlocal slowest
            while not over:
                before = time.monotonic()
                assert (await other.process("p").ping(timeout=4)).applied
                slowest = max(slowest, time.monotonic() - before)
                done[0] += 1

        async def ask(number):
            while not over:
                await mesh.process("p").send(number)
                assert [info.address.id for info in await mesh.list()] == ["p"]
                done[1] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(command())
                group.create_task(ask(number))
            for _ in range(20):
                await mesh.io.call(mesh.connection._switch())
                await mesh.io.call(mesh.connection.wait_connected())
                await asyncio.sleep(0.05)
            over = True
        assert mesh.connection.nc.stats["reconnects"] == 20
        assert min(done) > 100
        assert slowest < 3  # a command that nobody hears would have waited for its time to run out


async def test_narrow_credentials_are_renewed_through_the_gate(home):
    owner = Counted(3, can=["own"], on=["p"])
    viewer = Counted(3, can=["watch", "send", "control"], on=["p"])
    async with sdk.connect(credentials=owner) as there, sdk.connect(credentials=viewer) as here:
        assert there.connection.gated
        assert here.connection.gated
        async with there.own("p") as proc:
            shown = asyncio.create_task(seen(here.process("p").tail(), 60))
            for n in range(1, 61):
                await proc.emit("number", {"n": n})
                if n % 10 == 0:
                    await here.process("p").send(n)
                    assert (await proc.receive()).data == n
                    assert (await here.process("p").ping(timeout=20)).applied
                await asyncio.sleep(0.1)
            assert await asyncio.wait_for(shown, 20) == [*range(1, 61)]
    assert owner.asked >= 3
    assert viewer.asked >= 3


async def test_a_tail_of_a_credential_that_ends_says_so_and_when(home):
    made = sdk.grant("dash", ["all"], seconds=2)
    async with sdk.connect() as mesh, mesh.own("p"), sdk.connect(credentials=Once(made.creds)) as viewer:
        with pytest.raises(CredentialEnded, match=r"^the credential of 'dash' expired at 20.* UTC") as caught:
            async for _ in viewer.process("p").tail():
                pass
        assert isinstance(caught.value, NotAllowed)
        assert isinstance(caught.value, Closed)
        assert "ask for a new one" in str(caught.value)
        for call in (viewer.list(), viewer.process("p").send(1), viewer.process("p").ping(timeout=20)):
            async with asyncio.timeout(5):
                with pytest.raises(CredentialEnded, match="expired at"):
                    await call


class Once:
    """A source that has nothing more to give after the first time."""

    def __init__(self, text):
        self.texts = [text]

    def __call__(self):
        if not self.texts:
            raise ConnectionError("the back end is away")
        return self.texts.pop()


async def test_why_it_was_not_renewed_is_said(home):
    made = sdk.grant("dash", ["all"], seconds=2)
    async with sdk.connect(credentials=Once(made.creds)) as viewer:
        with pytest.raises(
            CredentialEnded, match=r"was not renewed \(ConnectionError: the back end is away\)"
        ):
            await asyncio.wait_for(anext(viewer.watch()), 20)


async def test_revoked_is_told_from_expired_by_everything_that_waits(home, tmp_path):
    path = tmp_path / "dash.creds"
    path.write_text(sdk.grant("dash", ["all"]).creds)
    async with sdk.connect() as mesh, mesh.own("p"), sdk.connect(creds=str(path)) as viewer:

        async def tail():
            async for _ in viewer.process("p").tail():
                pass

        async def request():
            await viewer.process("p").request("nobody answers", timeout=60)

        waiting = [asyncio.create_task(work()) for work in (tail, request, viewer.process("p").wait)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        await mesh.revoke("dash")
        done, _ = await asyncio.wait(waiting, timeout=8)
        assert len(done) == len(waiting)
        for task in waiting:
            with pytest.raises(CredentialEnded, match="credential of 'dash' was revoked: ask for a new one"):
                task.result()


async def test_who_is_revoked_and_granted_anew_goes_on(home, tmp_path):
    path = tmp_path / "dash.creds"
    path.write_text(sdk.grant("dash", ["all"]).creds)
    async with sdk.connect() as mesh, mesh.own("p") as proc, sdk.connect(creds=str(path)) as viewer:
        shown = asyncio.create_task(seen(viewer.process("p").tail(), 20))
        for n in range(1, 21):
            await proc.emit("number", {"n": n})
            if n == 10:
                path.write_text(sdk.grant("dash", ["all"]).creds)
                await mesh.revoke("dash", key=sdk.grants()[0].key)
        assert await asyncio.wait_for(shown, 20) == [*range(1, 21)]


async def test_a_credential_that_ends_while_the_server_is_away_is_said_when_it_is_back(home, tmp_path):
    path = tmp_path / "dash.creds"
    path.write_text(sdk.grant("dash", ["all"], seconds=3).creds)
    async with sdk.connect(creds=str(path)) as viewer:
        await asyncio.to_thread(embedded.stop, home)
        await asyncio.sleep(4)
        await asyncio.to_thread(embedded.start, home)
        with pytest.raises(CredentialEnded, match="expired at"):
            await asyncio.wait_for(anext(viewer.watch()), 20)


async def test_a_credential_of_somebody_else_is_not_taken_up(home):
    texts = [sdk.grant(sender, ["all"], seconds=2).creds for sender in ("other", "dash")]
    async with sdk.connect(credentials=lambda: texts.pop() if len(texts) > 1 else texts[0]) as viewer:
        with pytest.raises(CredentialEnded, match="what came is for 'other'"):
            await asyncio.wait_for(anext(viewer.watch()), 20)


@pytest.mark.parametrize("given", [b"bytes", None, "nonsense"])
async def test_what_is_no_credential_is_refused_at_once(home, given):
    with pytest.raises(BadPayload, match="what `credentials` returned is no"):
        async with sdk.connect(credentials=lambda: given):
            pass


async def test_a_blocking_mesh_is_renewed_too(home):
    source = Counted(2)
    mesh = sdk.connect(credentials=source.later)
    await asyncio.to_thread(mesh.open)
    await asyncio.sleep(4)
    assert (await mesh.list()) == []
    await asyncio.to_thread(mesh.close)
    assert source.asked >= 3


async def test_the_owner_of_a_process_is_told_as_well(home):
    made = sdk.grant("dash", ["all"], seconds=2)
    async with sdk.connect(credentials=Once(made.creds)) as mesh:
        with pytest.raises(CredentialEnded, match="expired"):
            async with mesh.own("p") as proc:
                async with asyncio.timeout(20):
                    while True:
                        await proc.emit("number", {"n": 1})
                        await proc.flush()
                        await asyncio.sleep(0.02)


def test_natsproc_tail_ends_with_that_sentence(home, tmp_path):
    path = tmp_path / "dash.creds"
    with subprocess.Popen([NATSPROC, "run", "--id", "p", "--", "sleep", "60"]) as process:
        try:
            deadline = time.monotonic() + 20
            while b"p" not in subprocess.run([NATSPROC, "ps", "-o", "id"], capture_output=True).stdout:
                assert time.monotonic() < deadline
            path.write_text(sdk.grant("dash", ["all"], seconds=8).creds)
            tail = subprocess.run(
                [NATSPROC, "tail", "p", "--creds", path], capture_output=True, text=True, timeout=30
            )
        finally:
            process.terminate()
    assert tail.returncode == 5
    assert tail.stderr.splitlines()[-1].startswith("natsproc: the credential of 'dash' expired at 20")
    assert "Traceback" not in tail.stderr


async def test_the_owner_that_waits_for_messages_is_told_as_well(home, tmp_path):
    path = tmp_path / "dash.creds"
    path.write_text(sdk.grant("dash", ["all"]).creds)
    async with sdk.connect() as admin, sdk.connect(creds=str(path)) as mesh:
        with pytest.raises(CredentialEnded, match="was revoked"):
            async with mesh.own("p") as proc:
                revoking = asyncio.create_task(admin.revoke("dash"))
                await proc.receive()
        await revoking
        assert (await admin.process("p").record()).state == "running"  # nobody could write its end


def test_natsproc_run_ends_its_command_with_that_sentence(home, tmp_path):
    path = tmp_path / "dash.creds"
    path.write_text(sdk.grant("dash", ["all"]).creds)
    with subprocess.Popen(
        [NATSPROC, "run", "--creds", path, "--id", "p", "--", "sh", "-c", "echo began; exec sleep 100"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "began\n"
            sdk.revoke("dash")
            _, said = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 125
    assert said.splitlines()[-1] == "natsproc: the credential of 'dash' was revoked: ask for a new one"
    assert "Traceback" not in said
