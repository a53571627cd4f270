// A person who has the status page's token, in Chromium. Usage: status_token.mjs URL TOKEN. Exit code 0: all as it should be.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

const [url, token] = process.argv.slice(2);
const patience = 20_000 * Number(process.env.HOLDFAST_TEST_PATIENCE ?? 1);
const browser = await chromium.launch({
  executablePath: process.env.HOLDFAST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  // Its first start on a machine reads it from the disk.
  timeout: 3 * patience,
});

try {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(patience);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  const requests = [];
  page.on("request", (request) => requests.push(request));
  const answer = await page.goto(url);
  assert.equal(answer.status(), 401);
  assert.equal(await page.locator("#main").isVisible(), false);
  for (const wrong of ["not the token", "ö", "x".repeat(40)]) {
    await page.fill("#token", wrong);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#gate-fault").textContent === "That is not the token.");
  }
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#tile-state")?.textContent === "ready");
  // The browser keeps a cookie that no script can read, and not the token.
  assert.equal(await page.evaluate(() => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage })), "{}");
  const [cookie] = await page.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && !cookie.value.includes(token));
  // Nor is it in an address, which histories, logs and other places' Referer would have.
  assert.ok(requests.length > 5 && !page.url().includes(token));
  for (const request of requests) {
    assert.ok(!request.url().includes(token), request.url());
    assert.equal((await request.allHeaders()).referer, undefined, request.url());
  }
  await page.context().clearCookies();
  await page.waitForFunction(() => !document.querySelector("#gate").hidden);
  assert.equal(await page.locator("#main").isVisible(), false);
  assert.deepEqual(faults, []);
} finally {
  await browser.close();
}
