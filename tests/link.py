"""A TCP link that can be cut and mended, between a client and its real nats-server."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class Link:
    """Forwards a loopback port to a server's port until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"nats://127.0.0.1:{self.port}"
        self._up = threading.Event()
        self._up.set()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._up.is_set():
                    client.close()
                    continue
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            pair = {client: server, server: client}
            self._open |= set(pair)
            try:
                while self._up.is_set():
                    ready, _, _ = select.select(list(pair), [], [], 0.05)
                    for end in ready:
                        if not (data := end.recv(65536)):
                            return
                        pair[end].sendall(data)
            finally:
                self._open -= set(pair)

    def cut(self) -> None:
        """Close what is open, and refuse what comes, until mended."""
        self._up.clear()

    def mend(self) -> None:
        self._up.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()
