// One person in Chromium on the demo's chat page, who stays. Usage: browser_age.mjs URL. For every line on standard input
// it says something, waits until it is heard and the connection has grown older, and prints what the page shows, as JSON.
// It never loads the page again.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

const [url] = process.argv.slice(2);
const patience = 20_000 * Number(process.env.HOLDFAST_TEST_PATIENCE ?? 1);
const browser = await chromium.launch({
  executablePath: process.env.HOLDFAST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors"],
  // Its first start on a machine reads it from the disk.
  timeout: 3 * patience,
});

const seconds = (page) => page.evaluate(() => parseInt(document.getElementById("age").textContent, 10));

async function look(page, round) {
  const before = await seconds(page);
  await page.fill("#text", `round ${round}`);
  await page.click("#send");
  await page.waitForFunction((text) => document.getElementById("log").innerText.includes(text), `round ${round}`);
  await page.waitForFunction((age) => parseInt(document.getElementById("age").textContent, 10) > age, before);
  const heard = await page.locator("li.mine").count();
  const [state, backend, reconnects] = await Promise.all(
    ["#state", "#backend", "#reconnects"].map((part) => page.textContent(part)),
  );
  const notes = await page.locator("li.note").count();
  console.log(JSON.stringify({ age: await seconds(page), state, backend, reconnects, heard, notes }));
}

try {
  const page = await browser.newPage();
  page.setDefaultTimeout(patience);
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector("li.note")?.textContent.startsWith("connected to"));
  await page.fill("#name", "Ada");
  let round = 0;
  for await (const _ of createInterface({ input: process.stdin })) await look(page, (round += 1));
} finally {
  await browser.close();
}
