#!/usr/bin/env python3
"""Two hundred WebSockets through the gateway, and the backend behind it, for tests/systemd/run.

    sockets.py backend PORT           echoes, until it is killed
    sockets.py clients N URL URL...   opens N WebSockets, spread over the URLs; a message goes round on each all the time

The clients answer each line of standard input with one line once every socket has echoed three more messages: how many
live, how many were dropped. A socket that ends, loses, doubles or reorders a message, or is silent for 20 s, is dropped.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

PATIENCE = 20
PAUSE = 0.05
# Handshakes at once: what is tested is how sockets live, and a busy machine would let a crowd of handshakes run into its deadline.
AT_ONCE = 10


async def backend(port):
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", port, max_size=None, ping_interval=None, compression=None):
        await asyncio.Future()


class Client:
    def __init__(self, number, url):
        self.number, self.url = number, url
        self.round, self.fault, self.is_over = 0, None, False
        self.went_round = asyncio.Event()

    async def run(self, door, opened):
        trust = None
        if self.url.startswith("wss:"):
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        try:
            options = {"ping_interval": None, "compression": None, "open_timeout": PATIENCE}
            async with door:
                opening = await connect(self.url, ssl=trust, **options)
            async with opening as socket:
                opened.release()
                # Not cancelled: before Python 3.12 a wait_for() that is just done swallows that, and goes on for ever.
                while not self.is_over:
                    # Now and then longer than what a record or a segment holds.
                    said = f"{self.number} {self.round} " + "x" * (40_000 if self.round % 17 == 0 else 20)
                    await asyncio.wait_for(socket.send(said), PATIENCE)
                    heard = await asyncio.wait_for(socket.recv(), PATIENCE)
                    if heard != said:
                        raise ValueError(f"heard {heard[:40]!r} instead of {said[:40]!r}")
                    self.round += 1
                    self.went_round.set()
                    await asyncio.sleep(PAUSE)
        except Exception as fault:  # whatever it is, the socket is no more
            self.fault = f"{self.url}: {type(fault).__name__}: {fault}"
            opened.release()
            self.went_round.set()

    async def goes_round(self, rounds):
        goal = self.round + rounds
        while self.round < goal and self.fault is None:
            self.went_round.clear()
            await self.went_round.wait()


async def clients(count, urls):
    door, opened = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(0)
    all_of_them = [Client(number, urls[number % len(urls)]) for number in range(count)]
    tasks = [asyncio.create_task(client.run(door, opened)) for client in all_of_them]
    for _ in tasks:
        await opened.acquire()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await asyncio.gather(*(client.goes_round(3) for client in all_of_them))
        faults = [client.fault for client in all_of_them if client.fault]
        for fault in faults[:3]:
            print(fault, file=sys.stderr, flush=True)
        print(f"{line.strip()}: {count - len(faults)} open, {len(faults)} dropped", flush=True)
    for client in all_of_them:
        client.is_over = True
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    if sys.argv[1] == "backend":
        asyncio.run(backend(int(sys.argv[2])))
    else:
        asyncio.run(clients(int(sys.argv[2]), sys.argv[3:]))
