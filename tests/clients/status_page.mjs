// A person on the status page in Chromium. Usage: status_page.mjs URL WEBSOCKET HOLDFAST ADMIN DIRECTORY NAME. Exit code 0: all
// as it should be. Compares what the page shows with what the commands say, sees tunnels come and go, and looks at what a
// revision has changed; NAME is a site's, and must be seen as it is. DIRECTORY gets pictures: light, dark, and of a phone.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const WebSocket = require("ws");

const [url, socketUrl, holdfast, admin, directory, name] = process.argv.slice(2);
const patience = 20_000 * Number(process.env.HOLDFAST_TEST_PATIENCE ?? 1);
const says = (command) =>
  JSON.parse(execFileSync(holdfast, [command, "--json"], { env: { ...process.env, HOLDFAST_ADMIN: admin } }));
const browser = await chromium.launch({
  executablePath: process.env.HOLDFAST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  timeout: patience,
});

const faults = [];

async function open(colorScheme, width, height) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height }, deviceScaleFactor: 1 });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && faults.push(line.text()));
  page.on("dialog", (dialog) => { faults.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (asked.protocol !== "data:" && asked.origin !== new URL(url).origin) faults.push(`asked for ${request.url()}`);
  });
  return page;
}

async function eventually(what, ask) {
  const end = Date.now() + patience;
  for (let last; ; await delay(25)) {
    try { return await ask(); } catch (fault) { last = fault; }
    if (Date.now() > end) throw new Error(`${what}: ${last.message}`, { cause: last });
  }
}

const rows = (page, id) =>
  page.$$eval(`#${id} tr`, (all) => all.map((row) => [...row.cells].map((cell) => cell.innerText.split("\n")[0].replace(/^[●▲◆○] /, ""))));

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

const sockets = [];
function connect() {
  const socket = new WebSocket(socketUrl);
  sockets.push(socket);
  return new Promise((resolve, reject) => socket.once("open", () => resolve(socket)).once("error", reject));
}

try {
  const page = await open("light", 1280, 900);
  await page.goto(url);
  for (let number = 0; number < 5; number += 1) await connect();
  await eventually("the page to say what the commands say", () => showsWhatCommandsSay(page));
  assert.ok((await page.textContent("#workers")).includes(name));

  // How soon is told and not judged here: a busy machine is no fault of the page's.
  const late = await connect();
  const opened = Date.now();
  await eventually("a tunnel to be seen", async () => assert.equal(await page.textContent("#tile-tunnels"), "6"));
  console.log(`a new tunnel was seen after ${Date.now() - opened} ms`);
  const closed = new Promise((resolve) => late.once("close", resolve));
  late.close();
  await closed;

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

  // With the keyboard alone.
  await page.getByRole("button", { name: "What revision 2 changed" }).focus();
  await page.keyboard.press("Enter");
  await eventually("what the revision changed", async () => {
    const changes = await page.textContent("#changes");
    assert.ok(changes.includes("properties.probes[chat].properties.interval"), changes);
    assert.ok(changes.includes(`properties.httpListeners[${name}]`), changes);
    assert.match(await page.textContent("#difference-word"), /^\d+ places differ\. Secrets are never shown\.$/);
  });
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#difference").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "What it changed");

  // Something for the plots.
  const talking = setInterval(() => sockets.forEach((socket) => socket.readyState === WebSocket.OPEN && socket.send("x".repeat(2000))), 50);
  execFileSync(holdfast, ["restart"], { env: { ...process.env, HOLDFAST_ADMIN: admin } });
  await eventually("the handover in its plot", async () => {
    assert.match(await page.textContent("#plot-pauses b"), /^(at most|over) .* tunnels?, /);
    assert.match(await page.textContent("#plot-throughput b"), /KiB\/s$/);
    assert.match(await page.getAttribute("#plot-throughput svg", "aria-label"), /from clients: .*KiB\/s now/);
  });
  await eventually("the page to say what the commands say", () => showsWhatCommandsSay(page));

  for (const [look, colorScheme, width, height] of [["light", "light", 1280, 900], ["dark", "dark", 1280, 900], ["phone", "light", 390, 844]]) {
    const other = await open(colorScheme, width, height);
    await other.goto(url);
    await other.waitForFunction(() => document.querySelectorAll("#workers tr").length > 2 && document.querySelector("#plot-pauses path.c")?.getAttribute("d"));
    const wide = await other.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${look}: ${wide} pixels too wide`);
    await other.screenshot({ path: join(directory, `status-${look}.png`) });
    if (look === "phone") {
      await other.locator("#tunnels").scrollIntoViewIfNeeded();
      await eventually("the list of tunnels", () => showsTunnels(other));
      // A table that is laid out for a phone is one all the same.
      assert.ok(await other.getByRole("table").count() >= 4);
      assert.ok(await other.getByRole("rowheader").count() > 5);
    }
    await other.context().close();
  }
  clearInterval(talking);
  assert.deepEqual(faults, []);
} finally {
  sockets.forEach((socket) => socket.terminate());
  await browser.close();
}
