#!/usr/bin/env python3
"""Opens a WebSocket and checks what comes back. Usage: ws_client.py URL [TRUSTED.crt]. Exit code 0: all as it should be."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect


async def main(url, trusted=None):
    tls = ssl.create_default_context(cafile=trusted) if url.startswith("wss:") else None
    async with connect(url, ssl=tls, max_size=None, open_timeout=10, close_timeout=10) as socket:
        for message in ("hello", "", "ü" * 50_000, os.urandom(1), os.urandom(1 << 20)):
            await socket.send(message)
            back = await asyncio.wait_for(socket.recv(), 10)
            assert back == message, f"{len(message)} went out, {len(back)} came back"
        await asyncio.wait_for(await socket.ping(), 10)
    assert socket.close_code == 1000, f"closed with {socket.close_code}"


asyncio.run(main(*sys.argv[1:]))
