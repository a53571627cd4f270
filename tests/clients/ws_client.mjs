// Opens a WebSocket and checks what comes back. Usage: ws_client.mjs URL [TRUSTED.crt]. Exit code 0: all as it should be.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const WebSocket = require("ws");

const [url, trusted] = process.argv.slice(2);
const ca = url.startsWith("wss:") && trusted ? readFileSync(trusted) : undefined;
const signal = AbortSignal.timeout(20_000);

const socket = new WebSocket(url, { ca, handshakeTimeout: 10_000 });
await once(socket, "open", { signal });
for (const message of ["hello", "", "ü".repeat(50_000), randomBytes(1), randomBytes(1 << 20)]) {
  socket.send(message);
  const [back, binary] = await once(socket, "message", { signal });
  assert.equal(binary, typeof message !== "string");
  assert.ok(Buffer.from(message).equals(back), `${message.length} went out, ${back.length} came back`);
}
socket.ping();
await once(socket, "pong", { signal });
socket.close(1000);
const [code] = await once(socket, "close", { signal });
assert.equal(code, 1000);
