#!/usr/bin/env python3
"""A TCP proxy on loopback that counts the bytes of both directions, to check what status says.

Usage: proxy.py TARGET_PORT COUNT_FILE [PATH MS]; prints its own port. The count file holds "up
down", kept current within 50 ms. Requests for PATH are held back for MS milliseconds each.

A file COUNT_FILE.cut cuts the network as long as it is there: with the word `swallow` in it nothing
passes any more and nobody is told, with `refuse` connections break, in mid-request, too.
"""

import asyncio
import os
import sys

counts = [0, 0]
slow_path = f" {sys.argv[3]} ".encode() if len(sys.argv) > 3 else None


def cut():
    try:
        with open(sys.argv[2] + ".cut") as f:
            return f.read().strip()
    except FileNotFoundError:
        return None


async def pump(reader, writer, which):
    try:
        while data := await reader.read(1 << 16):
            counts[which] += len(data)
            if slow_path and which == 0 and slow_path in data.split(b"\r\n", 1)[0]:
                await asyncio.sleep(int(sys.argv[4]) / 1000)
            while (how := cut()) == "swallow":
                await asyncio.sleep(0.05)
            if how == "refuse":
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def breaks(writers):
    """Ends a connection when it is to be refused."""
    while not all(w.is_closing() for w in writers):
        if cut() == "refuse":
            for w in writers:
                w.transport.abort()
        await asyncio.sleep(0.05)


async def serve(reader, writer):
    while (how := cut()) == "swallow":
        await asyncio.sleep(0.05)
    if how == "refuse":
        writer.transport.abort()
        return
    try:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    except OSError:
        writer.close()
        return
    watch = asyncio.create_task(breaks([writer, up_writer]))
    await asyncio.gather(pump(reader, up_writer, 0), pump(up_reader, writer, 1))
    watch.cancel()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        temp = sys.argv[2] + ".tmp"
        with open(temp, "w") as f:
            print(*counts, file=f)
        os.replace(temp, sys.argv[2])
        await asyncio.sleep(0.05)


asyncio.run(main())
