// The console's single keys. Each opens a question; none gives an order.

import { SingleKeys } from "../ui/single_keys.js";

const PLACES = { n: "now", j: "jobs", d: "dead", c: "callers", p: "predictions" };
const LIST = [[["g n", "g j", "g d", "g c", "g p"], "con.keys.go"], [["f"], "con.keys.filter"], [["p"], "con.keys.pause"], [["s"], "con.keys.resume"],
  [["x"], "con.keys.drain"], [["?"], "keys.list"], [["Esc"], "keys.esc"]];
const ACTS = { p: "pause", s: "resume", x: "drain" };

export class Keys extends SingleKeys {
  #console;

  constructor(console) {
    super(LIST, () => console.words);
    this.#console = console;
  }

  go(key) {
    if (PLACES[key]) {
      this.#console.goTo(PLACES[key]);
    }
    return Boolean(PLACES[key]);
  }

  do(key) {
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
