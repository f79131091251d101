"""What a parser of nats-py's tells its client beside messages."""

from __future__ import annotations


class Noting:
    """Has noted it, one thing after the other."""

    things: list[object]

    async def _process_ping(self):
        self.things.append("ping")

    async def _process_pong(self):
        self.things.append("pong")

    async def _process_err(self, text):
        self.things.append(text)

    async def _process_info(self, info, initial_connection=False):
        self.things.append(info)
