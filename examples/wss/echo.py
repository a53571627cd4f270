#!/usr/bin/env python3
"""A WebSocket backend and a client to try a gateway with; nothing but Python is needed.

    echo.py serve 127.0.0.1:9000                               answers GET with 200, and sends WebSocket messages back
    echo.py talk wss://localhost:8443/ --trust chain.pem       sends a message every second over one WebSocket, shows the answers

The client ends after --times messages (10), with exit code 0 where each one came back. Messages are text of at most 125 bytes.
"""

import argparse
import base64
import hashlib
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def read_head(stream):
    """The first line, and the fields by their names in lower case."""
    first, fields = stream.readline(), {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return first, fields


def read_frame(stream):
    """Kind and payload of a short frame; none where the other side has ended."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    size, mask = head[1] & 0x7F, bytes(4)
    if size > 125:
        raise ValueError("this example knows messages of at most 125 bytes")
    if head[1] & 0x80:
        mask = stream.read(4)
    payload = stream.read(size)
    return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(kind, payload, masked):
    mask = os.urandom(4) if masked else bytes(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | kind, len(payload) | (0x80 if masked else 0)]) + (mask if masked else b"") + body


def serve_one(connection):
    with connection, connection.makefile("rb") as stream:
        while True:
            first, fields = read_head(stream)
            if not first:
                return
            if fields.get(b"upgrade", b"").lower() != b"websocket":
                stream.read(int(fields.get(b"content-length", 0)))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n")
                continue
            key = accept_key(fields[b"sec-websocket-key"])
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"
            )
            while found := read_frame(stream):
                kind, payload = found
                connection.sendall(frame(PONG if kind == PING else kind, payload, masked=False))
                if kind == CLOSE:
                    return
            return


def serve(address):
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listener:
        print(f"listening on {address}", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def talk(url, trust, times):
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    connection = socket.create_connection((parts.hostname, port))
    if parts.scheme == "wss":
        connection = ssl.create_default_context(cafile=trust).wrap_socket(connection, server_hostname=parts.hostname)
    key = base64.b64encode(os.urandom(16))
    with connection, connection.makefile("rb") as stream:
        head = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        connection.sendall(head.encode() + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        first, fields = read_head(stream)
        if b" 101 " not in first or fields.get(b"sec-websocket-accept") != accept_key(key):
            sys.exit(f"no WebSocket: {first.decode(errors='replace').strip()}")
        for number in range(1, times + 1):
            message = f"message {number}".encode()
            connection.sendall(frame(TEXT, message, masked=True))
            if read_frame(stream) != (TEXT, message):
                sys.exit(f"message {number} did not come back")
            print(f"{number}: came back over the same connection", flush=True)
            if number < times:
                time.sleep(1)
        connection.sendall(frame(CLOSE, b"\x03\xe8", masked=True))
        read_frame(stream)
        if parts.scheme == "wss":
            connection.unwrap()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve").add_argument("address", metavar="IP:PORT")
    talking = commands.add_parser("talk")
    talking.add_argument("url")
    talking.add_argument("--trust", metavar="PEM", help="certificates to trust, instead of the system's")
    talking.add_argument("--times", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve(arguments.address)
    else:
        talk(arguments.url, arguments.trust, arguments.times)


if __name__ == "__main__":
    main()
