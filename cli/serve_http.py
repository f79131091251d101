"""`natsproc serve-http`: the mesh over HTTP, for back ends and scripts in any language."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natsproc_cli import exits
from natsproc_cli.options import Target, run_async, with_target

if TYPE_CHECKING:
    from natsproc.client import Mesh

LISTEN = "127.0.0.1:9224"
GRACE_SECONDS = 2
SHORTEST = 20


@with_target
def serve_http(
    target: Target,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where; only this machine unless said.")
    ] = LISTEN,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A token with which all may be done that this server may; made if there is none.",
        ),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A site whose pages may call it; may be given several times."),
    ] = None,
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="A certificate, for HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
) -> int:
    """Serve events, lists, messages and commands over HTTP until stopped (docs/http.md).

    Whoever calls it sends `Authorization: Bearer TOKEN`, where TOKEN is a credential in one line, as `natsproc grant`
    prints it: then the nats-server itself holds them to their rights.
    """
    token = _token(token_file) if token_file else ""
    host, port = _place(listen)
    if (cert is None) != (key is None):
        raise exits.Usage("--cert and --key go together")
    tls = _tls(cert, key) if cert and key else {}
    if not tls and host not in ("127.0.0.1", "::1", "localhost"):
        exits.remark(
            f"what comes to {host} comes in the clear, tokens too: give --cert and --key, or a proxy"
        )

    async def work() -> None:
        async with target.connect() as mesh:
            await _serve(mesh, host, port, token, tuple(origin or ()), tls)

    with suppress(KeyboardInterrupt):
        run_async(work())
    return 0


async def _serve(
    mesh: Mesh, host: str, port: int, token: str, origins: tuple[str, ...], tls: dict[str, Any]
) -> None:
    try:
        import uvicorn
    except ImportError:
        raise exits.Failure("this needs uvicorn: pip install 'natsproc[http]'") from None
    from natsproc.http import asgi
    from natsproc.http.bearer import Bearers
    from natsproc.http.cors import Cors

    bearers = Bearers(mesh, token)
    if not token and not bearers.takes_credentials:
        raise exits.Usage(
            f"the nats-server at {mesh.url} does not hold anybody to a credential, so one proves nothing here: give "
            "--token-file"
        )
    app: Any = asgi(mesh, authorize=bearers)
    settings = uvicorn.Config(
        Cors(app, origins) if origins else app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **tls,
    )
    with _listening(host, port) as listening:
        where = f"[{host}]" if ":" in host else host
        scheme = "https" if tls else "http"
        exits.remark(f"{scheme}://{where}:{listening.getsockname()[1]} serves the mesh at {mesh.url}")
        try:
            await uvicorn.Server(settings).serve([listening])
        finally:
            await bearers.aclose()


def _tls(cert: Path, key: Path) -> dict[str, Any]:
    try:
        ssl.create_default_context().load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise exits.Failure(f"cannot use the certificate in {cert} with {key}: {error}") from None
    return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise exits.Usage(f"--listen is HOST:PORT, as in {LISTEN}, not {listen!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise exits.Failure(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _token(path: Path) -> str:
    """Read the token, or make one that only this user can read."""
    try:
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise exits.Failure(f"cannot use the token in {path}: {error}") from None
    if len(token) < SHORTEST or len(token.split()) != 1 or token.startswith("natsproc_"):
        raise exits.Failure(
            f"{path} has no token: a word of {SHORTEST} characters or more that nobody can guess; remove the "
            "file to have one made"
        )
    return token
