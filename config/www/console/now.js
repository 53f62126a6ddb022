// Now: is it serving, and if not, why? One sentence, six answers, then the tables.

import { bdi, el, plain, say } from "../ui/el.js";
import { draw, spark } from "./chart.js";
import { choices } from "./choices.js";
import { rowsOf } from "./figures.js";
import { orderOf } from "./orders.js";
import { read, part } from "./server.js";
import { bar, fill } from "./table.js";
import { BOUNDS, judge } from "./verdict.js";

const $ = (selector) => document.querySelector(selector);
const GIB = 2 ** 30;
const MOST_LINES = 8;
const TONES = { good: "", warn: "warn", bad: "bad" };
const MOST_ERROR = 200;

/** A process "chat#1" belongs to the worker "chat". */
export const workerOf = (process) => process.split("#")[0];

/** How many of what: [["out of memory", 2]], the most first. */
export function counted(list, keyOf) {
  const counts = new Map();
  for (const each of list) {
    counts.set(keyOf(each), (counts.get(keyOf(each)) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a);
}

export class Now {
  #console;
  #orders = [];
  #offenders = [];
  #requests = null;
  #dead = [];
  #judged = null;
  /** The queue and the worker in which the focus is, for single keys. */
  get focused() {
    return document.activeElement?.closest?.("#queues tr, #workers tr") ?? null;
  }

  constructor(console) {
    this.#console = console;
    $("#charted").addEventListener("change", () => this.render());
  }

  async read() {
    // Who may see the status alone has none of these.
    const rest = (path) => read(path).catch((error) => (error.status === 403 ? {} : Promise.reject(error)));
    const [{ orders = [] }, { offenders = [], requests = null }, { data = [] }] = await Promise.all(["orders", "offenders", "dead?limit=100"].map(rest));
    [this.#orders, this.#offenders, this.#requests, this.#dead] = [orders, offenders, requests, data];
  }

  render() {
    const { seen } = this.#console;
    this.#judged = judge({ ...seen, requests: this.#requests });
    this.#showVerdict();
    choices($("#charted"), seen.status.queues.map(({ name }) => [name, plain(name, 64)]));
    this.#showCharts();
    this.#showQueues();
    this.#showWorkers();
    this.#showDevices();
    this.#showSide();
  }

  #say(key, values) {
    return this.#console.say(key, values);
  }

  /** Values of a sentence as text: times, parts and names. */
  #told([key, values]) {
    const console = this.#console;
    const text = {};
    for (const [name, value] of Object.entries(values)) {
      text[name] = name === "t" ? (value === null ? this.#say("con.none") : console.words.time(value))
        : name === "window" ? console.words.time(value)
        : name === "minutes" ? console.words.time(value * 60)
        : ["p", "limits", "busy"].includes(name) ? console.words.number(Math.round(value * 1000) / 10)
        : typeof value === "string" ? plain(value, MOST_ERROR) : value;
    }
    return this.#say(key, text);
  }

  #showVerdict() {
    const { level, say: sentence, because, questions } = this.#judged;
    $("#verdict").dataset.level = level;
    const before = $("#h-now").textContent;
    say($("#h-now"), this.#told(sentence));
    if (before !== "" && before !== $("#h-now").textContent) {
      this.#console.announce($("#h-now").textContent);
    }
    say($("#because"), because.map((each) => this.#told(each)).join(this.#say("join")));
    const list = $("#questions");
    if (list.children.length === 0) {
      list.append(...questions.map(() => el("div", {}, el("dt"), el("dd", {}, el("span"), el("small")))));
    }
    questions.forEach((question, i) => {
      const [term, answer] = list.children[i].children;
      say(term, this.#say(`con.q.${question.key}`));
      answer.className = TONES[question.level];
      say(answer.children[0], this.#told(question.value));
      say(answer.children[1], this.#told(question.note));
    });
  }

  #showCharts() {
    const { seen, words } = this.#console;
    const queue = $("#charted").value;
    const rows = rowsOf(seen.history, queue);
    const of = (key) => rows.map((row) => row[key]);
    const times = rows.length < 2 ? [] : [0, 1 / 3, 2 / 3].map((where) => this.#console.at(rows[Math.round(where * (rows.length - 1))].at)).concat(this.#say("scale.now"));
    const last = rows.at(-1) ?? { in: 0, out: 0, waiting: 0, promised: null, waited: null };
    const round = (value) => Math.round(value * 10) / 10;
    draw($("#flow"), {
      title: [this.#say("con.chart.flow"), " ", bdi(queue)],
      label: this.#say("con.chart.flow.label", { in: round(last.in), out: round(last.out), n: last.waiting }),
      series: [[{ name: this.#say("con.in"), kind: "line", tone: "warn", values: of("in") }, { name: this.#say("con.out"), kind: "line", tone: "move", values: of("out") }],
        [{ name: this.#say("con.legend.waiting"), kind: "area", tone: "soft", values: of("waiting") }]],
      scale: (most, panel) => this.#say(panel === 0 ? "con.scale.minute" : "con.scale.waiting", { n: most }),
      times,
    });
    draw($("#wait"), {
      title: [this.#say("con.chart.wait"), " ", bdi(queue)],
      label: this.#say("con.chart.wait.label", { a: this.#console.clock(last.promised), b: this.#console.clock(last.waited) }),
      series: [[{ name: this.#say("con.promised"), kind: "area", tone: "soft", values: of("promised") }, { name: this.#say("con.true"), kind: "line", tone: "ink", values: of("waited") }]],
      scale: (most) => words.time(most),
      times,
    });
  }

  #showQueues() {
    const console = this.#console;
    const { words, seen } = console;
    const high = (seconds) => (seconds > BOUNDS.waitSeconds[0] ? "warn" : "");
    fill($("#queues"), {
      items: this.#judged.queues,
      key: ({ name }) => name,
      columns: [
        { head: this.#say("con.name"), cell: ({ name, paused, state }) => ({ node: bdi(name), text: paused ? this.#say("con.paused") : state === "open" ? "" : this.#say(`con.state.${state.replace(" ", "_")}`), tone: state === "open" && !paused ? "" : "warn" }) },
        { head: this.#say("con.waiting"), number: true, cell: ({ waiting, max_length: most, fare }) => ({ text: `${words.number(waiting)} / ${words.number(most)}`, tone: fare.fullMinutes !== null && fare.fullMinutes < BOUNDS.fullMinutes[0] ? "warn" : "" }) },
        { head: this.#say("con.running"), number: true, wide: true, cell: ({ running, slots }) => `${words.number(running)} / ${words.number(slots)}` },
        { head: this.#say("con.oldest"), number: true, cell: ({ fare }) => ({ text: console.clock(fare.oldest), tone: high(fare.oldest) }) },
        { head: this.#say("con.waits"), wide: true, cell: ({ fare }) => ({ node: el("span", { class: "classes" }, ...fare.classes.map(({ priority, half, most }) =>
          el("span", { class: high(most) || null }, el("span", { class: "mute" }, this.#say("con.class", { n: priority })), ` ${console.clock(half)} / ${console.clock(most)}`))) }) },
        { head: this.#say("con.inout"), number: true, wide: true, cell: ({ fare }) => (fare.rates ? `${words.number(Math.round(fare.rates.in * 10) / 10)} / ${words.number(Math.round(fare.rates.out * 10) / 10)}` : this.#say("con.none")) },
        { head: this.#say("con.hour"), wide: true, cell: ({ name, fare }) => ({ node: spark(rowsOf(seen.history, name).map(({ waiting }) => waiting), this.#say(fare.growth > 1 ? "con.rising" : fare.growth < -1 ? "con.falling" : "con.steady")) }) },
      ],
      actsHead: this.#say("con.orders"),
      acts: ({ paused, waiting, fare }) => (!console.mayOrder ? [] : [paused
        ? { name: "resume", word: this.#say("con.resume"), run: (queue) => this.resume(queue) }
        : { name: "pause", word: this.#say("con.pause"), hot: waiting > 0 && fare.fullMinutes !== null, run: (queue) => this.pause(queue) }]),
    });
  }

  #showWorkers() {
    const console = this.#console;
    const { words, seen: { status, figures, before } } = console;
    const none = this.#say("con.none");
    say($("#workers-count"), this.#say("con.workers.n", { n: status.workers.length }));
    const batch = (name) => figures.one("penstock_batch_size_sum", { worker: name });
    fill($("#workers"), {
      items: status.workers,
      key: ({ name, pid }) => `${name} ${pid}`,
      columns: [
        { head: this.#say("con.worker"), cell: ({ name, device }) => ({ node: el("span", {}, bdi(name), el("span", { class: "mute" }, " ", bdi(device))) }) },
        { head: this.#say("con.state"), cell: (worker) => this.#stateOf(worker) },
        { head: this.#say("con.slots"), wide: true, cell: ({ running, slots }) => ({ node: bar(slots > 0 ? running / slots : 0), text: `${words.number(running)} / ${words.number(slots)}` }) },
        { head: this.#say("con.batch"), number: true, wide: true, cell: ({ steps, step_jobs: jobs, name }) => {
          const size = steps > 0 ? jobs / steps : batch(name);
          return size ? words.number(Math.round(size * 10) / 10) : none;
        } },
        { head: this.#say("con.memory"), number: true, wide: true, cell: ({ memory_bytes: bytes }) => (bytes > 0 ? this.#gib(bytes) : none) },
        { head: this.#say("con.step"), number: true, wide: true, cell: ({ step_ms: ms }) => ({ text: ms > 0 ? this.#say("con.seconds", { n: Math.round(ms / 100) / 10 }) : none, tone: ms > 30_000 ? "warn" : "" }) },
        { head: this.#say("con.tokens"), number: true, wide: true, cell: ({ generation_tokens: tokens }) => (tokens > 0 ? words.number(tokens) : none) },
      ],
      actsHead: this.#say("con.orders"),
      acts: ({ state, last_error: error }) => (!console.mayOrder ? [] : [
        { name: "scale", word: this.#say("con.scale"), run: (worker) => this.scale(worker) },
        ...(state === "stopped" || state === "draining" ? [] : [{ name: "drain", word: this.#say("con.drain"), hot: Boolean(error), run: (worker) => this.drain(worker) }]),
      ]),
    });
  }

  #stateOf({ state, running, open_slots: open, slots, why_closed: why, waits_for: waits, last_error: error }) {
    if (state === "ready" && open === null) {
      return { text: this.#say(running === 0 ? "con.state.idle" : "con.state.busy") };
    }
    const text = this.#say(state === "ready" ? "con.state.slowed" : `con.state.${state}`, { n: open ?? slots });
    const because = plain(why ?? waits ?? (state === "ready" || state === "stopped" ? null : error) ?? "", MOST_ERROR);
    return { text: because ? `${text}: ${because}` : text, tone: state === "draining" || state === "stopped" ? "mute" : "warn" };
  }

  #gib(bytes) {
    return this.#say("con.gib", { n: Math.round((bytes / GIB) * 10) / 10 });
  }

  #showDevices() {
    const { status } = this.#console.seen;
    const { words } = this.#console;
    const none = this.#say("con.none");
    const watch = status.device_watch ?? {};
    say($("#devices-note"), status.devices.length > 0 ? this.#say("con.devices.n", { n: status.devices.length }) : this.#say("con.devices.none", { why: plain(watch.message ?? "", MOST_ERROR) }));
    fill($("#devices"), {
      items: status.devices,
      key: ({ uuid, device }) => uuid || device,
      columns: [
        { head: this.#say("con.device"), cell: ({ device, name }) => ({ node: el("span", {}, bdi(device), el("span", { class: "mute" }, " ", bdi(name))) }) },
        { head: this.#say("con.state"), cell: ({ healthy, health, message }) => ({ text: plain(healthy ? (message ?? this.#say("con.well")) : `${health} ${message ?? ""}`, MOST_ERROR), tone: healthy ? "" : "bad" }) },
        { head: this.#say("con.busy"), wide: true, cell: ({ utilization_percent: percent }) => (percent === null ? none : { node: bar(percent / 100), text: this.#console.percent(percent / 100) }) },
        { head: this.#say("con.memory"), wide: true, cell: ({ memory_used_bytes: used, memory_total_bytes: total }) => (used === null ? none : { node: bar(used / total), text: `${this.#gib(used)} / ${this.#gib(total)}` }) },
        { head: this.#say("con.heat"), number: true, cell: ({ temperature_celsius: heat }) => (heat === null ? none : { text: `${words.number(heat)} °C`, tone: heat > BOUNDS.heat ? "warn" : "" }) },
        { head: this.#say("con.power"), number: true, wide: true, cell: ({ power_mw: power }) => (power === null ? none : `${words.number(Math.round(power / 1000))} W`) },
      ],
    });
  }

  #showSide() {
    const lines = (list, items, none) => list.replaceChildren(...(items.length > 0 ? items : [el("li", { class: "mute" }, this.#say(none))]));
    lines($("#who"), this.#offenders.slice(0, 5).map(({ key, limit, refused }) =>
      el("li", {}, el("code", {}, plain(key, 8)), " ", bdi(limit), el("span", { class: "mute" }, this.#say("con.who.n", { n: refused })))), "con.offenders.none");
    lines($("#errors"), counted(this.#dead, ({ error }) => plain(error?.message ?? error?.code ?? "", 120)).slice(0, 5).map(([error, n]) =>
      el("li", {}, el("b", {}, this.#console.words.number(n)), " ", bdi(error))), "con.dead.none");
    lines($("#changes"), this.#orders.slice(0, MOST_LINES).map(({ at, who, order }) =>
      el("li", {}, el("span", { class: "mute" }, this.#console.at(at)), " ", el("bdi", { dir: "auto", title: plain(order, MOST_ERROR) }, this.#order(order)), el("span", { class: "mute" }, " ", bdi(who)))), "con.changes.none");
  }

  #order(text) {
    const [key, values] = orderOf(text) ?? ["", {}];
    const told = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, plain(value, 64)]));
    return key ? this.#say(key, told) : plain(text, MOST_ERROR);
  }

  // ---- orders ----

  pause({ name, waiting, running }) {
    this.#ask("pause", name, { n: waiting, m: running }, () => this.#console.order("POST", `queues/${part(name)}/pause`));
  }

  resume({ name, waiting, running }) {
    this.#ask("resume", name, { n: waiting, m: running }, () => this.#console.order("POST", `queues/${part(name)}/resume`));
  }

  drain({ name: process, queue }) {
    const name = workerOf(process);
    const { workers } = this.#console.seen.status;
    const own = workers.filter((each) => workerOf(each.name) === name);
    const others = workers.filter((each) => each.queue === queue && workerOf(each.name) !== name && each.state === "ready");
    this.#ask("drain", name, { n: own.reduce((sum, { running }) => sum + running, 0), m: others.length, queue: plain(queue, 64) },
      () => this.#console.order("POST", `workers/${part(name)}/drain`));
  }

  scale({ name: process }) {
    const name = workerOf(process);
    const own = this.#console.seen.status.workers.filter((each) => workerOf(each.name) === name);
    const now = own.filter(({ state }) => state !== "stopped").length;
    this.#ask("scale", name, { n: now }, (n) => this.#console.order("POST", `workers/${part(name)}/scale?n=${n}`), now);
  }

  #ask(what, name, values, give, number = null) {
    const say = (which) => this.#say(`con.ask.${what}.${which}`, values);
    this.#console.question.ask({ title: say("title"), about: name, text: say("text"), undo: say("undo"), keep: say("keep"), go: say("go"), done: say("done"), give, number });
  }
}
