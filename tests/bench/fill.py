"""Fills a drive with nodes over the sync protocol: fill.py URL EMAIL NODES, the password on stdin.

Makes folders of 100 entries, two levels deep, below the root (the names are those of a photo
collection). The contents are those of the files in the folder `.contents`, which a mount has put
there before: a commit may only name blocks that the account holds.
"""

import http.client
import json
import os
import queue
import sys
import threading
import time
import urllib.parse
import uuid

OPS_A_COMMIT = 1000
FILES_A_FOLDER = 100
FOLDERS_A_PARENT = 100
CONNECTIONS = 2
MTIME_NS = 1_600_000_000_000_000_000


class Server:
    """One connection."""

    def __init__(self, url, token=None):
        self.address = urllib.parse.urlsplit(url).netloc
        self.headers = {"x-drivefs-wire": "1", "content-type": "application/json"}
        if token:
            self.headers["authorization"] = f"Bearer {token}"
        self.connection = http.client.HTTPConnection(self.address, timeout=120)

    def post(self, path, body):
        self.connection.request("POST", path, json.dumps(body), self.headers)
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            sys.exit(f"fill: {path}: {reply.status} {text[:300]!r}")
        return json.loads(text)


def new_id():
    """A version 7 UUID."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (7 << 76)
    value = value & ~(0x3 << 62) | (2 << 62)
    return str(uuid.UUID(int=value))


def attrs(mode):
    return {"mode": mode, "mtime": MTIME_NS, "btime": MTIME_NS}


def contents(server, ns):
    """The root folder, and the contents of the files that are there."""
    found, cursor, more, root = [], 0, True, None
    while more:
        page = server.post("/sync/v1/changes", {"ns": ns, "cursor": cursor, "limit": 2000})
        found += [n["content"] for n in page["nodes"] if n.get("content") and n["kind"] == "file"]
        cursor, more, root = page["cursor"], page["more"], page["root"]
    if not found:
        sys.exit("fill: there is no content to share; make some files first")
    return root, found


def folders_of(root, count):
    """Ops for the folders, parents first, and the ids of those that take files."""
    ops, leaves, parent = [], [], None
    for i in range(count):
        if i % FOLDERS_A_PARENT == 0:
            parent = new_id()
            place = {"parent": root, "name": f"year-{i // FOLDERS_A_PARENT:04}"}
            ops.append({"key": new_id(), "op": "mkdir", "node": parent, "place": place, "attrs": attrs(0o755)})
        leaf = new_id()
        place = {"parent": parent, "name": f"album {i:06}"}
        ops.append({"key": new_id(), "op": "mkdir", "node": leaf, "place": place, "attrs": attrs(0o755)})
        leaves.append(leaf)
    return ops, leaves


def file_op(number, leaves, shared):
    place = {"parent": leaves[number // FILES_A_FOLDER], "name": f"photo-{number:08}.jpg"}
    return {
        "key": new_id(),
        "op": "put",
        "node": new_id(),
        "create": place,
        "base_version": 0,
        "content": shared[number % len(shared)],
        "attrs": attrs(0o644),
    }


def commit(server, ns, ops):
    reply = server.post("/sync/v1/commit", {"ns": ns, "ops": ops})
    for result in reply["results"]:
        if result["status"] != "done":
            sys.exit(f"fill: an op was not done: {result}")


def work(url, token, ns, batches, leaves, shared, failed):
    server = Server(url, token)
    try:
        while True:
            try:
                first, last = batches.get_nowait()
            except queue.Empty:
                return
            commit(server, ns, [file_op(i, leaves, shared) for i in range(first, last)])
    except BaseException as error:
        failed.append(error)
        raise


def main():
    url, email, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    password = sys.stdin.readline().rstrip("\n")
    login = Server(url).post("/auth/v1/login", {"email": email, "password": password, "device": "filler"})
    token, ns = login["token"], login["account"]["root"]
    server = Server(url, token)
    root, shared = contents(server, ns)
    began = time.monotonic()
    files = count * FILES_A_FOLDER // (FILES_A_FOLDER + 1)
    ops, leaves = folders_of(root, -(-files // FILES_A_FOLDER))
    for first in range(0, len(ops), OPS_A_COMMIT):
        commit(server, ns, ops[first : first + OPS_A_COMMIT])
    batches, failed = queue.Queue(), []
    for first in range(0, files, OPS_A_COMMIT):
        batches.put((first, min(first + OPS_A_COMMIT, files)))
    threads = [
        threading.Thread(target=work, args=(url, token, ns, batches, leaves, shared, failed))
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(1)
    took = time.monotonic() - began
    print(f"filled with {files + len(ops)} nodes in {took:.0f} s ({(files + len(ops)) / took:.0f}/s)")


main()
