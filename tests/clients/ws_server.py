#!/usr/bin/env python3
"""An echo server on Python's `websockets`. Usage: ws_server.py PORT [CHAIN.crt KEY]. Prints its port; ends when stdin
does. With a certificate it speaks TLS, of the version in HOLDFAST_TEST_TLS only ("1.2") if that is set."""

import asyncio
import http
import os
import ssl
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


def secured(chain, key):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    if os.environ.get("HOLDFAST_TEST_TLS") == "1.2":
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
    return tls


async def main(port, *files):
    tls = secured(*files) if files else None
    async with serve(echo, "127.0.0.1", port, ssl=tls, process_request=answer, max_size=None):
        print(port, flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
