// Single keys, off in fields and with modifiers, and for who switches them off (WCAG 2.1.4). "?" shows the list of them.

import { el } from "./el.js";
import { remembered } from "./reader.js";

const OFF = "penstock.keys";

export class SingleKeys {
  #list;
  #words;
  #went = false;  // "g" was pressed
  #dialog = document.querySelector("#keys");
  #on = document.querySelector("#keys-on");

  /**
   * @param {Array} list  [keys, word] of each
   * @param {() => Words} words
   */
  constructor(list, words) {
    this.#list = list;
    this.#words = words;
    this.#on.checked = remembered.get(OFF) !== "off";
    this.#on.addEventListener("change", () => remembered.set(OFF, this.#on.checked ? null : "off"));
    document.querySelector("#keys-button").addEventListener("click", () => this.#dialog.showModal());
    document.querySelector("#keys-close").addEventListener("click", () => this.#dialog.close());
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  render() {
    document.querySelector("#keys-list").replaceChildren(...this.#list.flatMap(([keys, word]) => [
      el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, key), " "])), el("dd", {}, this.#words().say(word)),
    ]));
  }

  /** Goes where "g" and the key lead; false: nowhere. */
  go() {
    return false;
  }

  /** Does what the key asks for; false: it asks for nothing. */
  do() {
    return false;
  }

  #press(event) {
    const { target, key } = event;
    if (!this.#on.checked || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")
        || target.closest("input, textarea, select, [contenteditable]") || (key === "Enter" && target.closest("button, a, summary"))) {
      return;
    }
    const went = this.#went;
    this.#went = key === "g";
    if (went ? this.go(key) : this.#does(key)) {
      event.preventDefault();
    }
  }

  #does(key) {
    if (key === "?") {
      this.#dialog.showModal();
      return true;
    }
    return this.do(key);
  }
}
