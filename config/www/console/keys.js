// Single keys, off in fields and with modifiers, and for who switches them off (WCAG 2.1.4). Each opens a question; none gives an order.

import { el } from "../ui/el.js";

const OFF = "penstock.keys";
const PLACES = { n: "now", j: "jobs", d: "dead", c: "callers", p: "predictions" };
const LIST = [[["g n", "g j", "g d", "g c", "g p"], "con.keys.go"], [["f"], "con.keys.filter"], [["p"], "con.keys.pause"], [["s"], "con.keys.resume"],
  [["x"], "con.keys.drain"], [["?"], "keys.list"], [["Esc"], "keys.esc"]];
const ACTS = { p: "pause", s: "resume", x: "drain" };

export class Keys {
  #console;
  #went = false;
  #dialog = document.querySelector("#keys");
  #on = document.querySelector("#keys-on");

  constructor(console) {
    this.#console = console;
    this.#on.checked = console.remembered.get(OFF) !== "off";
    this.#on.addEventListener("change", () => console.remembered.set(OFF, this.#on.checked ? null : "off"));
    document.querySelector("#keys-button").addEventListener("click", () => this.#dialog.showModal());
    document.querySelector("#keys-close").addEventListener("click", () => this.#dialog.close());
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  render() {
    document.querySelector("#keys-list").replaceChildren(...LIST.flatMap(([keys, word]) => [
      el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, key), " "])), el("dd", {}, this.#console.say(word)),
    ]));
  }

  #press(event) {
    const { target, key } = event;
    if (!this.#on.checked || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")
        || target.closest("input, textarea, select")) {
      return;
    }
    const went = this.#went;
    this.#went = key === "g";
    if (went ? this.#go(key) : this.#do(key)) {
      event.preventDefault();
    }
  }

  #go(key) {
    if (PLACES[key]) {
      this.#console.goTo(PLACES[key]);
    }
    return Boolean(PLACES[key]);
  }

  #do(key) {
    if (key === "?") {
      this.#dialog.showModal();
      return true;
    }
    if (key === "f") {
      this.#console.goTo("jobs");
      document.querySelector("#filter-queue").focus();
      return true;
    }
    // Of the row in which the focus is, or of the only one there is.
    const row = document.activeElement?.closest("tr");
    const acts = ACTS[key] ? [...(row ?? document).querySelectorAll(`[data-act="${ACTS[key]}"]`)].filter((button) => button.checkVisibility()) : [];
    if (acts.length === 1) {
      acts[0].click();
    }
    return acts.length === 1;
  }
}
