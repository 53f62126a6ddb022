// Tables that are told anew every two seconds: a row stays the same element, so that a focus in it is not lost.

import { el, say, set } from "../ui/el.js";

/**
 * @typedef {string|{text?: string, node?: Node, tone?: string, title?: string}} Cell
 * @typedef {{head: string, unseen?: boolean, number?: boolean, wide?: boolean, cell: (item: *) => Cell}} Column  `wide`: not on a phone
 * @typedef {{name: string, word: string, hot?: boolean, run: (item: *) => void}} Act
 */

/**
 * @param {HTMLTableElement} table
 * @param {{items: *[], key: (item: *) => string, columns: Column[], acts?: (item: *) => Act[], actsHead?: string}} what
 */
export function fill(table, { items, key, columns, acts, actsHead = "" }) {
  const classOf = ({ number, wide }) => [number && "number", wide && "wide"].filter(Boolean).join(" ") || null;
  const heads = columns.map((column) => el("th", { scope: "col", class: classOf(column) }, column.unseen ? el("span", { class: "unseen" }, column.head) : column.head));
  if (acts) {
    heads.push(el("th", { scope: "col" }, el("span", { class: "unseen" }, actsHead)));
  }
  const words = heads.map((head) => head.textContent).join("\n");
  if (table.dataset.heads !== words) {
    table.dataset.heads = words;
    table.replaceChildren(el("thead", {}, el("tr", {}, ...heads)), el("tbody"));
  }
  table.hidden = items.length === 0;
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, i) => {
    const id = key(item);
    const row = old.get(id) ?? make(id, columns, classOf, Boolean(acts));
    old.delete(id);
    row.item = item;
    columns.forEach((column, at) => put(row.cells[at], column.cell(item), classOf(column)));
    if (acts) {
      putActs(row.cells[columns.length].firstChild, row, acts(item));
    }
    if (body.rows[i] !== row) {
      body.insertBefore(row, body.rows[i] ?? null);
    }
  });
  for (const row of old.values()) {
    row.remove();
  }
}

function make(key, columns, classOf, acts) {
  const row = el("tr", { "data-key": key }, ...columns.map((column, at) => el(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: classOf(column) })));
  if (acts) {
    row.append(el("td", {}, el("div", { class: "acts" })));
  }
  return row;
}

function put(cell, value, kind) {
  const { text = "", node = null, tone = "", title = null } = typeof value === "string" ? { text: value } : value;
  set(cell, { class: [kind, tone].filter(Boolean).join(" ") || null, title });
  if (node) {
    cell.replaceChildren(node, ...(text ? [` ${text}`] : []));
  } else {
    say(cell, text);
    cell.hidden = false;
  }
}

function putActs(place, row, acts) {
  const old = new Map([...place.children].map((button) => [button.dataset.act, button]));
  acts.forEach((act, i) => {
    const button = old.get(act.name) ?? el("button", { type: "button", "data-act": act.name, on: { click: () => button.act.run(row.item) } });
    old.delete(act.name);
    button.act = act;
    say(button, act.word);
    button.classList.toggle("hot", Boolean(act.hot));
    if (place.children[i] !== button) {
      place.insertBefore(button, place.children[i] ?? null);
    }
  });
  for (const button of old.values()) {
    button.remove();
  }
}

/** A bar beside its words. */
export const bar = (part, tone = "") => el("span", { class: `bar ${tone}`, "aria-hidden": "true" },
  el("i", { style: { width: `${Math.round(Math.min(Math.max(part, 0), 1) * 100)}%` } }));
