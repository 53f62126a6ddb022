// Predictions beside what came true: for each queue what was promised and what it was, minute by minute, how far they were off, and the
// last jobs one by one.

import { bdi, el, plain, say } from "../ui/el.js";
import { draw, within } from "./chart.js";
import { recent, rowsOf } from "./figures.js";
import { read } from "./server.js";
import { bar, fill } from "./table.js";

const $ = (selector) => document.querySelector(selector);
const NAME = "penstock_wait_prediction_error_ratio";

/** The parts of a histogram: [{from, to, count, part}]. */
export function partsOf(buckets) {
  const total = buckets.at(-1)?.[1] ?? 0;
  let [from, before] = [0, 0];
  return buckets.map(([to, until]) => {
    const each = { from, to, count: until - before, part: total > 0 ? (until - before) / total : 0 };
    [from, before] = [to, until];
    return each;
  });
}

/** A time of milliseconds, in seconds: so short that it needs a digit more. */
const secondsOf = (console, ms) => console.say("con.seconds", { n: console.words.number(ms < 10_000 ? Math.round(ms / 100) / 10 : Math.round(ms / 1000)) });

export class Predictions {
  #console;
  #figures = new Map();
  #last = [];         // the last jobs
  #mayRead = true;

  constructor(console) {
    this.#console = console;
  }

  /** Single jobs are for operators; what viewers see is shown without them. */
  async read() {
    try {
      this.#last = (await read("predictions")).predictions;
      this.#mayRead = true;
    } catch (error) {
      if (error.status !== 403) {
        throw error;
      }
      [this.#last, this.#mayRead] = [[], false];
    }
  }

  render() {
    const console = this.#console;
    const { status, history, figures, before } = console.seen;
    const word = (key, values) => console.say(key, values);
    const place = $("#promised");
    for (const { name } of status.queues) {
      if (!this.#figures.has(name)) {
        this.#figures.set(name, el("figure"));
      }
    }
    const wanted = status.queues.map(({ name }) => this.#figures.get(name));
    if (wanted.some((figure, i) => place.children[i] !== figure) || place.children.length !== wanted.length) {
      place.replaceChildren(...wanted);
    }
    for (const { name } of status.queues) {
      const rows = rowsOf(history, name);
      const last = rows.at(-1) ?? { promised: null, waited: null };
      draw(this.#figures.get(name), {
        title: [word("con.chart.wait"), " ", bdi(name)],
        label: word("con.chart.wait.label", { a: console.clock(last.promised), b: console.clock(last.waited) }),
        series: [[{ name: word("con.promised"), kind: "area", tone: "soft", values: rows.map(({ promised }) => promised) },
          { name: word("con.true"), kind: "line", tone: "ink", values: rows.map(({ waited }) => waited) }]],
        scale: (most) => console.words.time(most),
        times: rows.length < 2 ? [] : [console.at(rows[0].at), word("scale.now")],
      });
    }
    const parts = partsOf(recent(figures.buckets(NAME), before.buckets(NAME)));
    fill($("#errors-table"), {
      items: parts.some(({ count }) => count > 0) ? parts : [],
      key: ({ to }) => String(to),
      columns: [
        { head: word("con.off"), cell: ({ from, to }) => (to === Infinity ? word("con.off.more", { a: console.words.number(from * 100) }) : word("con.off.range", { a: console.words.number(from * 100), b: console.words.number(to * 100) })) },
        { head: word("con.share"), cell: ({ part }) => ({ node: bar(part), text: console.percent(part) }) },
        { head: word("con.jobs"), number: true, cell: ({ count }) => console.words.number(count) },
      ],
    });
    this.#renderLast();
  }

  #renderLast() {
    const console = this.#console;
    const word = (key, values) => console.say(key, values);
    const inside = this.#last.filter((each) => each.inside).length;
    say($("#last-share"), this.#last.length > 0 ? word("con.last.share", { p: console.percent(inside / this.#last.length), n: this.#last.length }) : "");
    say($("#last-none"), this.#last.length > 0 ? "" : word(this.#mayRead ? "con.last.none" : "con.last.operators"));
    fill($("#last-table"), {
      items: this.#last,
      key: ({ id }) => id,
      columns: [
        { head: word("con.id"), wide: true, cell: ({ id }) => ({ node: el("code", {}, plain(id, 40)) }) },
        { head: word("con.queue"), cell: ({ queue, model }) => ({ node: el("span", {}, bdi(queue), ...(model ? [el("span", { class: "mute" }, " ", bdi(plain(model, 64)))] : [])) }) },
        { head: word("con.told"), number: true, wide: true, cell: ({ at }) => console.at(at) },
        { head: word("con.promised"), number: true, cell: ({ said_ms: said }) => secondsOf(console, said) },
        { head: word("con.range"), number: true, wide: true, cell: ({ soon_ms: soon, late_ms: late }) => word("con.range.of", { a: secondsOf(console, soon), b: secondsOf(console, late) }) },
        { head: word("con.true"), number: true, cell: ({ waited_ms: waited }) => secondsOf(console, waited) },
        { head: word("con.inside"), cell: (job) => this.#insideOf(job) },
      ],
    });
  }

  #insideOf({ soon_ms: soon, late_ms: late, said_ms: said, waited_ms: came, inside }) {
    const answer = this.#console.say(inside ? "con.inside.yes" : came < soon ? "con.inside.sooner" : "con.inside.later");
    return { node: within({ soon, late, said, came }, answer), text: answer, tone: inside ? "" : "warn" };
  }
}
