// Limits: what the caller may do, what is used, when it comes back. Also why something was refused.

import { el, plain, say, set } from "./el.js";

const NEARLY = 0.8;
const PERIODS = [1, 60, 3600, 86400, 604800, 2592000];
const CALENDAR = { d: "day", w: "week", M: "month" };

/** The calendar period of a quota, by its name's end: "free-quota-d" is "d"; "" of none. */
export const calendarOf = (name) => /-quota(?:-[a-z_]+)?-([smhdwM])$/.exec(name)?.[1] ?? "";

/** "Requests today", "Tokens a minute". */
export function titleOf(limit, words) {
  const unit = words.say(`unit.${limit.unit}`);
  if (limit.period_seconds === undefined) {
    const calendar = calendarOf(limit.name);
    return calendar ? words.say(`quota.${calendar}`, { unit }) : words.say("quota.other", { unit, name: plain(limit.name, 80) });
  }
  const key = PERIODS.includes(limit.period_seconds) ? `per.${limit.period_seconds}` : "per.other";
  return words.say(key, { unit, t: words.time(limit.period_seconds) });
}

/** "10 requests a minute". */
export function rateOf(limit, words) {
  const n = limit.amount;
  const unit = words.say(`rate.unit.${limit.unit}`, { n });
  const key = `rate.${limit.period_seconds}`;
  return words.say(words.has(key) ? key : "rate.other", { n, unit, t: words.time(limit.period_seconds) });
}

/**
 * Why something was refused, and what must pass.
 * @param {import("./penstock.js").PenstockError} error
 * @param {?Object} quota
 * @returns {{why: string, whenKey: string}} and how to say when, "" if that is not known
 */
export function reasonOf(error, quota, words) {
  const limit = quota?.limits.find(({ name }) => error.policies.includes(name));
  if (error.code === "busy" || (error.status === 503 && error.retryAfter !== null)) {
    return { why: words.say("refused.busy"), whenKey: "refused.busy.when" };
  }
  if (error.code === "concurrency_exceeded") {
    const n = quota?.concurrency?.limit;
    return { why: n ? words.say("refused.concurrency", { n }) : plain(error.message), whenKey: "refused.concurrency.when" };
  }
  if (error.code === "quota_exceeded" && limit) {
    const calendar = CALENDAR[calendarOf(limit.name)];
    return { why: words.say(calendar ? `refused.quota.${calendar}` : "refused.quota", { n: limit.limit }), whenKey: "refused.quota.when" };
  }
  if (error.code === "rate_limit_exceeded" && limit?.amount) {
    return { why: words.say("refused.rate", { rate: rateOf(limit, words) }), whenKey: "refused.rate.when" };
  }
  if (error.status === 400) {
    return { why: `${words.say("refused.model")} ${plain(error.message)}`, whenKey: "" };
  }
  return { why: plain(error.message), whenKey: error.retryAfter === null ? "" : "refused.when" };
}

export class Limits {
  #page;
  #told = 0;      // when the numbers were read
  #failed = false;
  #shape = "";
  #rows = new Map();  // what writes each row, by its limit's name
  #list = document.querySelector("#limits-list");

  constructor(page) {
    this.#page = page;
  }

  /** Reads them anew; the numbers that are there stay where that fails. */
  async read() {
    try {
      await this.#page.store.readQuota();
    } catch {
      this.#failed = true;
      this.render();
    }
  }

  told() {
    this.#told = performance.now();
    this.#failed = false;
    this.render();
  }

  render() {
    const { words, store: { quota } } = this.#page;
    const plan = document.querySelector("#plan");
    plan.textContent = quota?.tier ? words.say("limits.plan", { name: plain(quota.tier, 60) }) : "";
    const rows = quota ? rowsOf(quota, (performance.now() - this.#told) / 1000, words) : [];
    // The nodes stay as long as the limits are the same ones: the focus may be among them.
    const shape = JSON.stringify([rows.map(({ name, first }) => [name, first]), quota?.documentation, this.#failed, words.language]);
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#build(rows, quota);
    }
    for (const row of rows) {
      this.#rows.get(row.name)(row);
    }
  }

  #build(rows, quota) {
    const { words } = this.#page;
    this.#rows.clear();
    const nodes = rows.map((row) => {
      const { node, update } = rowNode();
      this.#rows.set(row.name, update);
      return node;
    });
    const parts = nodes.filter((_, i) => rows[i].first);
    const rest = nodes.filter((_, i) => !rows[i].first);
    if (this.#failed) {
      parts.unshift(el("p", { class: "warn" }, words.say("limits.failed")));
    } else if (quota && rows.length === 0) {
      parts.push(el("p", { class: "mute" }, words.say("limits.none")));
    }
    if (rest.length > 0) {
      parts.push(el("details", {}, el("summary", {}, words.say("limits.more")), ...rest));
    }
    const plans = linkTo(quota?.documentation, words.say("limits.plans"));
    this.#list.replaceChildren(...parts, ...(plans ? [el("p", {}, plans)] : []));
  }
}

/** A link to where the operator explains the plans; null where there is no such place. */
export function linkTo(url, text) {
  return /^(https?:\/\/|\/(?![/\\]))/.test(url ?? "") ? el("a", { href: url, rel: "noopener" }, text) : null;
}

function rowNode() {
  const title = el("span");
  const value = el("b");
  const meter = el("meter", { min: 0, optimum: 0 });
  const note = el("small");
  const node = el("div", { class: "limit" }, el("p", {}, title, " ", value), meter, note);
  const update = (row) => {
    say(title, row.title);
    say(value, row.value);
    say(note, row.note);
    set(meter, { max: row.of, high: row.of * NEARLY, value: row.used, "aria-label": row.title });
    set(node, { "data-state": row.state, "data-name": row.name });
  };
  return { node, update };
}

function rowsOf({ tier, limits, concurrency }, gone, words) {
  const rows = limits.map((limit) => {
    const back = Math.max(0, limit.reset_seconds - gone);
    const part = limit.limit > 0 ? limit.used / limit.limit : 0;
    const state = limit.remaining <= 0 ? "spent" : part >= NEARLY ? "nearly" : "plenty";
    const quota = limit.period_seconds === undefined;
    const n = Math.floor(limit.remaining);
    const values = { n, t: words.time(back) };
    return {
      name: limit.name,
      title: quota ? titleOf(limit, words) : capital(rateOf(limit, words)),
      value: quota ? words.say("limits.of", { n: Math.ceil(limit.used), m: limit.limit }) : words.say("limits.left.now", { n }),
      note: state === "spent" && quota ? words.say("limits.used.up", values)
        : state === "nearly" && quota ? words.say("limits.nearly", values)
          : back <= 0 ? words.say("limits.full")
            : words.say(quota ? "limits.left" : "limits.full.in", values),
      used: limit.used,
      of: limit.limit,
      state,
      first: !tier || limit.name.startsWith(`${tier}-`) || (state !== "plenty" && quota),
    };
  });
  if (concurrency) {
    const free = concurrency.limit - concurrency.in_use;
    rows.push({
      name: "concurrency",
      title: words.say("limits.at.once"),
      value: words.say("limits.of", { n: concurrency.in_use, m: concurrency.limit }),
      note: free > 0 ? words.say("limits.more.now", { n: free }) : words.say("limits.wait"),
      used: concurrency.in_use,
      of: concurrency.limit,
      state: free > 0 ? "plenty" : "spent",
      first: true,
    });
  }
  // Those that last come first: what is used up today is not back in a minute.
  return rows.sort((a, b) => Number(b.first) - Number(a.first));
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
