"""A built wheel, installed alone in an empty environment, runs `natsproc run` and `tail`."""

from __future__ import annotations

import os
import subprocess
import sys
import venv

import pytest
from harness import ROOT


@pytest.mark.timeout(600)  # two environments are filled from the package index
def test_a_built_wheel_works_alone(tmp_path):
    def call(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=300, **options,
        )  # fmt: skip

    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "NATSPROC_", "PYTHON"))}
    environment["NATSPROC_HOME"] = str(tmp_path / "home")
    call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT, check=True)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    venv.create(tmp_path / "env", with_pip=True)
    bin = tmp_path / "env" / "bin"
    call(bin / "pip", "install", "-q", "--disable-pip-version-check", wheel, check=True)
    try:
        ran = call(bin / "natsproc", "run", "--id", "w1", "--", "sh", "-c", "echo from the wheel; exit 7")
        assert (ran.returncode, ran.stdout) == (7, "from the wheel\n"), ran.stderr
        tailed = call(bin / "natsproc", "tail", "w1")
        assert tailed.returncode == 0, tailed.stderr
        assert "from the wheel" in tailed.stdout
        assert call(bin / "natsproc", "wait", "w1").returncode == 7
        assets = "import natsproc.server.pages as p; print(*p.load())"
        served = call(bin / "python", "-c", assets).stdout.split()
        assert {"/", "/natsproc-tail.js"} <= set(served)
        assert any(path.startswith("/assets/") and path.endswith(".js") for path in served)
    finally:
        call(bin / "natsproc", "down")
