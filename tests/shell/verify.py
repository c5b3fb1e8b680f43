#!/usr/bin/env python3
"""Checks that every file of writer.py's log has the same bytes in two trees. Usage: FROM TO LOG."""

import os
import sys

source, target, log_path = sys.argv[1:4]
wrong = []
count = 0
with open(log_path, encoding="utf-8", errors="surrogateescape", newline="\n") as log:
    for line in log:
        if not line.endswith("\n"):
            continue
        name = line[:-1].replace("\0", "\n")
        count += 1
        try:
            with open(os.path.join(source, name), "rb") as a, open(os.path.join(target, name), "rb") as b:
                if a.read() != b.read():
                    wrong.append(f"{name}: other bytes")
        except OSError as e:
            wrong.append(f"{name}: {e}")
print(f"{count} files noted, {len(wrong)} wrong")
for text in wrong[:20]:
    print(text)
sys.exit(1 if wrong or count == 0 else 0)
