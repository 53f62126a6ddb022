// Dead letters: jobs that failed every attempt, with what they asked. A body is shown when it is asked for, and cut.

import { bdi, el, plain, say } from "../ui/el.js";
import { queryOf } from "./jobs.js";
import { part, read } from "./server.js";
import { fill } from "./table.js";
import { block, FIRST_PIECE, laidOut, PIECE } from "./text.js";

const $ = (selector) => document.querySelector(selector);

export class DeadLetters {
  #console;
  #letters = [];
  #more = null;
  #older = false;
  #body = { text: "", shown: 0 };

  constructor(console) {
    this.#console = console;
    $("#dead-older").addEventListener("click", () => this.#readOlder());
    $("#letter-close").addEventListener("click", () => $("#letter").close());
    $("#letter-show").addEventListener("click", () => {
      $("#letter-show").hidden = true;
      $("#letter-body").hidden = false;
      this.#showBody(FIRST_PIECE);
      $("#letter-body").focus();
    });
    $("#letter-more").addEventListener("click", () => this.#showBody(this.#body.shown + PIECE));
  }

  async read() {
    if (!this.#older) {
      this.#take([], await read(`dead?${queryOf({})}`));
    }
  }

  #take(before, { data, has_more: more, last_id: last }) {
    this.#letters = [...before, ...data];
    this.#more = more ? last : null;
  }

  async #readOlder() {
    this.#older = true;
    this.#take(this.#letters, await read(`dead?${queryOf({ after: this.#more })}`));
    this.render();
  }

  render() {
    const console = this.#console;
    const word = (key, values) => console.say(key, values);
    say($("#dead-none"), this.#letters.length > 0 ? "" : word("con.dead.none"));
    $("#dead-older").hidden = this.#more === null;
    fill($("#dead-table"), {
      items: this.#letters,
      key: ({ id }) => id,
      columns: [
        { head: word("con.id"), cell: ({ id }) => ({ node: el("code", {}, plain(id, 40)) }) },
        { head: word("con.error"), cell: ({ error }) => ({ node: bdi(plain(error?.message || error?.code, 200)) }) },
        { head: word("con.queue"), wide: true, cell: ({ queue }) => ({ node: bdi(queue) }) },
        { head: word("con.model"), wide: true, cell: ({ model }) => ({ node: bdi(model) }) },
        { head: word("con.attempts"), number: true, wide: true, cell: ({ attempts }) => console.words.number(attempts) },
        { head: word("con.finished"), number: true, wide: true, cell: ({ finished_at: at }) => (at ? console.at(at) : word("con.none")) },
      ],
      actsHead: word("con.orders"),
      acts: () => [
        { name: "look", word: word("con.look"), run: (letter) => this.#look(letter) },
        ...(console.mayOrder ? [{ name: "requeue", word: word("con.requeue"), run: (letter) => this.#order(letter, "requeue", "POST", "/requeue") },
          { name: "drop", word: word("con.drop"), run: (letter) => this.#order(letter, "drop", "DELETE", "") }] : []),
      ],
    });
  }

  #order({ id, attempts }, what, method, rest) {
    const word = (which) => this.#console.say(`con.ask.${what}.${which}`, { n: attempts });
    this.#older = false;
    this.#console.question.ask({ title: word("title"), about: id, text: word("text"), undo: word("undo"), keep: word("keep"), go: word("go"), done: word("done"),
      give: () => this.#console.order(method, `dead/${part(id)}${rest}`) });
  }

  async #look({ id }) {
    const console = this.#console;
    let letter;
    try {
      letter = await read(`dead/${part(id)}`);
    } catch (error) {
      console.announce(console.say("con.ask.refused", { why: plain(error.message, 200) }));
      return;
    }
    const { request } = letter;
    $("#h-letter").replaceChildren(console.say("con.letter"), " ", bdi(letter.id));
    $("#letter-facts").replaceChildren(...[["con.queue", letter.queue], ["con.model", letter.model], ["con.plan", letter.tier], ["con.owner", letter.owner],
      ["con.attempts", letter.attempts], ["con.created", letter.created_at && console.at(letter.created_at)], ["con.finished", letter.finished_at && console.at(letter.finished_at)]]
      .filter(([, value]) => value).flatMap(([key, value]) => [el("dt", {}, console.say(key)), el("dd", {}, bdi(String(value)))]));
    $("#letter-error").textContent = block(`${letter.error?.code ?? ""}\n${letter.error?.message ?? ""}`.trim()).slice(0, FIRST_PIECE);
    const text = request?.body ?? request?.body_base64 ?? "";
    this.#body = { text: block(laidOut(text, request?.content_type)), shown: 0, cut: request?.truncated ?? false };
    $("#letter-request").replaceChildren(...(request ? [bdi(`${request.method} ${request.path}`), console.say("con.bytes", { n: request.body_bytes })] : [console.say("con.body.gone")]));
    $("#letter-show").hidden = !text;
    $("#letter-body").hidden = true;
    $("#letter-body").textContent = "";
    $("#letter-more").hidden = true;
    $("#letter").showModal();
  }

  #showBody(upTo) {
    const { text, cut } = this.#body;
    const shown = Math.min(upTo, text.length);
    $("#letter-body").append(text.slice(this.#body.shown, shown));
    this.#body.shown = shown;
    if (shown === text.length && cut) {
      $("#letter-body").append(`\n${this.#console.say("con.body.cut")}`);
    }
    const more = $("#letter-more");
    more.hidden = shown === text.length;
    more.textContent = this.#console.say("con.body.more", { n: shown, m: text.length });
  }
}
