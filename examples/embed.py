"""A page of one's own that shows a live process: `<natsproc-tail>`, and a back end that gives it a credential.

    natsproc up --origin http://127.0.0.1:8765    # whose pages may connect; before anything is run
    natsproc run --id build -- make               # in one terminal
    python examples/embed.py                      # in another; then open http://127.0.0.1:8765/

The credential is good for watching `build`, for ten minutes, and the page asks for another one in time. Decide here, as in any
back end, who gets one: whoever may open this page does.
"""

from __future__ import annotations

import re
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import natsproc

PAGE = Path(__file__).with_name("embed.html").read_bytes()
ELEMENT = (Path(natsproc.__file__).parent / "assets" / "natsproc-tail.js").read_bytes()
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self' ws://127.0.0.1:*"


class Handler(BaseHTTPRequestHandler):
    """Three answers: the page, the element, and a credential."""

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(PAGE, "text/html; charset=utf-8")
        elif self.path == "/natsproc-tail.js":
            self.answer(ELEMENT, "text/javascript; charset=utf-8")
        elif self.path == "/grant":
            # one name for each visitor, and the same again when the credential is renewed
            known = re.search(r"visitor=(visitor-[0-9a-f]{8})\b", self.headers.get("Cookie", ""))
            visitor = known[1] if known else f"visitor-{secrets.token_hex(4)}"
            granted = natsproc.grant(visitor, ["watch"], ["build"], seconds=600)
            cookie = f"visitor={visitor}; HttpOnly; SameSite=Strict"
            self.answer(
                granted.line.encode(), "text/plain", {"Set-Cookie": cookie, "Cache-Control": "no-store"}
            )
        else:
            self.send_error(404)

    def answer(self, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Security-Policy": POLICY,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8765), Handler)
    print(f"open http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
