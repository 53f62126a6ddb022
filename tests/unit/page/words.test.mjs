// What the page says: both languages whole, times as they are worded, states as they are told.
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { entries, load, textOf, WWW } from "./ui.mjs";

const { Words, chosenLanguage } = await load("words.js");
const { describe, titleOf } = await load("states.js");
const { connectionState, withNews } = await load("store.js");
const { rateOf, reasonOf, titleOf: titleOfLimit } = await load("limits.js");
const { PenstockError } = await load("penstock.js");
const en = new Words("en", await entries("en"));
const zh = new Words("zh", await entries("zh"));

const holes = (entry) => [...new Set(JSON.stringify(entry).match(/\{\w+/g) ?? [])].sort();

test("both languages have the same entries with the same holes, and the page asks for no other", async () => {
  const english = await entries("en");
  const chinese = await entries("zh");
  assert.deepEqual(Object.keys(english).sort(), Object.keys(chinese).sort());
  for (const key of Object.keys(english)) {
    assert.deepEqual(holes(english[key]), holes(chinese[key]), key);
  }
  const files = (await readdir(`${WWW}ui`)).filter((name) => name.endsWith(".js")).map((name) => textOf(`ui/${name}`));
  const code = (await Promise.all([...files, textOf("index.html")])).join("\n");
  const asked = [...code.matchAll(/(?:words|this)\.say\("([^"]+)"|data-(?:word|label)="([^"]+)"/g)].map(([, a, b]) => a ?? b);
  assert.ok(asked.length > 80);
  assert.deepEqual(asked.filter((key) => !(key in english)), []);
});

test("the page has no HTML strings", async () => {
  const names = (await readdir(`${WWW}ui`)).filter((name) => name.endsWith(".js"));
  for (const name of names) {
    assert.doesNotMatch(await textOf(`ui/${name}`), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b/, name);
  }
  assert.doesNotMatch(await textOf("index.html"), /<script(?! (type="module" )?src=)|<style| style=| on\w+=/);
});

test("a guess is as rough as it is", () => {
  const cases = [[0, "a few seconds"], [9, "a few seconds"], [10, "about 10 s"], [42, "about 40 s"], [88, "about 1.5 min"], [90, "about 1.5 min"],
    [130, "about 2 min"], [290, "about 5 min"], [599, "about 10 min"], [1000, "about 17 min"], [3700, "about 1 h"], [7000, "about 2 h"]];
  for (const [seconds, text] of cases) {
    assert.equal(en.about(seconds), text, seconds);
  }
  assert.equal(zh.about(42), "约 40 秒");
});

test("a range is rounded outward, and left out where it says nothing", () => {
  const cases = [[42, [33, 68], "about 40 s (30 to 70)"], [42, [40, 44], "about 40 s"], [42, null, "about 40 s"], [80, [50, 118], "about 80 s (50 s to 2 min)"],
    [60, [10, 70], "between 10 and 70 s"], [100, [30, 200], "between 30 s and 3.5 min"], [300, [200, 400], "about 5 min (3 to 7)"], [5, [2, 9], "a few seconds"],
    [240, [61, 239], "between 60 s and 4 min"]];
  for (const [eta, range, text] of cases) {
    assert.equal(en.guess(eta, range), text, `${eta} ${range}`);
  }
  assert.equal(zh.guess(42, [33, 68]), "约 40 秒（30 至 70）");
});

test("what is known is told as it is", () => {
  const cases = [[0, "0 s"], [0.2, "1 s"], [99, "99 s"], [100, "1 min 40 s"], [120, "2 min"], [3000, "50 min"], [35_280, "9 h 48 min"], [86_400 * 3, "3 days"]];
  for (const [seconds, text] of cases) {
    assert.equal(en.time(seconds), text, seconds);
  }
  assert.equal(en.clock(12), "0:12");
  assert.equal(en.clock(61.2), "1:02");
  assert.equal(en.clock(35_280), "9 h 48 min");
});

test("moments, ordinals and plurals are those of the language", () => {
  const now = Date.UTC(2026, 10, 29, 14, 5) / 1000;
  assert.equal(en.moment(now - 180, now, "UTC"), "14:02");
  assert.equal(en.moment(now + 86_400, now, "UTC"), "tomorrow, 14:05");
  assert.equal(en.moment(now - 86_400, now, "UTC"), "yesterday, 14:05");
  assert.equal(en.moment(now + 2 * 86_400, now, "UTC"), "December 1, 14:05");
  assert.deepEqual([1, 2, 3, 4, 11, 21, 102].map((n) => en.ordinal(n)), ["1st", "2nd", "3rd", "4th", "11th", "21st", "102nd"]);
  assert.equal(en.say("queued.place", { n: 5 }), "Queued, 5th in line");
  assert.equal(zh.say("queued.place", { n: 5 }), "排队中，第 5 位");
  assert.equal(en.say("answering.words", { n: 1 }), "1 word so far");
  assert.equal(en.say("answering.words", { n: 1234 }), "1,234 words so far");
  assert.equal(chosenLanguage(["fr", "zh-CN", "en"]), "zh");
  assert.equal(chosenLanguage(["fr"]), "en");
});

const NOW = 1_000_000;
const SERVER = 1_800_000_000;
const task = (job, more = {}) => ({
  told: NOW, moved: 0, promised: 0, undoUntil: 0, leaving: false, ...more,
  job: { id: "job_1", position: null, eta_seconds: null, progress: null, attempts: 0, created_at: SERVER - 60, started_at: null,
    finished_at: null, error: null, ...job },
});
const told = (job, more = {}, page = {}) => {
  const { state, title, detail, notes, acts } = describe(task(job, more), { words: en, now: NOW, serverNow: SERVER, answered: null, ...page });
  return [state, [title, detail, ...notes].filter(Boolean).join(" | "), acts.join(" ")];
};

test("each state says what is so, what it means, and what can be done", () => {
  const queued = { status: "queued", position: 5, eta_seconds: 42, eta_range: [33, 68] };
  const running = { status: "processing", started_at: SERVER - 12, eta_seconds: 8 };
  const ended = { started_at: SERVER - 40, finished_at: SERVER - 20 };
  const cases = [
    [[queued], ["queued", "Queued, 5th in line | about 40 s (30 to 70)", "cancel"]],
    [[{ ...queued, position: 1, eta_range: undefined }], ["queued", "Queued, next in line | about 40 s", "cancel"]],
    [[queued, { told: NOW - 34_000 }], ["queued", "Queued, 5th in line | any moment", "cancel"]],
    [[queued, { moved: 4 }], ["queued", "Queued, 5th in line | about 40 s (30 to 70) | Was 4th: another task went ahead, by its plan or its fair share.", "cancel"]],
    [[queued, { moved: 4, movedBy: "class" }], ["queued", "Queued, 5th in line | about 40 s (30 to 70) | Was 4th: a task of a higher plan went ahead.", "cancel"]],
    [[queued, { moved: 4, movedBy: "share" }], ["queued", "Queued, 5th in line | about 40 s (30 to 70) | Was 4th: a task of someone who had less of the queue went ahead.", "cancel"]],
    [[queued, { moved: 4, movedBy: "constructor" }], ["queued", "Queued, 5th in line | about 40 s (30 to 70) | Was 4th: another task went ahead, by its plan or its fair share.", "cancel"]],
    [[queued, { promised: SERVER + 20 }], ["late", "Queued, 5th in line | Later than we said: about 40 s (30 to 70) more", "cancel"]],
    [[{ ...queued, eta_seconds: null }], ["queued", "Queued, 5th in line | no estimate yet", "cancel"]],
    [[{ ...queued, eta_seconds: null, eta_reason: "paused" }], ["queued", "Queued, 5th in line | no estimate: the queue is paused", "cancel"]],
    [[{ ...queued, eta_seconds: null, eta_reason: "loading" }], ["queued", "Queued, 5th in line | no estimate: the model is still loading", "cancel"]],
    [[{ ...queued, eta_seconds: null, eta_reason: "no_worker" }], ["queued", "Queued, 5th in line | no estimate: no worker is up for this model", "cancel"]],
    [[{ ...queued, eta_seconds: null, eta_reason: "constructor" }], ["queued", "Queued, 5th in line | no estimate yet", "cancel"]],
    [[{ ...queued, attempts: 1 }], ["queued", "Queued, 5th in line | about 40 s (30 to 70) | Starts again (2nd try): the one before did not finish, and it is not your fault.", "cancel"]],
    [[queued, { undoUntil: NOW + 3200 }], ["undo", "Cancelled", "undo"]],
    [[queued, { leaving: true }], ["cancelling", "Being cancelled", ""]],
    [[{ ...running, progress: { fraction: 0.6, step: 12, steps: 20 }, eta_seconds: 12 }], ["processing", "Processing | about 10 s left | Step 12 of 20. Waited 48 s.", "watch cancel"]],
    [[{ ...running, progress: { fraction: 0.6 } }], ["processing", "Processing | a few seconds left | 60 % done. Waited 48 s.", "watch cancel"]],
    [[running], ["processing", "Processing | Running for 12 s. Waited 48 s.", "watch cancel"]],
    [[running, {}, { answered: 0 }], ["processing", "Processing | Running for 12 s. Waited 48 s.", "cancel"]],
    [[running, {}, { answered: 84 }], ["answering", "Answering | 84 words so far", "stop"]],
    [[{ ...ended, status: "failed", error: { code: "invalid_request", message: "No <b>." } }], ["failed", "Failed | The model did not take it. | No <b>.", "retry"]],
    [[{ ...ended, status: "failed", attempts: 3, counted: false, error: { code: "engine_failed", message: "" } }],
      ["failed", "Failed | The program behind the model failed 3 times. It is not your fault. | It was not counted.", "retry"]],
    [[{ ...ended, status: "failed", error: { code: "odd", message: "?" } }], ["failed", "Failed | It did not work. | ?", "retry"]],
    [[{ ...ended, status: "expired", started_at: null }], ["expired", "Not started in time | It waited 40 s.", "retry"]],
    [[{ ...ended, status: "cancelled" }], ["cancelled", "Cancelled", "again"]],
  ];
  for (const [given, expected] of cases) {
    assert.deepEqual(told(...given), expected);
  }
  const [state, text, acts] = told({ ...ended, status: "completed", expires_at: SERVER + 5 });
  assert.deepEqual([state, acts], ["completed", "open download again"]);
  assert.match(text, /^Completed \| \d\d:\d\d \| Waited 20 s, ran 20 s\. Kept until \d\d:\d\d\.$/);
  assert.match(told({ ...ended, status: "completed", expires_at: SERVER - 5 })[1], /The result is not kept any more\.$/);
});

test("the band has the guess within its range, and an end beyond it", () => {
  const { band } = describe(task({ status: "queued", position: 5, eta_seconds: 42, eta_range: [33, 68] }, { told: NOW - 3000 }),
    { words: en, now: NOW, serverNow: SERVER, answered: null });
  assert.deepEqual(band, { now: 39, soon: 30, late: 65, end: 120, known: true });
});

test("the title tells of the next to change", () => {
  const page = { words: en, now: NOW, serverNow: SERVER };
  const a = task({ status: "queued", position: 7, eta_seconds: 90 });
  const b = task({ status: "queued", position: 5, eta_seconds: 42 });
  const done = task({ status: "completed" });
  assert.equal(titleOf([a, b, done], page), "(2) 5th in line, about 40 s - Penstock");
  assert.equal(titleOf([a, task({ status: "processing", eta_seconds: 12, progress: { fraction: 0.5 } })], page), "(2) Processing, about 10 s left - Penstock");
  assert.equal(titleOf([done], page), "Penstock");
});

test("a place that rises is remembered until it is had again", () => {
  const at = (position, more = {}) => ({ id: "job_1", status: "queued", position, eta_seconds: 10, attempts: 0, ...more });
  let now = withNews(undefined, at(4), 0, SERVER);
  assert.equal(now.moved, 0);
  now = withNews(now, at(5, { moved: { from: 4, by: "class" } }), 0, SERVER);
  assert.deepEqual([now.moved, now.movedBy], [4, "class"]);
  now = withNews(now, at(5), 0, SERVER);
  assert.deepEqual([now.moved, now.movedBy], [4, "class"]);
  now = withNews(now, at(4), 0, SERVER);
  assert.equal(now.moved, 0);
  assert.equal(withNews(now, at(9, { attempts: 1 }), 0, SERVER).moved, 0);  // put back after a try
  assert.equal(now.promised, SERVER + 17.5);                                // as was said at first
  assert.equal(withNews(now, at(4, { status: "processing" }), 0, SERVER).promised, 0);
});

test("the connection is judged by what was heard, and when", () => {
  const fine = { online: true, signedOut: false, heard: 100_000, failures: 0, retryAt: 0 };
  const cases = [[{}, "live"], [{ online: false }, "offline"], [{ signedOut: true }, "signed-out"], [{ heard: null }, "connecting"],
    [{ failures: 1 }, "connecting"], [{ failures: 3 }, "unreachable"], [{ heard: 65_000 }, "quiet"], [{ heard: 67_000 }, "live"], [{ retryAt: 101_000 }, "restarting"]];
  for (const [more, state] of cases) {
    assert.equal(connectionState({ ...fine, ...more }, 100_000).state, state, JSON.stringify(more));
  }
});

test("limits are named by what they count, and refusals by their limit", () => {
  const rate = { name: "free-rate", unit: "requests", limit: 5, amount: 10, period_seconds: 60 };
  const quota = { name: "free-quota-d", unit: "requests", limit: 50 };
  assert.equal(rateOf(rate, en), "10 requests a minute");
  assert.equal(rateOf({ ...rate, unit: "tokens", period_seconds: 7200 }, en), "10 tokens in 2 h");
  assert.equal(titleOfLimit(quota, en), "Requests today");
  assert.equal(titleOfLimit({ ...quota, name: "pro-quota-tokens-M", unit: "tokens" }, en), "Tokens this month");
  assert.equal(titleOfLimit(quota, zh), "今日请求");
  const all = { limits: [rate, quota], concurrency: { limit: 2, in_use: 2 } };
  const refused = (status, code, policy) => {
    const error = new PenstockError(status, { error: { code, message: "As told." }, "violated-policies": [policy] }, 12);
    return reasonOf(error, all, en);
  };
  assert.deepEqual(refused(429, "rate_limit_exceeded", "free-rate"), { why: "Your plan allows 10 requests a minute.", whenKey: "refused.rate.when" });
  assert.deepEqual(refused(429, "quota_exceeded", "free-quota-d"), { why: "Today's 50 are used.", whenKey: "refused.quota.when" });
  assert.deepEqual(refused(429, "concurrency_exceeded", ""), { why: "You may have 2 tasks at the same time.", whenKey: "refused.concurrency.when" });
  assert.deepEqual(refused(503, "busy", ""), { why: "Many people are waiting.", whenKey: "refused.busy.when" });
  assert.deepEqual(refused(429, "rate_limit_exceeded", "unknown"), { why: "As told.", whenKey: "refused.when" });
});
