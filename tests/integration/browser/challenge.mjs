// Over a limit with action=challenge, as one sees it who is: node challenge.mjs BASE_URL SCREENSHOTS.
import assert from "node:assert/strict";
import { assertUsable, becomes, launch, photographer, play, sees, watched } from "./browser.mjs";

const [, , base, screenshots] = process.argv;
const photograph = photographer(screenshots);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();

/** From now on the search does not begin before this is called. */
async function holdSearch() {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route("**/ui/solve.js", async (route) => {
    await released;
    await route.continue();
  });
  return release;
}

async function send(prompt) {
  await page.fill("#prompt", prompt);
  await page.click("#send");
}

await play({
  async "a page comes in place of what was wanted"() {
    await page.goto(`${base}/open/?key=k`);
    await sees(page, "body", "through");
    await page.goto(`${base}/open/?key=k`);
    await sees(page, "h1", "A short check");
    await sees(page, "#check-say", "Without it you can go on in");
    await assertUsable(page);
    await photograph(page, "challenge");
    await page.setViewportSize({ width: 320, height: 700 });
    await assertUsable(page);
    await photograph(page, "challenge-narrow");
    await page.setViewportSize({ width: 1440, height: 1000 });
  },

  async "the check goes by itself, and leads on"() {
    const go = await holdSearch();
    await page.click("#check-go");
    await sees(page, "#check-say", "A short check, then it is sent.");
    await photograph(page, "challenge-runs");
    go();
    await sees(page, "body", "through");
    await page.reload();
    await sees(page, "body", "through");
    // An address that no form may lead to, and one that is longer than a form.
    for (const [path, more] of [["//open/", "key=slashes"], ["/open/", `key=long&more=${"x".repeat(5000)}`]]) {
      await page.goto(`${base}${path}?${more}`);
      await sees(page, "body", "through");
      await page.reload();
      await page.click("#check-go");
      await sees(page, "body", "through");
    }
    const cookies = await context.cookies();
    assert.equal(cookies.filter(({ name, httpOnly, sameSite }) => name === "penstock-pass" && httpOnly && sameSite === "Lax").length, 1);
  },

  async "it speaks Chinese, too"() {
    const chinese = await watched(browser, base, { locale: "zh-CN" });
    const other = await chinese.newPage();
    await other.goto(`${base}/open/?key=zh`);
    await other.goto(`${base}/open/?key=zh`);
    await sees(other, "h1", "简短检查");
    assert.equal(await other.evaluate(() => document.documentElement.lang), "zh-Hans");
    await assertUsable(other);
    assert.deepEqual(chinese.faults, []);
    await chinese.close();
  },

  async "the page of tasks checks before it sends"() {
    await page.goto(`${base}/`);
    await sees(page, "#link", "Live");
    await send("the first");
    await sees(page, ".task", "the first");
    const go = await holdSearch();
    await send("the second");
    await sees(page, "#hint", "A short check, then it is sent.");
    assert.equal(await page.isVisible("#check"), true);
    await assertUsable(page);
    await photograph(page, "checking");
    go();
    await sees(page, ".task", "the second");
    await becomes(page, () => document.querySelector("#check").hidden);
    assert.equal(await page.inputValue("#prompt"), "");
    await send("the third");
    await sees(page, ".task", "the third");
  },

  async "a check can be stopped, and what was written stays"() {
    await context.clearCookies({ name: "penstock-pass" });
    await page.reload();
    await sees(page, "#link", "Live");
    const go = await holdSearch();
    await send("the fourth");
    await sees(page, "#hint", "A short check, then it is sent.");
    await page.click("#stop");
    await becomes(page, () => document.querySelector("#check").hidden);
    assert.equal(await page.inputValue("#prompt"), "the fourth");
    go();
    await send("the fourth, again");
    await sees(page, ".task", "the fourth, again");
  },
}, { browser, context, page, photograph, fault: "fault-challenge" });
