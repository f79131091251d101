"""Tails of one process on a real server: where they begin, what they show, when they stop."""

import asyncio
from contextlib import aclosing

import pytest
from harness import running
from rawlog import A, RawLog, Viewer

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.feed import Feed
from natsproc.bus.history import History
from natsproc.bus.kv import Bucket
from natsproc.bus.republished import placed
from natsproc.bus.tail import Start, follow
from natsproc.errors import BadPayload, NoSuchProcess, NotAllowed
from natsproc.protocol.messages import Cursor, Event, Notice
from natsproc.protocol.names import Address, Names, key_of

NAMES = Names()
B = Address("default", "b")
ALL = Start("first")


async def shown(connection, start=ALL, **options):
    return await Viewer(connection, start, **{"follow": False} | options).end()


async def given(queue):
    """What somebody puts into a queue, as notices of a tail's caller."""
    while True:
        yield await queue.get()


async def three_epochs(connection):
    """Run 1 in two epochs, run 2 in one: events 1…2000, 2001…2011, 2012…2061; with another process between."""
    log, other = RawLog(connection, NAMES, A), RawLog(connection, NAMES, B)
    await other.claim()
    await log.claim()
    await log.emit(2000)
    await other.emit(100)
    await log.claim()
    await log.emit(10)
    await log.end("failed", 3)
    await log.claim(restart=True)
    await log.emit(20)
    await other.emit(100)
    await log.emit(30)
    return log


async def test_every_start_shows_exactly_what_it_names(connection):
    await three_epochs(connection)
    everything = await shown(connection)
    assert everything.offsets == list(range(1, 2062))
    assert everything.notices == ["takeover", "takeover", "caught_up"]
    assert [event.epoch for event in everything.items if isinstance(event, Event)] == sorted(
        event.epoch for event in everything.items if isinstance(event, Event)
    )
    assert (await shown(connection, Start("run"))).offsets == list(range(2012, 2062))
    first_run = await shown(connection, Start("run", run=1), follow=True)
    assert first_run.offsets == list(range(1, 2012))
    assert first_run.items[-1].type == "ended"
    assert first_run.items[-1].data == {"run": 1, "status": "failed", "code": 3}
    for n in (1, 50, 51, 60, 61, 62, 2000, 2061, 9999):
        assert (await shown(connection, Start("last", n=n))).offsets == list(range(max(2062 - n, 1), 2062)), n
    assert (await shown(connection, Start("new"))).offsets == []
    assert (await shown(connection, Start("since", seconds=3600))).offsets == list(range(1, 2062))
    for event in [item for item in everything.items if isinstance(item, Event)][:: 2060 // 7]:
        resumed = await shown(connection, Start("cursor", cursor=Cursor.parse(event.cursor)))
        assert resumed.offsets == list(range(event.offset + 1, 2062))


async def test_since_goes_by_the_servers_clock(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(10)
    await asyncio.sleep(1.2)  # the passing of time is what is tested
    assert (await shown(connection, Start("since", seconds=1))).offsets == []
    await log.emit(5)
    assert (await shown(connection, Start("since", seconds=1))).offsets == [11, 12, 13, 14, 15]
    assert (await shown(connection, Start("since", seconds=1e12))).offsets == list(range(1, 16))


@pytest.mark.parametrize("start", ["last", "since", "cursor"])
async def test_a_late_start_does_not_read_what_came_before(connection, start):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.store_all([log.payload(data="x" * 500) for _ in range(20_000)])
    cursor = Cursor(20_001 - 9, log.epoch, 1, 20_000 - 9)
    await asyncio.sleep(1.1 if start == "since" else 0)
    await log.emit(1)
    before = connection.nc.stats["in_bytes"]
    viewer = await shown(connection, Start(start, n=10, seconds=1, cursor=cursor))
    assert viewer.offsets == ([20_001] if start == "since" else list(range(20_001 - 9, 20_002)))
    assert connection.nc.stats["in_bytes"] - before < 500_000  # of 12 MB


async def test_history_and_live_are_one(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3000)
    viewer = Viewer(connection)
    writing = asyncio.create_task(log.emit(3000))  # joins the history that is being read
    await viewer.until(lambda: viewer.offsets[-1:] == [6000])
    await writing
    for _ in range(50):
        await log.emit(1)
    await viewer.until(lambda: viewer.offsets[-1:] == [6050])
    assert viewer.offsets == list(range(1, 6051))
    assert viewer.notices == ["caught_up"]
    await log.end("completed", 0)
    await viewer.end()
    assert viewer.items[-1] == Notice(
        "ended", {"run": 1, "status": "completed", "code": 0}, A, viewer.items[-2].cursor
    )


async def test_what_comes_straight_comes_in_its_place(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    said = asyncio.Queue()
    straight, mixed = Viewer(connection), Viewer(connection, notices=given(said))
    detour = Viewer(connection, detour=True)
    viewers = straight, mixed, detour
    for viewer in viewers:
        await viewer.until(lambda v=viewer: v.notices == ["caught_up"])
    for turn in range(40):
        said.put_nowait(Notice("gap", {"turn": turn}, A))
        await log.emit((1, 2, 30)[turn % 3])  # many at once come in turns with those for the other viewers
        if turn % 10 == 5:
            await log.claim()
        if turn % 10 == 6:
            await log.store(log.payload(offset=log.offset - 1))  # a repeat
        if turn % 7 == 3:
            await connection.nc.publish(NAMES.live(A), log.payload(offset=log.offset + 1))  # not stored
        if turn % 2:
            for viewer in viewers:
                await viewer.until(lambda v=viewer: v.offsets[-1] == log.offset)
    await log.end()
    for viewer in viewers:
        await viewer.end()
        assert viewer.offsets == list(range(1, log.offset + 1))
    assert straight.items == detour.items
    assert [item for item in mixed.items if item.type != "gap"] == detour.items
    assert [item.data["turn"] for item in mixed.items if item.type == "gap"] == list(range(40))
    assert straight.straight > 20


async def test_the_logs_end_is_not_asked_for_while_events_come_straight(connection, monkeypatch):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(1)
    time, probe, asked = asyncio.get_running_loop().time, 0.3, []
    came = [time()]
    last = History.last

    async def watched(self, subject):
        asked.append((time(), came[-1]))
        return await last(self, subject)

    class Watching(Viewer):
        refused = 1000

        def _take(self, events):
            came.append(time())
            return super()._take(events)

    viewer = Watching(connection, probe=probe)
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    monkeypatch.setattr(History, "last", watched)
    for _ in range(20):
        await log.emit(1)
        await viewer.until(lambda: viewer.offsets[-1] == log.offset)
        await asyncio.sleep(probe / 6)
    while not asked:
        await asyncio.sleep(probe / 6)
    assert all(at - latest >= probe - 0.01 for at, latest in asked)
    assert len(came) > 15
    await log.end()
    await viewer.end()


async def test_what_comes_live_while_the_logs_end_is_asked_for_is_not_read_again(connection, monkeypatch):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    viewer = Viewer(connection, probe=60)
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    asked, answer, heard, reads = asyncio.Event(), asyncio.Event(), [], []
    last, read = History.last, History.read

    async def late(self, subject):
        asked.set()
        await answer.wait()
        return await last(self, subject)

    def noted(self, *args, **options):
        reads.append(args)
        return read(self, *args, **options)

    def hear(entries):
        heard.extend(entries)
        if len(heard) == 5:
            answer.set()

    monkeypatch.setattr(History, "last", late)
    monkeypatch.setattr(History, "read", noted)
    feed = await Feed.join(connection, NAMES.live(A), placed, hear)  # behind the viewer
    for tell in connection._reconnected.values():
        tell()
    await asyncio.wait_for(asked.wait(), 20)
    await log.emit(5)
    await viewer.until(lambda: viewer.offsets == [1, 2, 3, 4, 5])
    assert reads == []
    await feed.leave(hear)
    await log.end()
    await viewer.end()


async def test_void_words_and_repeats_are_never_shown(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    viewer = Viewer(connection)
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    await log.emit(20)
    await log.store_all([log.payload(offset=n) for n in range(10, 21)])
    zombie = log.epoch
    await log.claim()
    log.epoch, epoch = zombie, log.epoch
    await log.store_all([log.payload(offset=n, data="void") for n in range(21, 50)])
    log.epoch = epoch
    await log.store(b"not ours \xff")
    await log.emit(20)
    await log.store(log.payload(offset=30))
    await log.end()
    await viewer.end()
    late = await shown(connection)
    for tail in (viewer, late):
        assert tail.offsets == list(range(1, 42))
        assert not any(isinstance(item, Event) and item.data == "void" for item in tail.items)
    assert viewer.notices == ["caught_up", "takeover", "ended"]


async def test_a_tail_goes_on_into_the_next_run_if_it_is_told_to(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    await log.end()
    viewer = Viewer(connection, Start("run"), until_end=False)
    await viewer.until(lambda: "ended" in viewer.notices)
    await log.claim(restart=True)
    await log.emit(3)
    await log.end()
    await viewer.until(lambda: viewer.notices.count("ended") == 2)
    assert viewer.offsets == list(range(1, 9))
    viewer.task.cancel()


async def test_a_restart_under_way_is_waited_for(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    await log.end()
    await log.claim(restart=True, record=False)  # between the claim and its cut's place in the record
    viewer = Viewer(connection, Start("run"))
    await viewer.until(lambda: "caught_up" in viewer.notices)
    await log.record()
    await log.emit(3)
    await log.end()
    await viewer.end()
    assert viewer.offsets == [5, 6, 7, 8]
    assert viewer.items[-1].data["run"] == 2


async def test_a_trimmed_log_says_what_is_missing(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(100)
    cursor = Cursor(11, log.epoch, 1, 10)
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"seq": 51})
    viewer = await shown(connection, Start("cursor", cursor=cursor))
    assert viewer.items[0].type == "gap"
    assert viewer.items[0].data == {"from": 11, "to": 49}
    assert viewer.offsets == list(range(50, 101))
    assert (await shown(connection, Start("last", n=20))).offsets == list(range(81, 101))


async def test_a_trimmed_run_says_what_is_missing(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(100)
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"seq": 51})
    viewer = await shown(connection, Start("run"))
    assert [item.data for item in viewer.items if isinstance(item, Notice) and item.type == "gap"] == [
        {"from": 1, "to": 49}
    ]
    assert viewer.offsets == list(range(50, 101))


async def test_what_a_writer_sends_again_behind_a_hole_is_shown_once(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    viewer = Viewer(connection)
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    await log.store_all([log.payload(offset=n) for n in (1, 2, 3, 5, 6, 7, 4, 5, 6, 7, 8)])
    log.offset = 8
    await log.end()
    await viewer.end()
    assert viewer.offsets == (await shown(connection)).offsets == list(range(1, 10))
    assert "gap" not in viewer.notices


@pytest.mark.parametrize("kind", ["run", "first", "last", "cursor", "new"])
async def test_a_tail_of_an_ended_process_ends(connection, kind):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    await log.end("failed", 7)
    last = Cursor(5, log.epoch, 1, 4)
    viewer = await Viewer(connection, Start(kind, n=1, cursor=last)).end()
    assert viewer.offsets == {"cursor": [], "new": [], "last": [4]}.get(kind, [1, 2, 3, 4])
    assert viewer.notices == ["caught_up", "ended"]
    assert viewer.items[-1].data == {"run": 1, "status": "failed", "code": 7}


async def test_who_may_not_listen_is_told(tmp_path, version, names):
    permissions = (
        'authorization { users = [ { user: "owner", password: "x" }, '
        '{ user: "other", password: "x", permissions { subscribe { deny: "proc.*.*.live" } } } ] }'
    )
    with running(tmp_path / "nats", version, extra=permissions) as server:
        connections = [
            await Connection.open(
                Endpoint((server.url,), sender=user, options={"user": user, "password": "x"})
            )
            for user in ("owner", "other")
        ]
        await streams.setup(connections[0], names)
        await RawLog(connections[0], names, A).claim()
        heard = []  # by one who is in no hurry to leave
        feed = await Feed.join(connections[1], names.live(A), placed, heard.append)
        for _ in range(2):
            viewer = Viewer(connections[1])
            with pytest.raises(NotAllowed, match=r"other may not subscribe proc\.default\.a\.live"):
                await viewer.end()
        await feed.leave(heard.append)
        assert listening(connections[1], names) == 0
        for connection in connections:
            await connection.close()


async def test_nothing_there_and_foreign_cursors_are_errors(connection):
    with pytest.raises(NoSuchProcess, match="no process a has run"):
        await shown(connection)
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    with pytest.raises(NoSuchProcess, match="run 7"):
        await shown(connection, Start("run", run=7))
    with pytest.raises(BadPayload, match="another log"):
        await shown(connection, Start("cursor", cursor=Cursor(3, log.epoch + 5, 1, 2)))


async def test_a_cursor_beyond_a_logs_end_is_refused_at_once(connection):
    log, other = RawLog(connection, NAMES, A), RawLog(connection, NAMES, Address("default", "b"))
    await log.claim()
    await log.emit(3)
    await other.claim()
    await other.emit(3)  # the stream has come further than the log
    for position, offset in ((5, 4), (7, 3), (1000, 50)):
        viewer = Viewer(connection, Start("cursor", cursor=Cursor(position, log.epoch, 1, offset)))
        with pytest.raises(BadPayload, match="another log"):
            await viewer.end()
    trimmed = {"filter": log.subject, "seq": 5}
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", trimmed)
    viewer = Viewer(connection, Start("cursor", cursor=Cursor(3, log.epoch, 1, 2)))
    await viewer.until(lambda: viewer.notices == ["caught_up"])  # gone, and no error
    await log.emit(1)
    await log.end()
    await viewer.end()
    assert viewer.offsets == [4, 5]
    assert "gap" in viewer.notices


async def test_a_cursor_of_a_mesh_that_was_made_anew_is_refused_at_once_or_with_the_next_event(connection):
    log = RawLog(connection, NAMES, A)
    await Bucket(connection, NAMES.claims).put(key_of(A), b'{"nonce":"x","node":"n"}')
    cursor = Cursor(700, 1, 1, 5)
    with pytest.raises(BadPayload, match="another log"):  # nothing has ever been written
        await Viewer(connection, Start("cursor", cursor=cursor)).end()
    await log.claim()
    await log.emit(10)
    cursor = Cursor(700, log.epoch, 1, 5)
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"filter": log.subject})
    viewer = Viewer(connection, Start("cursor", cursor=cursor))
    await viewer.until(lambda: viewer.notices == ["caught_up"])  # nothing is left that could tell
    await log.emit(1)
    with pytest.raises(BadPayload, match="another log"):
        await viewer.end()


async def test_a_claim_without_a_log_is_a_process_that_has_said_nothing(connection):
    log = RawLog(connection, NAMES, A)
    await Bucket(connection, NAMES.claims).put(key_of(A), b'{"nonce":"x","node":"n"}')
    assert (await shown(connection, Start("run"))).notices == ["caught_up"]
    viewer = Viewer(connection, Start("run"))
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    await log.claim()
    await log.emit(3)
    await log.end()
    await viewer.end()
    assert viewer.offsets == [1, 2, 3, 4]


async def test_a_log_without_a_claim_is_read_from_its_first_entry(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(3)
    await Bucket(connection, NAMES.claims).purge(key_of(A))
    for start in (ALL, Start("run"), Start("last", n=2)):
        assert (await shown(connection, start)).offsets == [1, 2, 3]


async def test_notices_of_the_caller_are_mixed_in(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(1)
    say = asyncio.Queue()
    viewer = Viewer(connection, notices=given(say))
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    say.put_nowait(Notice("unreachable", {"node": "n"}, A))
    await viewer.until(lambda: viewer.notices == ["caught_up", "unreachable"])
    await log.end()
    await viewer.end()


async def test_a_closed_tail_leaves_nothing_behind(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(5000)
    subscriptions = len(connection.nc._subs)
    for enough in (1, 3000, 5000):
        viewer = Viewer(connection)
        await viewer.until(lambda v=viewer, n=enough: len(v.offsets) >= n)
        viewer.task.cancel()
        await asyncio.wait([viewer.task])
        assert len(connection.nc._subs) == subscriptions
    assert connection._reconnected == connection._disconnected == connection._on_denial == {}
    assert not [what for what, _ in connection.shared if what is Feed]
    async with asyncio.timeout(4):
        while (await connection.api(f"STREAM.INFO.{NAMES.event_stream}"))["state"]["consumer_count"]:
            await asyncio.sleep(0.01)


async def test_a_plain_publish_on_the_live_subject_is_not_shown(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    viewer = Viewer(connection)
    await viewer.until(lambda: "caught_up" in viewer.notices)
    await connection.publish(NAMES.live(A), log.payload(offset=1, data="forged"))
    await log.emit(1)
    await log.end()
    await viewer.end()
    assert viewer.items[1].data == {"n": 1}


async def several_runs(connection):
    """Three runs of two epochs each; behind each cut the former owner still speaks. Returns what counts, by position."""
    log, counted, zombie = RawLog(connection, NAMES, A), {}, 0

    async def say(kind="output", data=None):
        payload = log.payload(kind, data)
        counted[await log.store(payload)] = (log.run, log.epoch, log.offset)

    for run in (1, 2, 3):
        for half in (0, 1):
            await log.claim(restart=run > 1 and not half)
            epoch, log.epoch = log.epoch, zombie or log.epoch
            if zombie:
                for ahead in (1, 2, 3):
                    await log.store(log.payload("void", offset=log.offset + ahead))
            log.epoch = zombie = epoch
            for _ in range(3):
                await say()
        await say("exited", {"status": "completed", "code": run})
    return counted


async def test_runs_are_shown_whole_each_by_itself_and_together_also_after_trimming(connection):
    counted = await several_runs(connection)
    stream = f"STREAM.PURGE.{NAMES.event_stream}"
    everything = [offset for _, _, offset in counted.values()]
    assert everything == list(range(1, 22))
    last = max(counted)
    for trimmed in range(last + 1):
        if trimmed:
            await connection.api(stream, {"filter": NAMES.events(A), "seq": trimmed + 1})
        kept = {position: event for position, event in counted.items() if position > trimmed}
        for run in (1, 2, 3):
            viewer = await shown(connection, Start("run", run=run))
            whole = [o for r, _, o in counted.values() if r == run]
            assert viewer.offsets == [o for r, _, o in kept.values() if r == run], (trimmed, run)
            assert not kept or ("gap" in viewer.notices) == (viewer.offsets != whole), (trimmed, run)
        viewer = await shown(connection)
        assert viewer.offsets == [o for _, _, o in kept.values()]
        for position, (run, epoch, offset) in kept.items():
            viewer = await shown(connection, Start("cursor", cursor=Cursor(position, epoch, run, offset)))
            assert viewer.offsets == [o for p, (_, _, o) in kept.items() if p > position]
            viewer = await shown(connection, Start("last", n=len([p for p in kept if p >= position])))
            assert viewer.offsets == [o for p, (_, _, o) in kept.items() if p >= position]


def listening(connection, names=NAMES):
    """How many subscriptions to the live subject there are."""
    return sum(sub.subject == names.live(A) for sub in connection.nc._subs.values())


async def test_all_who_follow_it_over_one_connection_share_a_subscription(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(5)
    viewers = [Viewer(connection, detour=number % 2 == 0) for number in range(10)]
    for viewer in viewers:
        await viewer.until(lambda viewer=viewer: viewer.notices == ["caught_up"])
    assert listening(connection) == 1
    for viewer in viewers[:5]:
        viewer.task.cancel()
    await asyncio.wait([viewer.task for viewer in viewers[:5]])
    assert listening(connection) == 1
    await log.emit(5)
    late = Viewer(connection, Start("new"))
    await late.until(lambda: late.notices == ["caught_up"])
    assert listening(connection) == 1
    await log.emit(5)
    await log.end()
    for viewer in viewers[5:]:
        await viewer.end()
        assert viewer.offsets == list(range(1, 17))
    await late.end()
    assert late.offsets == [11, 12, 13, 14, 15, 16]
    assert listening(connection) == 0
    again = Viewer(connection)
    await again.end()
    assert again.offsets == list(range(1, 17))


async def test_one_that_does_not_take_what_comes_stops_nobody_else(connection):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    slow = follow(connection, NAMES, A, start=Start("new"))
    async with aclosing(slow):
        quick, other = Viewer(connection, Start("new")), Viewer(connection, Start("new"), detour=True)
        for viewer in (quick, other):
            await viewer.until(lambda viewer=viewer: viewer.notices == ["caught_up"])
        assert [item.type for item in await anext(slow)] == ["caught_up"]
        await log.emit(9000)  # more than are kept for one
        await log.end()
        for viewer in (quick, other):
            await viewer.end()
            assert viewer.offsets == list(range(1, 9002))
        offsets = [item.offset async for items in slow for item in items if isinstance(item, Event)]
        assert offsets == list(range(1, 9002))


async def test_what_one_viewer_cannot_bear_the_others_hear(connection):
    log, heard, errors = RawLog(connection, NAMES, A), [], []
    await log.claim()

    def fail(entries):
        raise ValueError("a hearer's own fault")

    connection.nc._error_cb = connection._on_error = lambda error: note(error)

    async def note(error):
        errors.append(str(error))

    feeds = [await Feed.join(connection, NAMES.live(A), placed, hear) for hear in (fail, heard.extend)]
    viewer = Viewer(connection, Start("new"))
    await viewer.until(lambda: viewer.notices == ["caught_up"])
    await log.emit(3)
    await log.end()
    await viewer.end()
    assert viewer.offsets == [1, 2, 3, 4]
    assert len(heard) == 4
    assert set(errors) == {"a hearer's own fault"}
    assert listening(connection) == 1
    for feed, hear in zip(feeds, (fail, heard.extend), strict=True):
        await feed.leave(hear)
    assert listening(connection) == 0
