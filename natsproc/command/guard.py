"""The guard: parent of a wrapped command, adoptive parent of all that it starts, and its end if natsproc dies.

    natsproc ══ socket ══ guard ── command ── …

It is a program of its own, run as `python -I -S guard.py`, and not a fork: natsproc has threads by then. It costs
some 20 ms. As a *subreaper* it inherits whatever escapes (`setsid`, double forks) and reaps it, so "no child left"
means that nothing is left, zombies included. At end of file on the socket, however natsproc came to its end, it
kills all of it. Signals go to process groups and not to pids, because the kernel signals a group at once: a shell
that gets SIGINT while it waits for a command that did not get it carries on.

It hears `signal N`, `pause`, `resume` (each answered with `done N`) and `kill`, and says `started PID` or
`failed ERRNO`, then `exited STATUS` (as waitpid has it), then `gone`, a line each.

Where there is no subreaper (macOS), what leaves both its parent and its process group gets away.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

SWEEP_SECONDS = 0.005
PARENT_CHECK_SECONDS = 1.0
PAUSE_SECONDS = 1.0

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def processes() -> dict[int, tuple[int, int, int, str]]:
    """Every OS process: pid → its parent, process group, session, and state letter (`T` stopped, `Z` zombie)."""
    found: dict[int, tuple[int, int, int, str]] = {}
    if not LINUX:
        for line in os.popen("ps -A -o pid=,ppid=,pgid=,stat="):
            pid, parent, group, state = line.split()
            found[int(pid)] = (int(parent), int(group), int(group), state[0])
        return found
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="latin-1") as file:
            state, parent, group, session = file.read().rpartition(") ")[2].split(" ", 4)[:4]
            found[int(name)] = (int(parent), int(group), int(session), state)
    return found


def descendants(root: int) -> dict[int, tuple[int, str]]:
    """All that descends from `root`, parents before children: pid → its process group and state letter."""
    everything = processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, *_) in everything.items():
        children.setdefault(parent, []).append(pid)
    order = list(children.get(root, ()))
    for pid in order:
        order += children.get(pid, ())
    return {pid: (everything[pid][1], everything[pid][3]) for pid in order}


def _prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Guard:
    """The guard over one command; `channel` is the descriptor of the socket to natsproc."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._heard = b""
        self._parent = os.getppid()
        self._killing = False
        self._main = 0
        os.set_inheritable(channel, False)
        self._hangup = signal.getsignal(signal.SIGHUP)  # `nohup` ignores it, for the command as well
        for number in (*_IGNORED, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._woken, waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def _say(self, what: str, number: int) -> None:
        with contextlib.suppress(OSError):  # natsproc is gone, and nobody else listens
            os.write(self._channel, f"{what} {number}\n".encode())

    def start(self, argv: list[str], terminal: bool) -> bool:
        """Start the command on our own standard streams, and let go of them."""
        problem, tell = os.pipe()
        guard = os.getpid()
        self._main = os.fork()
        if not self._main:
            try:
                self._become(argv, terminal, guard)
            except OSError as error:
                os.write(tell, str(error.errno).encode())
            os._exit(127)
        os.close(tell)
        number = os.read(problem, 16)
        os.close(problem)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        if number:
            self._say("failed", int(number))
        else:
            self._say("started", self._main)
        return not number

    def _become(self, argv: list[str], terminal: bool, guard: int) -> None:
        os.setsid()
        if terminal:
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should somebody kill the guard
        if os.getppid() != guard:
            os._exit(127)
        for number in (*_IGNORED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, self._hangup)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(argv[0], argv)

    def watch(self) -> None:
        """Carry out what is asked, until nothing is left of what was started."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        sweep = SWEEP_SECONDS
        while self._reap():
            ready = poll.poll(1000 * (sweep if self._killing else PARENT_CHECK_SECONDS))
            for descriptor, _ in ready:
                if descriptor == self._channel and not self._hear():
                    poll.unregister(self._channel)
                    self._killing = True
            # a forked child of natsproc may hold the socket open
            if self._killing or os.getppid() != self._parent:
                self._killing = True
                self._signal(signal.SIGKILL)
                sweep = min(sweep * 1.1, PARENT_CHECK_SECONDS)  # another user's may never go
        self._say("gone", 0)

    def _reap(self) -> bool:
        """Reap what has ended; whether anything is left."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._main:
                self._say("exited", status)

    def _hear(self) -> bool:
        try:
            data = os.read(self._channel, 4096)
        except ConnectionError:
            return False
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            verb, *number = line.decode().split()
            if verb == "kill":
                self._killing = True
            elif verb == "signal":
                self._say("done", self._signal(int(number[0])))
            else:
                self._say("done", self._pause() if verb == "pause" else self._resume())
        return bool(data)

    def _groups(self) -> list[int]:
        """The process groups of all members, those of parents first. Never our own, where `ps` runs."""
        groups = dict.fromkeys(group for group, _ in descendants(os.getpid()).values())
        return [group for group in groups if group != os.getpgrp()]

    def _signal(self, number: int) -> int:
        groups = self._groups()
        self._to(groups, number)
        return len(groups)

    def _to(self, groups: list[int], number: int) -> None:
        for group in groups:
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                os.killpg(group, number)

    def _pause(self) -> int:
        """Stop all of it; returns how many would not stop.

        One group after the other, parents first, and on resuming they wake last: so a shell with job control does not
        see its job stop. Until none runs, because a member may have forked meanwhile. A parent that waits in `vfork`
        for a child that is stopped (`D`) cannot be seen to stop, but it can do nothing either.
        """
        deadline = time.monotonic() + PAUSE_SECONDS
        told: set[int] = set()
        while running := self._running(told):
            if time.monotonic() > deadline:
                self._to(running, signal.SIGSTOP)
                break
            self._to(running[:1], signal.SIGSTOP)
            told.add(running[0])
            time.sleep(0.001)
        return len(running)

    def _running(self, told: set[int]) -> list[int]:
        members = descendants(os.getpid()).values()
        return [group for group, state in members if state not in ("TtZXD" if group in told else "TtZX")]

    def _resume(self) -> int:
        self._to(self._groups()[::-1], signal.SIGCONT)
        return 0


def main() -> None:
    """`guard.py CHANNEL tty|- COMMAND …`"""
    guard = Guard(int(sys.argv[1]))
    if guard.start(sys.argv[3:], sys.argv[2] == "tty"):
        guard.watch()


if __name__ == "__main__":
    main()
