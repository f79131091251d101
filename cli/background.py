"""Starting another natsproc in the background, and knowing when its command runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from natsproc_cli import exits

RUNS = b"runs\n"


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start `natsproc run` with these arguments, `--report` and more `environment`, in a session of its own.

    Returns 0 once its command runs, or the exit code with which it failed before; what it had to say about
    that is on our stderr.
    """
    heard, report = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "natsproc_cli", "run", "--report", str(report), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | environment,
        pass_fds=[report],
        start_new_session=True,
    )
    os.close(report)
    try:
        with open(heard, "rb") as reading:
            if reading.read(len(RUNS)) == RUNS:
                return 0
        return child.wait() or exits.FAILURE
    except KeyboardInterrupt:
        child.terminate()
        raise


def report_running(report: int) -> None:
    """Tell the natsproc that started this one that the command runs, and let go of its stderr."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    os.write(report, RUNS)
    os.close(report)
