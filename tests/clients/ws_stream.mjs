// A stream of numbered messages through an echo server. Usage: ws_stream.mjs URL [TRUSTED.crt]. Prints how many have come
// back, every hundred; ends the stream when standard input ends. Exit code 0: each came back once, in order, on one
// connection. TLS is of the version in HOLDFAST_TEST_TLS only ("1.2") if that is set.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const WebSocket = require("ws");

// Short and long ones, text and binary; the number tells which.
function message(number) {
  const text = `${number} ${"ü".repeat((number * 7919) % 3000)}`;
  return number % 3 ? text : Buffer.from(text);
}

function fail(reason) {
  console.error(reason);
  process.exit(1);
}

let over = false;
process.stdin.on("end", () => (over = true)).resume();
const [url, trusted] = process.argv.slice(2);
const ca = trusted && readFileSync(trusted);
const maxVersion = process.env.HOLDFAST_TEST_TLS === "1.2" ? "TLSv1.2" : undefined;
const socket = new WebSocket(url, { ca, maxVersion, handshakeTimeout: 20_000 });
let [sent, back, ended] = [0, 0, false];

socket.on("error", (error) => fail(`the connection failed: ${error}`));
socket.on("close", (code) => {
  if (!ended || code !== 1000) fail(`closed with ${code} after message ${back}`);
  console.log(`all ${back}`);
});
socket.on("message", (data, binary) => {
  const expected = message(back);
  if (binary !== (typeof expected !== "string") || !data.equals(Buffer.from(expected))) {
    fail(`message ${back} was to come, and ${data.subarray(0, 20)} came`);
  }
  back += 1;
  if (back % 100 === 0) console.log(back);
});

await once(socket, "open");
if (maxVersion && socket._socket.getProtocol() !== maxVersion) fail(`it speaks ${socket._socket.getProtocol()}`);
const sending = setInterval(() => {
  // No more than the gateway and the server take: what waits here tests nothing.
  if (!over && socket.bufferedAmount < 1 << 20) socket.send(message(sent++));
  if (over && back === sent && !ended) {
    ended = true;
    clearInterval(sending);
    // A message that comes twice comes behind the last one.
    socket.ping();
    socket.once("pong", () => socket.close(1000));
  }
}, 1);
