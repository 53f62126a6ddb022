// Debian's Chromium, and a judge who sees what a page must never do.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 10_000;

export function launch() {
  return chromium.launch({
    executablePath: process.env.PENSTOCK_CHROMIUM ?? "/usr/bin/chromium",
    chromiumSandbox: process.getuid() !== 0,
    args: ["--disable-dev-shm-usage", "--disable-gpu"],
  });
}

/** A context whose pages are watched. `faults` is to be empty at the end. */
export async function watched(browser, base, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, locale: "en-GB", timezoneId: "UTC",
    colorScheme: "light", reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  context.faults = [];
  // Chromium itself notes refused requests; the page's own words are never of that kind.
  const isNote = (text) => /^Failed to load resource: (the server responded with a status of (400|401|403|404|429|503)|net::ERR_INTERNET_DISCONNECTED)/.test(text);
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !isNote(message.text())) {
      context.faults.push(`console: ${message.text()} (${message.location().url})`);
    }
  });
  context.on("weberror", (error) => context.faults.push(`error: ${error.error().stack}`));
  context.on("request", (request) => {
    if (!request.url().startsWith(`${base}/`) && !request.url().startsWith("blob:")) {
      context.faults.push(`asked elsewhere: ${request.url()}`);
    }
  });
  await context.exposeBinding("tellViolation", (_, what) => context.faults.push(`CSP: ${what}`));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => window.tellViolation(`${event.violatedDirective} ${event.blockedURI}`));
  });
  return context;
}

/** Until the text stands there. */
export function sees(page, selector, text) {
  return page.locator(selector).filter({ hasText: text }).first().waitFor();
}

/** Until it is true in the page. */
export async function becomes(page, condition, argument) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!await page.evaluate(condition, argument)) {
    assert.ok(performance.now() < deadline, `it does not come true: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** No serious finding of axe, and nothing that reaches out of the window. */
export async function assertUsable(page) {
  // By the debugger's protocol and not as a script of the page: its policy takes none.
  const debugger_ = await page.context().newCDPSession(page);
  await debugger_.send("Runtime.evaluate", { expression: AXE });
  await debugger_.detach();
  const serious = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  });
  assert.deepEqual(serious, []);
  const { width, wanted } = await page.evaluate(() => ({ width: innerWidth, wanted: document.documentElement.scrollWidth }));
  assert.ok(wanted <= width, `the page is ${wanted} px wide in a window of ${width} px`);
}

export function photographer(folder) {
  return async (page, name, fullPage = true) => {
    await mkdir(folder, { recursive: true });
    await page.screenshot({ path: `${folder}/${name}.png`, fullPage, animations: "disabled" });
  };
}

/** Plays the chapters in their order, on one page, and ends the process. A picture named `fault` is taken where one fails. */
export async function play(chapters, { browser, context, page, photograph, fault }) {
  let chapter = "";
  try {
    for (chapter of Object.keys(chapters)) {
      const started = performance.now();
      await chapters[chapter]();
      assert.deepEqual(context.faults, []);
      console.log(`${chapter} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
    }
  } catch (error) {
    await photograph(page, fault);
    console.error(`in the chapter "${chapter}": ${error.stack}\n${context.faults.join("\n")}\n${(await page.locator("body").innerText()).slice(0, 3000)}`);
    process.exitCode = 1;
  } finally {
    await browser.close();
    process.exit();
  }
}

/** Shows each look, which gives its context if it is to be judged here, and ends the process with the number of those that failed. */
export async function show(looks) {
  const browser = await launch();
  let faults = 0;
  for (const [name, look] of Object.entries(looks)) {
    const started = performance.now();
    try {
      const context = await look(browser);
      if (context) {
        assert.deepEqual(context.faults, []);
        await context.close();
      }
      console.log(`${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      ++faults;
      console.error(`in "${name}": ${error.stack}`);
    }
  }
  await browser.close();
  process.exit(faults);
}

// Hills by moonlight, 48 x 48 pixels, and as one sees them in the midst of being made.
export const PICTURE = "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAAqklEQVR42u3Vzw1AMBzF8beICZxcTWAIg9hCrOBgA4vYwskKbjTVf6H8Kn3J995PXkpRlH" +
  "VSgSCCCCIoZtu6aEmCrpoQUzYgm8ZrIkgKxEv9x/8Qnw6CYlY17ZE8SNV4WRDROEyQ0thMENQYTZDVXFnwXvsPNGoI+RSNx7yhOUFuU+DaDyk6yGaKcsxN" +
  "kGb6mGIGiUcQQQS9DuqnOanQDWNScSEuxIWyW2gHmeUZy2HEHdAAAAAASUVORK5CYII=";
export const PREVIEW = "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAAZElEQVR42u3UMRGAMBREwRhBARUtChCBEGxgIZLiggoL9FBAw/BJduaVV2x1qevHUCUgIC" +
  "AgIKAwoH0rtwEBAfkhIKB/gYZpPgUE1ALoyei6eS8goBZA3wYEVB9oWXOogICqAx0GqzaKve2zsQAAAABJRU5ErkJggg==";
