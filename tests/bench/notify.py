#!/usr/bin/env python3
"""What does the kernel tell watchers of a FUSE mount when the file system itself notifies it?

Usage: notify.py (as root). Mounts a small FUSE file system of its own, watches its root folder and a
file with inotify, and prints for each notification, and for calls through the mount that the
file system answers without doing anything, the events that came. docs/decisions/0011-watching.md has the table.
"""

import ctypes
import os
import struct
import sys
import tempfile
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
NAMES = {1: "ACCESS", 2: "MODIFY", 4: "ATTRIB", 8: "CLOSE_WRITE", 16: "CLOSE_NOWRITE", 32: "OPEN", 64: "MOVED_FROM",
         128: "MOVED_TO", 256: "CREATE", 512: "DELETE", 1024: "DELETE_SELF", 2048: "MOVE_SELF", 32768: "IGNORED"}
LOOKUP, FORGET, GETATTR, SETATTR, MKNOD, UNLINK, RENAME, OPEN, WRITE, RELEASE = 1, 2, 3, 4, 8, 10, 12, 14, 16, 18
INIT, OPENDIR, READDIR, RELEASEDIR, DESTROY, BATCH_FORGET, RENAME2, FLUSH = 26, 27, 28, 29, 38, 42, 45, 25
INVAL_INODE, INVAL_ENTRY, DELETE, INC_EPOCH = -2, -3, -6, -8
FILE = 2  # inode of the file "file"


class Fs:
    """A root folder that says of every name in `names` that it is there."""

    def __init__(self, at):
        self.dev = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.dev},rootmode=40000,user_id=0,group_id=0"
        if libc.mount(b"watch", at.encode(), b"fuse", 0, options.encode()):
            sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
        self.names = {"file": FILE}
        threading.Thread(target=self.serve, daemon=True).start()

    def attr(self, ino):
        mode = 0o40755 if ino == 1 else 0o100644
        return struct.pack("<6Q10I", ino, 5, 8, 0, 0, 0, 0, 0, 0, mode, 2 if ino == 1 else 1, 0, 0, 0, 4096, 0)

    def entry(self, ino):
        return struct.pack("<4Q2I", ino, 0, 1000, 1000, 0, 0) + self.attr(ino)

    def serve(self):
        while True:
            try:
                data = os.read(self.dev, 1 << 20)
            except OSError:
                return
            _, op, unique, node = struct.unpack_from("<2I2Q", data)
            body = data[40:]
            answer, error = b"", 0
            if op in (FORGET, BATCH_FORGET):
                continue
            if op == INIT:
                answer = struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 16, 12, 65536, 1, 32, 0, *[0] * 8)[:64]
            elif op == LOOKUP:
                ino = self.names.get(body.rstrip(b"\0").decode())
                answer, error = (self.entry(ino), 0) if ino else (b"", -2)
            elif op in (GETATTR, SETATTR):
                answer = struct.pack("<Q2I", 1000, 0, 0) + self.attr(node)
            elif op == MKNOD:
                answer = self.entry(9)
            elif op in (OPEN, OPENDIR):
                answer = struct.pack("<Q2I", 1, 0, 0)
            elif op == WRITE:
                answer = struct.pack("<2I", struct.unpack_from("<2QI", body)[2], 0)
            elif op not in (UNLINK, RENAME, RENAME2, RELEASE, RELEASEDIR, READDIR, FLUSH, DESTROY):
                error = -38
            os.write(self.dev, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)

    def notify(self, code, body):
        try:
            os.write(self.dev, struct.pack("<IiQ", 16 + len(body), -code, 0) + body)
            return ""
        except OSError as e:
            return f" ({e.strerror})"


def watch(paths):
    fd = libc.inotify_init1(os.O_NONBLOCK)
    return fd, {libc.inotify_add_watch(fd, p.encode(), 0xFFF): p for p in paths}


def events(fd, words, at):
    time.sleep(0.1)
    out = []
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return "nothing"
    while data:
        wd, mask, _, length = struct.unpack_from("<iIII", data)
        data = data[16 + length:]
        kinds = "|".join(n for bit, n in NAMES.items() if mask & bit)
        out.append(("folder:" if words.get(wd) == at else "file:") + kinds)
    return " ".join(out)


def write_nothing(at):
    fd = os.open(at + "/file", os.O_WRONLY)
    os.ftruncate(fd, 5)
    os.close(fd)


def with_answer(fs, name, there, call):
    """Calls with another answer to LOOKUP, and a kernel that knows nothing of the name."""
    before = fs.names.get(name)
    fs.names[name] = 9
    if not there:
        del fs.names[name]
    fs.notify(INVAL_ENTRY, struct.pack("<Q2I", 1, len(name), 0) + name.encode() + b"\0")
    call()
    if before:
        fs.names[name] = before


def main():
    at = tempfile.mkdtemp(prefix="notify.")
    fs = Fs(at)
    file = at + "/file"
    entry = struct.pack("<Q2I", 1, 4, 0) + b"file\0"
    delete = struct.pack("<2Q2I", 1, FILE, 4, 0) + b"file\0"
    try:
        for text, act in [
            ("NOTIFY_INVAL_INODE of the file", lambda: fs.notify(INVAL_INODE, struct.pack("<Qqq", FILE, 0, 0))),
            ("NOTIFY_INVAL_INODE of the folder", lambda: fs.notify(INVAL_INODE, struct.pack("<Qqq", 1, 0, 0))),
            ("NOTIFY_INVAL_ENTRY", lambda: fs.notify(INVAL_ENTRY, entry)),
            ("NOTIFY_INVAL_ENTRY, expire only", lambda: fs.notify(INVAL_ENTRY, struct.pack("<Q2I", 1, 4, 1) + b"file\0")),
            ("NOTIFY_DELETE", lambda: fs.notify(DELETE, delete)),
            ("NOTIFY_DELETE, file open", lambda: fs.notify(DELETE, delete)),
            ("NOTIFY_INC_EPOCH", lambda: fs.notify(INC_EPOCH, b"")),
            ("mknod", lambda: with_answer(fs, "new", False, lambda: os.mknod(at + "/new", 0o100644))),
            ("unlink", lambda: with_answer(fs, "old", True, lambda: os.unlink(at + "/old"))),
            ("rename", lambda: with_answer(fs, "a", True, lambda: with_answer(fs, "b", False, lambda: os.rename(at + "/a", at + "/b")))),
            ("open for writing, ftruncate, close", lambda: write_nothing(at)),
            ("chmod", lambda: os.chmod(file, 0o644)),
            ("utimensat", lambda: os.utime(file)),
        ]:
            os.stat(file)
            fd, words = watch([at, file])
            keep = os.open(file, os.O_RDONLY) if "file open" in text else None
            if keep is not None:
                events(fd, words, at)
            error = act() or ""
            print(f"{text}{error}: {events(fd, words, at)}", flush=True)
            if keep is not None:
                os.close(keep)
                print(f"{text}, at its close: {events(fd, words, at)}", flush=True)
            os.close(fd)
    finally:
        libc.umount2(at.encode(), 2)
        os.rmdir(at)


main()
