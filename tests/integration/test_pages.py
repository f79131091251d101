"""The pages for browsers: real requests, hostile ones among them, and a supervisor that keeps them running."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import free_port, wait_for
from homes import a_home, is_gone

from natsproc.errors import Error
from natsproc.server import embedded, links, pages
from natsproc.server.embedded import Wishes
from natsproc.server.home import Home, State
from natsproc.server.pages import Pages, Settings

HTML, SCRIPT, ELEMENT = b"<!doctype html>" + b" " * 2000, b"export const a = 1;\n" * 100, b"// element\n" * 50


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "console" / "assets").mkdir(parents=True)
    (tmp_path / "console" / "index.html").write_bytes(HTML)
    (tmp_path / "console" / "assets" / "main-AbC123.js").write_bytes(SCRIPT)
    (tmp_path / "natsproc-tail.js").write_bytes(ELEMENT)
    (tmp_path / "secret.txt").write_text("not for you")
    return tmp_path


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The pages of a folder, on a port of their own."""
    settings = Settings(
        "me", "127.0.0.1", 0, ("ws://127.0.0.1:9222",), ("ws", 9222), links=str(folder / "links")
    )
    server = Pages(settings, pages.load(str(folder)))
    ours, theirs = os.pipe()
    thread = threading.Thread(target=server.serve, args=(ours,))
    thread.start()
    try:
        yield server.port
    finally:
        os.close(theirs)
        thread.join(20)
        os.close(ours)
        assert not thread.is_alive()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_each_file_comes_with_its_headers(folder):
    with serving(folder) as port:
        status, headers, body = ask(port, "/?x=1")
        assert (status, body) == (200, HTML)
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["cache-control"] == "no-cache"
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
            "connect-src 'self' ws://127.0.0.1:9222; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        script = ask(port, "/assets/main-AbC123.js")
        assert script[2] == SCRIPT
        assert script[1]["cache-control"] == "public, max-age=31536000, immutable"
        assert script[1]["content-type"].startswith("text/javascript")
        element = ask(port, "/natsproc-tail.js")
        assert (element[1]["access-control-allow-origin"], element[1]["cache-control"]) == ("*", "no-cache")
        missing = ask(port, "/nowhere")
        assert missing[0] == 404
        for _, found, _ in ((status, headers, body), script, element, missing):
            assert found["x-content-type-options"] == "nosniff"
            assert found["referrer-policy"] == "no-referrer"
            assert found["cross-origin-opener-policy"] == "same-origin"
            assert "default-src 'none'" in found["content-security-policy"]
        for _, found, _ in ((status, headers, body), script, missing):
            assert "access-control-allow-origin" not in found


def test_only_what_changed_is_sent_again(folder):
    with serving(folder) as port:
        _, headers, _ = ask(port, "/")
        for known in (headers["etag"], f'"other", W/{headers["etag"]}'):
            status, again, body = ask(port, "/", If_None_Match=known)
            assert (status, body, again["etag"]) == (304, b"", headers["etag"])
        assert ask(port, "/", If_None_Match='"other"')[0] == 200
        status, packed, body = ask(port, "/", Accept_Encoding="br, gzip")
        assert (status, packed["content-encoding"]) == (200, "gzip")
        assert gzip.decompress(body) == HTML
        assert "content-encoding" not in headers


def test_head_and_other_methods(folder):
    with serving(folder) as port:
        status, headers, body = ask(port, "/", "HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(HTML)), b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            status, headers, _ = ask(port, "/", method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/assets/",
    ],
)
def test_nothing_outside_is_served(folder, path):
    with serving(folder) as port:
        assert ask(port, path)[0] == 404


def test_what_completes_a_link_is_given_out_by_its_public_key_alone(folder):
    key = "U" + "A2" * 27 + "B"
    (folder / "links").mkdir()
    (folder / "links" / f"{key}.json").write_text("{}")
    (folder / "links" / "secret.json").write_text("not for anybody")
    with serving(folder) as port:
        status, headers, body = ask(port, f"/links/{key}.json")
        assert (status, headers["cache-control"], body) == (200, "no-store", b"{}")
        (folder / "links" / f"{key}.json").unlink()
        names = (
            f"{key}.json",
            "secret.json",
            "",
            f"../links/{key}.json",
            f"{key}.json%00",
            f"{'U' + 'A' * 55}.json",
        )
        assert [ask(port, f"/links/{name}")[0] for name in names] == [404] * len(names)


def raw(port: int, said: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as peer:
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it was not read to its end
            peer.sendall(said)
            for part in iter(lambda: peer.recv(65536), b""):
                answer += part
        return answer


def test_what_is_no_request_harms_nobody(folder):
    with serving(folder) as port:
        assert raw(port, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert raw(port, b"x" * 40_000) == b""
        injected = raw(port, b"GET / HTTP/1.0\r\nHost: evil.example ; script-src *\r\n\r\n")
        assert b"evil" not in injected
        assert raw(port, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET / ").count(b"HTTP/1.1 ") == 1
        two = raw(port, b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert two.count(b"HTTP/1.1 404 ") == 2
        assert ask(port, "/")[0] == 200


def test_who_never_finishes_keeps_nobody_waiting(folder):
    with serving(folder) as port, contextlib.ExitStack() as stack:
        for _ in range(2 * pages.MOST_CLIENTS):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(port, "/")[0])) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == [200] * 20


def test_a_page_may_connect_to_the_host_that_it_came_from():
    settings = Settings("me", "0.0.0.0", 1, ("wss://10.0.0.5:9222",), ("wss", 9222))

    def connects(host: str) -> str:
        return pages.policy(host, settings).split("connect-src ")[1].split(";")[0]

    assert connects("laptop.local:9223") == "'self' wss://10.0.0.5:9222 wss://laptop.local:9222"
    assert connects("[fe80::1]:9223") == "'self' wss://10.0.0.5:9222 wss://*:9222"
    for hostile in ("", "a b", "a;script-src *", "a'", "x" * 300, "a:b", "é"):
        assert connects(hostile) == "'self' wss://10.0.0.5:9222"
    assert "connect-src 'self';" in pages.policy("a", Settings("me", "", 1, ()))


def pages_of(home: Home) -> list[int]:
    supervisor = home.supervisor.holder()
    assert supervisor
    children = psutil.Process(supervisor).children()
    return [child.pid for child in children if "natsproc.server.pages" in child.cmdline()]


def answers(home: Home) -> bool:
    state = home.load()
    assert state
    with contextlib.suppress(OSError):
        return ask(state.pages_port, "/")[1]["server"] == state.name
    return False


def test_the_supervisor_keeps_them_running(home):
    embedded.start(home)
    wait_for(lambda: answers(home), what="the pages")
    (first,) = pages_of(home)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: is_gone(first) and answers(home), what="the pages, started again")
    (second,) = pages_of(home)
    embedded.stop(home)
    assert is_gone(second)
    assert not answers(home)


def test_a_killed_supervisor_leaves_none_behind_and_their_port_is_kept(home):
    embedded.start(home)
    wait_for(lambda: answers(home), what="the pages")
    before, (left,) = home.load(), pages_of(home)
    os.kill(home.supervisor.holder(), signal.SIGKILL)
    wait_for(lambda: home.supervisor.holder() is None, what="the end of the supervisor")
    embedded.start(home)
    wait_for(lambda: is_gone(left) and answers(home), what="the pages of the next supervisor")
    assert home.load().pages_port == before.pages_port


@pytest.mark.parametrize("alone", [False, True], ids=["up", "supervisor alone"])
def test_a_home_of_an_earlier_version_gets_its_pages(home, alone):
    embedded.start(home)
    embedded.stop(home)
    path = home.folder / "state.json"
    remembered = json.loads(path.read_text())
    for name in ("pages_port", "pages_url", "origins"):
        del remembered[name]
    path.write_text(json.dumps(remembered))
    if alone:
        subprocess.run(
            [sys.executable, "-m", "natsproc.server.supervisor", home.folder],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    else:
        embedded.start(home)
    wait_for(lambda: home.load().pages_port and answers(home), what="the pages")
    assert home.load().port == remembered["port"]


def test_a_port_that_is_taken_is_waited_for_and_not_said_to_be_ours(home):
    port = free_port()
    with socket.socket() as taken:
        embedded.start(home, Wishes(pages_port=port))
        wait_for(lambda: answers(home), what="the pages")
        embedded.stop(home)
        taken.bind(("127.0.0.1", port))
        with pytest.raises(embedded.Error, match=f"port {port} is taken"):
            embedded.start(home, Wishes(pages_port=port))
        embedded.start(home)
        assert home.load().pages_port != port
        wait_for(lambda: answers(home), what="the pages")


def certificate_at(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as peer, context.wrap_socket(peer) as secure:
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def test_by_tls_a_renewed_certificate_is_taken_up(home):
    embedded.start(home, Wishes(tls=True))
    state = home.load()
    context = ssl.create_default_context(cafile=str(home.ca_pem))

    def secure_answer() -> int:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPSConnection(
                "127.0.0.1", state.pages_port, context=context, timeout=10
            )
            connection.request("GET", "/")
            return connection.getresponse().status
        return 0

    wait_for(lambda: secure_answer() == 200, what="the pages by TLS")
    before = certificate_at(state.pages_port)
    (pid,) = pages_of(home)
    whole = home.server_pem.read_text()
    home.server_pem.write_text(whole[: len(whole) // 2])
    os.kill(pid, signal.SIGHUP)
    assert certificate_at(state.pages_port) == before
    home.server_pem.unlink()
    from natsproc.server import certificates

    certificates.settle(home, state)
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: certificate_at(state.pages_port) != before, what="the new certificate")
    assert secure_answer() == 200
    assert pages_of(home) == [pid]


def test_no_link_leads_to_a_strangers_pages(home, folder):
    with serving(folder) as port:
        state = State("me", 1, 2, pages_port=port)
        assert links.answer(home, state)
        assert not links.answer(home, replace(state, name="another"), patience=0)
        with pytest.raises(Error, match="another program has the port"):
            links.insist(home, replace(state, name="another"))
    assert not links.answer(home, state, patience=0)
    with pytest.raises(Error, match="earlier version"):
        links.insist(home, replace(state, pages_port=0))
