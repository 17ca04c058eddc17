// Looks at a page of "wal-archive report" in Chromium: node report.mjs PAGE FOLDER_FOR_SCREENSHOTS
// Two widths, light and dark. Ends with 1 after the first thing that is not as it should be.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Beside the tools, not beside this file.
const require = createRequire(process.env.BROWSER_TOOLS + "/");
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [file, folder] = process.argv.slice(2);
const address = pathToFileURL(file).href;
let checked = 0;

function check(what, holds) {
  assert.ok(holds, what);
  checked += 1;
}

// What somebody who opens it sees; runs in the page.
function seen() {
  const visible = (element) => {
    const { width, height, top } = element.getBoundingClientRect();
    return width + height > 0 && { width, height, top };
  };
  const marks = [...document.querySelectorAll("main .scroll svg :is(rect, path, circle)")].filter(
    (mark) => !mark.matches("defs *, .tick, g > .cross"),
  );
  const hasTitle = (mark) => mark.closest("g, rect, path, circle").querySelector("title") ||
    mark.parentElement.querySelector(":scope > title");
  return {
    width: document.documentElement.scrollWidth,
    text: document.body.innerText,
    answer: visible(document.querySelector("p.answer")),
    picture: visible(document.querySelector(".scroll svg")),
    marks: marks.length,
    unseen: marks.filter((mark) => !visible(mark)).map((mark) => mark.outerHTML),
    untitled: marks.filter((mark) => !hasTitle(mark)).map((mark) => mark.outerHTML),
    titles: [...document.querySelectorAll("main svg title")].map((title) => title.textContent),
    names: [...document.querySelectorAll("main svg text.name")].map((name) => name.textContent),
    classes: [...new Set(marks.map((mark) => mark.getAttribute("class")))],
    scripts: document.scripts.length,
    paper: getComputedStyle(document.body).backgroundColor,
  };
}

const TITLES = [
  /^timeline 1: \d+ segments, stored from /,
  /^timeline 2 leaves timeline 1 at 0\//,
  /^timeline 3 leaves timeline 2 at 0\//,
  /^missing: 00000001[0-9A-F]{16}\.\.00000001[0-9A-F]{16}, 3 segments$/,
  /^damaged: 00000002[0-9A-F]{16}$/,
  /^expired between backups: 00000001.*, 8 segments$/,
  /^expire would delete: /,
  /^base backup \S+-1 recovers along timeline 1 from .* to before /,
  /^base backup \S+-3 recovers along timeline 3 from .* to before /,
  /; expire would delete it$/,
  /^base backup \S+ recovers nothing: it is not finished, or was given up$/,
  /^backup "pgbackrest" of another tool, /,
  /^rehearsed .*: sound$/,
  /^rehearsed .*: findings$/,
  /^\d{4}-\d\d-\d\d: [\d.]+ .?i?B in \d+ segments$/,
];

const WORDS = [
  /Recoverable to any moment from \d{4}-\d\d-\d\d .* to before .* on timeline 3, the last commit at .*; last rehearsed .*: sound\./,
  /Shaded is what wal-archive expire --keep-days 10 would delete now: \d+ segments and \d+ base backups?\./,
  /What to do: /,
  /lacks what another has: 3 segments, the first 00000003/,
  /has all that any other has/,
  /the trailer of each of \d+ objects was read/,
];

async function look(browser, width, scheme) {
  const page = await browser.newPage();
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => asked.push(String(error)));
  page.on("console", (message) => asked.push(message.text()));
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(address, { waitUntil: "load" });
  const told = await page.evaluate(seen);
  const at = `${width} px, ${scheme}`;

  check(`${at}: the page asks for something, or complains: ${asked}`, asked.length === 1 && asked[0] === address);
  check(`${at}: it has scripts`, told.scripts === 0);
  check(`${at}: it is ${told.width} px wide`, told.width <= width);
  check(`${at}: the sentence is not at the top`, told.answer && told.answer.top < 300);
  check(`${at}: the picture is not to be seen`, told.picture && told.picture.height > 200);
  check(`${at}: the background is ${told.paper}`, told.paper === (scheme === "dark" ? "rgb(22, 22, 22)" : "rgb(255, 255, 255)"));
  check(`${at}: there are ${told.marks} marks only`, told.marks > 60);
  check(`${at}: a mark is not to be seen: ${told.unseen}`, told.unseen.length === 0);
  check(`${at}: a mark has no title: ${told.untitled}`, told.untitled.length === 0);
  for (const title of TITLES) {
    check(`${at}: no title is ${title}: ${told.titles.join("\n")}`, told.titles.some((text) => title.test(text)));
  }
  for (const words of WORDS) {
    check(`${at}: ${words} is not in ${told.text}`, words.test(told.text.replace(/\s+/g, " ")));
  }
  // What is wrong is named in the picture itself, and drawn in a shape of its own.
  for (const name of [/^missing 00000001/, /^damaged 00000002/]) {
    check(`${at}: no name is ${name}: ${told.names}`, told.names.some((text) => name.test(text)));
  }
  for (const shape of ["wal", "hole", "damage", "doomed", "expired", "reach", "backup", "foreign", "sound", "cross"]) {
    check(`${at}: nothing is drawn as ${shape}: ${told.classes}`, told.classes.includes(shape));
  }
  await page.screenshot({ path: `${folder}/report-${width}-${scheme}.png`, fullPage: true });
  if (width === 1280 && scheme === "light") {
    await page.setViewport({ width: 1100, height: 900 });
    const bottom = await page.evaluate(() => document.querySelector(".legend").getBoundingClientRect().bottom);
    await page.screenshot({ path: `${folder}/report-top.png`, clip: { x: 0, y: 0, width: 1100, height: bottom + 16 } });
  }
  await axes(page, at);
  await page.close();
}

// Contrast, labels, landmarks, tables. The page itself forbids scripts, so its policy is passed by.
async function axes(page, at) {
  await page.setBypassCSP(true);
  await page.reload({ waitUntil: "load" });
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => window.axe.run());
  const wrong = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3)}`);
  check(`${at}: axe: ${wrong.join("\n")}`, violations.length === 0);
  check(`${at}: axe looked at no contrast`, passes.some(({ id }) => id === "color-contrast"));
}

check("it is too large", statSync(file).size < 200_000);
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // As root, and in containers with a small /dev/shm.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"],
});
try {
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      await look(browser, width, scheme);
    }
  }
} finally {
  await browser.close();
}
console.log(`${checked} passed, 0 failed`);
