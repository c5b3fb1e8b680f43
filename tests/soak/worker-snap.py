#!/usr/bin/env python3
"""Random work on one device of a drive, with a journal of what was promised; and the check of it.

  worker.py work MOUNT NAME SEED STOP JOURNAL     until the file STOP is there; then writes JOURNAL
  worker.py check MOUNT JOURNAL...                MOUNT has what all these journals promise

The device's own folder: each file must be what its last finished change made it, also right after
the daemon was killed (a write that returned is there; a save by rename is the old or the new file).
`shared`: all devices append lines to the same files; every line that was acknowledged is in the file or
in one of its conflict files. `both`: all devices make, rename and remove files; what was made
and nobody began to remove is there, under some name.
"""

import hashlib
import json
import os
import random
import sys
import time

SIZES = [0, 10, 500, 5000, 70_000, 300_000, 2_500_000]
WEIGHTS = [2, 10, 20, 20, 10, 5, 1]


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Away(Exception):
    """The drive is not mounted, or its daemon died under the call."""


class Worker:
    def __init__(self, mount, name, seed):
        self.mount, self.name, self.rng = mount, name, random.Random(seed)
        self.below = os.stat(os.path.dirname(mount)).st_dev
        self.own = {}  # name -> digests that it may have; None in it: it may be missing or anything
        self.moving = {}  # new name -> old name
        self.lines, self.made, self.removing = [], [], []
        self.count = self.kills = 0
        self.wrong = []
        self.doubled = []
        self.digests = {}  # of rewrites, with when they were
        self.root = self.dev = self.stream = None
        self.streamed = b""

    # ---- on the mount, or not at all

    def open_root(self):
        """The root of the mount; never the folder below it."""
        root = None
        try:
            root = os.open(self.mount, os.O_PATH | os.O_DIRECTORY)
            dev = os.fstat(root).st_dev
            os.stat("own-" + self.name, dir_fd=root)
        except OSError as e:
            if root is not None:
                os.close(root)
            raise Away from e
        if dev == self.below:
            os.close(root)
            raise Away
        return root, dev

    def read(self, path):
        fd = os.open(path, os.O_RDONLY, dir_fd=self.root)
        with open(fd, "rb") as f:
            return f.read()

    def write(self, path, data, flags=os.O_CREAT | os.O_TRUNC):
        fd = os.open(path, os.O_WRONLY | flags, 0o644, dir_fd=self.root)
        try:
            while data:
                data = data[os.write(fd, data):]
        finally:
            os.close(fd)

    def content(self):
        return self.rng.randbytes(self.rng.choices(SIZES, WEIGHTS)[0])

    # ---- the works

    def path(self, name):
        return f"own-{self.name}/{name}"

    def rewrite(self):
        name, data = f"f{self.rng.randrange(30)}", self.content()
        self.own[name] = {None}
        self.write(self.path(name), data)
        self.own[name] = {digest(data)}
        self.digests[digest(data)] = f"the content of work {self.count}"

    def save(self):
        name, data = f"s{self.rng.randrange(15)}", self.content()
        self.write(self.path(name + ".tmp"), data)
        self.own[name] = self.own.get(name, {None}) | {digest(data)}
        os.rename(self.path(name + ".tmp"), self.path(name), src_dir_fd=self.root, dst_dir_fd=self.root)
        self.own[name] = {digest(data)}

    def rename(self):
        settled = [n for n, d in self.own.items() if len(d) == 1 and None not in d]
        if not settled:
            return
        old, new = self.rng.choice(settled), f"r{self.count}"
        self.moving[new] = old
        os.rename(self.path(old), self.path(new), src_dir_fd=self.root, dst_dir_fd=self.root)
        del self.moving[new]
        self.own[new] = self.own.pop(old)

    def remove(self):
        if self.own:
            name = self.rng.choice(list(self.own))
            self.own[name] = {None}
            try:
                os.unlink(self.path(name), dir_fd=self.root)
            except FileNotFoundError:
                pass
            del self.own[name]

    def stream_on(self):
        """A file that stays open: each write that returned counts."""
        if self.stream is None:
            self.stream = os.open(self.path("stream"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644, dir_fd=self.root)
        line = f"{self.count} {self.rng.random()}\n".encode()
        os.write(self.stream, line)
        self.streamed += line

    def append(self):
        line = f"{self.name} {self.count}"
        self.write(f"shared/s{self.rng.randrange(6)}", (line + "\n").encode(), os.O_CREAT | os.O_APPEND)
        self.lines.append(line)

    def make(self):
        name = f"{self.name}-{self.count}"
        if self.rng.random() < 0.2:
            os.mkdir(f"both/d{self.rng.randrange(5)}", dir_fd=self.root)
        else:
            self.write(f"both/{name}", name.encode(), os.O_CREAT | os.O_EXCL)
            self.made.append(name)

    def touch_both(self):
        fd = os.open("both", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.root)
        try:
            names = os.listdir(fd)
        finally:
            os.close(fd)
        if not names:
            return
        name = self.rng.choice(names)
        try:
            if name.startswith("d"):
                target = f"both/d{self.rng.randrange(5)}"
                os.rename("both/" + name, target, src_dir_fd=self.root, dst_dir_fd=self.root)
            elif self.rng.random() < 0.5:
                token = self.read("both/" + name).decode()
                self.removing.append(token)
                os.unlink("both/" + name, dir_fd=self.root)
            else:
                os.rename("both/" + name, f"both/{name[:60]}.{self.name}", src_dir_fd=self.root, dst_dir_fd=self.root)
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
            pass
        except OSError as e:
            if e.errno not in (39, 22):
                raise

    # ---- promises

    def verify(self):
        """The own folder is as promised; what was in between is settled by what is there."""
        for new, old in list(self.moving.items()):
            there = [n for n in (new, old) if self.digest_of(n) is not None]
            if len(there) != 1 or {self.digest_of(there[0])} != self.own[old]:
                self.wrong.append(f"{old} was being renamed to {new}: {there} are there")
            allowed = self.own.pop(old)
            self.own[(there or [new])[0]] = allowed
            del self.moving[new]
        for name, allowed in list(self.own.items()):
            found = self.digest_of(name)
            if found not in allowed and None not in allowed and self.is_beside(name, allowed):
                self.doubled.append(name)
            elif found not in allowed and None not in allowed:
                self.snap(name)
                self.wrong.append(f"work {self.count}: {name} is {found}, expected one of {allowed}, last {self.digests.get(found)}")
            if found is None:
                del self.own[name]
            else:
                self.own[name] = {found}
        stream = self.read(self.path("stream")) if self.streamed else b""
        if not stream.startswith(self.streamed):
            same = len(os.path.commonprefix([stream, self.streamed]))
            self.wrong.append(f"stream: {len(self.streamed)} bytes were acknowledged, {same} of {len(stream)} are right")
        self.streamed = stream

    def snap(self, name):
        import subprocess, shutil
        top = os.path.dirname(self.mount)
        to = f"{top}/wrong-{self.name}"
        if os.path.exists(to):
            return
        os.makedirs(to)
        subprocess.run(f"cp -a {top}/snap {to}/; cp -a {top}/{self.name}.home/state.db* {top}/{self.name}.home/state.redo {top}/{self.name}.home/data {to}/; getfattr -d -m - -n user.drivefs.node {self.mount}/own-{self.name}/{name} >{to}/attr; ls -li {self.mount}/own-{self.name} >{to}/ls; date +%s.%N >>{to}/attr; echo {name} >>{to}/attr", shell=True)

    def is_beside(self, name, allowed):
        """It is kept, but as a conflict file: nothing is lost, yet nobody else wrote here."""
        with os.scandir(f"{self.mount}/own-{self.name}") as entries:
            names = [e.name for e in entries if e.name.startswith(name + " (")]
        return any(self.digest_of(n) in allowed for n in names)

    def digest_of(self, name):
        try:
            return digest(self.read(self.path(name)))
        except FileNotFoundError:
            return None

    def run(self, stop):
        works = [self.rewrite, self.save, self.rename, self.remove, self.stream_on, self.append, self.make, self.touch_both]
        weights = [6, 4, 2, 1, 6, 5, 5, 3]
        while True:
            last = os.path.exists(stop)
            try:
                self.root, dev = self.open_root()
                try:
                    if dev != self.dev or last:
                        if self.stream is not None:
                            os.close(self.stream)
                            self.stream = None
                        self.verify()
                        self.kills += self.dev not in (None, dev)
                        self.dev = dev
                    if last:
                        return
                    self.count += 1
                    try:
                        self.rng.choices(works, weights)[0]()
                    except FileExistsError:
                        pass
                finally:
                    os.close(self.root)
            except (Away, OSError) as e:
                if isinstance(e, OSError) and e.errno not in (107, 103, 5, 2, 19, 116, 9):
                    self.wrong.append(f"error of the drive: {e}")
                # Of the mount that is gone.
                self.dev = self.dev if isinstance(e, Away) else -1
                if self.stream is not None:
                    try:
                        os.close(self.stream)
                    except OSError:
                        pass
                    self.stream = None
                time.sleep(0.02)


def work(mount, name, seed, stop, journal):
    worker = Worker(mount, name, seed)
    worker.run(stop)
    own = {n: next(iter(d)) for n, d in worker.own.items()}
    own["stream"] = digest(worker.streamed)
    state = dict(name=name, own=own, lines=worker.lines, made=worker.made, removing=worker.removing,
                 wrong=worker.wrong, works=worker.count, kills=worker.kills)
    with open(journal, "w", encoding="utf-8") as f:
        json.dump(state, f)
    print(f"{name}: {worker.count} works, {worker.kills} new mounts seen, {len(worker.wrong)} promises broken, "
          f"{len(worker.doubled)} conflicts with itself")
    for text in worker.wrong[:20]:
        print("  " + text)
    sys.exit(1 if worker.wrong or worker.doubled else 0)


def check(mount, journals):
    states, wrong = [], []
    for path in journals:
        with open(path, encoding="utf-8") as f:
            states.append(json.load(f))
    for state in states:
        for name, wanted in state["own"].items():
            try:
                with open(f"{mount}/own-{state['name']}/{name}", "rb") as f:
                    if digest(f.read()) != wanted:
                        wrong.append(f"own-{state['name']}/{name} is another content")
            except OSError as e:
                wrong.append(str(e))
    lines, copies = set(), {}
    # Of an open file that had lost its place the conflict file stands at the top.
    beside = ["../" + name for name in os.listdir(mount) if "conflicted copy" in name]
    for name in os.listdir(mount + "/shared") + beside:
        with open(f"{mount}/shared/{name}", "rb") as f:
            data = f.read()
        found = data.decode("utf-8", "replace").splitlines()
        for line in found:
            if found.count(line) > 1:
                wrong.append(f"shared/{name} has the line '{line}' twice")
        lines.update(found)
        if "conflicted copy" in name:
            origin = name.split(" (")[0]
            if (origin, data) in copies:
                wrong.append(f"one conflict twice: {name} and {copies[(origin, data)]}")
            copies[(origin, data)] = name
    there = set()
    for folder, _, files in os.walk(mount + "/both"):
        for name in files:
            with open(os.path.join(folder, name), "rb") as f:
                there.add(f.read().decode("utf-8", "replace"))
    removing = {token for state in states for token in state["removing"]}
    for state in states:
        wrong += [f"the line '{line}' is nowhere" for line in state["lines"] if line not in lines]
        wrong += [f"both: {token} is gone" for token in state["made"] if token not in there | removing]
    total = sum(len(s["own"]) + len(s["lines"]) + len(s["made"]) for s in states)
    print(f"{total} promises, {len(copies)} conflict files, {len(wrong)} wrong")
    for text in wrong[:20]:
        print("  " + text)
    sys.exit(1 if wrong else 0)


if sys.argv[1] == "work":
    work(*sys.argv[2:])
else:
    check(sys.argv[2], sys.argv[3:])
