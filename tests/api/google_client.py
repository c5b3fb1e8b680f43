"""Resumable uploads with a client that none of us wrote: google-resumable-media, from the package
index, with connections that die on the way.

usage: google_client.py URL TOKEN
"""

import io
import os
import random
import sys

import requests
from google.resumable_media.requests import ResumableUpload

url, token = sys.argv[1:3]
seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
print("SEED", seed)
chance = random.Random(seed)
begin = url + "/files/upload?uploadType=resumable"


class Dying(requests.Session):
    """Drops some connections in the middle of a part."""

    def __init__(self):
        super().__init__()
        self.headers["Authorization"] = "Bearer " + token
        self.die, self.died = False, 0

    def request(self, method, url, data=None, **kwargs):
        if method == "PUT" and data and self.die and chance.random() < 0.4:
            self.died += 1
            cut = chance.randrange(len(data))

            def broken():
                yield data[:cut]
                raise ConnectionError("cut")

            headers = dict(kwargs.pop("headers"))
            kwargs.pop("timeout", None)
            try:
                return super().request(method, url, data=broken(), headers=headers, timeout=20)
            except Exception as e:
                raise requests.exceptions.ConnectionError(str(e)) from e
        return super().request(method, url, data=data, **kwargs)


def upload(path, data, part, known):
    session = Dying()
    client = ResumableUpload(begin, part)
    stream = io.BytesIO(data)
    kwargs = {"total_bytes": len(data)} if known else {"stream_final": False}
    client.initiate(session, stream, {"path": path}, "application/octet-stream", **kwargs)
    session.die = True
    answer = None
    while not client.finished:
        try:
            answer = client.transmit_next_chunk(session)
        except requests.exceptions.ConnectionError:
            session.die = False
            client._invalid = True
            client.recover(session)
            session.die = True
    session.die = False
    assert answer.json()["size"] == len(data), answer.text
    got = session.post(url + "/files/download", json={"path": path})
    assert got.content == data, "other bytes came back"
    print(f"{path}: {len(data)} bytes in parts of {part}, {session.died} connections died")


KIB = 1024
upload("/google/small", os.urandom(10), 256 * KIB, True)
upload("/google/aligned", os.urandom(1024 * KIB), 256 * KIB, True)
upload("/google/many", os.urandom(9000 * KIB + 7), 256 * KIB, True)
upload("/google/unknown", os.urandom(5000 * KIB + 1), 512 * KIB, False)
upload("/google/large", os.urandom(40_000 * KIB + 3), 8192 * KIB, True)
print("google-resumable-media is served")
