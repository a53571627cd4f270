// A person on the status page in Chromium. Usage: status_page.mjs URL WEBSOCKET HOLDFAST ADMIN DIRECTORY BACKEND DOCUMENT.
// Exit code 0: all as it should be. Compares what the page shows with what the commands say, sees tunnels, backends and
// revisions come and go without ever loading the page again, and looks at what a revision has changed. BACKEND is the address
// of one that is not there yet, DOCUMENT one to apply. DIRECTORY gets pictures: light, dark, and of a phone.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";

import { browser, eventually, faults, open, overflow, rows, unreadable } from "./person.mjs";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const WebSocket = require("ws");

const [url, socketUrl, holdfast, admin, directory, missing, changed] = process.argv.slice(2);
const env = { ...process.env, HOLDFAST_ADMIN: admin };
const says = (command) => JSON.parse(execFileSync(holdfast, [command, "--json"], { env }));
const run = promisify(execFile);

async function showsWhatCommandsSay(page) {
  const status = says("status");
  const workers = status.listeners.flatMap(({ address, sites, workers }) => workers.map((it) => [
    address, it.state, String(it.pid), String(it.generation), String(it.revision), String(it.tunnels), String(it.protected),
    sites.join(", "), it.version]));
  const others = [["prober", status.prober.state, String(status.prober.pid), "", "", "", "", "", status.prober.version],
    ["supervisor", "serving", String(status.supervisor.pid), "", "", "", "", "", status.version]];
  assert.deepEqual(await rows(page, "workers"), [...workers, ...others]);
  const open = workers.reduce((sum, worker) => sum + Number(worker[5]), 0);
  assert.equal(await page.textContent("#tile-tunnels"), String(open));
  assert.equal(await page.textContent("#tile-revision"), String(status.revision));
  assert.equal(await page.textContent("#tile-state"), status.ready ? "ready" : "not ready");
  const backends = says("health").flatMap(({ pool, settings, backends }) =>
    backends.map((it) => [`${it.address}:${it.port}`, it.state, pool, settings, it.last]));
  const shown = (await rows(page, "backends")).map((row) => row.toSpliced(4, 1));
  assert.deepEqual(shown, backends);
  const revisions = says("revisions").reverse().map((it) => [String(it.revision), it.source, it.by]);
  assert.deepEqual((await rows(page, "history")).map((row) => [row[0], row[2], row[3]]), revisions);
  assert.deepEqual(await page.locator("#problems li").allTextContents(), status.problems);
}

async function showsTunnels(page) {
  const wanted = says("tunnels").map((it) => [it.client, it.site, it.pool, it.backend, it.id]).reverse();
  const shown = (await rows(page, "open-tunnels")).map((row) => [...row.slice(0, 4), row[10]]);
  assert.deepEqual(shown, wanted);
  assert.equal(await page.textContent("#found"), `${wanted.length} open`);
}

// Something happens, and is seen. How soon is told and not judged here: a busy machine is no fault of the page's.
async function seen(what, happens, shown) {
  await happens();
  const since = performance.now();
  await eventually(`${what} to be seen`, shown);
  console.log(`${what} was seen after ${Math.round(performance.now() - since)} ms`);
}

// A backend where there was none, until it is closed. Until the gateway has noticed, there is nothing to be seen.
async function comesAndGoes(page) {
  const [host, port] = missing.split(":");
  const server = createServer((_, answer) => answer.end("ok"));
  const told = (state) => eventually(`the gateway to find it ${state}`, async () => {
    const { stdout } = await run(holdfast, ["health", "--json"], { env });
    const backends = JSON.parse(stdout).flatMap((pool) => pool.backends);
    assert.equal(backends.find((it) => it.address === host)?.state, state);
  });
  const shows = (state) => async () => {
    const row = (await rows(page, "backends")).find((row) => row[0] === missing);
    assert.equal(row?.[1], state);
  };
  await seen("a backend that came", () => new Promise((resolve) => server.listen(Number(port), host, resolve)).then(() => told("Healthy")), shows("Healthy"));
  await seen("a backend that went", () => {
    server.close();
    server.closeAllConnections();
    return told("Unhealthy");
  }, shows("Unhealthy"));
}

const sockets = [];
function connect() {
  const socket = new WebSocket(socketUrl);
  sockets.push(socket);
  return new Promise((resolve, reject) => socket.once("open", () => resolve(socket)).once("error", reject));
}

try {
  const page = await open(url, "light", 1280, 900);
  await page.goto(url);
  for (let number = 0; number < 5; number += 1) await connect();
  await eventually("the page to say what the commands say", () => showsWhatCommandsSay(page));
  await page.evaluate(() => { window.neverLoadedAgain = true; });
  const tunnels = (count) => async () => assert.equal(await page.textContent("#tile-tunnels"), count);
  await seen("a new tunnel", connect, tunnels("6"));
  await seen("a tunnel's end", () => {
    const late = sockets.at(-1);
    late.close();
    return new Promise((resolve) => late.once("close", resolve));
  }, tunnels("5"));
  await comesAndGoes(page);
  await seen("another revision", () => run(holdfast, ["apply", changed], { env }), async () => {
    assert.equal(await page.textContent("#tile-revision"), "3");
    assert.deepEqual((await rows(page, "history")).map((row) => row[0]), ["3", "2", "1"]);
  });

  await page.locator("#tunnels").scrollIntoViewIfNeeded();
  await eventually("the list of tunnels", () => showsTunnels(page));
  const client = says("tunnels")[2].client;
  await page.fill("#search", client);
  await eventually("one tunnel to be found", async () => {
    assert.deepEqual((await rows(page, "open-tunnels")).map((row) => row[0]), [client]);
    assert.equal(await page.textContent("#found"), "1 of 5 match");
  });
  await page.fill("#search", "<b>nobody</b>");
  await eventually("nothing to be found", async () => assert.equal(await page.textContent("#open-tunnels"), "no tunnel matches"));
  await page.fill("#search", "");
  await eventually("all tunnels again", () => showsTunnels(page));
  const { pid } = says("status").listeners[0].workers[0];
  process.kill(pid, "SIGSTOP");
  await eventually("it to be told whose tunnels are missing", async () => {
    const told = await page.locator("#missing").innerText();
    assert.match(told, new RegExp(`^worker ${pid} of .*: its 5 tunnels are not among these$`));
    assert.equal(await page.textContent("#open-tunnels"), "none was told of");
  });
  process.kill(pid, "SIGCONT");
  await eventually("all tunnels once more", async () => {
    await showsTunnels(page);
    assert.equal(await page.locator("#missing").isVisible(), false);
  });

  // With the keyboard alone.
  await page.getByRole("button", { name: "What revision 2 changed" }).focus();
  await page.keyboard.press("Enter");
  await eventually("what the revision changed", async () => {
    const changes = await page.textContent("#changes");
    assert.ok(changes.includes("properties.probes[chat].properties.interval"), changes);
    assert.ok(changes.includes("properties.httpListeners[games]"), changes);
    assert.match(await page.textContent("#difference-word"), /^\d+ places differ\. Secrets are never shown\.$/);
  });
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#difference").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "What it changed");

  // Something for the plots.
  const talking = setInterval(() => sockets.forEach((socket) => socket.readyState === WebSocket.OPEN && socket.send("x".repeat(2000))), 50);
  await run(holdfast, ["restart"], { env });
  await eventually("the handover in its plot", async () => {
    assert.match(await page.textContent("#plot-pauses b"), /^(at most|over) .* tunnels?, /);
    assert.match(await page.textContent("#plot-throughput b"), /KiB\/s$/);
    assert.match(await page.getAttribute("#plot-throughput svg", "aria-label"), /from clients: .*KiB\/s now/);
  });
  await eventually("the page to say what the commands say", () => showsWhatCommandsSay(page));

  for (const [look, colorScheme, width, height] of [["light", "light", 1280, 900], ["dark", "dark", 1280, 900], ["phone", "light", 390, 844]]) {
    const other = await open(url, colorScheme, width, height);
    await other.goto(url);
    await other.waitForFunction(() => document.querySelectorAll("#workers tr").length > 2 && document.querySelector("#plot-pauses path.c")?.getAttribute("d"));
    assert.deepEqual(await overflow(other), [], `what is too wide: ${look}`);
    assert.deepEqual(await unreadable(other), [], look);
    if (look === "phone") {
      await other.screenshot({ path: join(directory, "status-phone.png") });
      await other.locator("#tunnels").scrollIntoViewIfNeeded();
      await eventually("the list of tunnels", () => showsTunnels(other));
      // A table that is laid out for a phone is one all the same.
      assert.ok(await other.getByRole("table").count() >= 4);
      assert.ok(await other.getByRole("rowheader").count() > 5);
    } else {
      await eventually("the list of tunnels", () => showsTunnels(other));
      await other.evaluate(() => window.scrollTo(0, 0));
      await other.screenshot({ path: join(directory, `status-${look}.png`), fullPage: true });
    }
    await other.context().close();
  }
  clearInterval(talking);
  assert.equal(await page.evaluate(() => window.neverLoadedAgain), true);
  assert.deepEqual(faults, []);
} finally {
  sockets.forEach((socket) => socket.terminate());
  await browser.close();
}
