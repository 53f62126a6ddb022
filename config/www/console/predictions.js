// Predictions beside what came true: for each queue what was promised and what it was, minute by minute, and how far they were off.

import { bdi, el } from "../ui/el.js";
import { draw } from "./chart.js";
import { recent, rowsOf } from "./figures.js";
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

export class Predictions {
  #console;
  #figures = new Map();

  constructor(console) {
    this.#console = console;
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
  }
}
