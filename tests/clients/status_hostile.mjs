// What must harm neither the status page in Chromium nor who reads it: names with markup in them, texts without an end, thousands
// of rows, answers that are none. Usage: status_hostile.mjs URL NAME DIRECTORY. NAME is a site's and a pool's. Exit code 0: all as
// it should be. DIRECTORY gets pictures.
import assert from "node:assert/strict";
import { join } from "node:path";

import { browser, eventually, faults, open, overflow, rows, unreadable } from "./person.mjs";

const [url, name, directory] = process.argv.slice(2);
const texts = [
  name, `</td></table><script>alert(2)</script>`, `\u202e${name}`, "W".repeat(300), "javascript:alert(3)", "{{alert(4)}}",
];
// What the page is made of. Nothing that it is told may add to that.
const TAGS = new Set(("a b button code dd del div dl dt figcaption figure form h2 h3 i input ins label li ol option p path pre section "
  + "select span svg table tbody td th thead tr ul").split(" "));

// Every text in an answer in exchange for one of ours, always in the same order.
function poisoned(value) {
  let next = 0;
  const poison = (value) => {
    if (typeof value === "string") return texts[next++ % texts.length];
    if (Array.isArray(value)) return value.map(poison);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, poison(inner)]));
  };
  return poison(value);
}

const many = (count, one) => Array.from({ length: count }, (_, index) => one(index));

function worse({ traffic, now_ms, stopping, status, health, revisions }) {
  const [listener] = status.listeners, [backend] = health.flatMap((pool) => pool.backends), [revision] = revisions;
  const more = poisoned({
    status: {
      ...status, problems: many(20, () => ""),
      listeners: many(20, (number) => ({ ...listener, sites: many(40, () => ""), workers: listener.workers.map((it) => ({ ...it, pid: 1e6 + number })) })),
    },
    health: [{ pool: "", settings: "", backends: many(3000, (port) => ({ ...backend, port })) }],
    revisions: many(100, (number) => ({ ...revision, revision: number + 1, in_force: number === 99 })),
  });
  // Those that need somebody come last here, and first on the page.
  more.health[0].backends.forEach((it, number) => { it.state = number < 2990 ? "Healthy" : "Unhealthy"; });
  return { traffic, now_ms, stopping, ...more };
}

const tunnels = { at_ms: 0, total: 100_000, matching: 99_999, missing: poisoned(many(40, () => "")), tunnels: poisoned(many(500, (number) => ({
  number, id: "", listener: "", site: "", pool: "", settings: "", backend: "", client: "", opened: "", trace_id: "", pinned: "",
  age_seconds: 1e9, idle_seconds: 1e9, bytes_in: 2 ** 53, bytes_out: 2 ** 53, rate_in: 1e15, rate_out: 1e15,
}))).map((it, number) => ({ ...it, id: `${number}` })) };
const difference = { more: 7, changes: poisoned(many(400, () => ({ path: "", before: "", after: "" }))) };

async function poison(page) {
  await page.route("**/ui/state.json*", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ json: worse(await answer.json()) });
  });
  await page.route("**/ui/tunnels.json*", (route) => route.fulfill({ json: tunnels }));
  await page.route("**/ui/difference.json*", (route) => route.fulfill({ json: difference }));
}

async function isUnharmed(page, look) {
  const tags = await page.$$eval("main *", (all) => [...new Set(all.map((it) => it.localName))]);
  assert.deepEqual(tags.filter((it) => !TAGS.has(it)), [], look);
  assert.deepEqual(await overflow(page), [], `what is too wide: ${look}`);
  assert.deepEqual(await unreadable(page), [], look);
  assert.deepEqual(faults, [], look);
}

try {
  // As the gateway itself tells it.
  const page = await open(url, "light", 1280, 900);
  await page.goto(url);
  await eventually("names as they are", async () => {
    assert.ok((await page.textContent("#workers")).includes(name));
    assert.ok((await rows(page, "backends")).some((row) => row[2] === name));
  });
  await isUnharmed(page, "names");

  for (const [colorScheme, width] of [["light", 1280], ["dark", 970], ["light", 768], ["dark", 390], ["light", 320]]) {
    const look = `${colorScheme}, ${width} wide`;
    const other = await open(url, colorScheme, width, 844);
    await poison(other);
    await other.goto(url);
    await eventually("all that fits on a page", async () => {
      const shown = await rows(other, "backends");
      assert.equal(shown.length, 500);
      assert.deepEqual(shown.map((row) => row[1]).slice(8, 12), ["Unhealthy", "Unhealthy", "Healthy", "Healthy"]);
    });
    assert.equal(await other.textContent("#more-backends"), "and 2,500 more: holdfast health");
    await other.locator("#tunnels").scrollIntoViewIfNeeded();
    await eventually("the list of tunnels", async () =>
      assert.equal(await other.textContent("#found"), "99,999 of 100,000 match, 500 shown"));
    assert.equal((await rows(other, "open-tunnels")).length, 500);
    await other.getByRole("button", { name: "What revision 2 changed", exact: true }).click();
    await eventually("the differences", async () =>
      assert.match(await other.textContent("#difference-word"), /^407 places differ; the first 400\./));
    await isUnharmed(other, look);
    await other.screenshot({ path: join(directory, `status-hostile-${width}.png`) });
    assert.equal(await other.textContent("#live-text"), "live", look);
    // Its last questions are on their way.
    await other.unrouteAll({ behavior: "ignoreErrors" });
    await other.context().close();
  }

  // Answers that are none: the page says so, keeps what it has, and goes on by itself.
  const says = (text) => async () => assert.match(await page.textContent("#live-text"), text);
  const before = await rows(page, "workers");
  for (const [answer, text] of [
    [(route) => route.abort(), /^no answer since .*; trying on$/],
    [(route) => route.fulfill({ status: 503, body: "busy" }), /^no answer since .*; trying on$/],
    [(route) => route.fulfill({ json: {} }), /^this page has a fault; trying on$/],
  ]) {
    await page.route("**/ui/state.json*", answer);
    await eventually("the page to say that there is no answer", says(text));
    assert.deepEqual(await rows(page, "workers"), before);
    assert.deepEqual(await unreadable(page), []);
    await page.unroute("**/ui/state.json*");
    await eventually("the page to go on", says(/^live$/));
    // Of these the browser complains, and rightly.
    assert.ok(faults.splice(0).length > 0);
  }
} finally {
  await browser.close();
}
