"""One large resumable upload, cut at random points, the server killed at some of them.

Bytes come from a seed, so that nothing is kept in memory. Checks: what was told to be here stays,
no more than one part is sent again per cut, and the file comes back with the bytes that were sent.

usage: cuts.py URL TOKEN SIZE PART CUTS KILLS RESTART_COMMAND
"""

import hashlib
import http.client
import os
import random
import subprocess
import sys
import time
from urllib.parse import urlsplit

url, token, size, part, cuts, kills, restart = sys.argv[1:8]
size, part, cuts, kills = int(size), int(part), int(cuts), int(kills)
seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
print("SEED", seed, flush=True)
chance = random.Random(seed)
host = urlsplit(url).netloc
auth = {"Authorization": "Bearer " + token}
PIECE = 1 << 16


def noise(at, length):
    """Bytes of the file from a multiple of PIECE on."""
    out = b""
    while len(out) < length:
        out += random.Random(seed * 1_000_003 + at + len(out)).randbytes(PIECE)
    return out[:length]


def call(method, path, body=None, headers=None):
    for _ in range(100):
        try:
            c = http.client.HTTPConnection(host, timeout=60)
            c.request(method, path, body=body, headers=auth | (headers or {}))
            answer = c.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not come back")


def held(headers):
    text = {k.lower(): v for k, v in headers.items()}.get("range")
    return int(text.removeprefix("bytes=0-")) + 1 if text else 0


def state():
    status, headers, body = call("PUT", session, b"", {"Content-Range": f"bytes */{size}"})
    return status, held(headers), body


def send(at, end, stop):
    """Sends one part, up to `stop`; the answer, if it was not cut."""
    c = http.client.HTTPConnection(host, timeout=120)
    c.putrequest("PUT", session)
    for name, value in auth.items():
        c.putheader(name, value)
    c.putheader("Content-Length", str(end - at))
    c.putheader("Content-Range", f"bytes {at}-{end - 1}/{size}")
    c.endheaders()
    pos = at
    while pos < min(end, stop):
        n = min(PIECE - pos % PIECE, end - pos, stop - pos)
        start = pos - pos % PIECE
        c.send(noise(start, PIECE)[pos - start : pos - start + n])
        pos += n
    if stop < end:
        c.sock.shutdown(2)
        c.close()
        return None
    answer = c.getresponse()
    return answer.status, held(dict(answer.getheaders())), answer.read()


import json

body = json.dumps({"path": "/cut.bin", "size": size})
status, headers, body = call("POST", "/files/upload?uploadType=resumable", body)
assert status == 200, body
session = urlsplit({k.lower(): v for k, v in headers.items()}["location"]).path
points = sorted(chance.randrange(size) for _ in range(cuts))
killed = set(chance.sample(range(cuts), min(kills, cuts)))
began, at, sent, again, done = time.time(), 0, 0, 0, None
for i, point in enumerate(points + [size + 1]):
    while at < size and done is None:
        end = min(at + part, size)
        stop = end if point >= end else max(point, at)
        sent += stop - at
        answer = send(at, end, stop)
        if answer is None:
            break
        if answer[0] in (200, 201):
            done = answer[2]
            break
        assert answer[0] == 308, answer
        assert answer[1] == end, f"told {answer[1]} after a whole part up to {end}"
        at = end
    if done is not None or i == len(points):
        break
    if i in killed:
        subprocess.run([restart], check=True)
    elif chance.random() < 0.5:
        time.sleep(chance.random() / 10)
    status, have, _ = state()
    assert status == 308, status
    assert have >= at, f"{at} bytes were acknowledged, {have} are there"
    lost = stop - have
    assert lost <= part, f"{lost} bytes have to be sent again, more than one part"
    again += max(lost, 0)
    at = have
if done is None:
    status, _, done = state()
    assert status in (200, 201), (status, done)
assert json.loads(done)["size"] == size, done
seconds = time.time() - began
status, _, repeated = state()
assert status in (200, 201) and json.loads(repeated)["rev"] == json.loads(done)["rev"], repeated

wanted, got = hashlib.sha256(), hashlib.sha256()
for pos in range(0, size, PIECE):
    wanted.update(noise(pos, min(PIECE, size - pos)))
c = http.client.HTTPConnection(host, timeout=60)
c.request("POST", "/files/download", body='{"path":"/cut.bin"}', headers=auth)
answer = c.getresponse()
while data := answer.read(1 << 20):
    got.update(data)
assert wanted.digest() == got.digest(), "other bytes came back"
print(
    f"{size} bytes in parts of {part}: {cuts} cuts, {len(killed)} kills, {again} bytes sent again "
    f"({again / max(cuts, 1) / part:.2f} parts a cut), {seconds:.1f} s"
)
