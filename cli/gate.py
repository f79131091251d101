"""`natsproc gate`: carry out what narrow credentials ask."""

from __future__ import annotations

from contextlib import suppress

from natsproc_cli import exits
from natsproc_cli.options import Target, run_async, with_target


@with_target
def gate(target: Target) -> int:
    """Answer, until stopped, what credentials without rights on JetStream ask: reads, messages, an owner's writes.

    `natsproc up` runs one beside its server. Elsewhere run one or more, anywhere, with a credential that has all rights.
    """
    from natsproc.server.find import find
    from natsproc.server.gate import serve

    endpoint = find(target.server, target.creds, target.context)
    with suppress(KeyboardInterrupt):
        run_async(serve(endpoint, on_ready=lambda url: exits.remark(f"the gate answers at {url}")))
    return 0
