"""Backends and clients of tests/bench/blocked, told by lines on standard input what to do: open PORT, fill, end."""

import resource
import select
import socket
import statistics
import struct
import sys
import time

BLOCK = b"x" * 65536
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
# Of RFC 6455 section 1.3: the one key that every client here sends, and its answer.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"


def head(sock):
    """Reads a head, and not a byte more: nothing else has been sent."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        piece = sock.recv(65536)
        if not piece:
            return got
        got += piece
    return got


def accept(listener):
    """The next connection that wants a tunnel; probes are answered on the way."""
    while True:
        sock, _ = listener.accept()
        if b"pgrade: websocket" in head(sock):
            sock.sendall(SWITCH % ACCEPT)
            return sock
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.close()


def answer_probes(listener, until):
    """Until there is an order."""
    while True:
        ready, _, _ = select.select([listener, until], [], [])
        if until in ready:
            return
        sock, _ = listener.accept()
        head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.close()


def open_all(listener, port, count):
    """Pairs of a sender and one that does not read; every other sender is a backend."""
    pairs = []
    for place in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(ASK % KEY)
        backend = accept(listener)
        assert head(client).startswith(b"HTTP/1.1 101 "), "no tunnel"
        pairs.append((client, backend) if place % 2 else (backend, client))
        for sock in pairs[-1]:
            sock.setblocking(False)
    return pairs


def fill(pairs):
    """Sends until nothing has gone for a second."""
    sent, last = 0, time.monotonic()
    while time.monotonic() < last + 1:
        for sender, _ in pairs:
            try:
                while count := sender.send(BLOCK):
                    sent, last = sent + count, time.monotonic()
            except BlockingIOError:
                pass
        time.sleep(0.01)
    return sent


def end(pairs):
    """FIN from the first third, a reset from the second. Answers how long each reset took to reach the other side."""
    third = len(pairs) // 3
    for sender, _ in pairs[:third]:
        sender.shutdown(socket.SHUT_WR)
    took = []
    for sender, other in pairs[third : 2 * third]:
        poll = select.poll()
        poll.register(other, 0)
        begin = time.monotonic()
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.close()
        assert poll.poll(10_000), "a reset was not passed on within ten seconds"
        took.append((time.monotonic() - begin) * 1000)
    return took


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    print("listening", flush=True)
    pairs = []
    while True:
        answer_probes(listener, sys.stdin)
        words = sys.stdin.readline().split()
        if not words:
            break
        if words[0] == "open":
            pairs = open_all(listener, int(words[1]), int(sys.argv[2]))
            print("open", flush=True)
        elif words[0] == "fill":
            print(f"filled {fill(pairs)}", flush=True)
        elif words[0] == "end":
            took = end(pairs)
            print(f"ended {len(took)} resets passed on after {statistics.median(took):.2f} ms (median), {max(took):.2f} at most", flush=True)


main()
