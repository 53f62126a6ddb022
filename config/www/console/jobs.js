// Jobs: everybody's that were promised, by queue, status and owner, or one by its id.

import { bdi, el, plain, say } from "../ui/el.js";
import { choices } from "./choices.js";
import { part, read } from "./server.js";
import { fill } from "./table.js";

const $ = (selector) => document.querySelector(selector);
const PAGE = 50;
const MOST = 500;
const STATUSES = ["scheduled", "queued", "processing", "completed", "failed", "cancelled", "expired"];
const LIVE = new Set(["scheduled", "queued", "processing"]);

/** The question that a form asks: {queue, status, owner_hash, after} as a query. */
export function queryOf(values) {
  const query = new URLSearchParams({ limit: String(PAGE) });
  for (const [name, value] of Object.entries(values)) {
    if (value) {
      query.set(name, value);
    }
  }
  return query.toString();
}

export class Jobs {
  #console;
  #jobs = [];
  #more = null;    // the last job's id, where there are more
  #older = false;  // the reader went on: the list is not read anew by itself

  constructor(console) {
    this.#console = console;
    $("#filter").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#older = false;
      console.look();
    });
    for (const select of ["#filter-queue", "#filter-status"]) {
      $(select).addEventListener("change", () => $("#filter").requestSubmit());
    }
    $("#jobs-older").addEventListener("click", () => this.#readOlder());
  }

  async read() {
    if (this.#older) {
      return;
    }
    const id = $("#filter-id").value.trim();
    try {
      if (id) {
        [this.#jobs, this.#more] = [[await read(`jobs/${part(id)}`)], null];
        return;
      }
      this.#take([], await read(`jobs?${this.#query()}`));
    } catch (error) {
      const wrong = error.status === 400 && $("#filter-owner").value.trim() !== "";  // no owner is shown like that
      if (error.status !== 404 && !wrong) {
        throw error;
      }
      [this.#jobs, this.#more] = [[], null];
    }
  }

  #query(after = "") {
    return queryOf({ queue: $("#filter-queue").value, status: $("#filter-status").value, owner_hash: $("#filter-owner").value.trim(), after });
  }

  #take(before, { data, has_more: more, last_id: last }) {
    this.#jobs = [...before, ...data];
    this.#more = more && this.#jobs.length < MOST ? last : null;
  }

  async #readOlder() {
    this.#older = true;
    this.#take(this.#jobs, await read(`jobs?${this.#query(this.#more)}`));
    this.render();
  }

  translate() {
    const say = (key) => this.#console.say(key);
    choices($("#filter-status"), [["", say("con.any")], ...STATUSES.map((status) => [status, say(`con.job.${status}`)])]);
  }

  render() {
    const console = this.#console;
    const say_ = (key, values) => console.say(key, values);
    choices($("#filter-queue"), [["", say_("con.any")], ...console.seen.status.queues.map(({ name }) => [name, plain(name, 64)])]);
    $("#jobs-none").hidden = this.#jobs.length > 0;
    $("#jobs-older").hidden = this.#more === null;
    say($("#jobs-none"), this.#jobs.length > 0 ? "" : say_("con.jobs.none"));
    fill($("#jobs-table"), {
      items: this.#jobs,
      key: ({ id }) => id,
      columns: [
        { head: say_("con.id"), cell: ({ id }) => ({ node: el("code", {}, plain(id, 40)) }) },
        { head: say_("con.status"), cell: (job) => this.#statusOf(job) },
        { head: say_("con.queue"), wide: true, cell: ({ queue }) => ({ node: bdi(queue) }) },
        { head: say_("con.model"), wide: true, cell: ({ model, label }) => ({ node: el("span", {}, bdi(model), ...(label ? [el("span", { class: "mute label" }, " ", bdi(plain(label, 120)))] : [])) }) },
        { head: say_("con.plan"), wide: true, cell: ({ tier, priority }) => ({ node: el("span", {}, bdi(tier ?? ""), el("span", { class: "mute" }, ` ${console.words.number(priority ?? 0)}`)) }) },
        { head: say_("con.owner"), wide: true, cell: ({ owner }) => ({ node: el("code", {}, plain(owner ?? say_("con.nobody"), 8)) }) },
        { head: say_("con.created"), number: true, wide: true, cell: ({ created_at: at }) => console.at(at) },
      ],
      actsHead: say_("con.orders"),
      acts: (job) => this.#actsOf(job),
    });
  }

  #actsOf({ status, owner }) {
    const console = this.#console;
    const asked = $("#filter-owner").value.trim();
    const acts = owner && owner !== asked ? [{ name: "owner", word: console.say("con.owner.only"), run: (job) => this.#only(job.owner) }] : [];
    return console.mayOrder && LIVE.has(status) ? [...acts, { name: "cancel", word: console.say("con.cancel"), run: (job) => this.#cancel(job) }] : acts;
  }

  #only(owner) {
    $("#filter-owner").value = owner;
    $("#filter-id").value = "";
    $("#filter").requestSubmit();
  }

  #statusOf({ status, position, eta_seconds: eta, progress, attempts, error }) {
    const console = this.#console;
    const words = [console.say(`con.job.${status}`)];
    if (position) {
      words.push(console.say("con.job.position", { n: position }));
    }
    if (progress) {
      words.push(console.percent(progress.fraction));
    }
    if (eta !== null && LIVE.has(status)) {
      words.push(console.words.about(eta));
    }
    if (attempts > 0) {
      words.push(console.say("con.job.attempts", { n: attempts }));
    }
    if (error) {
      words.push(plain(error.message || error.code, 160));
    }
    return { text: words.join(" · "), tone: status === "failed" || status === "expired" ? "bad" : "" };
  }

  #cancel({ id, status }) {
    const say_ = (which) => this.#console.say(`con.ask.cancel.${which}`);
    this.#console.question.ask({ title: say_("title"), about: id, text: say_(status === "processing" ? "text.running" : "text"), undo: say_("undo"), keep: say_("keep"),
      go: say_("go"), done: say_("done"), give: () => this.#console.order("DELETE", `jobs/${part(id)}`) });
  }
}
