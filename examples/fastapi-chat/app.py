"""One replica: the page, the user's session, and the mesh under /proc. Any number of these are one chat.

A conversation is a process on the mesh. It runs in one replica, and whichever gets a request reaches it there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as File
from typing import Annotated

from agent import agent, model
from fastapi import Cookie, FastAPI, Path, Response
from fastapi.staticfiles import StaticFiles

import natsproc
from natsproc.agents.pydantic_ai import converse
from natsproc.http import Request, Right

REPLICA = os.environ.get("REPLICA", "1")

logger = logging.getLogger("uvicorn.error")
mesh = natsproc.connect(namespace="chat")


class Conversations:
    """Those that run in this replica."""

    def __init__(self) -> None:
        self._settled: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, id: str) -> None:
        """Return once the conversation has an owner: this replica, unless it has one already."""
        if id not in self._settled:
            self._settled[id] = asyncio.Event()
            self._tasks.add(task := asyncio.create_task(self._host(id)))
            task.add_done_callback(self._tasks.discard)
        await self._settled[id].wait()

    async def _host(self, id: str) -> None:
        settled = self._settled[id]
        labels = {"replica": REPLICA}
        try:
            async with mesh.own(id, kind="chat", labels=labels, allow=("idle", "next", "now")) as proc:
                settled.set()
                await converse(proc, agent, model=model)
        except (natsproc.AlreadyRunning, natsproc.AlreadyEnded, natsproc.Cancelled):
            pass  # another replica was faster, which is as good; or somebody has ended it for good
        except natsproc.Error as error:
            logger.warning("%s does not run here: %s", id, error)
        finally:
            settled.set()
            del self._settled[id]

    async def adopt(self) -> None:
        """Take over, for ever, what ran in replicas that are gone; one of those that try it wins."""
        while True:
            try:
                orphans = [i.address.id for i in await mesh.list(kind="chat") if i.state == "unreachable"]
                await asyncio.gather(*map(self.open, orphans))
            except natsproc.Error as error:
                logger.warning("cannot look for orphans: %s", error)
            await asyncio.sleep(random.uniform(0.5, 1.5))


conversations = Conversations()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with mesh:
        adopting = asyncio.create_task(conversations.adopt())
        yield
        adopting.cancel()
        # To close the mesh would end these conversations. They shall outlive a replica that is stopped, so it
        # just goes, as if it had been killed: whatever was shown is stored, and another one takes them over.
        os._exit(0)


def user_of(session: str | None) -> str | None:
    """Who it is that has this session: in your application, whoever has signed in."""
    return hashlib.sha256(session.encode()).hexdigest()[:12] if session else None


def authorize(request: Request, namespace: str, id: str, right: Right) -> bool | str | None:
    """Every user may do everything with their own conversations, and nothing with those of others."""
    user = user_of(request.cookies.get("session"))
    if user is None:
        return None
    return user if namespace == mesh.namespace and id.startswith(f"{user}-") else False


app = FastAPI(lifespan=lifespan)


@app.post("/chats/{name}")
async def open_chat(
    name: Annotated[str, Path(pattern="^[a-z0-9]{1,20}$")],
    response: Response,
    session: Annotated[str | None, Cookie()] = None,
) -> dict[str, str]:
    """Begin the user's conversation of that name, or find it running, here or in any other replica."""
    session = session or secrets.token_urlsafe()
    response.set_cookie("session", session, httponly=True, samesite="strict")  # and secure=True, behind TLS
    id = f"{user_of(session)}-{name}"
    await conversations.open(id)
    return {"id": id}


app.mount("/proc", natsproc.asgi(mesh, authorize=authorize))
app.mount("/", StaticFiles(directory=File(__file__).with_name("static"), html=True))
