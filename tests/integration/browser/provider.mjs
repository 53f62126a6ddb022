// A provider's challenge, as one sees it who is over the limit: node provider.mjs BASE_URL SCREENSHOTS. The widget is a stand-in of the
// test's, served in place of the provider's own.
import assert from "node:assert/strict";
import { assertUsable, becomes, launch, photographer, play, sees, watched } from "./browser.mjs";

const [, , base, screenshots] = process.argv;
const SCRIPT = "https://challenges.cloudflare.com/turnstile/v0/api.js";
const photograph = photographer(screenshots);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();
let token = "good1";
await context.route(/^https:/, async (route) => {
  if (token === null) {
    return route.abort();
  }
  return route.fulfill({ contentType: "text/javascript", body: `
    globalThis.turnstile = {};
    const widget = document.querySelector(".cf-turnstile");
    widget.append(Object.assign(document.createElement("input"), { type: "hidden", name: "cf-turnstile-response", value: "${token}" }));
    widget.append("widget of " + widget.dataset.sitekey);
    globalThis.solve = () => globalThis[widget.dataset.callback]();` });
});

/** All that was asked for elsewhere is the widget's script. */
function takeOneScript() {
  assert.deepEqual(context.faults.filter((fault) => !fault.includes("net::ERR_FAILED")), [`asked elsewhere: ${SCRIPT}`]);
  context.faults.length = 0;
}

async function goTo(key) {
  await page.goto(`${base}/open/?key=${key}`);
  await sees(page, "body", "through");
  await page.goto(`${base}/open/?key=${key}`);
  await sees(page, "h1", "A short check");
}

await play({
  async "the widget is there, and what it yields leads on"() {
    await goTo("one");
    await sees(page, ".cf-turnstile", "widget of 10000000-ffff");
    await sees(page, "#check-say", "Without it you can go on in");
    await becomes(page, () => document.documentElement.dataset.ready === "");
    await assertUsable(page);
    await photograph(page, "challenge-provider");
    takeOneScript();
    await page.evaluate(() => globalThis.solve());
    await sees(page, "body", "through");
    const cookies = await context.cookies();
    assert.equal(cookies.filter(({ name }) => name === "penstock-pass").length, 1);
  },

  async "a token that is refused is told, and one may try again"() {
    token = "bad1";
    await goTo("two");
    await becomes(page, () => document.documentElement.dataset.ready === "");
    takeOneScript();
    await page.click("#check-go");
    await sees(page, "#check-say", "The check did not work.");
    token = "good2";
    await page.click("#check-go");
    await sees(page, ".cf-turnstile", "widget of");
    await becomes(page, () => document.documentElement.dataset.ready === "");
    takeOneScript();
    await page.click("#check-go");
    await sees(page, "body", "through");
  },

  async "a token that comes before the words does stays on the page"() {
    let release;
    const held = new Promise((done) => release = done);
    const WORDS = "**/ui/words.*.json";
    await context.route(WORDS, async (route) => (await held, route.continue()));
    token = "bad2";
    await page.goto(`${base}/open/?key=four`);
    await sees(page, "body", "through");
    await page.goto(`${base}/open/?key=four`);
    await sees(page, ".cf-turnstile", "widget of");
    const asked = page.waitForRequest((request) => request.method() === "POST");
    await page.evaluate(() => globalThis.solve());
    assert.equal((await asked).resourceType(), "fetch");
    release();
    await sees(page, "#check-say", "The check did not work.");
    takeOneScript();
    await context.unroute(WORDS);
    token = "good3";
    await page.click("#check-go");
    await sees(page, ".cf-turnstile", "widget of");
    await becomes(page, () => document.documentElement.dataset.ready === "");
    takeOneScript();
  },

  async "where the provider is away, to the server as well, a proof of work does"() {
    token = null;
    await goTo("three");
    await sees(page, "#check-say", "The check did not work.");
    takeOneScript();
    await page.click("#check-go");
    await sees(page, "#check-say", "Your browser works for a moment");
    await page.click("#check-go");
    await sees(page, "body", "through");
  },
}, { browser, context, page, photograph, fault: "fault-provider" });
