// The console of a host that runs nothing, whose queue other hosts share: node shared.mjs BASE_URL SOCKET SCREENSHOTS.
// The test plays the model, which runs on another host.
import assert from "node:assert/strict";
import { assertUsable, launch, photographer, play, sees, watched } from "./browser.mjs";
import { Stage } from "./stage.mjs";

const [, , base, socket, screenshots] = process.argv;
const photograph = photographer(screenshots);
const stage = await Stage.open(socket);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();

async function promise(prompt) {
  const reply = await fetch(`${base}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: "respond-async", Authorization: "Bearer a" },
    body: JSON.stringify({ model: "words", prompt }),
  });
  assert.equal(reply.status, 202, await reply.clone().text());
  return (await reply.json()).id;
}

const row = (table, text) => page.locator(`#${table} tr`, { hasText: text });
const act = (table, text, name) => row(table, text).locator(`[data-act=${name}]`);
const ids = {};
const parts = {};

const chapters = {
  async "what waits for another host is in the queue here"() {
    ids.runs = await promise("it runs");
    parts.runs = await stage.next();
    ids.waits = await promise("it waits");
    ids.last = await promise("it waits too");
    await page.goto(`${base}/console/`);
    await row("queues", "2 / 5").filter({ hasText: "1 / 1" }).waitFor();
    await sees(page, "#h-now", "All is well");
    await assertUsable(page);
    await photograph(page, "console-shared");
  },

  async "jobs are listed as they are there, with their places"() {
    await page.click('nav a[href="#jobs"]');
    await row("jobs-table", ids.waits).filter({ hasText: "1st in line" }).waitFor();
    await row("jobs-table", ids.last).filter({ hasText: "2nd in line" }).waitFor();
    await row("jobs-table", ids.runs).filter({ hasText: "processing" }).waitFor();
  },

  async "one that runs there is cancelled here"() {
    await act("jobs-table", ids.runs, "cancel").click();
    await page.click("#ask-go");
    const next = await stage.next();
    assert.equal(next.prompt, "it waits");
    await row("jobs-table", ids.runs).filter({ hasText: "cancelled" }).waitFor();
    await row("jobs-table", ids.last).filter({ hasText: "1st in line" }).waitFor();
    parts.waits = next;
  },

  async "a pause that is given here holds there"() {
    await page.click('nav a[href="#now"]');
    await act("queues", "default", "pause").click();
    await page.click("#ask-go");
    await sees(page, "#queues tr", "paused");
    parts.waits.end();
    await page.click('nav a[href="#jobs"]');
    await row("jobs-table", ids.waits).filter({ hasText: "completed" }).waitFor();
    await row("jobs-table", ids.last).filter({ hasText: "1st in line" }).waitFor();
    await page.click('nav a[href="#now"]');
    await act("queues", "default", "resume").click();
    await page.click("#ask-go");
    (await stage.next()).end();
    await row("queues", "0 / 5").waitFor();
  },
};

await play(chapters, { browser, context, page, photograph, fault: "console-shared-fault" });
