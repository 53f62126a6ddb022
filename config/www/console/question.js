// An order is asked for once more before it is given: what it touches, and how it is undone. "Keep" has the focus, so that
// Enter gives no order; the buttons are locked while one is on its way.

import { bdi, say } from "../ui/el.js";

const $ = (selector) => document.querySelector(selector);

export class Question {
  #console;
  #go = null;
  #busy = false;

  constructor(console) {
    this.#console = console;
    $("#ask-keep").addEventListener("click", () => $("#ask").close());
    $("#ask-go").addEventListener("click", () => this.#give());
    $("#ask").addEventListener("cancel", (event) => this.#busy && event.preventDefault());
  }

  /**
   * @param {{title: string, about: string, text: string, undo: string, keep: string, go: string, number?: number,
   *          give: (number: ?number) => Promise<*>, done: string}} what  `about`: the name that stands behind the title
   */
  ask({ title, about, text, undo, keep, go, number = null, give, done }) {
    this.#go = { give, done, number };
    $("#h-ask").replaceChildren(title, ...(about ? [" ", bdi(about)] : []));
    $("#ask-text").textContent = text;
    say($("#ask-undo"), undo);
    say($("#ask-error"), "");
    $("#ask-more").hidden = number === null;
    $("#ask-n").value = number ?? "";
    $("#ask-keep").textContent = keep;
    $("#ask-go").textContent = go;
    this.#lock(false);
    $("#ask").showModal();
    $("#ask-keep").focus();
  }

  async #give() {
    const { give, done, number } = this.#go;
    if (this.#busy) {
      return;
    }
    const said = $("#ask-n");
    if (number !== null && !(said.value !== "" && said.validity.valid)) {
      said.focus();
      return;
    }
    this.#lock(true);
    try {
      const answer = await give(number === null ? null : Number(said.value));
      $("#ask").close();
      this.#console.announce(typeof done === "function" ? done(answer) : done);
    } catch (error) {
      say($("#ask-error"), this.#console.say("con.ask.refused", { why: error.message }));
    }
    this.#lock(false);
    this.#console.look();
  }

  #lock(busy) {
    this.#busy = busy;
    for (const button of [$("#ask-keep"), $("#ask-go")]) {
      busy ? button.setAttribute("aria-disabled", "true") : button.removeAttribute("aria-disabled");
    }
  }
}
