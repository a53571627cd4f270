// An echo server on npm's `ws`. Usage: ws_server.mjs PORT [CHAIN.crt KEY]. Prints its port; ends when stdin does. With a
// certificate it speaks TLS, of the version in HOLDFAST_TEST_TLS only ("1.2") if that is set.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { WebSocketServer } = require("ws");

const answers = { "/healthz": "ok\n", "/whoami": "ws_server.mjs\n" };
const answer = (request, response) => {
  const body = answers[request.url];
  response.writeHead(body ? 200 : 404, { "content-type": "text/plain" });
  response.end(body ?? "not found\n");
};

const [port, ...files] = process.argv.slice(2);
const [cert, key] = files.map((file) => readFileSync(file));
const maxVersion = process.env.HOLDFAST_TEST_TLS === "1.2" ? "TLSv1.2" : undefined;
const server = cert ? createSecureServer({ cert, key, maxVersion }, answer) : createServer(answer);

new WebSocketServer({ server, maxPayload: 64 << 20 }).on("connection", (socket) => {
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});

server.listen(Number(port), "127.0.0.1", () => console.log(port));
process.stdin.on("end", () => process.exit(0)).resume();
