// What an operator wants to know first: one sentence, and six answers. Pure: from what was read to keys of words.*.json.

import { endsOf, grown, growthOf, quantile, ratesOf, recent, rowsOf, share } from "./figures.js";

/** Above these an answer is amber, or red. */
export const BOUNDS = { waitSeconds: [60, 300], fullMinutes: [15, 5], refused: [0.05, 0.2], failed: [0.01, 0.05], heat: 80, disk: [0.8, 0.95] };
const WITHIN = 0.25;  // a prediction that is off by no more of the wait is called true
const GROWING = 1;    // jobs a minute, from which a queue is said to grow
const LATELY_S = 600;

const LEVELS = ["good", "warn", "bad"];
const worse = (a, b) => (LEVELS.indexOf(a) >= LEVELS.indexOf(b) ? a : b);
const levelOf = (value, [amber, red]) => (value > red ? "bad" : value > amber ? "warn" : "good");

/** A queue as it fares: what the tables show of it, too. */
export function fareOf(queue, { figures, before, history }) {
  const waits = (labels) => recent(figures.buckets("penstock_wait_seconds", labels), before.buckets("penstock_wait_seconds", labels));
  const priorities = [...new Set(figures.all("penstock_wait_seconds_count", { queue: queue.name }).map(({ labels }) => labels.priority))]
    .sort((a, b) => b - a);
  const rows = rowsOf(history, queue.name);
  const rates = ratesOf(rows);
  const growth = growthOf(rows);
  const waiting = queue.waiting > 0;
  return {
    classes: priorities.map((priority) => {
      const buckets = waits({ queue: queue.name, priority });
      return { priority, half: quantile(buckets, 0.5), most: quantile(buckets, 0.95) };
    }),
    most: quantile(waits({ queue: queue.name }), 0.95),
    oldest: figures.one("penstock_queue_oldest_wait_seconds", { queue: queue.name }),
    rates,
    growth,
    fullMinutes: waiting && growth !== null && growth >= GROWING ? (queue.max_length - queue.waiting) / growth : null,
  };
}

/** What was refused at the edge, of what came: {seconds, all, limits, busy}; parts of 1, over the seconds. */
export function refusals(requests) {
  const { seconds = 0, all = 0, rejected = 0, busy = 0 } = requests ?? {};
  const part = (count) => (all > 0 ? count / all : 0);
  return { seconds, all: part(rejected + busy), limits: part(rejected), busy: part(busy) };
}

// Of the jobs that ended, the part that failed: {seconds, part}.
function failures(history) {
  const { seconds, failed, completed } = endsOf(history, LATELY_S);
  return { seconds, part: failed + completed > 0 ? failed / (failed + completed) : 0 };
}

// How far back the waits reach that were read of a queue; null: to when penstockd began, as none came since.
function waitsSince({ figures, before }, queue) {
  const count = (page) => page.sum("penstock_wait_seconds_count", { queue });
  return before.at > 0 && grown(count(figures), count(before)) > 0 ? (figures.at - before.at) / 1000 : null;
}

function truth({ figures, before }) {
  const inside = figures.one("penstock_prediction_inside_ratio");
  if (inside !== null && !Number.isNaN(inside)) {
    return { key: "inside", value: inside, level: Math.abs(inside - 0.8) > 0.05 ? "warn" : "good" };
  }
  const name = "penstock_wait_prediction_error_ratio";
  const value = share(recent(figures.buckets(name), before.buckets(name)), WITHIN);
  return value === null ? null : { key: "near", value, level: value < 0.5 ? "warn" : "good" };
}

/** The workers that serve, and those that are wanted: what was stopped by an order is not. */
export function machinery({ workers, devices }) {
  const wanted = workers.filter(({ state }) => state !== "stopped" && state !== "draining");
  return {
    ready: wanted.filter(({ state, open_slots }) => state === "ready" && open_slots !== 0).length,
    wanted: wanted.length,
    ill: wanted.filter(({ state, last_error, why_closed }) => (state !== "ready" && last_error) || why_closed),
    hot: devices.filter(({ healthy, temperature_celsius }) => !healthy || temperature_celsius > BOUNDS.heat),
  };
}

/**
 * @param {{status: Object, figures: Figures, before: Figures, history: Object, requests: ?Object}} seen  `before`: the figures some minutes ago,
 *     or when the page was opened; `requests`: what came to Nginx of late
 * @returns {{level: string, say: [string, Object], because: [string, Object][], questions: Object[]}}
 */
export function judge(seen) {
  const { status, figures } = seen;
  const queues = status.queues.map((queue) => ({ ...queue, fare: fareOf(queue, seen) }));
  const open = queues.filter(({ paused }) => !paused);
  const worst = open.reduce((worst, each) => ((each.fare.most ?? 0) > (worst?.fare.most ?? -1) ? each : worst), null);
  const oldest = open.reduce((oldest, { fare }) => Math.max(oldest, fare.oldest ?? 0), 0);
  const growing = open.filter(({ fare }) => fare.fullMinutes !== null).sort((a, b) => a.fare.fullMinutes - b.fare.fullMinutes)[0];
  const machines = machinery(status);
  const refused = refusals(seen.requests);
  const failed = failures(seen.history);
  const since = worst ? waitsSince(seen, worst.name) : null;
  const dead = status.state?.dead_letters ?? 0;
  const disk = status.state && status.state.max_bytes > 0 ? status.state.bytes / status.state.max_bytes : null;
  const broken = Boolean(status.state?.error);
  const told = truth(seen);
  const most = worst?.fare.most ?? null;

  const questions = [
    { key: "wait", level: levelOf(Math.max(most ?? 0, oldest), BOUNDS.waitSeconds), value: most === null ? ["con.q.wait.none", {}] : ["con.q.wait.value", { t: most }],
      note: [since === null ? "con.q.wait.note.ever" : "con.q.wait.note", { t: oldest, window: since }] },
    { key: "worse", level: !growing ? "good" : growing.fare.fullMinutes < BOUNDS.fullMinutes[1] ? "bad" : growing.fare.fullMinutes < BOUNDS.fullMinutes[0] ? "warn" : "good",
      value: growing ? ["con.q.worse.value", { n: Math.round(growing.fare.growth) }] : [queues.some(({ fare }) => fare.growth === null) ? "con.unknown" : "con.q.worse.steady", {}],
      note: growing ? ["con.q.worse.note", { queue: growing.name, n: growing.waiting, most: growing.max_length }] : ["con.q.worse.total", { n: queues.reduce((sum, { waiting }) => sum + waiting, 0) }] },
    { key: "refused", level: levelOf(refused.all, BOUNDS.refused), value: ["con.percent", { p: refused.all }],
      note: refused.seconds === 0 ? ["con.q.refused.none", {}] : ["con.q.refused.note", { limits: refused.limits, busy: refused.busy, window: refused.seconds }] },
    { key: "fail", level: levelOf(failed.part, BOUNDS.failed), value: ["con.percent", { p: failed.part }],
      note: ["con.q.fail.note", { n: dead, window: failed.seconds }] },
    { key: "true", level: told?.level ?? "good", value: told ? ["con.percent", { p: told.value }] : ["con.unknown", {}],
      note: [told ? `con.q.true.${told.key}` : "con.q.true.none", {}] },
    { key: "well", level: broken || (machines.wanted > 0 && machines.ready === 0) ? "bad"
      : machines.ready < machines.wanted || machines.hot.length > 0 || (disk ?? 0) > BOUNDS.disk[0] ? "warn" : "good",
      value: ["con.q.well.value", { n: machines.ready, m: machines.wanted }],
      note: broken ? ["con.q.well.broken", {}] : disk === null ? ["con.q.well.memory", {}] : ["con.q.well.disk", { p: disk }] },
  ];

  const because = [];
  for (const worker of machines.ill.slice(0, 2)) {
    because.push(["con.because.worker", { worker: worker.name, why: worker.last_error ?? worker.why_closed ?? worker.state }]);
  }
  for (const device of machines.hot.slice(0, 2)) {
    because.push([device.healthy ? "con.because.hot" : "con.because.device", { device: device.device, n: device.temperature_celsius, why: device.message ?? "" }]);
  }
  for (const queue of queues.filter(({ paused, waiting }) => paused && waiting > 0).slice(0, 2)) {
    because.push(["con.because.paused", { queue: queue.name, n: queue.waiting }]);
  }
  if (growing?.shared) {
    because.unshift(["con.because.shared", { n: Math.round(growing.fare.growth), queue: growing.name }]);
  } else if (growing?.fare.rates) {
    because.unshift(["con.because.rates", { in: Math.round(growing.fare.rates.in), out: Math.round(growing.fare.rates.out), queue: growing.name }]);
  }
  const level = questions.reduce((level, question) => worse(level, question.level), "good");
  return { level, say: sentence({ status, machines, growing, worst, questions, level, broken }), because, questions, queues };
}

function sentence({ status, machines, growing, worst, questions, level, broken }) {
  const levels = Object.fromEntries(questions.map((question) => [question.key, question.level]));
  if (status.status === "draining") {
    return ["con.say.draining", {}];
  }
  if (broken) {
    return ["con.say.broken", {}];
  }
  if (levels.well === "bad") {
    return ["con.say.none", {}];
  }
  if (growing && levels.worse !== "good") {
    return ["con.say.growing", { queue: growing.name, minutes: growing.fare.fullMinutes }];
  }
  if (levels.wait !== "good" && worst) {
    return ["con.say.slow", { queue: worst.name }];
  }
  if (levels.fail !== "good") {
    return ["con.say.failing", {}];
  }
  if (levels.refused !== "good") {
    return ["con.say.refusing", {}];
  }
  if (levels.well !== "good") {
    return ["con.say.machinery", { n: Math.max(1, machines.wanted - machines.ready + machines.hot.length) }];
  }
  return [level === "good" ? "con.say.good" : "con.say.untrue", {}];
}
