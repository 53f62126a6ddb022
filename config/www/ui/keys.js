// Single keys, off in fields and with modifiers, and for who switches them off (WCAG 2.1.4).

import { el } from "./el.js";

const OFF = "penstock.keys";
const LIST = [
  [["n", "/"], "keys.prompt"], [["Ctrl+Enter"], "keys.send"], [["j", "k"], "keys.next"], [["Enter"], "keys.open"],
  [["o"], "keys.output"], [["d"], "keys.download"], [["c"], "keys.cancel"], [["u"], "keys.undo"], [["r"], "keys.again"],
  [["g t", "g l", "g c"], "keys.go"], [["?"], "keys.list"], [["Esc"], "keys.esc"],
];

export class Keys {
  #page;
  #went = false;  // "g" was pressed
  #dialog = document.querySelector("#keys");
  #on = document.querySelector("#keys-on");

  constructor(page) {
    this.#page = page;
    this.#on.checked = page.remembered.get(OFF) !== "off";
    this.#on.addEventListener("change", () => page.remembered.set(OFF, this.#on.checked ? null : "off"));
    document.querySelector("#keys-button").addEventListener("click", () => this.#dialog.showModal());
    document.querySelector("#keys-close").addEventListener("click", () => this.#dialog.close());
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  render() {
    document.querySelector("#keys-list").replaceChildren(...LIST.flatMap(([keys, word]) => [
      el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, key), " "])), el("dd", {}, this.#page.words.say(word)),
    ]));
  }

  #press(event) {
    const { target, key } = event;
    if (!this.#on.checked || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")
        || target.closest("input, textarea, select, [contenteditable]") || (key === "Enter" && target.closest("button, a, summary"))) {
      return;
    }
    const went = this.#went;
    this.#went = key === "g";
    if (went ? this.#go(key) : this.#do(key)) {
      event.preventDefault();
    }
  }

  #go(key) {
    const place = { t: "tasks", l: "limits", c: "create" }[key];
    if (place) {
      this.#page.goTo(place);
    }
    return Boolean(place);
  }

  #do(key) {
    const { tasks } = this.#page;
    const first = (...acts) => acts.some((act) => tasks.focused?.act(act));
    switch (key) {
      case "n":
      case "/":
        document.querySelector("#prompt").focus();
        return true;
      case "j":
      case "k":
        tasks.step(key === "j" ? 1 : -1);
        return true;
      case "Enter": return first("open", "close");
      case "o": return first("watch", "open", "close");
      case "d": return first("download");
      case "c": return first("cancel", "stop");
      case "u": return first("undo");
      case "r": return first("again", "retry");
      case "?":
        this.#dialog.showModal();
        return true;
      default: return false;
    }
  }
}
