// Every state of a task and of a limit, as it looks: node states.mjs BASE_URL SCREENSHOTS. The server's answers are written here;
// only the page's files are the server's own.
import assert from "node:assert/strict";
import { assertUsable, becomes, photographer, PICTURE, PREVIEW, sees, show, watched } from "./browser.mjs";

const [, , base, screenshots] = process.argv;
const photograph = photographer(screenshots);
const NOW = 1_795_960_980;  // 14:03 UTC

let number = 0;
const job = (status, label, more) => ({
  object: "job", id: `job_${String(++number).padStart(4, "0")}`, status, label, model: "chat", position: null, eta_seconds: null, progress: null,
  attempts: 0, created_at: NOW - 100, started_at: null, finished_at: null, result_url: null, error: null, ...more,
});
const ran = { started_at: NOW - 60, finished_at: NOW - 39 };
const jobs = [
  job("processing", "用三句话解释压力管道为什么需要调压室", { started_at: NOW - 30, eta_seconds: 8 }),
  job("processing", "A lock gate in heavy rain, seen from the towpath", { model: "flux-small", started_at: NOW - 20, eta_seconds: 12,
    eta_range: [8, 19], progress: { fraction: 0.6, step: 12, steps: 20 }, created_at: NOW - 58 }),
  job("processing", "Translate the manual", { started_at: NOW - 12 }),
  job("queued", "Summarise the attached minutes in five lines", { position: 1, eta_seconds: 5, attempts: 1 }),
  job("queued", "Which of these is due first?", { position: 2, eta_reason: "loading" }),
  job("queued", "A weir at dawn, mist over the water, three herons, pencil and wash, on rough paper, with a signature at the lower right",
    { model: "flux-small", position: 5, eta_seconds: 42, eta_range: [33, 68] }),
  job("queued", "<b>bold</b> \u202Egnp.exe", { position: 12, eta_seconds: 300, eta_range: [200, 420] }),
  job("scheduled", "The evening's report", { not_before: NOW + 4 * 3600 }),
  job("failed", "Poster of the whole valley", { ...ran, error: { code: "invalid_request", message: "size is 1024x1024 at most." }, counted: false }),
  job("completed", "A sluice in moonlight, woodcut", { ...ran, model: "flux-small", expires_at: NOW + 86_400, result_url: "/jobs/x/result" }),
  job("completed", "Why does water hammer?", { ...ran, finished_at: NOW - 41, result_url: "/jobs/y/result" }),
  job("cancelled", "Four seasons of a mill race", { finished_at: NOW - 50 }),
  job("expired", "A long story", { finished_at: NOW - 55 }),
  job("failed", "Sum up the log", { ...ran, finished_at: NOW - 58, attempts: 3, error: { code: "engine_failed", message: "The program ended by signal 9." } }),
];
const quota = {
  tier: "free",
  documentation: "/plans",
  limits: [
    { name: "free-rate", unit: "requests", limit: 5, amount: 10, period_seconds: 60, used: 2, remaining: 3, reset_seconds: 12 },
    { name: "free-rate-tokens-m", unit: "tokens", limit: 20_000, amount: 20_000, period_seconds: 60, used: 6400, remaining: 13_600, reset_seconds: 19 },
    { name: "free-quota-d", unit: "requests", limit: 5, used: 3, remaining: 2, reset_seconds: 35_280 },
    { name: "free-quota-M", unit: "requests", limit: 1000, used: 850, remaining: 150, reset_seconds: 95_000 },
    { name: "ip", unit: "requests", limit: 50, amount: 50, period_seconds: 1, used: 0, remaining: 50, reset_seconds: 0 },
  ],
  concurrency: { limit: 5, in_use: 4 },
};
const models = [{ id: "chat", kind: "text", eta_seconds: 48, eta_range: [40, 80] }, { id: "flux-small", kind: "image" }, { id: "digits" }];
const listOf = (data) => ({ json: { object: "list", data } });
const event = (type, data) => `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const stream = (...events) => ({ contentType: "text/event-stream", body: `retry: 3600000\n\n${events.join("")}` });
const words = "当阀门突然关闭时，水流的动能会变成压力波，沿管道来回传播，这就是水锤。调压室给这股水一个可以上升的自由水面，把冲击变成缓慢的起伏";
const delta = (content) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;

async function open(browser, options, answers = {}) {
  const context = await watched(browser, base, options);
  const page = await context.newPage();
  const answer = (path, how) => page.route((url) => path.test(url.pathname), (route) => route.fulfill(how(route)));
  await answer(/^\/jobs\/job_/, (route) => {
    const { pathname } = new URL(route.request().url());
    if (pathname.endsWith("/events")) {
      return pathname.includes(jobs[0].id) ? stream(event("processing", jobs[0]), event("chunk", { offset: 0, text: delta(words) }))
        : stream(event("processing", jobs[1]), event("preview", { url: `/jobs/${jobs[1].id}/preview?number=2`, number: 2, step: 12 }));
    }
    if (pathname.endsWith("/preview")) {
      return { contentType: "image/png", body: Buffer.from(PREVIEW, "base64") };
    }
    return pathname.includes(jobs[9].id) ? { contentType: "image/png", body: Buffer.from(PICTURE, "base64") }
      : { contentType: "application/json", body: JSON.stringify({ choices: [{ message: { content: "Because it cannot stop at once. ".repeat(200) } }] }) };
  });
  await answer(/^\/jobs\/events$/, () => answers.events ?? stream(event("snapshot", { server_time: NOW, jobs, more: true })));
  await answer(/^\/jobs$/, () => ({ json: { object: "list", data: answers.list, has_more: false } }));
  await answer(/^\/quota$/, () => ({ json: answers.quota ?? quota }));
  await answer(/^\/v1\/models$/, () => answers.models?.() ?? listOf(models));
  await answer(/^\/v1\/chat\/completions$/, () => answers.send);
  await page.goto(`${base}/`);
  if (answers.events) {
    return { context, page };
  }
  await sees(page, "#link", /Live|实时/);
  await sees(page, ".out", "水锤");
  await page.locator(`[data-id=${jobs[9].id}]`).scrollIntoViewIfNeeded();  // a picture is read when it is seen
  await becomes(page, () => document.querySelector(".pic:not([hidden])")?.naturalWidth > 0);
  await page.evaluate(() => scrollTo(0, 0));
  return { context, page };
}

const looks = {
  async "states-1440"(browser) {
    const { context, page } = await open(browser, {});
    await sees(page, "#hint", "If you send it now: about 50 s (40 to 80). This is number 4 of 5 today.");
    assert.equal(await page.locator(".task").count(), jobs.length);
    await sees(page, ".limit", "20,000 tokens a minute 13,600 left now");
    assert.deepEqual(await page.locator(".limit p > span").evaluateAll((titles) => titles.filter((title) => title.offsetHeight > 30).map((title) => title.textContent)), []);
    assert.equal(await page.locator(".ask b").count(), 0);
    await assertUsable(page);
    await photograph(page, "states-1440");
    await photograph(page, "page", false);  // these two are in README
    return context;
  },

  async "states-1440-dark-chinese"(browser) {
    const { context, page } = await open(browser, { colorScheme: "dark", locale: "zh-CN" });
    await sees(page, "nav", "我的任务");
    await assertUsable(page);
    await photograph(page, "states-1440-dark-chinese");
    return context;
  },

  async "states-390"(browser) {
    const { context, page } = await open(browser, { viewport: { width: 390, height: 844 }, hasTouch: true });
    await assertUsable(page);
    await photograph(page, "states-390");
    await page.locator("#tasks").evaluate((tasks) => tasks.scrollIntoView({ block: "start" }));
    await photograph(page, "page-narrow", false);
    return context;
  },

  async "states-320-dark"(browser) {
    const { context, page } = await open(browser, { viewport: { width: 320, height: 700 }, colorScheme: "dark", hasTouch: true });
    await assertUsable(page);
    await photograph(page, "states-320-dark");
    return context;
  },

  async "an answer is opened, and watched, by keys"(browser) {
    const { context, page } = await open(browser, {});
    await page.focus(`[data-id=${jobs[10].id}]`);
    await page.keyboard.press("Enter");
    await sees(page, `[data-id=${jobs[10].id}] .out`, "Because it cannot stop at once.");
    await page.click("text=Show all (6,399 characters)");
    await becomes(page, (id) => document.querySelector(`[data-id=${id}] .out`).textContent.length === 6399, jobs[10].id);
    assert.equal(await page.evaluate(() => document.activeElement.className), "out long");
    await page.focus(`[data-id=${jobs[1].id}]`);
    await page.keyboard.press("o");
    await page.locator(".pic.preview").waitFor();
    await sees(page, `[data-id=${jobs[0].id}] [data-act=watch]`, "Watch");
    await page.keyboard.press("?");
    await sees(page, "#keys", "Next, previous task");
    await assertUsable(page);
    await photograph(page, "keys");
    await page.keyboard.press("Escape");
    await page.keyboard.press("n");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.type("g t");  // in a field a key is a letter
    assert.equal(await page.inputValue("#prompt"), "g t");
    return context;
  },

  async "the wait beside the button is that of now"(browser) {
    let asked = 0;
    let chat = { id: "chat", kind: "text", eta_seconds: 0, eta_range: [0, 0] };
    const answers = { models: () => (++asked, chat ? listOf([chat]) : { status: 503, json: {} }), send: { status: 202, json: job("queued", "Mine", { position: 3, eta_seconds: 36 }) } };
    const { context, page } = await open(browser, {}, answers);
    await sees(page, "#hint", "If you send it now: a few seconds.");
    await page.clock.install();
    await page.fill("#prompt", "Mine");
    chat = { ...chat, eta_seconds: 36, eta_range: [33, 40] };
    await page.click("#send");  // what stands before the next one is one's own
    await sees(page, "#hint", "If you send it now: about 35 s");
    await page.fill("#prompt", "Another");
    chat = { ...chat, eta_seconds: 80, eta_range: [78, 83] };
    await page.clock.fastForward(5000);
    await sees(page, "#hint", "If you send it now: about 80 s");
    for (const [reason, text] of [["loading", "it starts when the model is loaded."], ["paused", "it waits until the queue goes on."],
      ["no_worker", "No worker is up for this model. If you send it now, it waits until one is."], ["constructor", /^This is number/]]) {
      chat = { ...chat, eta_seconds: null, eta_range: null, eta_reason: reason };
      await page.clock.fastForward(5000);
      await sees(page, "#hint", text);
    }
    chat = { ...chat, eta_seconds: 7 };
    await page.clock.fastForward(5000);
    await sees(page, "#hint", "If you send it now");
    chat = null;  // from here on nobody tells it
    await page.clock.fastForward(32_000);
    await becomes(page, () => document.querySelector("#hint").textContent === "This is number 4 of 5 today.");
    assert.ok(asked < 30);
    return context;
  },

  async "where the models cost requests they are not read again and again"(browser) {
    let asked = 0;
    const answers = { send: { status: 202, json: job("queued", "Mine", { position: 3, eta_seconds: 36 }) },
      models: () => (++asked, { ...listOf(models), headers: { "RateLimit-Policy": '"free-rate";q=5;w=30, "free-quota-d";q=5' } }) };
    const { context, page } = await open(browser, {}, answers);
    await sees(page, "#limits", "of 5");
    await page.clock.install();
    await page.fill("#prompt", "Mine");
    await sees(page, "#hint", "If you send it now");
    await page.click("#send");
    await becomes(page, () => document.querySelector("#hint").textContent === "This is number 4 of 5 today.");  // the wait is another now
    await page.clock.fastForward(15_000);
    await page.fill("#prompt", "Another");
    assert.equal(asked, 1);
    await page.clock.fastForward(15_000);
    await sees(page, "#hint", "If you send it now");
    assert.equal(asked, 2);
    return context;
  },

  async "who has as many tasks as may hears that one must end first"(browser) {
    const problem = { error: { code: "concurrency_exceeded", message: "free-concurrency" }, "violated-policies": ["free-concurrency"] };
    const answers = { quota: { ...quota, concurrency: { limit: 2, in_use: 2 } }, send: { status: 429, headers: { "Retry-After": "1" }, json: problem } };
    const { context, page } = await open(browser, {}, answers);
    await sees(page, "#hint", "You have 2 tasks in progress, as many as you may have at the same time. One of them must end first. The next of yours ends in a few seconds.");
    await page.clock.install();
    await page.fill("#prompt", "A third");
    await page.click("#send");
    await sees(page, "#why", "You may have 2 tasks at the same time. When one is over, you can send the next.");
    await sees(page, "#hint", "The next of yours ends in a few seconds.");
    await assertUsable(page);
    await photograph(page, "full", false);
    for (let i = 0; i < 4; ++i) {
      await page.clock.fastForward(3000);
      assert.deepEqual(await page.locator("#send").evaluate((send) => [send.textContent, send.getAttribute("aria-disabled")]), ["Send", "true"]);
    }
    answers.quota = quota;
    await page.clock.fastForward(6000);
    await becomes(page, () => document.querySelector("#send").getAttribute("aria-disabled") === null);
    await sees(page, "#hint", "If you send it now");
    return context;
  },

  async "a server without the stream is asked again and again"(browser) {
    const answers = { events: { status: 404, json: { error: { code: "not_found" } } }, list: [jobs[0], jobs[5]] };
    const { context, page } = await open(browser, {}, answers);
    await sees(page, "#link", "Live");
    await sees(page, `[data-id=${jobs[5].id}]`, "Queued, 5th in line");
    answers.list = [jobs[0], { ...jobs[5], position: 6 }];
    await sees(page, `[data-id=${jobs[5].id}]`, "Queued, 6th in line");
    await sees(page, `[data-id=${jobs[5].id}]`, "Was 5th: another task went ahead");
    return context;
  },

  async "a server that restarts is waited for, and tried at once when there is news"(browser) {
    const answers = { events: { status: 503, headers: { "Retry-After": "300" }, json: {} } };
    const { context, page } = await open(browser, {}, answers);
    await sees(page, "#link", /The server restarts. Tried again in (5 min|4 min \d+ s)/);
    await photograph(page, "restarting");
    answers.events = undefined;
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await sees(page, "#link", "Live");
    return context;
  },

  async "markup of any kind is refused by the page's policy"(browser) {
    const { context, page } = await open(browser, {});
    const refused = await page.evaluate(() => {
      const tries = [() => (document.body.innerHTML = "<b>x</b>"), () => new Worker("/ui/notify.js"), () => document.write("x"),
        () => trustedTypes.createPolicy("other", {})];
      return tries.map((one) => {
        try {
          one();
          return "taken";
        } catch (error) {
          return error.name;
        }
      });
    });
    assert.deepEqual(refused, Array(4).fill("TypeError"));
    assert.ok(context.faults.length > 0);  // and it was seen
    context.faults.length = 0;
    return context;
  },
};

await show(looks);
