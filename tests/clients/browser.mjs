// Two people in Chromium on the demo's chat page. Usage: browser.mjs URL DIRECTORY. Exit code 0: all as it should be.
// Checks what each of them sees: the connection opens, says who serves it, grows older, and carries what both say.
// DIRECTORY gets a picture of the page in the light and in the dark colours.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

const [url, directory] = process.argv.slice(2);
const patience = 20_000 * Number(process.env.HOLDFAST_TEST_PATIENCE ?? 1);
const scheme = new URL(url).protocol.replace(":", "");
// The root user, as in a container, has no sandbox; the certificate is the test's own.
const browser = await chromium.launch({
  executablePath: process.env.HOLDFAST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors"],
  // Its first start on a machine reads it from the disk.
  timeout: 3 * patience,
});

const opened = (page) =>
  page.waitForFunction(() => document.querySelector("li.note")?.textContent.startsWith("connected to"));

// A person on another backend than `unlike`: the gateway gives requests to backends turn by turn, and a page is two.
async function enter(name, colorScheme, unlike) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 760, height: 620 } });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => line.type() === "error" && faults.push(line.text()));
  let backend = unlike;
  for (let attempt = 0; backend === unlike; attempt += 1) {
    assert.ok(attempt < 10, `always served by ${unlike}`);
    const answer = await page.goto(url);
    assert.equal(answer.status(), 200);
    await opened(page);
    backend = await page.textContent("#backend");
    await context.request.get(url, { ignoreHTTPSErrors: true });
  }
  await page.fill("#name", name);
  assert.equal(await page.textContent("#state"), "open");
  return { name, colorScheme, backend, page, faults };
}

const seconds = (page) => page.evaluate(() => parseInt(document.getElementById("age").textContent, 10));
const olderThan = (page, age) =>
  page.waitForFunction((age) => parseInt(document.getElementById("age").textContent, 10) > age, age);

async function say(person, text) {
  await person.page.fill("#text", text);
  await person.page.click("#send");
}

try {
  const ada = await enter("Ada", "light");
  const people = [ada, await enter("Grace", "dark", ada.backend)];
  await say(people[0], "Is the connection still there? <b>Yes</b>");
  await say(people[1], "As old as the page.");
  for (const { name, page } of people) {
    await page.waitForFunction(() => document.querySelectorAll("#log li:not(.note)").length === 2);
    const own = await page.locator("li.mine b").allTextContents();
    assert.deepEqual(own, [name]);
    const heard = await page.locator("#log").innerText();
    assert.match(heard, /Is the connection still there\? <b>Yes<\/b>/);
    assert.match(heard, /As old as the page\./);
  }
  for (const { backend, colorScheme, page, faults } of people) {
    const before = await seconds(page);
    await olderThan(page, before + 1);
    assert.equal(await page.textContent("#backend"), backend);
    assert.equal(await page.textContent("#reconnects"), "0");
    assert.equal(await page.textContent("#state"), "open");
    await page.screenshot({ path: join(directory, `chat-${scheme}-${colorScheme}.png`) });
    assert.deepEqual(faults, []);
    console.log(`served by ${backend}`);
  }
} finally {
  await browser.close();
}
