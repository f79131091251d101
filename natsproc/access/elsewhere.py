"""A grant for a NATS whose keys are elsewhere: what to configure there. Pure. Protocol: section 8."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from .rights import Grants, permissions


def as_json(sender: str, grants: Grants) -> str:
    """The permissions as JSON, in the words of a nats-server's configuration."""
    return json.dumps(_configured(sender, grants))


def as_conf(sender: str, grants: Grants) -> str:
    """The block for the user of that name in nats-server.conf."""
    lines = []
    for verb, listed in _configured(sender, grants).items():
        subjects = "".join(f'\n      "{subject}"' for subject in listed["allow"])
        lines.append(f"  {verb}: {{ allow: [{subjects}\n  ] }}")
    return "\n".join(["permissions: {", *lines, "}"])


def as_nsc(sender: str, grants: Grants, seconds: float | None) -> str:
    """The command line of `nsc` that makes a user of that name, in the account that is current there."""
    words = ["nsc", "add", "user", "--name", sender]
    if seconds:
        words += ["--expiry", f"{max(1, int(seconds // 60))}m"]
    allowed = permissions(sender, grants)
    for option, side in (("--allow-pub", "pub"), ("--allow-sub", "sub")):
        words += [option, ",".join(allowed[side]["allow"])]
    return shlex.join(words)


def explained(sender: str, grants: Grants, seconds: float | None) -> Iterable[str]:
    """All three, for people; comments begin with #."""
    yield "# a gate has to run for it: `natsproc gate`, with the credential of the role that `natsproc setup --print` names so"
    yield f"# nats-server.conf, for the user {sender!r}: the name is what others see as the sender"
    yield as_conf(sender, grants)
    yield "# the same as JSON"
    yield as_json(sender, grants)
    yield "# or with operator keys; the server's max_control_line has to hold the JWT, so 65536 is a good value"
    yield as_nsc(sender, grants, seconds)


def _configured(sender: str, grants: Grants) -> dict[str, dict[str, list[str]]]:
    allowed = permissions(sender, grants)
    return {"publish": allowed["pub"], "subscribe": allowed["sub"]}
