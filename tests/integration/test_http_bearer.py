"""Credentials as bearer tokens: a connection for each, and not for more than so many."""

from __future__ import annotations

import asyncio
import base64
import json
import string

import httpx
import nkeys
from homes import a_home
from serving import serving

import natsproc
from natsproc.access import Credential, parts_of, to_line
from natsproc.access.keys import claims_of, creds_text
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
                    signed = [Credential.of(line, "it").signed for line in lines]
                    assert list(bearers._meshes) == signed[1:]
                    # the stream of the one that had to go has ended with the reason, and may come again
                    assert '"error":"Closed"' in (await watching).text
                    assert (await get(lines[0])).status_code == 200
                    assert list(bearers._meshes) == [signed[2], signed[0]]


def made_up(creds: str, seed: str) -> str:
    """A credential in a line that is for the key of that seed, but was signed for another one."""
    jwt = parts_of(creds)[0]
    head, _, signature = jwt.split(".")
    claims = claims_of(jwt) | {"sub": nkeys.from_seed(seed.encode()).public_key.decode()}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return to_line(creds_text(f"{head}.{body}.{signature}", seed))


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
            signed = Credential.of(good.line, "it").signed
            bearers = Bearers(mesh)
            with serving(natsproc.asgi(mesh, authorize=bearers)) as base:
                async with httpx.AsyncClient(base_url=base, timeout=60) as http:

                    def get(line):
                        return http.get("/nobody", headers={"authorization": f"Bearer {line}"})

                    assert (await get(good.line)).status_code != 401
                    kept = dict(bearers._meshes)
                    for false in (forged, made_up(good.creds, parts_of(other.creds)[1])):
                        assert (await get(false)).status_code == 401
                    assert dict(bearers._meshes) == kept
                    assert not bearers._coming
                    assert not kept[signed].connection.closed.is_set()


async def test_a_holder_has_one_place_however_its_credential_is_written(tmp_path, monkeypatch):
    """White space, fields of no meaning, and the bits of a signature's last character that say nothing."""
    monkeypatch.setattr(bearer, "MOST", 2)
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        async with natsproc.connect(sender=None) as mesh:
            many, other = [await mesh.grant(name, ["watch"], ["job"]) for name in ("many", "other")]
            jwt, _ = parts_of(many.creds)
            said = base64.urlsafe_b64decode(jwt[-86:] + "==")
            written = [jwt[:-1] + last for last in string.ascii_letters + string.digits + "-_"]
            alike = [text for text in written if base64.urlsafe_b64decode(text[-86:] + "==") == said]
            assert len(alike) == 16
            lines = [to_line(many.creds.replace(jwt, text), n=str(n)) for n, text in enumerate(alike)]
            bearers = Bearers(mesh)
            with serving(natsproc.asgi(mesh, authorize=bearers)) as base:
                async with httpx.AsyncClient(base_url=base, timeout=60) as http:
                    for line in (other.line, *lines, many.line):
                        got = await http.get("/nobody", headers={"authorization": f"Bearer {line}"})
                        assert got.status_code == 403  # it is known, and may not
                    assert len(bearers._meshes) == 2
                    assert Credential.of(other.line, "it").signed in bearers._meshes
