"""Run a command for `measures/cli.py`: how long it took, and its peak memory. Started on its own, with `-I -S`.

A child's peak counts from before its `exec`, so what starts it has to be small; hence no import that can be helped.
"""

import os
import sys
from time import perf_counter

until = sys.argv[1].encode()  # terminate it once it has printed that; "" for its own end
argv = sys.argv[2:]
out, into = os.pipe()
start = perf_counter()
if not (pid := os.fork()):
    os.dup2(into, 1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    os.dup2(2, 0)
    os.execv(argv[0], argv)
os.close(into)
printed, took = b"", 0.0
while piece := os.read(out, 65536):
    printed = (printed + piece)[-200_000:]
    if until and until in printed and not took:
        took = perf_counter() - start
        os.kill(pid, 15)
_, status, usage = os.wait4(pid, 0)
failed = not took if until else status
print(took or perf_counter() - start, usage.ru_maxrss / 1024, 1 if failed else 0)
