#!/usr/bin/env python3
"""Copies a tree file by file and notes each file once it is closed: what a program was told is done.

Usage: writer.py FROM TO LOG. Ends quietly when the target stops working, so that a daemon can be
killed under it.
"""

import os
import sys

source, target, log_path = sys.argv[1:4]
done = 0
with open(log_path, "w", encoding="utf-8", errors="surrogateescape") as log:
    for folder, folders, files in os.walk(source):
        folders.sort()
        inside = os.path.relpath(folder, source)
        try:
            os.makedirs(os.path.join(target, inside), exist_ok=True)
            for name in sorted(files):
                path = os.path.join(folder, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                with open(path, "rb") as f:
                    data = f.read()
                with open(os.path.join(target, inside, name), "wb") as f:
                    f.write(data)
                log.write(os.path.join(inside, name).replace("\n", "\0") + "\n")
                log.flush()
                done += 1
        except OSError as e:
            print(f"stopped after {done} files: {e}")
            sys.exit(0)
print(f"all {done} files")
