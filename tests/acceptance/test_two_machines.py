"""Two machines: network namespaces with a link between them, a home each, and one mesh."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import NATSPROC, Cli
from harness import wait_for

HERE, THERE = "10.203.0.1", "10.203.0.2"


class Machine(Cli):
    """The command line in a network of its own."""

    def __init__(self, home: Path, network: str, link: str) -> None:
        super().__init__(home)
        self.network, self.link = network, link
        self.prefix = ("ip", "netns", "exec", network)

    def __call__(self, *arguments: str, stdin: str = "", **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, NATSPROC, *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, env=self.env,
        )  # fmt: skip

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it beside the test."""
        command = [*self.prefix, NATSPROC, *arguments]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def set_link(self, state: str) -> None:
        ip("-n", self.network, "link", "set", self.link, state)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two of them, with a link; nothing of it is left afterwards."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("NOT TESTED: two machines need network namespaces, and only root on Linux can make them")
    mark = f"{os.getpid() % 100000}"
    networks = [f"natsproc-{mark}-{side}" for side in "ab"]
    links = [f"np{mark}{side}" for side in "ab"]
    both = [
        Machine(tmp_path / side, *at)
        for side, at in zip("ab", zip(networks, links, strict=True), strict=True)
    ]
    with contextlib.ExitStack() as stack:
        for machine in both:
            machine.home.mkdir()
            try:
                ip("netns", "add", machine.network)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"NOT TESTED: this machine makes no network namespaces: {error.stderr.strip()}")
            stack.callback(ip, "netns", "del", machine.network)
            stack.callback(machine, "down")
            ip("-n", machine.network, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            links[0],
            "netns",
            networks[0],
            "type",
            "veth",
            "peer",
            "name",
            links[1],
            "netns",
            networks[1],
        )
        for machine, address in zip(both, (HERE, THERE), strict=True):
            ip("-n", machine.network, "addr", "add", f"{address}/24", "dev", machine.link)
            machine.set_link("up")
        yield both[0], both[1]


COUNT = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.02; done"


def test_one_mesh_on_two_machines_over_a_link_that_breaks(machines):
    here, there = machines
    up = here("up", "--listen", HERE, "--tls")
    assert (up.returncode, up.stdout.count("\n")) == (0, 1), up.stderr
    word = up.stdout.split()[1]
    refused = there("join", stdin=word[:-4])
    assert refused.returncode == 2, refused.stderr
    there.set_link("down")
    refused = there("join", stdin=word)
    assert (refused.returncode, refused.stderr[:40]) == (
        4,
        f"natsproc: cannot reach tls://{HERE}:4222 from"[:40],
    )
    there.set_link("up")
    joined = there("join", stdin=up.stdout)
    assert joined.returncode == 0, joined.stderr

    here.ok("run", "-d", "--id", "worker", "--", "sh", "-c", "echo from here; exec sleep 600")
    assert [line["id"] for line in there.json("ps")] == ["worker"]
    there.ok("run", "-d", "--id", "counter", "--", "sh", "-c", COUNT)
    viewers = [machine.begin("tail", "counter", "--type", "output") for machine in machines]
    try:
        wait_for(lambda: "\n9\n" in here.ok("logs", "counter", "--type", "output"), what="it to count")
        there.set_link("down")
        began = time.monotonic()
        while time.monotonic() - began < 3:  # an outage has to last
            assert here.ok("logs", "worker", "--type", "output") == "from here\n"
        there.set_link("up")
        counted = "".join(f"{number}\n" for number in range(1, 401))
        for viewer in viewers:
            assert viewer.communicate(timeout=60)[0] == counted
    finally:
        for viewer in viewers:
            viewer.kill()
            viewer.wait()
    assert here.ok("logs", "counter", "--type", "output") == counted
    assert there.ok("logs", "worker", "--type", "output") == "from here\n"
    (receipt,) = there.json("interrupt", "worker")
    assert (receipt["status"], receipt["sender"].split("-")[0]) == ("applied", "machine")
    assert "interrupted" in here.ok("logs", "worker")
    (ended,) = [line for line in there.json("ps", "-a") if line["id"] == "worker"]
    assert ended["ended"]

    here.ok("down")
    assert there("ps").returncode == 4
    assert json.loads(there("status", "-o", "json").stdout)["joined"] == [f"tls://{HERE}:4222"]
    here.ok("up")
    assert len(there.json("ps", "-a")) == 2
