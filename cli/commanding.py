"""What the control verbs have in common: send the command to each process, and print the final receipts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from natsproc_cli import exits
from natsproc_cli.options import Target, run_async

if TYPE_CHECKING:
    from natsproc.handle import ProcessHandle
    from natsproc.protocol.messages import Receipt

Ask = Callable[["ProcessHandle"], Awaitable["Receipt"]]

_CODES = {
    "applied": 0,
    "refused": exits.REFUSED,
    "too_late": exits.REFUSED,
    "unconfirmed": exits.FAILURE,
    "accepted": exits.TIMED_OUT,
}


def command(target: Target, ids: list[str], output: str, ask: Ask) -> int:
    """Send what `ask` asks to each process in turn; returns the exit code, that of the first failure."""
    addresses = [target.address(text) for text in ids]
    codes: list[int] = []

    async def work() -> None:
        from natsproc.errors import Error

        async with target.connect() as mesh:
            for address in addresses:
                try:
                    codes.append(_print(str(address), await ask(mesh.process(address)), output))
                except Error as error:
                    codes.append(exits.report(error, ""))

    run_async(work())
    return next((code for code in codes if code), 0)


def _print(address: str, receipt: Receipt, output: str) -> int:
    from natsproc_cli.terminal import one_line

    held = receipt.data.get("held_until")
    code = 0 if held else _CODES[receipt.status]
    why = one_line(receipt.why)
    if output == "json":
        exits.print_json({"process": address, **receipt.to_json()})
    elif held:
        print(f"{address}: {receipt.verb} accepted: {why}", flush=True)
    elif code == 0:
        where = f"event {receipt.offset}" if receipt.offset else f"epoch {receipt.epoch}"
        print(f"{address}: {receipt.verb} applied ({where})" + (f": {why}" if why else ""), flush=True)
    if code:
        said = {
            "refused": "refused",
            "too_late": "too late",
            "unconfirmed": "unconfirmed",
            "accepted": "not yet applied",
        }
        exits.remark(f"{address}: {receipt.verb} {said[receipt.status]}" + (f": {why}" if why else ""))
    return code
