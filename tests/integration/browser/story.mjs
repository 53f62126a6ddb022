// The life of tasks, as one who waits sees it: node story.mjs BASE_URL SOCKET SCREENSHOTS. The test plays the models.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { assertUsable, becomes, launch, photographer, PICTURE, play, PREVIEW, sees, watched } from "./browser.mjs";
import { Stage } from "./stage.mjs";

const [, , base, socket, screenshots] = process.argv;
const photograph = photographer(screenshots);
const HOSTILE = "<img src=x onerror=alert(1)> \u202Etxt.exe";

const stage = await Stage.open(socket);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();

/** Another caller's task, each time another's. */
let others = 0;
async function other(prompt, model = "words") {
  const reply = await fetch(`${base}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: "respond-async", Authorization: `Bearer other-${++others}` },
    body: JSON.stringify({ model, messages: [{ role: "user", content: prompt }], stream: true }),
  });
  assert.equal(reply.status, 202, await reply.clone().text());
  return (await reply.json()).id;
}

async function send(prompt, model) {
  if (model) {
    await page.selectOption("#model", model);
  }
  await page.fill("#prompt", prompt);
  await page.click("#send");
}

const card = (prompt) => `.task:has-text("${prompt}")`;
const act = (prompt, name) => page.locator(`${card(prompt)} [data-act=${name}]`);

const chapters = {
  async "an empty page says what will be there"() {
    await page.goto(`${base}/`);
    await sees(page, "#empty", "Nothing here yet");
    await sees(page, "#link", "Live");
    await sees(page, "#hint", "This is number 1 of 8 today.");
    await assertUsable(page);
    await photograph(page, "empty");
    await page.click("#send");
    await sees(page, "#why", "Write something first.");
  },

  async "behind others, the place falls"() {
    await other("first");
    await other("second");
    const first = await stage.next();
    await send(HOSTILE, "words");
    await sees(page, card("onerror"), "Queued, 2nd in line");
    assert.equal(await page.locator(".task img[src=x]").count(), 0);
    assert.equal(await page.locator(`${card("onerror")} .ask`).textContent(), "<img src=x onerror=alert(1)> \uFFFDtxt.exe");
    await becomes(page, () => document.title.includes("2nd in line"));
    await photograph(page, "queued");
    first.end();
    const second = await stage.next();
    await sees(page, card("onerror"), "Queued, next in line");
    second.end();
  },

  async "words come as they are made, and a reload loses none"() {
    const part = await stage.next();
    assert.equal(part.prompt, HOSTILE);
    part.words("A penstock ", "is a gate", "d pipe. <b>");
    await sees(page, card("onerror"), "Answering");
    await sees(page, `${card("onerror")} .out`, "A penstock is a gated pipe. <b>");
    await sees(page, card("onerror"), "7 words so far");
    await page.fill("#prompt", "a draft");
    await page.reload();
    await sees(page, `${card("onerror")} .out`, "A penstock is a gated pipe. <b>");
    assert.equal(await page.inputValue("#prompt"), "a draft");
    part.words(" It feeds a turbine.");
    await sees(page, `${card("onerror")} .out`, "It feeds a turbine.");
    await photograph(page, "answering");
    part.end();
    await sees(page, card("onerror"), "Completed");
    assert.equal(await page.locator(`${card("onerror")} .out`).textContent(), "A penstock is a gated pipe. <b> It feeds a turbine.");
    const [download] = await Promise.all([page.waitForEvent("download"), act("onerror", "download").click()]);
    assert.match(download.suggestedFilename(), /^job_\w+\.txt$/);
    assert.equal(await readFile(await download.path(), "utf8"), "A penstock is a gated pipe. <b> It feeds a turbine.");
  },

  async "a picture shows itself by steps"() {
    await send("Hills by moonlight", "pictures");
    const part = await stage.next();
    assert.equal(part.job.path, "/v1/images/generations");
    part.step(12, 20);
    await sees(page, card("moonlight"), "Processing");
    await sees(page, card("moonlight"), "Step 12 of 20.");
    const previews = setInterval(() => part.preview(PREVIEW), 50);  // whoever listens hears the next one
    await becomes(page, () => document.querySelector(".pic.preview")?.naturalWidth > 0);
    clearInterval(previews);
    assert.equal(await page.locator(`${card("moonlight")} progress`).evaluate((bar) => bar.value), 0.6);
    await photograph(page, "processing");
    part.picture(PICTURE);
    await sees(page, card("moonlight"), "Completed");
    await becomes(page, () => document.querySelector(".pic:not(.preview)")?.naturalWidth > 0);
    await act("moonlight", "open").click();
    await sees(page, "#picture", "Hills by moonlight");
    await photograph(page, "picture");
    await page.keyboard.press("Escape");
    await page.locator("#picture").waitFor({ state: "hidden" });
  },

  async "what fails says why, and is sent again by one press"() {
    await send("Draw a <script>", "pictures");
    (await stage.next()).fail("invalid_request", "There is no <script> to draw.\u202E");
    await sees(page, card("Draw a"), "Failed The model did not take it.");
    await sees(page, card("Draw a"), "There is no <script> to draw.\uFFFD");
    await photograph(page, "failed");
    await act("Draw a", "retry").click();
    (await stage.next()).picture(PICTURE);
    await sees(page, `${card("Draw a")}[data-state=completed]`, "Completed");
  },

  async "offline, and back"() {
    await send("What is a surge tank?", "words");
    const part = await stage.next();
    await sees(page, card("surge tank"), "Processing");
    await context.setOffline(true);
    await sees(page, "#link", "Offline. Your tasks go on; shown as of");
    await sees(page, "#hint", "What you wrote stays here.");
    assert.equal(await page.getAttribute("#send", "aria-disabled"), "true");
    await photograph(page, "offline");
    part.words("A tank that takes the surge.");
    part.end();
    await context.setOffline(false);
    await sees(page, card("surge tank"), "Completed");
    await sees(page, "#link", "Live");
  },

  async "a cancel can be taken back, names one task, and outlives the page"() {
    await send("The one that runs", "words");
    const running = await stage.next();
    await send("The one that waits");
    await sees(page, card("that waits"), "Queued, next in line");
    await page.focus("#h-tasks");
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("c");
    await sees(page, card("that waits"), "Undo (5)");
    await photograph(page, "undo");
    await page.keyboard.press("u");
    await sees(page, card("that waits"), "Queued, next in line");
    await act("that waits", "cancel").click();
    await sees(page, card("that waits"), "Undo (5)");
    await page.reload();  // it is sent as the page goes
    await sees(page, `#ended ${card("that waits")}`, "Cancelled");
    await sees(page, card("that runs"), "Processing");
    running.words("Done.");
    running.end();
    await sees(page, card("that runs"), "Completed");
    assert.equal(running.cancelled, false);
  },

  async "who wants a notice is told of the end, and nobody else"() {
    assert.equal(await page.evaluate(() => navigator.serviceWorker.getRegistration("/ui/").then(Boolean)), false);
    await context.grantPermissions(["notifications"]);
    await page.selectOption("#done", "notify");
    await becomes(page, () => navigator.serviceWorker.getRegistration("/ui/").then((worker) => Boolean(worker?.active)));
    await send("Tell me of it", "words");
    const part = await stage.next();
    await page.evaluate(() => {
      ServiceWorkerRegistration.prototype.showNotification = async (...told) => (window.told = told);
      Object.defineProperty(document, "hidden", { get: () => true });
    });
    part.end();
    await becomes(page, () => window.told !== undefined);
    const [title, { body }] = await page.evaluate(() => window.told);
    assert.deepEqual([title, body], ["Completed", "Tell me of it"]);
    await page.reload();
    await becomes(page, () => document.querySelector("#done").value === "notify");  // it is remembered
  },

  async "a second tab shows the same, and asks for none of it"() {
    const second = await context.newPage();
    const asked = [];
    second.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await second.goto(`${base}/`);
    await sees(second, card("surge tank"), "Completed");
    assert.equal(await second.locator(".task").count(), await page.locator(".task").count());
    assert.deepEqual(asked.filter((path) => path === "/jobs" || path === "/jobs/events"), []);
    await second.close();
  },

  async "many people are waiting"() {
    await other("a");
    const running = await stage.next();
    const waiting = ["b", "c", "d"];
    for (const prompt of waiting) {
      await other(prompt);
    }
    await send("Is there room?", "words");
    await sees(page, "#why", "Many people are waiting. Please try again in");
    await sees(page, "#send", "Try again in 0:");
    assert.equal(await page.inputValue("#prompt"), "Is there room?");
    await assertUsable(page);
    await photograph(page, "busy");
    running.end();
    for (const _ of waiting) {
      (await stage.next()).end();
    }
  },

  async "the day's quota is used up"() {
    await page.reload();
    await sees(page, "#hint", "This is number 8 of 8 today.");
    await send("The last one", "words");
    (await stage.next()).end();
    await sees(page, card("The last one"), "Completed");
    await send("One too many");
    await sees(page, "#why", "Today's 8 are used. It starts again in");
    await sees(page, "#why", "See plans");
    await sees(page, "#limits", "Used up. Starts again in");
    await sees(page, "#send", "Try again in");
    await assertUsable(page);
    await photograph(page, "spent");
  },

  async "in Chinese, dark, and on a narrow screen"() {
    await page.click("#language");
    await sees(page, "nav", "我的任务");
    await sees(page, "#why", "今日 8 次已用完。");
    await page.click("#theme");
    await assertUsable(page);
    await photograph(page, "chinese-dark");
    await page.setViewportSize({ width: 320, height: 720 });
    await assertUsable(page);
    await photograph(page, "chinese-dark-320");
    await page.reload();
    await sees(page, "nav", "我的任务");  // the choice is kept
    assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  },
};

await play(chapters, { browser, context, page, photograph, fault: "fault" });
