// Figures out of the metrics page, and what they come to. Pure: nothing here knows the page.

/** @typedef {{name: string, labels: Object<string, string>, value: number}} Sample */

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g;

const HALF_S = 150;  // of the five minutes over which a queue is judged

const numberOf = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));
const unescaped = (text) => text.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));

/** A page of Prometheus' text format, by the names of its series: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export class Figures {
  #samples = new Map();

  /** @param {string} text @param {number} at  when it was read, in s of any steady clock */
  constructor(text = "", at = 0) {
    this.at = at;
    for (const line of text.split("\n")) {
      const found = line.startsWith("#") ? null : LINE.exec(line);
      if (!found || Number.isNaN(numberOf(found[3]))) {
        continue;
      }
      const labels = {};
      for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) {
        labels[name] = unescaped(value);
      }
      const list = this.#samples.get(found[1]) ?? [];
      list.push({ name: found[1], labels, value: numberOf(found[3]) });
      this.#samples.set(found[1], list);
    }
  }

  /** @returns {Sample[]} those of the name whose labels are as said */
  all(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.#samples.get(name) ?? []).filter((each) => wanted.every(([key, value]) => each.labels[key] === value));
  }

  /** Their sum, 0 without any. */
  sum(name, labels) {
    return this.all(name, labels).reduce((sum, { value }) => sum + value, 0);
  }

  /** The first one's value; null: there is none. */
  one(name, labels) {
    return this.all(name, labels)[0]?.value ?? null;
  }

  /** A histogram's buckets, summed over whatever labels are left: [[upper bound, how many are at most that]]. */
  buckets(name, labels) {
    const sums = new Map();
    for (const { labels: { le }, value } of this.all(`${name}_bucket`, labels)) {
      sums.set(numberOf(le), (sums.get(numberOf(le)) ?? 0) + value);
    }
    return [...sums].sort(([a], [b]) => a - b);
  }
}

/** How much a counter has grown; one that fell began anew. */
export const grown = (now, then) => (now >= then ? now - then : now);

/** What came between two readings of a histogram: all of it, if it began anew or nothing came. */
export function recent(now, then) {
  const before = new Map(then);
  const came = now.map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  return came.length > 0 && came.every(([, count]) => count >= 0) && came.at(-1)[1] > 0 ? came : now;
}

/** The value that a part q of those in the buckets does not pass, between bounds in a straight line; null: it is empty. */
export function quantile(buckets, q) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total === 0) {
    return null;
  }
  let [below, count] = [0, 0];
  for (const [bound, until] of buckets) {
    if (until >= q * total) {
      return bound === Infinity ? below : below + (bound - below) * ((q * total - count) / (until - count || 1));
    }
    [below, count] = [bound, until];
  }
  return below;
}

/** The part of those in the buckets that is at most `bound`, which is one of the bounds; null: it is empty. */
export function share(buckets, bound) {
  const total = buckets.at(-1)?.[1] ?? 0;
  const found = buckets.find(([each]) => each === bound);
  return total === 0 || !found ? null : found[1] / total;
}

/** What the last rows of the history count of all queues, `seconds` of them and the row that has begun: {seconds, completed, failed}. */
export function endsOf(history, seconds) {
  const ends = { seconds: 0, completed: 0, failed: 0 };
  for (const row of [...(history?.rows ?? [])].reverse()) {
    if (ends.seconds >= seconds) {
      break;
    }
    ends.seconds += row.seconds;
    for (const { completed, failed } of row.queues) {
      ends.completed += completed;
      ends.failed += failed;
    }
  }
  return ends;
}

/** A queue's rows of the history: {at, seconds, waiting, in, out, promised, waited}, the rates by minute, the times in s. */
export function rowsOf(history, queue) {
  return (history?.rows ?? []).flatMap(({ at, seconds, queues }) => {
    const row = queues.find(({ name }) => name === queue);
    if (!row || seconds < 1) {
      return [];
    }
    const inSeconds = (ms) => (ms === null ? null : ms / 1000);
    return [{ at, seconds, waiting: row.waiting, in: (row.in * 60) / seconds, out: (row.out * 60) / seconds,
      promised: inSeconds(row.promised_ms), waited: inSeconds(row.waited_ms) }];
  });
}

/**
 * By how many jobs a minute more wait: in the last 2.5 minutes and in those before, whichever is less, so that a burst, which lies in one of them,
 * is no growth. null: so much is not known yet.
 */
export function growthOf(rows) {
  const now = rows.length - 1;
  const middle = rowBefore(rows, now);
  const start = rowBefore(rows, middle);
  if (start < 0) {
    return null;
  }
  const rate = (from, to) => (rows[to].waiting - rows[from].waiting) / ((rows[to].at - rows[from].at) / 60);
  const [older, newer] = [rate(start, middle), rate(middle, now)];
  return older > 0 === newer > 0 ? (Math.abs(older) < Math.abs(newer) ? older : newer) : 0;
}

// The last row that is at least 2.5 minutes older than that one; -1: none is.
const rowBefore = (rows, index) => rows.findLastIndex(({ at }) => index >= 0 && rows[index].at - at >= HALF_S);

/** Jobs a minute over the last five minutes of rows: {in, out}; null: nothing is known yet. */
export function ratesOf(rows) {
  const last = rows.filter(({ at }) => at > rows.at(-1).at - 2 * HALF_S);
  const seconds = last.reduce((sum, row) => sum + row.seconds, 0);
  const mean = (key) => last.reduce((sum, row) => sum + row[key] * row.seconds, 0) / seconds;
  return seconds === 0 ? null : { in: mean("in"), out: mean("out") };
}
