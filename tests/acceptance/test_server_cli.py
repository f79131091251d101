"""The server's commands as a person or a script uses them."""

import json
import shutil
import stat
import subprocess
import sys

import pytest
from harness import ROOT, Server, binary, free_port, wait_for
from homes import a_home, natsproc

COMMANDS = ("up", "down", "status", "setup", "doctor")


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


def test_up_status_doctor_down(home):
    port, ws_port = free_port(), free_port()
    done = natsproc("up", "--detach", "--port", port, "--ws-port", ws_port)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"natsproc: started a nats-server at nats://127.0.0.1:{port} (`natsproc down` stops it)\n"
    )
    again = natsproc("up")
    assert (again.returncode, again.stderr) == (
        0,
        f"natsproc: a nats-server runs already at nats://127.0.0.1:{port}\n",
    )

    status = natsproc("status", "-o", "json")
    found = json.loads(status.stdout)
    assert status.returncode == 0
    assert found["running"] is True
    assert found["url"] == f"nats://127.0.0.1:{port}"
    assert found["ws_url"] == f"ws://127.0.0.1:{ws_port}"
    assert found["creds"] == str(home.folder / "local.creds")
    assert found["store"] == str(home.folder / "store")
    assert found["version"] == binary_version()
    assert found["pid"] == home.server.holder()
    shown = natsproc("status").stdout
    assert f"nats://127.0.0.1:{port}" in shown
    assert "\x1b" not in shown

    doctor = natsproc("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert {line[0] for line in doctor.stdout.splitlines()} == {"✓"}
    findings = [json.loads(line) for line in natsproc("doctor", "-o", "json").stdout.splitlines()]
    about = {
        "server",
        "streams",
        "storage",
        "rights",
        "gate",
        "clock",
        "disk",
        "supervisor",
        "network",
        "authentication",
        "control line",
        "listens",
        "websocket",
        "pages",
        "files",
    }
    assert {finding["about"] for finding in findings} == about

    conflict = natsproc("up", "--port", free_port())
    assert conflict.returncode == 1
    assert conflict.stderr.startswith("natsproc: the nats-server at")
    assert "natsproc down" in conflict.stderr

    assert natsproc("down").returncode == 0
    assert natsproc("down").returncode == 0
    assert not home.running


def binary_version() -> str:
    said = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.strip().removeprefix("nats-server: v")


def test_without_a_server_each_says_so_and_exits_with_4(home):
    for command in (("status",), ("doctor",), ("setup",), ("status", "-o", "json")):
        done = natsproc(*command)
        assert done.returncode == 4
        assert done.stderr.startswith("natsproc: ")
        assert "`natsproc up`" in done.stderr
    assert json.loads(done.stdout) == {"running": False, "home": str(home.folder)}
    nowhere = natsproc("doctor", "--server", f"nats://me:hunter2@127.0.0.1:{free_port()}")
    assert nowhere.returncode == 4
    assert "hunter2" not in nowhere.stderr + nowhere.stdout
    assert not home.folder.exists()


def test_the_doctor_exits_with_1_when_something_is_wrong(home):
    natsproc("up", "--port", free_port(), "--ws-port", free_port())
    home.creds.chmod(0o644)
    done = natsproc("doctor")
    assert done.returncode == 1
    assert f"✗ files: others on this machine can read {home.creds} → chmod 600 {home.creds}" in done.stdout
    home.keys.chmod(0o640)
    fixed = natsproc("doctor", "--fix")
    assert (fixed.returncode, fixed.stderr.count("natsproc: chmod 600 ")) == (0, 2)
    assert stat.S_IMODE(home.keys.stat().st_mode) == stat.S_IMODE(home.creds.stat().st_mode) == 0o600


def test_setup_makes_a_mesh_on_a_server_of_ones_own(home, server: Server):
    shown = natsproc("setup", "--server", server.url, "--print")
    names = [stream["name"] for stream in json.loads(shown.stdout)["streams"]]
    assert natsproc("doctor", "--server", server.url).returncode == 1
    done = natsproc("setup", "--server", server.url)
    assert (done.returncode, done.stdout.split()) == (0, names)
    again = natsproc("setup", NATS_URL=server.url)
    assert (again.returncode, again.stdout) == (0, "")
    assert "was there already" in again.stderr
    assert natsproc("doctor", "--server", server.url).returncode == 0
    other = natsproc("setup", "--server", server.url, "--prefix", "other").stdout.split()
    assert [name.replace("OTHER", "PROC") for name in other] == names
    assert natsproc("setup", "--server", server.url, "--prefix", "third", "--replicas", 3).returncode == 1


def test_nats_server_conf_by_hand(home, tmp_path):
    port = free_port()
    text = (
        (ROOT / "nats-server.conf").read_text().replace("4222", str(port)).replace("9222", str(free_port()))
    )
    (tmp_path / "nats-server.conf").write_text(text)
    done = natsproc("up", "--write-config", tmp_path / "nats-config")
    assert done.returncode == 0
    assert not home.running
    assert natsproc("up", "--write-config", tmp_path / "nats-config", "--port", 1).returncode == 2
    server = subprocess.Popen(
        [binary(), "-c", "nats-server.conf"], cwd=tmp_path, stderr=(tmp_path / "log").open("wb")
    )
    try:
        wait_for(lambda: b"Server is ready" in (tmp_path / "log").read_bytes(), what="the server by hand")
        creds = str(tmp_path / "nats-config" / "local.creds")
        environment = {"NATS_URL": f"nats://127.0.0.1:{port}", "NATS_CREDS": creds}
        assert natsproc("setup", **environment).returncode == 0
        doctor = natsproc("doctor", **environment)
        assert doctor.returncode == 0, doctor.stdout
        refused = natsproc("doctor", NATS_URL=environment["NATS_URL"])
        assert refused.returncode == 5
        assert "--creds" in refused.stderr
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("command", ["status", "down", "leave"])
def test_what_only_looks_at_the_home_loads_no_nats(home, command):
    code = f"import sys; from natsproc_cli.main import main; main([{command!r}]); assert 'nats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_none_of_the_heavy_libraries(command):
    heavy = (
        "nats",
        "pydantic",
        "pydantic_core",
        "rich",
        "nkeys",
        "nacl",
        "psutil",
        "platformdirs",
        "asyncio",
    )
    code = (
        "import sys; from natsproc_cli.main import main\n"
        f"assert main([{command!r}, '--help']) == 0\n"
        f"assert not [name for name in {heavy!r} if name in sys.modules], sys.modules.keys() & set({heavy!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: natsproc" in done.stdout


def test_wishes_that_cannot_be(home, tmp_path):
    assert natsproc("up", "--port", 70_000).returncode == 2
    assert natsproc("up", "--durable", "sometimes").returncode == 2
    program = natsproc("up", NATSPROC_NATS_SERVER=shutil.which("true"))
    assert program.returncode == 4
    assert "is not a nats-server" in program.stderr
