#!/usr/bin/env python3
"""An echo server on Python's `websockets`. Usage: ws_server.py PORT. Prints its port; ends when stdin does."""

import asyncio
import http
import sys

from websockets.asyncio.server import serve


def answer(connection, request):
    """Plain GETs, for probes and for telling backends apart."""
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "ok\n")
    if request.path == "/whoami":
        return connection.respond(http.HTTPStatus.OK, "ws_server.py\n")
    return None


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(port):
    async with serve(echo, "127.0.0.1", port, process_request=answer, max_size=None):
        print(port, flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(int(sys.argv[1])))
