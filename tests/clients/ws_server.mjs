// An echo server on npm's `ws`. Usage: ws_server.mjs PORT. Prints its port; ends when stdin does.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { WebSocketServer } = require("ws");

const answers = { "/healthz": "ok\n", "/whoami": "ws_server.mjs\n" };
const server = createServer((request, response) => {
  const body = answers[request.url];
  response.writeHead(body ? 200 : 404, { "content-type": "text/plain" });
  response.end(body ?? "not found\n");
});

new WebSocketServer({ server, maxPayload: 64 << 20 }).on("connection", (socket) => {
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});

const port = Number(process.argv[2]);
server.listen(port, "127.0.0.1", () => console.log(port));
process.stdin.on("end", () => process.exit(0)).resume();
