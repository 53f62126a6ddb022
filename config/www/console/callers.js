// Callers: what is counted for a key, which is looked up and forgotten, and who is refused most. A key is a credential: it goes into
// a header, and is kept nowhere.

import { bdi, el, plain, say } from "../ui/el.js";
import { read } from "./server.js";
import { bar, fill } from "./table.js";

const $ = (selector) => document.querySelector(selector);

/** A key as a header can carry it; null: it cannot. */
export const headerOf = (key) => (/^[\u0020-\u007E\u0080-\u00FF]+$/.test(key) && key.trim() === key ? key : null);

export class Callers {
  #console;
  #offenders = [];
  #key = "";
  #found = null;

  constructor(console) {
    this.#console = console;
    $("#lookup").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#lookUp($("#key").value);
    });
    $("#reset").addEventListener("click", () => this.#reset());
  }

  async read() {
    this.#offenders = (await read("offenders")).offenders;
  }

  async #lookUp(key) {
    const word = (which, values) => this.#console.say(which, values);
    const header = headerOf(key);
    this.#found = null;
    if (header === null) {
      say($("#key-none"), word("con.key.bad"));
      this.render();
      return;
    }
    try {
      const { limits } = await read("limits", { "Penstock-Key": header });
      [this.#key, this.#found] = [header, limits.filter(({ live }) => live)];
      say($("#key-none"), this.#found.length > 0 ? "" : word("con.key.none"));
    } catch (error) {
      say($("#key-none"), word("con.ask.refused", { why: plain(error.message, 200) }));
    }
    this.render();
  }

  render() {
    const console = this.#console;
    const word = (key, values) => console.say(key, values);
    const { words } = console;
    fill($("#counters"), {
      items: this.#found ?? [],
      key: ({ zone, name, key_form: form }) => `${zone} ${name} ${form}`,
      columns: [
        { head: word("con.limit"), cell: ({ name }) => ({ node: bdi(name) }) },
        { head: word("con.used"), cell: ({ used, remaining, burst, limit }) => ({ node: bar(used / ((burst ?? limit) || 1), remaining === 0 ? "warn" : ""), text: `${words.number(used)} / ${words.number(burst ?? limit)}` }) },
        { head: word("con.unit"), wide: true, cell: ({ unit, algorithm }) => `${unit}, ${algorithm.replace("_", " ")}` },
        { head: word("con.zone"), wide: true, cell: ({ zone }) => ({ node: bdi(zone) }) },
        { head: word("con.resets"), number: true, cell: ({ reset_seconds: seconds }) => words.time(seconds) },
      ],
    });
    $("#reset").hidden = !(console.mayOrder && this.#found && this.#found.length > 0);
    say($("#offenders-none"), this.#offenders.length > 0 ? "" : word("con.offenders.none"));
    fill($("#offenders"), {
      items: this.#offenders,
      key: ({ key, limit }) => `${key} ${limit}`,
      columns: [
        { head: word("con.hash"), cell: ({ key }) => ({ node: el("code", {}, plain(key, 32)) }) },
        { head: word("con.limit"), cell: ({ limit }) => ({ node: bdi(limit) }) },
        { head: word("con.refusals"), number: true, cell: ({ refused }) => words.number(refused) },
      ],
    });
  }

  #reset() {
    const word = (which, values) => this.#console.say(`con.ask.reset.${which}`, values);
    this.#console.question.ask({ title: word("title"), about: "", text: word("text", { n: this.#found.length }), undo: word("undo"), keep: word("keep"), go: word("go"),
      done: ({ reset, kept }) => word("done", { n: reset.length, m: kept.length }),
      give: async () => {
        const answer = await this.#console.order("DELETE", "limits", { "Penstock-Key": this.#key });
        await this.#lookUp(this.#key);
        return answer;
      } });
  }
}
