#!/usr/bin/env python3
"""A stream of numbered messages through an echo server. Usage: ws_stream.py URL. Prints how many have come back, every
hundred; ends the stream when standard input ends. Exit code 0: each came back once, in order, on one connection."""

import asyncio
import sys

from websockets.asyncio.client import connect


def message(number):
    """Short and long ones, text and binary; the number tells which."""
    text = f"{number} " + "ü" * (number * 7919 % 3000)
    return text if number % 3 else text.encode()


async def send(socket, over, sent):
    number = 0
    while not over.is_set():
        await socket.send(message(number))
        number += 1
        await asyncio.sleep(0.001)
    sent.set_result(number)


async def main(url):
    loop = asyncio.get_running_loop()
    over, sent = asyncio.Event(), loop.create_future()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: over.set())
    async with connect(url, max_size=None, open_timeout=20, close_timeout=20, ping_interval=1) as socket:
        sending = asyncio.create_task(send(socket, over, sent))
        number = 0
        while not (sent.done() and number == sent.result()):
            # A moment without a message may be the end of the stream, and is a fault only when it is long.
            try:
                back = await asyncio.wait_for(socket.recv(), 30 if not sent.done() else 10)
            except TimeoutError:
                raise SystemExit(f"nothing came back after message {number}")
            if back != message(number):
                raise SystemExit(f"message {number} was to come, and {back[:20]!r} came")
            number += 1
            if number % 100 == 0:
                print(number, flush=True)
        await sending
        # A message that comes twice comes behind the last one.
        await asyncio.wait_for(await socket.ping(), 20)
        try:
            raise SystemExit(f"{(await asyncio.wait_for(socket.recv(), 0.1))[:20]!r} came once more")
        except TimeoutError:
            pass
    if socket.close_code != 1000:
        raise SystemExit(f"closed with {socket.close_code}")
    print(f"all {number}", flush=True)


asyncio.run(main(*sys.argv[1:]))
