"""A service that stores descriptors of N tunnels with the manager, and says what that has cost process 1.

    store_cost.py pages N    pages of 125 tunnels, as the gateway does
    store_cost.py each N     every tunnel's two sockets under a name of their own
"""

import array
import fcntl
import os
import socket
import struct
import sys
import termios
import time

PAGE = 125
# As long as what the gateway says of one tunnel.
SAID = '{"listener":"203.0.113.10:443","version":3,"tunnels":[[4611686018427387904,54321,1048576]]}'

way, count = sys.argv[1], int(sys.argv[2])
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))


def send(to, text, descriptors=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([text.encode()], rights)


def store(name, *descriptors):
    send(manager, f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptors)


def settle():
    """Until the manager has read everything."""
    ours, theirs = os.pipe()
    send(manager, "BARRIER=1", [theirs])
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)


def cpu():
    return int(open("/proc/1/schedstat").read().split()[0]) / 1e9


def memory():
    status = open("/proc/1/status").read()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def legs():
    return [socket.socket() for _ in range(2)]


queued = 0
settle()
before, began, held = cpu(), time.monotonic(), memory()
if way == "each":
    for number in range(count):
        pair = legs()
        store(f"tunnel-{number}", *(leg.fileno() for leg in pair))
        for leg in pair:
            leg.close()
    stored = 2 * count
else:
    stored = 0
    for first in range(0, count, PAGE):
        sender, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for _ in range(first, min(first + PAGE, count)):
            pair = legs()
            send(sender, SAID, [leg.fileno() for leg in pair])
            for leg in pair:
                leg.close()
        store(f"tunnels-{stored}", kept.fileno())
        stored += 1
        # What the kernel has put aside for the messages that wait.
        queued += struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, b"\0" * 4))[0]
settle()
spent, took = cpu() - before, time.monotonic() - began
print(
    f"| {count:,} | {way} | {stored:,} | {spent * 1000:,.1f} ms | {took:,.2f} s | {memory() - held:,} KiB "
    f"| {queued / 1024:,.0f} KiB |",
    flush=True,
)
send(manager, "READY=1")
time.sleep(600)
