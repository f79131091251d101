"""`natsproc console`, `natsproc share` and `natsproc up --origin`, as a person uses them."""

from __future__ import annotations

import json
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import nkeys
import pexpect
import pytest
from harness import Server, free_port, running, wait_for
from homes import NATSPROC, a_home, natsproc, websocket_answer

from natsproc.access import Credential, to_line
from natsproc.access.keys import creds_text
from natsproc.protocol.links import Link
from natsproc.server import embedded, pages
from natsproc.server.embedded import Wishes

HOUR = 3600


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


def opened(url: str) -> tuple[Link, Credential]:
    """What a browser gets that opens a link: the page, which is there, and what only it knows."""
    place, _, fragment = url.strip().partition("#")
    with urllib.request.urlopen(place, timeout=20) as answer:
        assert answer.read() == pages.load()["/"].body
    return completed(place, fragment)


def completed(place: str, fragment: str, context: ssl.SSLContext | None = None) -> tuple[Link, Credential]:
    """The credential of a link, put together as a page does it."""
    link = Link.parse(fragment)
    if link.key:
        key = nkeys.from_seed(link.key.encode()).public_key.decode()
        with urllib.request.urlopen(f"{place}links/{key}.json", timeout=20, context=context) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            rest = json.load(answer)
        assert link.key not in json.dumps(rest)
        text = creds_text(rest["jwt"], link.key)
        link = replace(link, credential=to_line(text, url=rest["url"], prefix=rest["prefix"]))
    return link, Credential.of(link.credential, "the link")


def test_a_link_for_watching_one_process(home):
    embedded.start(home)
    natsproc("run", "--id", "build", "--", "echo", "seen by a guest")
    natsproc("run", "--id", "other", "--", "echo", "not for guests")
    done = natsproc("share", "build", "--for", "1h")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    link, credential = opened(done.stdout)
    assert (link.process.namespace, link.process.id) == ("default", "build")
    assert credential.granted == {"watch": (("default", "build"),)}
    assert re.fullmatch(r"guest-\w{6}", credential.sender)
    assert 0 < credential.expires - time.time() <= HOUR
    assert "only this machine can open it" in done.stderr
    assert f"natsproc revoke {credential.sender}" in done.stderr
    assert "nothing is known" not in done.stderr
    assert link.key
    assert link.key not in done.stderr
    assert len(done.stdout) < 130  # a QR code of it fits into a terminal
    assert "\x1b" not in done.stdout

    guest = {"NATSPROC_GRANT": link.credential}
    assert "\nseen by a guest\n" in natsproc("logs", "build", **guest).stdout
    assert natsproc("logs", "other", **guest).returncode == 5
    assert natsproc("send", "build", "hello", **guest).returncode == 5
    (listed,) = (json.loads(line) for line in natsproc("grants", "-o", "json").stdout.splitlines())
    assert (listed["sender"], listed["on"]) == (credential.sender, ["default/build"])
    assert natsproc("revoke", credential.sender).returncode == 0
    assert natsproc("logs", "build", **guest).returncode == 5


def test_a_link_for_what_starts_later_and_by_another_address(home):
    embedded.start(home)
    done = natsproc(
        "share", "-N", "chat", "later", "--at", "team.example.com:8080", "--qr", home.folder / "code.svg"
    )
    assert done.returncode == 0, done.stderr
    place, _, fragment = done.stdout.strip().partition("#")
    assert place == "http://team.example.com:8080/"
    _, credential = completed(home.load().pages_url_at("127.0.0.1") + "/", fragment)
    assert credential.url == f"ws://team.example.com:{home.load().ws_port}"
    assert credential.granted == {"watch": (("chat", "later"),)}
    assert "nothing is known of chat/later yet" in done.stderr
    assert "natsproc up --origin http://team.example.com:8080" in done.stderr
    assert "only this machine" not in done.stderr
    assert (home.folder / "code.svg").read_bytes().lstrip().startswith(b"<")
    assert stat.S_IMODE((home.folder / "code.svg").stat().st_mode) == 0o600


def test_the_code_is_drawn_on_a_terminal_with_room_for_it(home):
    embedded.start(home)

    def on_terminal(lines: int, columns: int) -> str:
        child = pexpect.spawn(
            str(NATSPROC), ["share", "build"], dimensions=(lines, columns), timeout=60, encoding="utf-8"
        )
        child.expect(pexpect.EOF)
        return str(child.before)

    drawn = on_terminal(24, 80)
    rows = [line for line in drawn.splitlines() if line.count("█") + line.count("▀") + line.count("▄") > 20]
    assert len(rows) > 15, drawn
    small = on_terminal(16, 60)
    assert "█" not in small
    assert re.search(r"takes \d+ columns and \d+ lines, and this terminal has 60 and 16", small)
    assert "--qr FILE.svg" in small


def test_a_page_of_ones_own(home):
    embedded.start(home)
    done = natsproc("console", "chat/r1", "--no-open")
    assert done.returncode == 0, done.stderr
    link, credential = opened(done.stdout)
    assert str(link.process) == "chat/r1"
    assert credential.sender.endswith("-console")
    assert set(credential.granted) == {"watch", "send", "control"}
    assert set(credential.granted["watch"]) == {("*", "*")}
    assert 11 * HOUR < credential.expires - time.time() <= 12 * HOUR
    assert "keep it to yourself" in done.stderr
    fleet = natsproc("console", "--can", "watch", "--as", "wall", "--for", "1h", "--no-open")
    link, credential = opened(fleet.stdout)
    assert (link.process, credential.sender, list(credential.granted)) == (None, "wall", ["watch"])
    by_url = natsproc("console", "--server", home.load().url, "--no-open")
    assert by_url.stdout.startswith(home.load().pages_url_at("127.0.0.1"))


def test_a_browser_is_opened_without_a_secret_in_its_arguments(home, tmp_path):
    embedded.start(home)
    (tmp_path / "browser").write_text(
        f'#!{sys.executable}\nimport sys\nopen({str(tmp_path / "said")!r}, "w").write(str(sys.argv))\n'
    )
    (tmp_path / "browser").chmod(0o700)
    done = natsproc("console", BROWSER=f"{tmp_path}/browser %s")
    assert done.returncode == 0, done.stderr
    wait_for((tmp_path / "said").exists, what="the browser")
    wait_for(lambda: "console.html" in (tmp_path / "said").read_text(), what="its arguments")
    assert "natsproc_" not in (tmp_path / "said").read_text()
    page = home.folder / "console.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert done.stdout.strip().replace("&", "&amp;") in page.read_text()


def test_whose_pages_may_connect_is_remembered_until_it_is_forgotten(home):
    mine, stranger = "https://team.example.com", "https://example.com"

    def answers() -> tuple[int, int, int]:
        status = json.loads(natsproc("status", "-o", "json").stdout)
        assert status["pages_answer"] is True
        own = status["pages_url"]
        return tuple(websocket_answer(status["ws_url"], origin) for origin in (own, mine, stranger))  # type: ignore[return-value]

    ports = ("--port", free_port(), "--ws-port", free_port(), "--pages-port", free_port())
    assert natsproc("up", "--origin", "*").returncode == 2
    assert natsproc("up", *ports, "--origin", f"{mine}/", "--origin", "http://localhost:3000").returncode == 0
    assert answers() == (101, 101, 403)
    assert f"origins      {mine}, http://localhost:3000" in natsproc("status").stdout
    assert mine in natsproc("doctor").stdout
    natsproc("down")
    natsproc("up")
    assert answers() == (101, 101, 403)
    natsproc("down")
    natsproc("up", "--origin", "")
    assert answers() == (101, 403, 403)
    assert "origins" not in natsproc("status").stdout


def test_by_tls_the_page_and_its_server_are(home):
    embedded.start(home, Wishes(host="0.0.0.0", tls=True))
    done = natsproc("share", "build")
    state = home.load()
    assert done.stdout.startswith("https://")
    anyway = ssl.create_default_context(cadata=home.ca(state))
    anyway.check_hostname = False
    _, credential = completed(*done.stdout.strip().split("#"), anyway)
    assert f":{state.pages_port}/#" in done.stdout
    host = done.stdout.removeprefix("https://").partition(f":{state.pages_port}")[0]
    assert credential.url == f"wss://{host}:{state.ws_port}"
    assert "only this machine" not in done.stderr
    assert credential.ca == ""
    assert natsproc("doctor").returncode == 0


def websocket_server(folder, port: int, origins: str = "") -> Server:
    return running(folder, extra=f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, {origins} }}')


def test_elsewhere_it_is_served_from_here_until_ctrl_c(home, tmp_path):
    port, own = free_port(), free_port()
    with websocket_server(tmp_path / "nats", port, f'allowed_origins: ["http://127.0.0.1:{own}"]') as server:
        assert natsproc("setup", "--server", server.url).returncode == 0
        command = [NATSPROC, "console", "--server", f"ws://127.0.0.1:{port}", "--no-open"]
        console = subprocess.Popen(
            [*map(str, command), "--port", str(own)], stdout=subprocess.PIPE, text=True
        )
        try:
            url = console.stdout.readline().strip()
            place, _, fragment = url.partition("#")
            assert place == f"http://127.0.0.1:{own}/"
            link = Link.parse(fragment)
            assert (link.server, link.credential) == (f"ws://127.0.0.1:{port}", "")
            assert link.sender.endswith("-console")
            with urllib.request.urlopen(place, timeout=20) as answer:
                assert (
                    f"connect-src 'self' ws://127.0.0.1:{port};" in answer.headers["Content-Security-Policy"]
                )
            console.send_signal(signal.SIGINT)
            assert console.wait(20) == 0
        finally:
            console.kill()
            console.wait()
            console.stdout.close()
        refused = natsproc(*command[1:], "--port", free_port())
        assert refused.returncode == 5
        assert "allowed_origins" in refused.stderr
    nowhere = natsproc(*command[1:])
    assert nowhere.returncode == 4
    assert "websocket {" in nowhere.stderr
    unknown = natsproc("console", "--server", "nats://127.0.0.1:1")
    assert unknown.returncode == 2
    assert "--server ws://HOST:PORT" in unknown.stderr


def test_without_a_server_both_say_so(home):
    for command in (("console",), ("share", "build")):
        done = natsproc(*command)
        assert (done.returncode, done.stdout) == (4, "")
        assert "`natsproc up`" in done.stderr
