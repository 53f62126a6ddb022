// As many tasks as may at the same time: node full.mjs BASE_URL SOCKET SCREENSHOTS. The plan allows one; the test plays the model.
import assert from "node:assert/strict";
import { launch, photographer, play, sees, watched } from "./browser.mjs";
import { Stage } from "./stage.mjs";

const [, , base, socket, screenshots] = process.argv;
const stage = await Stage.open(socket);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();
const send = async (prompt) => {
  await page.fill("#prompt", prompt);
  await page.click("#send");
};
const button = () => page.locator("#send").evaluate((send) => [send.textContent, send.getAttribute("aria-disabled")]);
let running;

const chapters = {
  async "the form says so before one presses"() {
    await page.goto(`${base}/`);
    await sees(page, "#limits", "0 of 1");
    await sees(page, "#hint", "If you send it now");
    await send("The first");
    running = await stage.next();
    await sees(page, "#hint", "You have 1 task in progress, as many as you may have at the same time. It must end first.");
    assert.deepEqual(await button(), ["Send", null]);
  },

  async "who presses is told why, and not to try again in a second"() {
    await send("The second");
    await sees(page, "#why", "You may have 1 task at the same time. When one is over, you can send the next.");
    for (let i = 0; i < 2; ++i) {  // they are 3 s apart, which is more than Retry-After
      await page.waitForResponse((reply) => reply.url().endsWith("/v1/models"));
    }
    assert.deepEqual(await button(), ["Send", "true"]);
    await sees(page, "#why", "You may have 1 task at the same time.");
  },

  async "once one is over the next is sent by one press"() {
    running.end();
    await sees(page, ".task:has-text('The first')", "Completed");
    await page.locator("#send:not([aria-disabled])").waitFor();
    await page.click("#send");
    (await stage.next()).end();
    await sees(page, "#ended .task:has-text('The second')", "Completed");
    await sees(page, "#hint", "If you send it now");
  },
};

await play(chapters, { browser, context, page, photograph: photographer(screenshots), fault: "full-fault" });
