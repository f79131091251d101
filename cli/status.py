"""`natsproc status`: whether the embedded server runs, and where."""

from __future__ import annotations

import json
import time
from typing import Any

from natsproc_cli import options


def status(output: options.Output = "text") -> int:
    """Say whether the embedded nats-server runs, and where, or which mesh was joined; exits with 4 if it does not answer."""
    from natsproc.errors import NoServer
    from natsproc.server import embedded, joined
    from natsproc.server.home import Home

    home = Home.find()
    found = embedded.status(home)
    if output == "json":
        print(json.dumps(found))
    else:
        for name, value in _shown(found).items():
            print(f"{name:13}{value}")
    if there := joined.load(home.joined):
        from natsproc.server.joining import reached

        reached(there)
        return 0
    if found["running"]:
        return 0
    if "pid" in found:
        raise NoServer(
            f"nats-server does not answer at {found['url']}. The end of its log:\n{home.last_words()}"
        )
    raise NoServer("no nats-server runs here: start one with `natsproc up`")


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """The same, for people."""
    from natsproc_cli.durations import format_age

    if "joined" in found:
        return {**found, "joined": ", ".join(found["joined"])}
    if "pid" not in found:
        return {}
    shown = {name: value for name, value in found.items() if value != "" and value is not False}
    shown["origins"] = ", ".join(found["origins"])
    if not shown["origins"]:
        del shown["origins"]
    if not shown.pop("pages_answer", False):
        shown["pages_url"] = f"{found.get('pages_url', 'none')} (does not answer: see `natsproc doctor`)"
    shown["started"] = f"{format_age(time.time() - found['started'])} ago"
    if ends := shown.pop("certificate_ends", 0):
        shown["certificate"] = f"good for another {format_age(ends - time.time())}"
    return shown
