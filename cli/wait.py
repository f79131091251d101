"""`natsproc wait`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target
from natsproc_cli.tail import detached

if TYPE_CHECKING:
    from natsproc.protocol.messages import Notice


@with_target
def wait(
    target: Target,
    id: options.Id,
    timeout: options.Timeout = None,
    output: options.Output = "text",
) -> int:
    """Wait for a process to end, and exit with its own exit code, 128+N for signal N.

    Every failure of natsproc exits with 125, a --timeout that passes with 124. A Python process counts as
    0 returned, 1 raised, 130 interrupted, 143 cancelled, 137 killed.
    """
    from natsproc.errors import TimedOut

    def told(item: Notice) -> None:
        from natsproc_cli import describe

        if item.type == "unreachable":
            exits.remark(f"{id} is unreachable: {describe.notice(item)}")

    async def work() -> int:
        address = target.address(id)
        async with target.connect() as mesh:
            end = await mesh.process(address).wait(timeout, told=told)
        if output == "json":
            exits.print_json({"process": str(address), **end.to_json()})
        return end.code

    try:
        with exits.told_as_json(output):
            return run_async(work())
    except TimedOut as error:
        if timeout is None:
            raise
        exits.remark(str(error))
        return exits.TIMED_OUT
    except KeyboardInterrupt:
        detached([id])
        return exits.OURS
