// The console without a browser: figures read, what is judged of them, charts as paths, text from anybody.
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { entries, load, textOf, WWW } from "./ui.mjs";

const { endsOf, Figures, growthOf, grown, quantile, ratesOf, recent, rowsOf, share } = await load("figures.js", "console");
const { judge } = await load("verdict.js", "console");
const { areaOf, ceiling, pathOf } = await load("chart.js", "console");
const { block, laidOut } = await load("text.js", "console");
const { headerOf } = await load("callers.js", "console");
const { queryOf } = await load("jobs.js", "console");
const { orderOf } = await load("orders.js", "console");
const { counted, workerOf } = await load("now.js", "console");
const { partsOf } = await load("predictions.js", "console");
const { plain } = await load("el.js");

const holes = (entry) => [...new Set(JSON.stringify(entry).match(/\{\w+/g) ?? [])].sort();
const sources = async () => (await readdir(`${WWW}console`)).filter((name) => name.endsWith(".js"));

test("both languages have the same entries with the same holes, and the console asks for no other", async () => {
  const english = await entries("en", "console");
  const chinese = await entries("zh", "console");
  assert.deepEqual(Object.keys(english).sort(), Object.keys(chinese).sort());
  for (const key of Object.keys(english)) {
    assert.deepEqual(holes(english[key]), holes(chinese[key]), key);
  }
  const code = (await Promise.all([...(await sources()).map((name) => textOf(`console/${name}`)), textOf("console/index.html")])).join("\n");
  const asked = [...code.matchAll(/"(con\.[a-z_.]+)"/g)].map(([, key]) => key);
  assert.ok(asked.length > 120);
  assert.deepEqual(asked.filter((key) => !(key in english)), []);
  for (const what of ["pause", "resume", "drain", "scale", "cancel", "requeue", "drop", "reset"]) {
    for (const part of ["title", "text", "undo", "keep", "go", "done"]) {
      assert.ok(`con.ask.${what}.${part}` in english, `${what}.${part}`);
    }
  }
});

test("the console has no HTML strings", async () => {
  for (const name of await sources()) {
    assert.doesNotMatch(await textOf(`console/${name}`), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b/, name);
  }
  assert.doesNotMatch(await textOf("console/index.html"), /<script(?! (type="module" )?src=)|<style| style=| on\w+=/);
});

const PAGE = `# HELP a Things.
# TYPE a counter
a{socket="s",queue="one \\"two\\" \\\\ {x}"} 3
a{socket="t",queue="b"} 4e1
gone NaN
b 1.5
w_bucket{queue="b",priority="1",le="1"} 5
w_bucket{queue="b",priority="1",le="+Inf"} 6
w_bucket{queue="b",priority="0",le="1"} 1
w_bucket{queue="b",priority="0",le="+Inf"} 4
`;

test("a page of metrics is read by name and labels", () => {
  const figures = new Figures(PAGE, 7);
  assert.equal(figures.at, 7);
  assert.equal(figures.sum("a"), 43);
  assert.equal(figures.one("a", { queue: 'one "two" \\ {x}' }), 3);
  assert.equal(figures.one("b"), 1.5);
  assert.equal(figures.one("c"), null);
  assert.equal(figures.one("gone"), null);
  assert.deepEqual(figures.buckets("w", { queue: "b" }), [[1, 6], [Infinity, 10]]);
  assert.deepEqual(figures.buckets("w", { queue: "b", priority: "0" }), [[1, 1], [Infinity, 4]]);
  assert.deepEqual(new Figures("<html>\n{}\n").buckets("w"), []);
});

test("a part of those in buckets lies below a quantile", () => {
  const buckets = [[1, 10], [2, 20], [Infinity, 20]];
  assert.equal(quantile(buckets, 0.5), 1);
  assert.equal(quantile(buckets, 0.75), 1.5);
  assert.equal(quantile([[1, 0], [2, 0], [Infinity, 4]], 0.5), 2);  // above all bounds: the last is what is known
  assert.equal(quantile([], 0.5), null);
  assert.equal(quantile([[1, 0], [Infinity, 0]], 0.5), null);
  assert.equal(share(buckets, 1), 0.5);
  assert.equal(share(buckets, 3), null);
});

test("what is recent is what came between, or all where a counter began anew", () => {
  assert.deepEqual(recent([[1, 5], [Infinity, 9]], [[1, 5], [Infinity, 6]]), [[1, 0], [Infinity, 3]]);
  assert.deepEqual(recent([[1, 1], [Infinity, 1]], [[1, 5], [Infinity, 6]]), [[1, 1], [Infinity, 1]]);
  assert.deepEqual(recent([[1, 5], [Infinity, 6]], [[1, 5], [Infinity, 6]]), [[1, 5], [Infinity, 6]]);
  assert.equal(grown(5, 3), 2);
  assert.equal(grown(1, 3), 1);
});

const row = (at, waiting, more = {}) => ({ at, seconds: 60, queues: [{ name: "chat", waiting, running: 1, in: 38, out: 22, completed: 20, failed: 0, promised_ms: 1500, waited_ms: null, ...more }] });

test("a row of the history is in jobs a minute and seconds", () => {
  const history = { rows: [{ ...row(60, 5), seconds: 30 }, { at: 120, seconds: 60, queues: [] }, { ...row(180, 9), seconds: 0 }] };
  assert.deepEqual(rowsOf(history, "chat"), [{ at: 60, seconds: 30, waiting: 5, in: 76, out: 44, promised: 1.5, waited: null }]);
  assert.deepEqual(rowsOf(null, "chat"), []);
  // A row that has only begun weighs what it lasts, and what is older than five minutes nothing.
  const rate = (at, seconds, rate) => ({ at, seconds, in: rate, out: 2 });
  assert.deepEqual(ratesOf([rate(20, 60, 100), rate(300, 30, 1), rate(330, 30, 3), rate(332, 2, 64)]), { in: (30 + 90 + 128) / 62, out: 2 });
  assert.equal(ratesOf([]), null);
});

const minutes = (count, completed, failed) => Array.from({ length: count }, (_, i) => row(60 * (i + 1), 0, { completed, failed }));
const grows = (...waiting) => waiting.map((each, i) => ({ at: 60 * i, waiting: each }));

test("a queue grows that has grown for five minutes, and a burst is none", () => {
  assert.equal(growthOf(grows(0, 10, 20, 30, 40)), null, "four minutes say nothing yet");
  assert.equal(growthOf(grows(0, 10, 20, 30, 40, 50, 60)), 10);
  assert.equal(growthOf(grows(0, 0, 0, 0, 0, 0, 90)), 0, "a burst a moment ago");
  assert.equal(growthOf(grows(0, 0, 90, 90, 90, 90, 90)), 0, "a burst some minutes ago");
  assert.equal(growthOf(grows(0, 90, 80, 70, 60, 50, 40)), 0, "a burst that goes out");
  assert.equal(growthOf(grows(0, 0, 0, 30, 33, 36, 39)), 3, "the lesser of both");
  assert.equal(growthOf(grows(90, 80, 70, 60, 50, 40, 30)), -10);
  assert.equal(growthOf([]), null);
});

test("jobs that ended are counted over the last ten minutes", () => {
  const rows = Array.from({ length: 30 }, (_, i) => ({ at: 30 * i, seconds: i === 29 ? 7 : 30, queues: [{ completed: 3, failed: i < 5 ? 50 : 1 }, { completed: 1, failed: 0 }] }));
  assert.deepEqual(endsOf({ rows }, 600), { seconds: 607, completed: 84, failed: 21 });
  assert.deepEqual(endsOf({ rows: rows.slice(-2) }, 600), { seconds: 37, completed: 8, failed: 2 });
  assert.deepEqual(endsOf(null, 600), { seconds: 0, completed: 0, failed: 0 });
});

test("an order is told in words, and what is none as it is", () => {
  const cases = [["POST /queues/a%20b/pause", "pause", "a b"], ["POST /queues/pause/resume", "resume", "pause"], ["POST /workers/drain", "drain.all"], ["POST /workers/x/drain", "drain", "x"],
    ["DELETE /jobs/job_1", "cancel", "job_1"], ["DELETE /jobs/job_1?purge", "purge", "job_1"], ["DELETE /dead/job_1", "drop", "job_1"], ["POST /dead/job_1/requeue", "requeue", "job_1"]];
  for (const [text, what, name] of cases) {
    assert.deepEqual([orderOf(text)[0], orderOf(text)[1].name], [`con.order.${what}`, name ?? orderOf(text)[1].name], text);
  }
  assert.deepEqual(orderOf("POST /workers/chat/scale?n=3"), ["con.order.scale", { name: "chat", n: "3", model: "" }]);
  assert.deepEqual(orderOf("POST /jobs/job_1/replay?model=new&run=a"), ["con.order.replay", { name: "job_1", n: "", model: "new" }]);
  assert.equal(orderOf("POST /queues/%zz/pause")[1].name, "%zz");
  for (const other of ["limits.max_state: 1 GiB", "", "POST /constructor", "POST /queues/a/b/pause", "toString"]) {
    assert.equal(orderOf(other), null, other);
  }
});

test("each order that is told has its words", async () => {
  const english = await entries("en", "console");
  const keys = [...(await textOf("console/orders.js")).matchAll(/": "([a-z.]+)",/g)].map(([, key]) => `con.order.${key}`);
  assert.ok(keys.length > 10);
  assert.deepEqual([...keys, "con.order.purge"].filter((key) => !(key in english)), []);
});

const queue = { name: "chat", state: "open", paused: false, waiting: 298, running: 8, slots: 8, max_length: 500 };
const worker = { name: "chat-0", state: "ready", queue: "chat", running: 8, slots: 8, open_slots: null, why_closed: null, last_error: null };
const seen = (more = {}) => ({
  status: { status: "serving", queues: [{ ...queue, waiting: 0 }], workers: [worker], devices: [], state: { dead_letters: 0, bytes: 1, max_bytes: 100, error: null }, ...more.status },
  figures: new Figures(more.figures ?? ""), before: more.before ? new Figures(more.before, 1) : new Figures(), history: more.history ?? { rows: [] }, requests: more.requests,
});
const levels = (judged) => Object.fromEntries(judged.questions.map(({ key, level }) => [key, level]));

test("all is well where nothing is known to be wrong", () => {
  const judged = judge(seen());
  assert.deepEqual([judged.level, judged.say[0], judged.because], ["good", "con.say.good", []]);
  assert.deepEqual([...new Set(Object.values(levels(judged)))], ["good"]);
});

test("a queue that grows is told of with when it will be full", () => {
  const rows = [row(60, 202), row(240, 250), row(420, 298)];
  const judged = judge(seen({ status: { queues: [queue] }, history: { rows } }));
  assert.deepEqual(judged.say, ["con.say.growing", { queue: "chat", minutes: 202 / 16 }]);
  assert.deepEqual([levels(judged).worse, judged.questions[1].value], ["warn", ["con.q.worse.value", { n: 16 }]]);
  assert.deepEqual(judged.because[0], ["con.because.rates", { in: 38, out: 22, queue: "chat" }]);
  assert.equal(judge(seen({ status: { queues: [{ ...queue, paused: true }] }, history: { rows } })).say[0], "con.say.good");
});

test("a queue that hosts share grows by what waits on all of them, wherever its jobs go out", () => {
  const shared = { ...queue, shared: true };
  const said = (...rows) => judge(seen({ status: { queues: [shared] }, history: { rows } }));
  assert.equal(said(row(60, 298, { in: 38, out: 0 }), row(240, 298, { in: 38, out: 0 }), row(420, 298, { in: 38, out: 0 })).say[0], "con.say.good");
  const judged = said(row(60, 178, { in: 0, out: 0 }), row(240, 238, { in: 0, out: 0 }), row(420, 298, { in: 0, out: 0 }));
  assert.deepEqual(judged.say, ["con.say.growing", { queue: "chat", minutes: 202 / 20 }]);
  assert.deepEqual(judged.because[0], ["con.because.shared", { n: 20, queue: "chat" }]);
  const early = said(row(60, 1), row(90, 298));
  assert.deepEqual([early.say[0], early.questions[1].value[0]], ["con.say.good", "con.unknown"], "half a minute says nothing yet");
});

test("the worst comes first: no worker, then the disk", () => {
  const down = { ...worker, state: "waiting", last_error: "it ended by signal 9" };
  assert.equal(judge(seen({ status: { workers: [down] } })).say[0], "con.say.none");
  assert.deepEqual(judge(seen({ status: { workers: [worker, down] } })).because, [["con.because.worker", { worker: "chat-0", why: "it ended by signal 9" }]]);
  assert.equal(judge(seen({ status: { workers: [{ ...worker, state: "stopped" }] } })).level, "good");  // as ordered
  assert.equal(judge(seen({ status: { state: { dead_letters: 1, bytes: 1, max_bytes: 2, error: "No space" } } })).say[0], "con.say.broken");
  assert.equal(judge(seen({ status: { status: "draining" } })).say[0], "con.say.draining");
});

test("waits, refusals and failures are of the last minutes, and not of all time", () => {
  const waits = (fast, slow) => `penstock_wait_seconds_bucket{queue="chat",priority="0",le="1"} ${fast}\npenstock_wait_seconds_bucket{queue="chat",priority="0",le="300"} ${fast + slow}
penstock_wait_seconds_bucket{queue="chat",priority="0",le="+Inf"} ${fast + slow}\npenstock_wait_seconds_count{queue="chat",priority="0"} ${fast + slow}\n`;
  const judged = judge(seen({ before: waits(1000, 0), figures: waits(1000, 100), history: { rows: [row(0, 0, { completed: 0, failed: 900 }), ...minutes(10, 9, 1)] },
    requests: { seconds: 604, all: 100, rejected: 24, busy: 6 } }));
  assert.deepEqual(levels(judged), { wait: "warn", worse: "good", refused: "bad", fail: "bad", true: "good", well: "good" });
  assert.equal(judged.say[0], "con.say.slow");
  const notes = Object.fromEntries(judged.questions.map(({ key, value, note }) => [key, [value, note]]));
  assert.deepEqual(notes.refused, [["con.percent", { p: 0.3 }], ["con.q.refused.note", { limits: 0.24, busy: 0.06, window: 604 }]]);
  assert.deepEqual(notes.fail, [["con.percent", { p: 0.1 }], ["con.q.fail.note", { n: 0, window: 600 }]]);
  assert.equal(notes.wait[1][0], "con.q.wait.note");
  const ever = judge(seen({ before: waits(1000, 100), figures: waits(1000, 100) }));
  assert.equal(judge(seen({ figures: waits(1000, 100) })).questions[0].note[0], "con.q.wait.note.ever", "the first reading");
  assert.deepEqual(ever.questions.slice(0, 3).map(({ note }) => note[0]), ["con.q.wait.note.ever", "con.q.worse.total", "con.q.refused.none"]);
});

test("a chart's top is a round number", () => {
  assert.deepEqual([0, 0.3, 1, 38, 298, 5000, 5001].map(ceiling), [1, 0.5, 1, 50, 500, 5000, 10_000]);
});

test("a line has gaps where nothing is known, and an area ends at the bottom", () => {
  assert.equal(pathOf([0, 50, null, 100], 100, { width: 300 }), "M0 100L100 50M300 0");
  assert.equal(areaOf([0, 100], 100, { width: 10 }), "M0 100L10 0L10 100L0 100Z");
  assert.equal(areaOf([], 1), "");
  assert.equal(pathOf([7], 5, { width: 10 }), "M0 0L10 0");  // never above the top
});

test("text from anybody is text", () => {
  assert.equal(plain("a\u0000\u202Eb\n<script>"), "a\uFFFD\uFFFDb <script>");
  assert.equal(block("a\r\nb\u0000\u202E\tc"), "a\nb\uFFFD\uFFFD\tc");
  assert.equal(laidOut('{"a":1}', ""), '{\n  "a": 1\n}');
  assert.equal(laidOut("{a", "application/json"), "{a");
  assert.equal(laidOut("[1", ""), "[1");
  assert.equal(block("x".repeat(1 << 20)).length, 1 << 20);
});

test("only a key that a header can carry is asked about", () => {
  assert.equal(headerOf("Bearer sk-1"), "Bearer sk-1");
  for (const bad of ["", " a", "a ", "a\r\nB: c", "a\u0000", "键"]) {
    assert.equal(headerOf(bad), null);
  }
});

test("small ones", () => {
  assert.equal(queryOf({ queue: "", owner_hash: "0f", after: "" }), "limit=50&owner_hash=0f");
  assert.equal(queryOf({ queue: "a&b", status: "", after: "job_1" }), "limit=50&queue=a%26b&after=job_1");
  assert.equal(workerOf("chat#2"), "chat");
  assert.deepEqual(counted(["a", "b", "b"], (each) => each), [["b", 2], ["a", 1]]);
  assert.deepEqual(partsOf([[0.5, 1], [Infinity, 4]]), [{ from: 0, to: 0.5, count: 1, part: 0.25 }, { from: 0.5, to: Infinity, count: 3, part: 0.75 }]);
});
