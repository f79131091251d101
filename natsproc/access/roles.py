"""What each role needs on a NATS of somebody else's: pure, and as narrow as machines that are trusted can be.

`admin` makes the mesh (`natsproc setup`); `service` runs processes and commands them; `gate` answers for
narrow credentials (`natsproc gate`). For anybody else there are rights. Protocol: section 8.
"""

from __future__ import annotations

from natsproc.protocol.names import Names

from .rights import Grants


def roles(names: Names, domain: str | None = None) -> dict[str, Grants]:
    """The permissions of each role on a mesh, in that JetStream domain; `{sender}` is whoever has it."""
    api, p = f"$JS.{domain}.API" if domain else "$JS.API", names.prefix
    buckets = (names.claims, names.registry, names.ended, names.leases)
    streams = (
        names.event_stream, names.inbox_stream, *(f"KV_{bucket}" for bucket in buckets), f"OBJ_{names.states}",
    )  # fmt: skip
    calls = (
        "STREAM.INFO.{}", "STREAM.MSG.GET.{}", "STREAM.PURGE.{}", "DIRECT.GET.{}", "DIRECT.GET.{}.>",
        "CONSUMER.CREATE.{}.>", "CONSUMER.DELETE.{}.>",
    )  # fmt: skip
    service: Grants = {
        "pub": (
            f"{p}.*.*.events",
            *(f"{p}.*.*.{verb}.{{sender}}" for verb in ("inbox", "control", "history", "viewers")),
            *(f"$KV.{bucket}.>" for bucket in buckets),
            f"$O.{names.states}.>",
            *(f"{api}.{call.format(stream)}" for stream in streams for call in calls),
            f"{api}.INFO",
            f"{api}.STREAM.MSG.DELETE.{names.inbox_stream}",
            "$JS.FC.>",
            "$SRV.>",
            "_INBOX.>",
            "_NODE.>",
        ),
        "sub": (f"{p}.>", "$SRV.>", "_INBOX.{sender}.>", "_NODE.{sender}.>"),
    }
    changes = ("STREAM.CREATE.{}", "STREAM.UPDATE.{}", "STREAM.DELETE.{}", "STREAM.MSG.DELETE.{}")
    making = tuple(f"{api}.{call.format(stream)}" for stream in streams for call in changes)
    return {
        "admin": service | {"pub": tuple(dict.fromkeys((*service["pub"], *making)))},
        "service": service,
        "gate": {
            "pub": (*service["pub"], f"{p}.*.*.inbox.*"),  # it stores in the name of who asks
            "sub": (*service["sub"], *(f"*.*.*.{verb}.*" for verb in ("history", "send", "hold", "own"))),
        },
    }
