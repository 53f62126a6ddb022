// The console as it looks: node console_states.mjs BASE_URL SCREENSHOTS. The server's answers are written here; only the page's files are
// the server's own.
import assert from "node:assert/strict";
import { assertUsable, becomes, photographer, sees, show, watched } from "./browser.mjs";

const [, , base, screenshots] = process.argv;
const photograph = photographer(screenshots);
const NOW = 1_796_007_761;  // 03:02 UTC
const GIB = 2 ** 30;
const HOSTILE = `<script>alert(1)</script><img src=x onerror=alert(1)>"'&{n}\u0000\u202E\u2066${"\uFEFF"}`;

const queue = (name, waiting, most, running, slots, more) => ({ name, state: "open", paused: false, waiting, running, slots, max_length: most, owners: 3,
  predicted_wait_ms: 1000, service_time_us: 1000, ...more });
const worker = (name, queue_, device, running, slots, more) => ({ name, state: "ready", queue: queue_, engine: "llama", model: queue_, device, pid: 7, running, slots,
  memory_bytes: 61 * GIB, restarts: 0, waiting: 0, steps: 100, step_jobs: 710, generation_tokens: 1_204_551, step_ms: 100, open_slots: null, why_closed: null,
  waits_for: null, last_error: null, pace: null, ...more });
const device = (name, heat, used, more) => ({ device: name, uuid: `GPU-${name}`, name: "NVIDIA H100 80GB HBM3", parent: null, healthy: true, health: "good", message: null,
  utilization_percent: 97, memory_used_bytes: used * GIB, memory_total_bytes: 80 * GIB, temperature_celsius: heat, power_mw: 650_000, ...more });

const minutes = Array.from({ length: 60 }, (_, i) => i);
const night = {
  status: {
    status: "serving", version: "1", queues: [queue("chat", 298, 500, 16, 16), queue("default", 3, 10_000, 5, 8), queue("video", 58, 200, 1, 1),
      queue("batch", 120, 5000, 0, 4, { paused: true })],
    workers: [worker("chat#1", "chat", "0", 8, 8), worker("chat#2", "chat", "1", 6, 8, { open_slots: 6, why_closed: "slowed by heat" }), worker("video", "video", "2", 1, 1),
      worker("paid", "default", "", 5, 8, { engine: "http", memory_bytes: 0, generation_tokens: 0, steps: 0, step_ms: 0 })],
    devices: [device("0", 71, 61), device("1", 84, 61), device("2", 77, 71)],
    device_watch: { state: "watching", message: null }, state: { dead_letters: 3, bytes: 41, max_bytes: 100, error: null },
  },
  history: { step_seconds: 60, rows: minutes.map((i) => ({ at: NOW - (60 - i) * 60, seconds: 60, queues: [
    { name: "chat", waiting: Math.max(0, (i - 38) * 14), running: 16, in: i > 38 ? 38 : 23, out: 22, completed: 22, failed: 0, promised_ms: Math.max(15, (i - 36) * 9) * 1000, waited_ms: Math.max(9, (i - 38) * 8 + (i % 5) * 3) * 1000 },
    { name: "default", waiting: 3, running: 5, in: 112, out: 112, completed: i > 30 ? 112 : 0, failed: i > 30 ? 0 : 112, promised_ms: 1000, waited_ms: 900 },
    { name: "video", waiting: 50 + (i >> 3), running: 1, in: 1, out: 1, completed: 1, failed: 0, promised_ms: 500_000, waited_ms: 510_000 },
    { name: "batch", waiting: 120, running: 0, in: 0, out: 0, completed: 0, failed: 0, promised_ms: null, waited_ms: null }] })) },
  metrics: `penstock_queue_oldest_wait_seconds{socket="s",queue="chat"} 370
penstock_queue_oldest_wait_seconds{socket="s",queue="default"} 2
penstock_queue_oldest_wait_seconds{socket="s",queue="video"} 842
penstock_queue_oldest_wait_seconds{socket="s",queue="batch"} 3138
${[["chat", 10, 5, 300, 200], ["chat", 0, 1, 30, 60], ["default", 0, 1, 990, 1000], ["video", 0, 0, 5, 300]].map(([name, priority, fast, middle, all]) =>
    [["1", fast], ["60", middle], ["300", all], ["+Inf", all]].map(([le, n]) => `penstock_wait_seconds_bucket{socket="s",queue="${name}",priority="${priority}",le="${le}"} ${n}`)
      .concat(`penstock_wait_seconds_count{socket="s",queue="${name}",priority="${priority}"} ${all}`).join("\n")).join("\n")}
penstock_jobs_total{socket="s",queue="chat",event="completed"} 1000
penstock_jobs_total{socket="s",queue="chat",event="failed"} 2000
penstock_requests_total{tier="free",variant="",outcome="passed"} 959
penstock_requests_total{tier="free",variant="",outcome="rejected"} 2000
penstock_wait_prediction_error_ratio_bucket{socket="s",queue="chat",le="0.1"} 40
penstock_wait_prediction_error_ratio_bucket{socket="s",queue="chat",le="0.25"} 76
penstock_wait_prediction_error_ratio_bucket{socket="s",queue="chat",le="1"} 92
penstock_wait_prediction_error_ratio_bucket{socket="s",queue="chat",le="+Inf"} 100
`,
  orders: { orders: [{ at: NOW - 3000, who: "'ana at 10.0.0.7', by uid 33, pid 411", order: "POST /queues/batch/pause" },
    { at: NOW - 4000, who: "'ana at 10.0.0.7', by uid 33, pid 411", order: "POST /jobs/job_000000000000000000000001/replay?model=chat-next&run=a" }] },
  offenders: { offenders: [{ key: "7f3a09c251c0a7e9", limit: "free-rate", refused: 212 }, { key: "02cc7e1551c0a7e9", limit: "free-rate", refused: 4 }],
    requests: { seconds: 624, all: 1000, rejected: 36, busy: 5 } },
  dead: { data: [["job_1", "out of memory"], ["job_2", "out of memory"], ["job_3", "deadline passed"]].map(([id, message]) => ({ id, queue: "video", model: "video", attempts: 3,
    created_at: NOW - 900, finished_at: NOW - 660, error: { code: "engine_failed", message } })), has_more: false, last_id: null },
  predictions: { predictions: [["job_5", 40_000, 30_000, 70_000, 52_000, true], ["job_6", 2400, 900, 4100, 5600, false], ["job_7", 300_000, 210_000, 420_000, 180_000, false]].map(
    ([id, said_ms, soon_ms, late_ms, waited_ms, inside]) => ({ id, queue: "chat", model: "chat", at: NOW - 400, said_ms, soon_ms, late_ms, waited_ms, inside })) },
  jobs: { data: [{ id: "job_4", status: "queued", queue: "chat", model: "chat", label: "Sum up the minutes", tier: "free", priority: 0, owner: "b81e44d0aa", position: 298, eta_seconds: 370,
    progress: null, attempts: 0, created_at: NOW - 60, error: null }], has_more: false, last_id: null },
};

/** Every text in it is hostile, and one is a megabyte. */
function poisoned(value, key = "") {
  if (typeof value === "string") {
    return ["state", "status", "algorithm", "unit"].includes(key) ? value : key === "last_error" || key === "message" || key === "label" ? HOSTILE.repeat(12_000) : `${value}${HOSTILE}`;
  }
  return Array.isArray(value) ? value.map((each) => poisoned(each)) : value !== null && typeof value === "object"
    ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, poisoned(each, name)])) : value;
}

async function open(browser, answers, options = {}) {
  const context = await watched(browser, base, options);
  const page = await context.newPage();
  const json = (body) => ({ json: body });
  const all = { session: json({ token: "0".repeat(32), read_only: false, user: "", host: "edge-1" }), metrics: { body: answers.metrics, contentType: "text/plain" },
    ...Object.fromEntries(["status", "history", "orders", "predictions", "offenders", "dead", "jobs"].map((path) => [path, json(answers[path])])), ...answers.instead };
  for (const [path, answer] of Object.entries(all)) {
    await page.route((url) => url.pathname === `/console/${path}`, (route) => route.fulfill(answer));
  }
  await page.goto(`${base}/console/`);
  return { context, page };
}

const looks = {
  async "a night that goes badly"(browser) {
    const { context, page } = await open(browser, night);
    await sees(page, "#h-now", "Falling behind on chat. It will be full in 14 min");
    await sees(page, "#because", "38 jobs a minute come into chat, 22 go out.");
    await sees(page, "#because", "Worker chat#2: slowed by heat.");
    await sees(page, "#because", "Device 1 is at 84 °C.");
    await sees(page, "#because", "batch is paused, and 120 jobs wait in it.");
    await sees(page, "#workers tr", "6 slots open: slowed by heat");
    await sees(page, "#errors li", "2 out of memory");
    for (const [question, answer] of [["Do we turn people away?", "4.1 %3.6 % by limits, 0.5 % as it is busy; in the last 10 min"], ["Do jobs fail?", "0 %in the last 10 min; 3 dead letters"],
      ["Do people wait too long?", "since penstockd began. The oldest waits"], ["Will it get worse?", "+14 a minute"]]) {
      await page.locator("#questions div", { hasText: question }).filter({ hasText: answer }).waitFor();
    }
    await sees(page, "#changes li", "Pause queue batch");
    await sees(page, "#changes li", "Replay job job_000000000000000000000001 with chat-next");
    await assertUsable(page);
    await photograph(page, "console", false);  // in README
    await photograph(page, "console-night");
    await page.click('nav a[href="#predictions"]');
    await sees(page, "#errors-table tr", "10 to 25 %");
    for (const words of [["40 s", "30 s to 70 s", "52 s", "inside"], ["2.4 s", "0.9 s to 4.1 s", "5.6 s", "later"], ["300 s", "210 s to 420 s", "180 s", "sooner"]]) {
      const row = page.locator("#last-table tbody tr", { hasText: words[1] });
      for (const each of words) {
        await row.filter({ hasText: each }).waitFor();
      }
      assert.equal(await row.locator("svg.within path").count(), 4);
    }
    await sees(page, "#last-share", "33.3 % of 3 inside; 80 % is right");
    await assertUsable(page);
    await photograph(page, "console-night-predictions");
    return context;
  },

  async "the same in the dark"(browser) {
    const { context, page } = await open(browser, night, { colorScheme: "dark" });
    await sees(page, "#h-now", "Falling behind");
    await assertUsable(page);
    await photograph(page, "console-night-dark");
    return context;
  },

  async "the same on a phone"(browser) {
    const { context, page } = await open(browser, night, { viewport: { width: 320, height: 720 }, hasTouch: true });
    await sees(page, "#h-now", "Falling behind");
    await assertUsable(page);
    await photograph(page, "console-night-320");
    return context;
  },

  async "whoever wrote it, every field is text"(browser) {
    const answers = { ...poisoned(night), metrics: night.metrics };
    answers.history = poisoned(night.history);
    for (const options of [{}, { viewport: { width: 320, height: 720 }, colorScheme: "dark" }]) {
      const { context, page } = await open(browser, answers, options);
      for (const place of ["now", "jobs", "dead", "callers", "predictions"]) {
        await page.click(`nav a[href="#${place}"]`);
        await becomes(page, (place) => document.querySelectorAll(`#${place} :is(tbody tr, figure bdi)`).length > 0 &&
          (place !== "predictions" || document.querySelectorAll("#last-table tbody tr").length === 3), place);
        const seen = await page.evaluate(() => ({ text: document.body.innerText, bad: document.querySelectorAll("main :is(script, img)").length }));
        assert.equal(seen.bad, 0, place);
        assert.match(seen.text, /<script>alert\(1\)<\/script><img src=x onerror=alert\(1\)>/, place);
        assert.doesNotMatch(seen.text, /[\u0000\u202E\u2066\uFEFF]/, place);
        assert.ok(seen.text.length < 60_000, `${place} is cut`);
        await assertUsable(page);
      }
      await photograph(page, `console-hostile-${options.viewport?.width ?? 1440}`);
      assert.deepEqual(context.faults, []);
      await context.close();
    }
    return null;
  },

  async "who is not let in is told why, and shown what is Nginx's own"(browser) {
    const refusal = { status: 403, json: { error: { message: "uid 33, pid 7 is no operator; `access.operators` names who is", code: "forbidden" } } };
    const { context, page } = await open(browser, { ...night, instead: { status: refusal } });
    await sees(page, "#notice", "The server does not let this console in: uid 33, pid 7 is no operator");
    await page.click('nav a[href="#callers"]');
    await sees(page, "#offenders tr", "7f3a09c251c0a7e9");
    await assertUsable(page);
    await photograph(page, "console-refused");
    return context;
  },

  async "viewers see no single jobs, and all the rest"(browser) {
    const refusal = { status: 403, json: { error: { message: "Viewers see the status and the jobs, without what these ask and answer, and give no orders", code: "forbidden" } } };
    const { context, page } = await open(browser, { ...night, instead: { predictions: refusal } });
    await page.click('nav a[href="#predictions"]');
    await sees(page, "#errors-table tr", "10 to 25 %");
    await sees(page, "#last-none", "Single jobs are shown to operators only");
    assert.equal(await page.locator("#last-table").isVisible(), false);
    assert.equal(await page.locator("#notice").isVisible(), false);
    return context;
  },

  async "markup of any kind is refused by the page's policy"(browser) {
    const { context, page } = await open(browser, night);
    await sees(page, "#h-now", "Falling behind");
    assert.equal(await page.evaluate(() => {
      try {
        document.body.innerHTML = "<b>x</b>";
        return "taken";
      } catch (error) {
        return error.name;
      }
    }), "TypeError");
    assert.ok(context.faults.length > 0);  // and it was seen
    context.faults.length = 0;
    return context;
  },
};

await show(looks);
