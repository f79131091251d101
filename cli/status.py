"""`natsproc status`: whether the embedded server runs, and where."""

from __future__ import annotations

import json
import time

from natsproc_cli import options


def status(output: options.Output = "text") -> int:
    """Say whether the embedded nats-server runs, and where; exits with 4 if it does not."""
    from natsproc.errors import NoServer
    from natsproc.server import embedded
    from natsproc.server.home import Home
    from natsproc_cli.durations import format_age

    home = Home.find()
    found = embedded.status(home)
    if output == "json":
        print(json.dumps(found))
    elif "pid" in found:
        shown = {**found, "started": f"{format_age(time.time() - found['started'])} ago"}
        for name, value in shown.items():
            print(f"{name:11}{value}")
    if found["running"]:
        return 0
    if "pid" in found:
        raise NoServer(
            f"nats-server does not answer at {found['url']}. The end of its log:\n{home.last_words()}"
        )
    raise NoServer("no nats-server runs here: start one with `natsproc up`")
