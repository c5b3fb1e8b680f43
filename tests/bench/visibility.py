#!/usr/bin/env python3
"""From close() on one mount to a read of the same bytes on another, in ms: one sample a line.

Usage: visibility.py FROM TO SAMPLES [UNTIL]. Ends after SAMPLES, or when the file UNTIL is there. Half of
the samples are new files, half are edits of a file that the reader has read before.
"""

import os
import sys
import time

source, target, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
until = sys.argv[4] if len(sys.argv) > 4 else None


def visible(path, data, deadline):
    while time.monotonic() < deadline:
        try:
            with open(path, "rb") as f:
                if f.read() == data:
                    return time.monotonic()
        except FileNotFoundError:
            pass
        time.sleep(0.001)
    sys.exit(f"{path} does not arrive")


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return time.monotonic()


for i in range(samples):
    if until and os.path.exists(until):
        break
    data = os.urandom(2000 + 37 * (i % 200))
    name = f"new{i}" if i % 2 else f"edited{i % 20}"
    closed = write(f"{source}/{name}", data)
    print(f"{(visible(f'{target}/{name}', data, closed + 60) - closed) * 1000:.2f}", flush=True)
    time.sleep(0.05)
