// Charts: lines and areas over time, as inline SVG. The words are HTML beside it, so that they are not stretched.

import { el } from "../ui/el.js";

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 560;

const svg = (tag, attributes, ...children) => {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

/** A round number that is no smaller: 1, 2 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) {
    return 1;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * 0.999999);
}

/** The path of some values over the width, from `top` down to `bottom`. What is null is left out: the line has a gap. */
export function pathOf(values, most, { width = WIDTH, top = 0, bottom = 100 } = {}) {
  if (values.length === 1) {
    return pathOf([values[0], values[0]], most, { width, top, bottom });
  }
  const x = (i) => (i * width) / (values.length - 1);
  let path = "";
  let drawn = false;
  values.forEach((value, i) => {
    if (value === null) {
      drawn = false;
      return;
    }
    const y = bottom - (Math.min(Math.max(value, 0), most) / most) * (bottom - top);
    path += `${drawn ? "L" : "M"}${Math.round(x(i) * 10) / 10} ${Math.round(y * 10) / 10}`;
    drawn = true;
  });
  return path;
}

/** The same as an area down to the bottom, of values without a gap; what is null counts as 0. */
export function areaOf(values, most, { width = WIDTH, top = 0, bottom = 100 } = {}) {
  return values.length === 0 ? "" : `${pathOf(values.map((value) => value ?? 0), most, { width, top, bottom })}L${width} ${bottom}L0 ${bottom}Z`;
}

/**
 * @param {HTMLElement} figure
 * @param {{title: Node[], label: string, series: {name: string, kind: "line"|"area", tone: string, values: ?number[]}[][],
 *          scale: (most: number, panel: number) => string, times: string[]}} what  `series` by panels, one below the other
 */
export function draw(figure, { title, label, series, scale, times }) {
  const height = series.length * 100;
  const marks = [];
  const shapes = series.flatMap((panel, i) => {
    const [top, bottom] = [i * 100 + 12, i * 100 + 94];
    const most = ceiling(panel.reduce((most, { values }) => values.reduce((most, value) => Math.max(most, value ?? 0), most), 0));
    marks.push(el("span", { class: "mark", style: { top: `${((top - 12) / height) * 100}%` } }, scale(most, i)));
    return [svg("path", { d: `M0 ${top}H${WIDTH}M0 ${bottom}H${WIDTH}`, class: "grid" }),
      ...panel.map(({ kind, tone, values }) => svg("path", { d: (kind === "area" ? areaOf : pathOf)(values, most, { top, bottom }), class: `${kind} ${tone}` }))];
  });
  const keys = series.flat().map(({ name, kind, tone }) => el("span", {}, el("i", { class: `${kind} ${tone}` }), name));
  figure.replaceChildren(
    el("figcaption", {}, el("b", {}, ...title), el("span", { class: "legend mute" }, ...keys)),
    el("div", { class: "plot", style: { "aspect-ratio": `${WIDTH} / 220` } },
      svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...shapes), ...marks),
    el("div", { class: "times mute", "aria-hidden": "true" }, ...times.map((time) => el("span", {}, time))));
}

/** Where a time came to lie, beside the range that was foretold and what was said: {soon, late, said, came}. */
export function within({ soon, late, said, came }, label) {
  const most = ceiling(Math.max(late, said, came));
  const x = (value) => Math.round((2 + (Math.max(value, 0) / most) * 116) * 10) / 10;
  const path = (name, d) => svg("path", { class: name, d });
  return svg("svg", { class: "within", viewBox: "0 0 120 14", preserveAspectRatio: "none", role: "img", "aria-label": label },
    path("grid", "M2 7H118"), path("range", `M${x(soon)} 7H${x(late)}`), path("said", `M${x(said)} 3V11`), path("came", `M${x(came)} 0V14`));
}

/** A line so small that it only shows a way. */
export function spark(values, label) {
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  return svg("svg", { class: "spark", viewBox: "0 0 88 20", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { d: pathOf(values, most, { width: 88, top: 1, bottom: 19 }), class: "line move" }));
}
