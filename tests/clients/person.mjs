// A person in Chromium who looks at a page of one place: what scripts about the status page share. Everything that a browser
// has to complain about is in `faults`, and so is every request to somewhere else.
import { createRequire } from "node:module";
import { setTimeout as delay } from "node:timers/promises";

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

export const patience = 20_000 * Number(process.env.HOLDFAST_TEST_PATIENCE ?? 1);
// The root user, as in a container, has no sandbox.
export const browser = await chromium.launch({
  executablePath: process.env.HOLDFAST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  // Its first start on a machine reads it from the disk.
  timeout: 3 * patience,
});

export const faults = [];

// A page that is to ask nobody but the place of this URL.
export async function open(url, colorScheme, width, height) {
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

export async function eventually(what, ask) {
  const end = Date.now() + patience;
  for (let last; ; await delay(25)) {
    try { return await ask(); } catch (fault) { last = fault; }
    if (Date.now() > end) throw new Error(`${what}: ${last.message}`, { cause: last });
  }
}

// What a table's cells say, without notes below them and marks before them.
export const rows = (page, id) =>
  page.$$eval(`#${id} tr`, (all) => all.map((row) => [...row.cells].map((cell) => cell.innerText.split("\n")[0].replace(/^[●▲◆○] /, ""))));

// What makes the page wider than its window, if it is.
export const overflow = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.querySelectorAll("main *")].filter((it) => it.getBoundingClientRect().right > width + 0.5);
  return [`${document.documentElement.scrollWidth - width} pixels`, ...wide.map((it) => `${it.localName}#${it.id}.${it.className}`).slice(0, 10)];
});

// Texts whose contrast with what is behind them is less than WCAG 2 asks for (4.5).
export const unreadable = (page) => page.evaluate(() => {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = channels(color).slice(0, 3).map((it) => linear(it / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const color = getComputedStyle(it).backgroundColor;
      if ((channels(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = new Set();
  const look = (element, color) => {
    const [brighter, darker] = [light(color), light(behind(element))].sort((a, b) => b - a);
    const contrast = (brighter + 0.05) / (darker + 0.05);
    if (contrast < 4.5) found.add(`${element.localName}#${element.id}.${element.className}: ${contrast.toFixed(1)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.textContent.trim() && element.checkVisibility()) look(element, getComputedStyle(element).color);
  }
  for (const input of document.querySelectorAll("input")) look(input, getComputedStyle(input, "::placeholder").color);
  return [...found];
});
