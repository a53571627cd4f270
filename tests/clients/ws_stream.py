#!/usr/bin/env python3
"""A stream of numbered messages through an echo server. Usage: ws_stream.py URL [TRUSTED.crt]. Prints how many have come
back, every hundred; ends the stream when standard input ends. Exit code 0: each came back once, in order, on one
connection. TLS is of the version in HOLDFAST_TEST_TLS only ("1.2") if that is set."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect


def message(number):
    """Short and long ones, text and binary; the number tells which."""
    text = f"{number} " + "ü" * (number * 7919 % 3000)
    return text if number % 3 else text.encode()


class Stream:
    """What has gone out and come back on one connection."""

    def __init__(self, socket):
        self.socket, self.sent, self.back = socket, 0, 0

    async def send(self, over):
        while not over.is_set():
            await self.socket.send(message(self.sent))
            self.sent += 1
            await asyncio.sleep(0.001)

    async def hear(self):
        async for back in self.socket:
            if back != message(self.back):
                raise SystemExit(f"message {self.back} was to come, and {back[:20]!r} came")
            self.back += 1
            if self.back % 100 == 0:
                print(self.back, flush=True)


def trusting(trusted):
    tls = ssl.create_default_context(cafile=trusted)
    if os.environ.get("HOLDFAST_TEST_TLS") == "1.2":
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
    return tls


async def main(url, trusted=None):
    tls = trusting(trusted) if trusted else None
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: over.set())
    async with connect(url, ssl=tls, max_size=None, open_timeout=20, close_timeout=20, ping_interval=1) as socket:
        if tls and tls.maximum_version == ssl.TLSVersion.TLSv1_2:
            assert socket.transport.get_extra_info("ssl_object").version() == "TLSv1.2"
        stream = Stream(socket)
        hearing = asyncio.create_task(stream.hear())
        await stream.send(over)
        deadline = loop.time() + 30
        while stream.back < stream.sent and not hearing.done() and loop.time() < deadline:
            await asyncio.sleep(0.01)
        # A message that comes twice comes behind the last one.
        await asyncio.wait_for(await socket.ping(), 20)
    await hearing
    if stream.back != stream.sent or socket.close_code != 1000:
        raise SystemExit(f"{stream.sent} went out, {stream.back} came back; closed with {socket.close_code}")
    print(f"all {stream.back}", flush=True)


asyncio.run(main(*sys.argv[1:]))
