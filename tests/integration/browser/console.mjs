// An operator's night: node console.mjs BASE_URL SOCKET SCREENSHOTS. The test plays the model.
import assert from "node:assert/strict";
import { assertUsable, becomes, launch, photographer, play, sees, watched } from "./browser.mjs";
import { Stage } from "./stage.mjs";

const [, , base, socket, screenshots] = process.argv;
const photograph = photographer(screenshots);
const HOSTILE = "<img src=x onerror=alert(1)> \u202Etxt.exe";
const KEY = "Bearer sk-night";

const stage = await Stage.open(socket);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();

async function promise(prompt, headers = {}) {
  const reply = await fetch(`${base}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: "respond-async", Authorization: KEY, ...headers },
    body: JSON.stringify({ model: "words", prompt }),
  });
  assert.equal(reply.status, 202, await reply.clone().text());
  return (await reply.json()).id;
}

const status = async () => (await fetch(`${base}/console/status`)).json();
const row = (table, text) => page.locator(`#${table} tr`, { hasText: text });
const act = (table, text, name) => row(table, text).locator(`[data-act=${name}]`);
const go = (place) => page.click(`nav a[href="#${place}"]`);
const done = () => page.locator("#ask").waitFor({ state: "hidden" });

/** Nothing of it has become an element, wherever it stands. */
const isText = async () => assert.equal(await page.locator("img").count(), 0);

const chapters = {
  async "at first all is well"() {
    await page.goto(`${base}/console/`);
    await sees(page, "#h-now", "All is well");
    await sees(page, "#link", "live");
    await row("queues", "default").waitFor();
    await sees(page, "#workers tr", "idle");
    await sees(page, "#devices-note", "none is watched");
    assert.equal(await page.locator("#questions dd.warn, #questions dd.bad").count(), 0);
    assert.equal(await page.locator("#flow svg path.line").count(), 2);
    await assertUsable(page);
    await photograph(page, "console-now");
  },

  async "a queue is paused once that was asked twice"() {
    await act("queues", "default", "pause").click();
    await sees(page, "#ask", "Pause queue default");
    await assertUsable(page);
    await photograph(page, "console-question", false);
    assert.equal(await page.evaluate(() => document.activeElement.id), "ask-keep");
    await page.keyboard.press("Enter");  // gives no order
    await done();
    assert.equal((await status()).queues[0].paused, false);
    await act("queues", "default", "pause").focus();
    await page.keyboard.press("p");
    await page.click("#ask-go");
    await done();
    await sees(page, "#queues tr", "paused");
    await sees(page, "#changes", "Pause queue default");
    await sees(page, "#status", "The queue is paused");
    assert.equal((await status()).queues[0].paused, true);
  },

  async "what waits in it is told of, and goes on when it is resumed"() {
    await promise(HOSTILE, { "Penstock-Label": HOSTILE.replace("\u202E", "") });
    await promise("the second");
    await sees(page, "#because", "default is paused, and 2 jobs wait in it.");
    await row("queues", "2 / 5").waitFor();
    await act("queues", "default", "resume").click();
    await page.click("#ask-go");
    await done();
    await act("queues", "default", "pause").waitFor();
    assert.equal((await status()).queues[0].paused, false);
  },

  async "a job is found, and cancelled"() {
    await go("jobs");
    await sees(page, "#jobs-table tr", "onerror");
    await isText();
    assert.equal(await page.locator("#jobs-table .label").first().textContent().then((text) => text.includes("<img")), true);
    const theirs = await promise("another's", { Authorization: "Bearer sk-another" });
    await row("jobs-table", theirs).waitFor();
    await act("jobs-table", theirs, "owner").click();
    await becomes(page, () => document.querySelectorAll("#jobs-table tbody tr").length === 1);
    await row("jobs-table", theirs).waitFor();
    assert.match(await page.inputValue("#filter-owner"), /^[0-9a-f]{32}$/);
    assert.equal(await act("jobs-table", theirs, "owner").count(), 0);
    await page.fill("#filter-owner", "sk-another");
    await page.keyboard.press("Enter");
    await sees(page, "#jobs-none", "No job is as you ask for.");
    await page.fill("#filter-owner", "");
    await page.keyboard.press("Enter");
    await act("jobs-table", theirs, "cancel").click();
    await page.click("#ask-go");
    await done();
    await page.selectOption("#filter-status", "queued");
    await row("jobs-table", "1st in line").waitFor();
    await becomes(page, () => document.querySelectorAll("#jobs-table tbody tr").length === 1);
    await assertUsable(page);
    await photograph(page, "console-jobs");
    await act("jobs-table", "1st in line", "cancel").click();
    await sees(page, "#ask", "Cancel job job_");
    await page.click("#ask-go");
    await done();
    await page.selectOption("#filter-status", "cancelled");
    const id = await row("jobs-table", "cancelled").locator("code").first().textContent();
    await page.selectOption("#filter-status", "");
    await page.fill("#filter-id", id);
    await page.keyboard.press("Enter");
    await becomes(page, () => document.querySelectorAll("#jobs-table tbody tr").length === 1);
    await page.fill("#filter-id", "job_none");
    await page.keyboard.press("Enter");
    await sees(page, "#jobs-none", "No job is as you ask for.");
    await page.fill("#filter-id", "");
  },

  async "a dead letter shows what it asked and why it failed, as text"() {
    const part = await stage.next();
    part.say({ error: { code: "engine_failed", message: `${HOSTILE}\u0000 ${"long ".repeat(2000)}`, retryable: true } });
    await sees(page, "#dead-count", "1");
    await go("dead");
    await sees(page, "#dead-table tr", "<img src=x onerror=alert(1)> \uFFFDtxt.exe");
    await isText();
    await act("dead-table", "onerror", "look").click();
    await sees(page, "#letter-error", "<img src=x onerror=alert(1)> \uFFFDtxt.exe");
    assert.equal(await page.locator("#letter-body").isVisible(), false);
    await page.click("#letter-show");
    await sees(page, "#letter-body", '"prompt": "<img src=x onerror=alert(1)> \uFFFDtxt.exe"');
    await isText();
    await assertUsable(page);
    await photograph(page, "console-letter", false);
    await page.click("#letter-close");
  },

  async "it is queued again, and dropped when it has failed again"() {
    await act("dead-table", "onerror", "requeue").click();
    await sees(page, "#ask", "its owner is not charged");
    await page.click("#ask-go");
    await done();
    await sees(page, "#dead-none", "No dead letters");
    (await stage.next()).say({ error: { code: "engine_failed", message: "again", retryable: true } });
    await sees(page, "#dead-table tr", "again");
    await photograph(page, "console-dead");
    await act("dead-table", "again", "drop").click();
    await page.click("#ask-go");
    await done();
    await sees(page, "#dead-none", "No dead letters");
  },

  async "a body of a megabyte is shown in pieces"() {
    await promise(`\u0000${"a body that goes on ".repeat(50_000)}`);
    (await stage.next()).say({ error: { code: "engine_failed", message: "too long", retryable: true } });
    await act("dead-table", "too long", "look").click();
    await page.click("#letter-show");
    assert.equal(await page.locator("#letter-body").evaluate((body) => body.textContent.length), 4096);
    await page.click("#letter-more");
    await sees(page, "#letter-body", "[The rest is not shown]");
    await page.click("#letter-close");
  },

  async "a worker is drained, and scaled up again"() {
    await go("now");
    await act("workers", "words", "drain").click();
    await sees(page, "#ask", "Its 0 running jobs finish");
    await page.click("#ask-go");
    await done();
    await sees(page, "#workers tr", "stopped");
    await photograph(page, "console-drained");
    await act("workers", "words", "scale").click();
    await page.fill("#ask-n", "7");
    await page.click("#ask-go");
    await sees(page, "#ask-error", "n is a number of processes from 0 to 1");
    await page.fill("#ask-n", "1");
    await page.click("#ask-go");
    await done();
    await sees(page, "#workers tr", "idle");
    await sees(page, "#changes", "Scale worker words to 1");
  },

  async "a key's counters are looked up, and forgotten"() {
    await go("callers");
    for (let i = 0; i < 8; ++i) {
      await fetch(`${base}/v1/models`, { headers: { Authorization: KEY } });
    }
    await sees(page, "#offenders tr", "free-rate");
    await page.fill("#key", KEY);
    await page.keyboard.press("Enter");
    await sees(page, "#counters tr", "free-quota-d");
    assert.ok(!page.url().includes("sk-night"));
    await assertUsable(page);
    await photograph(page, "console-callers");
    await page.click("#reset");
    await page.click("#ask-go");
    await done();
    await sees(page, "#key-none", "Nothing is counted for it");
    assert.equal((await fetch(`${base}/v1/models`, { headers: { Authorization: KEY } })).status, 200);
  },

  async "who opens it anew sees the trouble of the last minutes, and since when"() {
    await page.goto("about:blank");
    await page.goto(`${base}/console/#now`);
    const answer = (question) => page.locator("#questions div", { hasText: question });
    await answer("Do we turn people away?").filter({ hasText: /[1-9][\d.]* %.*[1-9][\d.]* % by limits, 0 % as it is busy; in the last \d+ (s|min)/ }).waitFor();
    await answer("Do jobs fail?").filter({ hasText: /(7[5-9]|[89]\d|100)(\.\d)? %in the last \d+ (s|min).*1 dead letter/ }).waitFor();
    await sees(page, "#changes", "Resume queue default");
    await go("callers");
  },

  async "predictions stand beside what came true"() {
    await go("predictions");
    await sees(page, "#promised figure", "default");
    await sees(page, "#last-none", "No job that was told a wait");
    await promise("it teaches what a job takes");
    (await stage.next()).end();
    const first = await promise("it runs");
    await becomes(page, async ([path, id]) => (await (await fetch(`${path}/${id}`)).json()).status === "processing", [`${base}/console/jobs`, first]);
    const waits = await promise("it waits");
    (await stage.next()).end();
    (await stage.next()).end();
    await row("last-table", waits).waitFor();
    assert.equal(await row("last-table", waits).locator("svg.within").count(), 1);
    await sees(page, "#last-share", "inside; 80 % is right");
    await assertUsable(page);
    await photograph(page, "console-predictions");
  },

  async "by keys one goes anywhere, and orders can be locked away"() {
    await page.keyboard.press("g");
    await page.keyboard.press("n");
    await sees(page, "#h-now", /./);
    await page.keyboard.press("?");
    await sees(page, "#keys", "Drain the worker in focus");
    await page.keyboard.press("Escape");
    await page.click("#lock");
    await sees(page, "#lock", "Read only: on");
    assert.equal(await page.locator("#queues [data-act], #workers [data-act]").count(), 0);
    await page.click("#lock");
    await act("queues", "default", "pause").waitFor();
  },

  async "a console that is read only has no orders"() {
    const readonly = await context.newPage();
    await readonly.goto(`${base}/readonly/`);
    await readonly.locator("#queues tr", { hasText: "default" }).waitFor();
    await sees(readonly, "#lock", "Read only: on");
    assert.equal(await readonly.locator("[data-act]").count(), 0);
    await readonly.close();
  },

  async "when nothing is heard it says so"() {
    await context.setOffline(true);
    await sees(page, "#link", "Nothing heard for");
    await sees(page, "#notice", "The server cannot be read");
    await photograph(page, "console-quiet");
    await context.setOffline(false);
    await sees(page, "#link", "live");
    await page.locator("#notice").waitFor({ state: "hidden" });
  },

  async "in Chinese, dark, and on a narrow screen"() {
    await page.click("#language");
    await sees(page, "nav", "死信");
    await page.click("#theme");
    await assertUsable(page);
    await photograph(page, "console-chinese-dark");
    await page.setViewportSize({ width: 320, height: 720 });
    for (const place of ["jobs", "dead", "callers", "predictions", "now"]) {
      await go(place);
      await page.locator(`#${place}`).waitFor();
      await assertUsable(page);
      await photograph(page, `console-${place}-320-dark`);
    }
    await page.click("#theme");
    await assertUsable(page);
    await photograph(page, "console-now-320");
  },
};

await play(chapters, { browser, context, page, photograph, fault: "console-fault" });
