"""`natsproc inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target


@with_target
def inspect(
    target: Target,
    id: options.Id,
    stack: Annotated[bool, typer.Option("--stack", help="Where its Python code is.")] = False,
    output: options.Output = "text",
) -> int:
    """Show all that is known of a process: record, epoch, offsets, node, load.

    The process's node answers, even while its code blocks. Of one that has ended, or whose node does not
    answer, the record is shown.
    """
    address = target.address(id)

    async def work() -> int:
        from natsproc.errors import AlreadyEnded, NoSuchProcess, Unreachable
        from natsproc_cli.describe import way_out

        async with target.connect() as mesh:
            process = mesh.process(address)
            try:
                _print(await process.inspect(stack=stack), output)
                return 0
            except (AlreadyEnded, Unreachable) as error:
                info = await process.info()
                if info is None:
                    raise NoSuchProcess(f"no process {str(address)!r} is known here") from None
                ended = bool(info.record.ended)
                known = info.to_json() | ({} if ended else {"state": "unreachable"})
                _print({"record": known}, output)
                exits.remark(str(error) if ended else f"{error}. {way_out(str(address))}")
                return 0 if ended else exits.FAILURE

    return run_async(work())


def _print(found: dict[str, Any], output: str) -> None:
    if output == "json":
        exits.print_json(found)
        return
    from natsproc_cli.details import lines

    for line in lines(found):
        print(line)
