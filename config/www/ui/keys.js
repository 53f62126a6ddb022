// The page's single keys.

import { SingleKeys } from "./single_keys.js";

const LIST = [
  [["n", "/"], "keys.prompt"], [["Ctrl+Enter"], "keys.send"], [["j", "k"], "keys.next"], [["Enter"], "keys.open"],
  [["o"], "keys.output"], [["d"], "keys.download"], [["c"], "keys.cancel"], [["u"], "keys.undo"], [["r"], "keys.again"],
  [["g t", "g l", "g c"], "keys.go"], [["?"], "keys.list"], [["Esc"], "keys.esc"],
];

export class Keys extends SingleKeys {
  #page;

  constructor(page) {
    super(LIST, () => page.words);
    this.#page = page;
  }

  go(key) {
    const place = { t: "tasks", l: "limits", c: "create" }[key];
    if (place) {
      this.#page.goTo(place);
    }
    return Boolean(place);
  }

  do(key) {
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
      default: return false;
    }
  }
}
