"""`natsproc serve-http` and curl, as people without Python use the mesh."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from cli_harness import cli_with_server
from harness import ROOT, free_port, wait_for
from homes import NATSPROC, a_home, natsproc
from serving import parsed

from natsproc.access import Authority, Credential
from natsproc.access.credential import to_line
from natsproc.server import embedded

CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="NOT TESTED: curl is not installed")


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        yield home


@contextlib.contextmanager
def serve_http(*arguments, env=None):
    """Have it run on a free port; gives its URL."""
    command = [NATSPROC, "serve-http", "--listen", "127.0.0.1:0", *map(str, arguments)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env or os.environ
    )
    try:
        line = process.stderr.readline()
        found = re.search(r"(http://\S+) serves the mesh at ", line)
        assert found, line + process.stderr.read()
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()


def curl(*arguments, token="", timeout=60):
    """Status and body of what curl gets."""
    headers = ["-H", f"Authorization: Bearer {token}"] if token else []
    done = subprocess.run(
        [CURL, "-sS", "-N", "-w", "\n%{http_code}", *headers, *arguments],
        capture_output=True, text=True, timeout=timeout, check=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def post(url, body, **options):
    status, said = curl("-H", "Content-Type: application/json", "-d", json.dumps(body), url, **options)
    return status, json.loads(said)


def grant(*arguments):
    done = natsproc("grant", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(id, script):
    """A command that runs in the background."""
    done = natsproc("run", "-d", "--id", id, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr


@needs_curl
def test_curl_follows_a_process_and_resumes(home):
    run("build", "for i in 1 2 3; do echo line $i; done; read go; echo end")
    token = grant("ci", "--can", "watch,send,control", "--on", "build")
    with serve_http() as base:
        following = subprocess.Popen(
            [CURL, "-sN", "-H", f"Authorization: Bearer {token}", f"{base}/build/events"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seen = ""
        while "line 3" not in seen:
            seen += following.stdout.readline()
        seen += following.stdout.readline()
        following.kill()  # in the middle, and as rudely as can be
        following.wait()
        following.stdout.close()
        assert post(f"{base}/build/send", {"data": "go"}, token=token)[0] == 202
        last = [block["id"] for block in parsed(seen) if "id" in block][-1]
        status, rest = curl("-H", f"Last-Event-ID: {last}", f"{base}/build/events", token=token)
        assert status == 200
        items = [json.loads(block["data"]) for block in parsed(seen + rest) if "data" in block]
        offsets = [item["offset"] for item in items if "offset" in item]
        assert offsets == list(range(1, len(offsets) + 1))
        output = "".join(item["data"]["text"] for item in items if item["type"] == "output")
        assert output == "line 1\nline 2\nline 3\nend\n"


@needs_curl
def test_the_line_of_the_readme(home, tmp_path):
    run("build", "echo from the build")
    (line,) = re.findall(r"^curl -N .*\\\n.*$", (ROOT / "README.md").read_text(), re.M)
    assert natsproc("wait", "build").returncode == 0
    with serve_http() as base:
        line = line.replace("http://127.0.0.1:9224", base)
        env = os.environ | {"PATH": f"{Path(NATSPROC).parent}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=env, timeout=60)
    assert "from the build" in done.stdout, done.stderr


@needs_curl
def test_a_credential_does_what_its_holder_may(home):
    run("build", "cat")
    run("other", "cat")
    watcher = grant("eve", "--can", "watch", "--on", "build")
    boss = grant("boss", "--can", "watch,control", "--on", "build")
    with serve_http() as base:
        for token in ("", "nonsense", "natsproc_nonsense", watcher[:-20] + "x" * 20):
            assert curl(f"{base}/build", token=token)[0] == 401, token
        elsewhere = to_line(Credential.of(watcher, "it").text, nats=f"nats://127.0.0.1:{free_port()}")
        assert curl(f"{base}/build", token=elsewhere)[0] == 200  # a token sends us nowhere
        status, said = curl(f"{base}/build", token=watcher)
        assert (status, json.loads(said)["state"]) == (200, "running")
        assert post(f"{base}/build/pause", {}, token=watcher)[0] == 403
        assert curl(f"{base}/other/events", token=watcher)[0] == 403
        for token in (watcher, boss):
            status, said = curl(f"{base}/", token=token)
            assert [process["id"] for process in json.loads(said)["processes"]] == ["build"]
        status, receipt = post(f"{base}/build/interrupt", {"reason": "enough"}, token=boss)
        assert (status, receipt["status"], receipt["sender"]) == (200, "applied", "boss")
        assert natsproc("wait", "build").returncode == 130
        assert natsproc("revoke", "boss").returncode == 0
        wait_for(lambda: curl(f"{base}/build", token=boss)[0] == 401, what="a revoked one to be refused")
        assert curl(f"{base}/build", token=watcher)[0] == 200
    natsproc("kill", "other")
    log = natsproc("logs", "build", "-o", "json").stdout
    assert '"sender":"boss"' in log


@needs_curl
def test_a_token_of_its_own_and_pages_of_other_sites(home, tmp_path):
    run("build", "cat")
    file = tmp_path / "token"
    with serve_http("--token-file", file, "--origin", "https://page.example") as base:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        token = file.read_text().strip()
        assert len(token) > 30
        assert curl(f"{base}/build", token=token)[0] == 200
        assert curl(f"{base}/build", token=token[:-1])[0] == 401
        assert post(f"{base}/build/cancel", {}, token=token)[1]["status"] == "applied"

        def headers(origin, *arguments):
            done = subprocess.run(
                [CURL, "-sS", "-i", "-H", f"Origin: {origin}", *arguments, f"{base}/build"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            return done.stdout.lower()

        allowed = "access-control-allow-origin: https://page.example"
        preflight = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST")
        assert allowed in headers("https://page.example")
        assert "authorization" in headers("https://page.example", *preflight)
        assert "access-control" not in headers("https://evil.example")
        assert "access-control" not in headers("https://evil.example", *preflight)
    with serve_http("--token-file", file):  # the same one again
        assert file.read_text().strip() == token


@needs_curl
def test_a_server_that_asks_nobody_needs_a_token(tmp_path):
    """There, whoever makes up a credential would be believed."""
    forged = to_line(Authority.create().credential("mallory"))
    with cli_with_server(tmp_path) as (cli, _):
        refused = cli("serve-http", "--listen", "127.0.0.1:0")
        assert (refused.returncode, "--token-file" in refused.stderr) == (2, True)
        creds = tmp_path / "own.creds"  # one that this server takes, because it looks at none
        creds.write_text(Authority.create().credential("web"))
        refused = cli(
            "serve-http", "--listen", "127.0.0.1:0", "--creds", str(creds), "--server", cli.env["NATS_URL"]
        )
        assert (refused.returncode, "--token-file" in refused.stderr) == (2, True)
        with serve_http("--token-file", tmp_path / "token", env=cli.env) as base:
            assert curl(f"{base}/", token=forged)[0] == 401
            assert curl(f"{base}/", token=(tmp_path / "token").read_text().strip())[0] == 200


def test_what_is_said_of_wrong_options(home, tmp_path):
    (tmp_path / "short").write_text("short\n")
    for arguments, code in (
        (("--listen", "nonsense"), 2),
        (("--listen", "127.0.0.1:99999"), 2),
        (("--cert", "x.pem"), 2),
        (("--cert", tmp_path / "short", "--key", tmp_path / "none"), 1),
        (("--token-file", tmp_path / "short"), 1),
    ):
        done = natsproc("serve-http", *arguments)
        assert (done.returncode, done.stderr.startswith("natsproc: ")) == (code, True), done.stderr
