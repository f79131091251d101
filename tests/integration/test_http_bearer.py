"""Credentials as bearer tokens: a connection for each, and not for more than so many."""

from __future__ import annotations

import asyncio

import httpx
from homes import a_home
from serving import serving

import natsproc
from natsproc.access import parts_of, to_line
from natsproc.http import bearer
from natsproc.http.bearer import Bearers
from natsproc.server import embedded


async def test_connections_are_kept_shared_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(bearer, "MOST", 2)
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        async with natsproc.connect(sender=None) as mesh, mesh.own("job") as proc:
            await proc.flush()
            lines = [(await mesh.grant(f"user-{n}", ["watch"], ["job"])).line for n in range(3)]
            bearers = Bearers(mesh)
            with serving(natsproc.asgi(mesh, authorize=bearers)) as base:
                async with httpx.AsyncClient(base_url=base, timeout=60) as http:

                    def get(line, path="/job"):
                        return http.get(path, headers={"authorization": f"Bearer {line}"})

                    answers = await asyncio.gather(*(get(lines[0]) for _ in range(10)))
                    assert {answer.status_code for answer in answers} == {200}
                    assert len(bearers._meshes) == 1
                    watching = asyncio.create_task(get(lines[0], "/job/events"))
                    async with asyncio.timeout(30):
                        while "user-0" not in proc.viewers:
                            await asyncio.sleep(0.05)
                    for line in lines[1:]:
                        assert (await get(line)).status_code == 200
                    assert list(bearers._meshes) == lines[1:]
                    # the stream of the one that had to go has ended with the reason, and may come again
                    assert '"error":"Closed"' in (await watching).text
                    assert (await get(lines[0])).status_code == 200
                    assert list(bearers._meshes) == [lines[2], lines[0]]


async def test_a_forged_credential_drives_nobody_out(tmp_path, monkeypatch):
    """Whoever has seen a JWT, which is no secret, has not its key, and costs those who are here nothing."""
    monkeypatch.setattr(bearer, "MOST", 1)
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        async with natsproc.connect(sender=None) as mesh:
            good, other = [await mesh.grant(name, ["watch"], ["job"]) for name in ("good", "other")]
            seed = parts_of(good.creds)[1]
            forged = to_line(good.creds.replace(seed, parts_of(other.creds)[1]))
            assert forged != good.line
            bearers = Bearers(mesh)
            with serving(natsproc.asgi(mesh, authorize=bearers)) as base:
                async with httpx.AsyncClient(base_url=base, timeout=60) as http:

                    def get(line):
                        return http.get("/nobody", headers={"authorization": f"Bearer {line}"})

                    assert (await get(good.line)).status_code != 401
                    kept = dict(bearers._meshes)
                    assert (await get(forged)).status_code == 401
                    assert dict(bearers._meshes) == kept
                    assert not bearers._coming
                    assert not kept[good.line].connection.closed.is_set()
