#!/usr/bin/env python3
# Stops the threads of a process whose names begin with NAME, and no others, until this program ends.
#
#   freeze.py PID NAME     prints "frozen" when they are
import ctypes
import os
import signal
import sys

PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


process, name = sys.argv[1:]
frozen = 0
for thread in os.listdir(f"/proc/{process}/task"):
    with open(f"/proc/{process}/task/{thread}/comm", encoding="utf-8") as comm:
        if not comm.read().startswith(name):
            continue
    ptrace(PTRACE_SEIZE, int(thread))
    ptrace(PTRACE_INTERRUPT, int(thread))
    os.waitpid(int(thread), WALL)
    frozen += 1
if frozen == 0:
    sys.exit(f"no thread is called {name}...")
print("frozen", flush=True)
signal.pause()
