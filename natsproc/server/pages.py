"""The pages that natsproc gives to browsers: an HTTP server of built files, which holds no secret and knows no NATS.

`python -m natsproc.server.pages SETTINGS` is a child of the supervisor, and serves until its stdin ends. It imports next
to nothing, so it stays small. A page gets its credential in the fragment of its address, which is never sent here.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl

ASSETS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "assets")
ELEMENT = "natsproc-tail.js"  #: what people embed in pages of their own
MOST_CLIENTS = 100  #: connections; beyond them the one that was silent longest is hung up on
LONGEST_REQUEST = 16 << 10  #: bytes, without a body, which none has
REQUEST_SECONDS, IDLE_SECONDS, SEND_SECONDS = 10.0, 30.0, 60.0
BIND_SECONDS = 2.0  #: between attempts at a port that is taken
_TYPES = {
    "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
    "json": "application/json", "svg": "image/svg+xml", "png": "image/png", "ico": "image/x-icon",
    "woff2": "font/woff2", "webmanifest": "application/manifest+json", "txt": "text/plain; charset=utf-8",
}  # fmt: skip
_PACKED = ("html", "js", "css", "json", "svg", "txt", "webmanifest")
_LINK = re.compile(r"/links/(U[A-Z2-7]{55}\.json)")
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


class Settings(NamedTuple):
    """What is served where."""

    name: str  #: of the nats-server that the pages are for, by which they are told from a stranger's
    host: str
    port: int
    connect: tuple[str, ...]  #: where a page may connect to, as `ws://host:port`
    ws: tuple[str, int] = ("", 0)  #: scheme and port at which it also may, at the host that it came from
    cert: str = ""  #: paths of PEM files; none without TLS
    key: str = ""
    links: str = ""  #: folder of what links are completed by; none if empty


class File(NamedTuple):
    """One file, and its headers."""

    body: bytes
    packed: bytes  #: by gzip; empty if that is not worth it
    headers: str
    etag: str


def load(folder: str = ASSETS) -> Mapping[str, File]:
    """Read all files into memory, by the path at which they are asked for. Raises: OSError."""
    console = os.path.join(folder, "console")
    found = {"/": _file(os.path.join(console, "index.html"), "no-cache")}
    for where, _, names in os.walk(console):
        for path in (os.path.join(where, name) for name in names):
            url = "/" + os.path.relpath(path, console).replace(os.sep, "/")
            hashed = url.startswith("/assets/")  # as Vite names them: another content has another name
            found[url] = _file(path, "public, max-age=31536000, immutable" if hashed else "no-cache")
    with suppress(FileNotFoundError):
        shared = "no-cache\r\nAccess-Control-Allow-Origin: *\r\nCross-Origin-Resource-Policy: cross-origin"
        found[f"/{ELEMENT}"] = _file(os.path.join(folder, ELEMENT), shared)
    return found


def _file(path: str, caching: str) -> File:
    with open(path, "rb") as file:
        body = file.read()
    kind = path.rpartition(".")[2]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(body) + packer.flush() if kind in _PACKED else body
    headers = f"Content-Type: {_TYPES.get(kind, 'application/octet-stream')}\r\nCache-Control: {caching}"
    etag = f'"{len(body):x}-{zlib.crc32(body):08x}"'
    return File(body, packed if len(packed) < len(body) else b"", headers, etag)


def respond(request: bytes, files: Mapping[str, File], settings: Settings) -> tuple[bytes, bool]:
    """The whole answer to a request without its last blank line, and whether the connection goes on."""
    first, *lines = request.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    method, _, rest = first.partition(" ")
    path, _, version = rest.partition(" ")
    last = version != "HTTP/1.1" or "close" in headers.get("connection", "").lower()
    last = last or headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    path = path.partition("?")[0]
    file = files.get(path) or _linked(path, settings)
    if not version.startswith("HTTP/1."):
        return _answer(
            "400 Bad Request", "", b"this is no HTTP request\n", headers, settings, last=True
        ), False
    if method not in ("GET", "HEAD"):
        status, extra, body = "405 Method Not Allowed", "\r\nAllow: GET, HEAD", b"pages are only read\n"
    elif file is None:
        status, extra, body = "404 Not Found", "", b"there is no such page\n"
    elif file.etag in re.split(r"[\s,]+|W/", headers.get("if-none-match", "")):
        status, extra, body = "304 Not Modified", f"\r\nETag: {file.etag}\r\n{file.headers}", b""
    else:
        packed = file.packed and "gzip" in headers.get("accept-encoding", "")
        status, body = "200 OK", file.packed if packed else file.body
        extra = f"\r\nETag: {file.etag}\r\nVary: Accept-Encoding\r\n{file.headers}"
        extra += "\r\nContent-Encoding: gzip" if packed else ""
    answer = _answer(status, extra, body, headers, settings, last=last)
    return answer[: len(answer) - len(body)] if method == "HEAD" else answer, not last


def _linked(path: str, settings: Settings) -> File | None:
    """A credential without its key, for who knows the public one: of no use to anybody who has not the other."""
    named = _LINK.fullmatch(path)
    try:
        return _file(os.path.join(settings.links, named[1]), "no-store") if named and settings.links else None
    except OSError:
        return None


def _answer(
    status: str, extra: str, body: bytes, asked: Mapping[str, str], settings: Settings, *, last: bool
) -> bytes:
    about = "" if status[:3] in ("200", "304") else "\r\nContent-Type: text/plain; charset=utf-8"
    length = "" if status.startswith("304") else f"\r\nContent-Length: {len(body)}"
    head = (
        f"HTTP/1.1 {status}{about}{extra}{length}\r\n"
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}\r\n"
        f"Server: {settings.name}\r\n"
        f"Content-Security-Policy: {policy(asked.get('host', ''), settings)}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Referrer-Policy: no-referrer\r\n"
        "Cross-Origin-Opener-Policy: same-origin\r\n"
        f"Connection: {'close' if last else 'keep-alive'}\r\n\r\n"
    )
    return head.encode("latin-1") + body


def policy(host: str, settings: Settings) -> str:
    """The Content-Security-Policy of a page that is asked for at this `Host`: nothing but its own files and its server."""
    scheme, port = settings.ws
    named = _HOST.fullmatch(host)
    own = [f"{scheme}://{named[1]}:{port}"] if named and port else []
    # a policy has no way to write an address of IPv6
    allowed = dict.fromkeys(re.sub(r"\[.*\]", "*", url) for url in ("'self'", *settings.connect, *own))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        f"connect-src {' '.join(allowed)}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class Pages:
    """The server: a thread for each connection, and a bound on how many there are."""

    def __init__(self, settings: Settings, files: Mapping[str, File]) -> None:
        """Take the port. Raises: OSError if it is taken, or a certificate cannot be used."""
        self._settings, self._files = settings, files
        self._context: ssl.SSLContext | None = None
        self.certify()
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._listener = socket.socket(family)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(MOST_CLIENTS)
        except OSError:
            self._listener.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, None] = {}  # the one that was silent longest comes first

    def certify(self) -> None:
        """Take up the certificate as it is on disk now, for connections to come. Raises: OSError."""
        if not self._settings.cert:
            return
        import ssl

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._settings.cert, self._settings.key)
        self._context = context

    def renew(self, *_: object) -> None:
        """As `certify`, on a signal; one that cannot be used leaves that of before."""
        try:
            self.certify()
        except OSError as error:
            text = f"pages: the new certificate cannot be used ({error}), so that of before stays"
            print(text, file=sys.stderr, flush=True)

    def serve(self, until: int | None = None) -> None:
        """Serve until the file descriptor `until` has something to read, its end included, or KeyboardInterrupt."""
        wanted: list[socket.socket | int] = [self._listener, *([] if until is None else [until])]
        try:
            while until not in (ready := select.select(wanted, [], [])[0]):
                if ready:
                    self._accept()
        finally:
            self._listener.close()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
            if self._context:
                peer = self._context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
            self._heard(peer)
            threading.Thread(target=self._attend, args=(peer,), daemon=True).start()
        except (OSError, RuntimeError):  # it is gone again; or there is no more memory or descriptor for it
            time.sleep(0.05)

    def _heard(self, peer: socket.socket) -> None:
        """Note that it said something, and hang up on others if they are too many."""
        with self._lock:
            self._clients.pop(peer, None)
            self._clients[peer] = None
            if len(self._clients) > MOST_CLIENTS:
                silent = next(iter(self._clients))
                del self._clients[silent]
                with suppress(OSError):
                    socket.socket.shutdown(silent, socket.SHUT_RDWR)  # its thread closes it

    def _attend(self, peer: Any) -> None:
        try:
            peer.settimeout(REQUEST_SECONDS)
            if self._context:
                peer.do_handshake()
            rest, goes_on = b"", True
            while goes_on and (found := _request(peer, rest)):
                request, rest = found
                self._heard(peer)
                answer, goes_on = respond(request, self._files, self._settings)
                peer.settimeout(SEND_SECONDS)
                peer.sendall(answer)
        except OSError:
            pass  # whoever asked has gone, or was too slow
        finally:
            with self._lock:
                self._clients.pop(peer, None)
            peer.close()


def _request(peer: socket.socket, rest: bytes) -> tuple[bytes, bytes] | None:
    """The next request and what came behind it; None at the end. Raises: OSError, if it takes too long, too."""
    deadline = time.monotonic() + (REQUEST_SECONDS if rest else IDLE_SECONDS)
    while b"\r\n\r\n" not in rest:
        peer.settimeout(max(0.01, deadline - time.monotonic()))
        if len(rest) > LONGEST_REQUEST or not (more := peer.recv(4096)):
            return None
        if not rest:
            deadline = time.monotonic() + REQUEST_SECONDS
        rest += more
        if time.monotonic() > deadline:
            return None
    request, _, rest = rest.partition(b"\r\n\r\n")
    return request, rest


def main(text: str) -> int:
    """Serve what the supervisor says, until its end of stdin closes; SIGHUP takes up a new certificate."""
    settings = Settings(**json.loads(text))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started the server
    said = ""
    while True:
        try:
            pages = Pages(settings, load())
        except OSError as error:
            if said != (
                said := f"pages: cannot serve {settings.host}:{settings.port}: {error.strerror or error}"
            ):
                print(said, file=sys.stderr, flush=True)
            if select.select([0], [], [], BIND_SECONDS)[0]:
                return 1
            continue
        signal.signal(signal.SIGHUP, pages.renew)
        pages.serve(until=0)
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
