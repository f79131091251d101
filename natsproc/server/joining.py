"""Joining a mesh on another machine: each way in which it can fail has a sentence of its own."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from natsproc.access import Credential
from natsproc.bus import streams
from natsproc.bus.connection import Connection
from natsproc.bus.thread import apart
from natsproc.errors import Error, NoServer, NotAllowed
from natsproc.protocol.names import Names

from . import joined
from .home import Home
from .joined import Invitation
from .trust import context_for

REACH_SECONDS = 5.0
_CLOCK = {9: "not valid yet", 10: "not valid any more"}  # OpenSSL's verify codes
_ASK = "ask for a new line there (`natsproc invite`)"


def join(home: Home, text: str, names: Names) -> tuple[Invitation, str]:
    """Make sure that the line leads to its mesh, and remember it; returns what is remembered, and who we are there.

    Blocks. Nothing is remembered unless all of it works. Raises: BadPayload for a line that is none; NoServer,
    NotAllowed and what else keeps it from working, as sentences; Error while a server of its own runs here.
    """
    invitation = Invitation.decode(text)
    if home.running:
        raise Error("a nats-server of its own runs here: `natsproc down` first, then join (its data stays)")
    with home.changing():
        scratch = home.folder / "joining"
        try:
            joined.save(scratch, invitation)
            who = Credential.read(scratch / "machine.creds")
            if who.expired and who.expires:
                raise NotAllowed(
                    f"the line was good until {_time(who.expires)}, and by this machine's clock it is {_time()}: {_ASK}"
                )
            invitation = replace(invitation, urls=reached(invitation))
            joined.save(scratch, invitation)
            _try(scratch, invitation, who.sender, names)
            joined.leave(home)
            scratch.rename(home.joined)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return invitation, who.sender


def reached(invitation: Invitation) -> tuple[str, ...]:
    """The addresses at which the server meant does answer. Raises: NoServer if there is none."""

    def why_not(url: str) -> str:
        try:
            _greet(url, invitation)
        except NoServer as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:  # a firewall lets one wait
        answers = dict(zip(invitation.urls, pool.map(why_not, invitation.urls), strict=True))
    found = tuple(url for url, failure in answers.items() if not failure)
    if not found:
        raise NoServer("; ".join(answers.values()) or f"the line names no address: {_ASK}")
    return found


def _greet(url: str, invitation: Invitation) -> None:
    """See whether the server that the invitation means answers there. Raises: NoServer."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), REACH_SECONDS) as peer:
            peer.settimeout(REACH_SECONDS)
            info = json.loads(peer.makefile("rb").readline().partition(b" ")[2])
            if parts.scheme != "tls" and info.get("tls_required"):
                raise NoServer(f"{url} asks for TLS, of which the line knows nothing: {_ASK}")
            if parts.scheme == "tls" and not info.get("tls_required"):
                raise NoServer(
                    f"what answers at {url} offers no TLS: it is not the server of the line, or somebody is in between"
                )
            if parts.scheme == "tls":
                context_for(invitation.ca).wrap_socket(peer, server_hostname=invitation.tls_name).close()
    except ssl.SSLCertVerificationError as error:
        if what := _CLOCK.get(error.verify_code):
            raise NoServer(
                f"the certificate of {url} is {what} by this machine's clock, where it is {_time()}: set the clock, "
                "or have the certificate renewed there (`natsproc down`, `natsproc up`)"
            ) from None
        raise NoServer(
            f"what answers at {url} cannot prove that it is the server of the line ({error.verify_message}): "
            f"somebody is in between, or it has a new authority since; in that case, {_ASK}"
        ) from None
    except (ValueError, AttributeError):
        raise NoServer(f"what answers at {url} is no nats-server") from None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise NoServer(
            f"cannot reach {url} from here ({why}): does it run there (`natsproc status`), and does a firewall let "
            f"port {parts.port} through?"
        ) from None


def _try(folder: Path, invitation: Invitation, sender: str, names: Names) -> None:
    """Connect, and see whether the mesh is there. Raises: NotAllowed; NoMesh and the like."""

    async def connect() -> None:
        endpoint = joined.endpoint(folder)
        assert endpoint
        connection = await Connection.open(replace(endpoint, sender=sender))
        try:
            await streams.check(connection, names)
        finally:
            await connection.close()

    try:
        apart(connect())
    except NotAllowed:
        raise NotAllowed(
            f"the nats-server at {invitation.urls[0]} refuses the credential in the line: it was revoked, has expired "
            f"by the clock there, or the server has new keys; {_ASK}"
        ) from None


def _time(seconds: float | None = None) -> str:
    moment = datetime.datetime.now() if seconds is None else datetime.datetime.fromtimestamp(seconds)
    return moment.astimezone().isoformat(" ", "minutes")
