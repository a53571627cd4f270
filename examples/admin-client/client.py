"""A client of Holdfast's admin API in Python, over the modules that protoc makes of proto/ (docs/admin-api.md).

    python3 -m pip install -r requirements.txt
    mkdir -p generated
    python3 -m grpc_tools.protoc -I ../../proto --python_out=generated --grpc_python_out=generated \
        holdfast/admin/v1/admin.proto holdfast/admin/v1/explain.proto
    python3 client.py status

It is told where the gateway is as the command line is: HOLDFAST_ADMIN (unix:PATH or https://HOST:PORT), and for https
HOLDFAST_ADMIN_CERTIFICATE, HOLDFAST_ADMIN_KEY and HOLDFAST_ADMIN_AUTHORITY.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "generated"))

import grpc
from holdfast.admin.v1 import admin_pb2 as messages
from holdfast.admin.v1 import admin_pb2_grpc as services

# Nothing that a gateway does takes longer, but a restart or an upgrade of one with many listeners.
PATIENCE = 60


def dial():
    address = os.environ.get("HOLDFAST_ADMIN", "unix:/run/holdfast/admin.sock")
    if not address.startswith("https://"):
        # Without it the socket's path would be the name of the host that is asked for, which HTTP/2 does not allow.
        return grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")])
    own, key, authority = (
        Path(os.environ[f"HOLDFAST_ADMIN_{name}"]).read_bytes() for name in ("CERTIFICATE", "KEY", "AUTHORITY")
    )
    credentials = grpc.ssl_channel_credentials(authority, key, own)
    return grpc.secure_channel(address.removeprefix("https://"), credentials)


def show_status(status):
    print(f"revision {status.revision}, version {status.version}")
    for listener in status.listeners:
        workers = ", ".join(f"{it.pid} {it.state} with {it.tunnels} tunnels" for it in listener.workers)
        print(f"  {listener.address} ({', '.join(listener.sites)}): {workers}")


def status(admin):
    show_status(admin.Status(messages.StatusRequest(), timeout=PATIENCE))


def watch(admin):
    # A stream: the status now, and again whenever it changes.
    for now in admin.WatchStatus(messages.StatusRequest()):
        show_status(now)


def apply(admin, file):
    # Only on top of what we have seen: whoever was faster is not overruled.
    seen = admin.Status(messages.StatusRequest(), timeout=PATIENCE).revision
    request = messages.ApplyRequest(document=Path(file).read_text(), if_revision=seen)
    answer = admin.Apply(request, timeout=PATIENCE)
    for it in answer.diagnostics:
        print(f"{file}:{it.line}:{it.column}: {it.path}: {it.reason}; {it.mend}", file=sys.stderr)
    print(answer.message)
    return 0 if answer.accepted and not answer.refusals else 1


def drain(admin, pool, backend):
    answer = admin.Drain(messages.DrainRequest(pool=pool, backend=backend), timeout=PATIENCE)
    print(f"{pool}/{backend} gets no new connections; {answer.tunnels} tunnels live on")


def undrain(admin, pool, backend):
    admin.Undrain(messages.DrainRequest(pool=pool, backend=backend), timeout=PATIENCE)
    print(f"{pool}/{backend} is back in rotation")


COMMANDS = {
    "status": (status, ""),
    "watch": (watch, ""),
    "apply": (apply, " FILE"),
    "drain": (drain, " POOL BACKEND"),
    "undrain": (undrain, " POOL BACKEND"),
}


def main(arguments):
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    command, takes = COMMANDS.get(name, (None, ""))
    if command is None or len(rest) != len(takes.split()):
        usage = " | ".join(name + takes for name, (_, takes) in COMMANDS.items())
        print(f"usage: client.py {usage}", file=sys.stderr)
        return 2
    with dial() as channel:
        try:
            return command(services.AdminStub(channel), *rest) or 0
        except grpc.RpcError as error:
            # PERMISSION_DENIED says whom the gateway takes us for, which role that has and which is needed.
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
