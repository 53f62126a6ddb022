// Create: pick a model, write, send. What was written stays until it has arrived.
//
// A request is sent with a key that was made before, and both are kept until an answer: a lost
// answer, a closed laptop or a reload in between sends it again under the same key, and the server
// takes it as the same request.

import { el, plain, say } from "./el.js";
import { calendarOf, linkTo, reasonOf } from "./limits.js";
import { Models } from "./models.js";
import { newKey, PenstockError } from "./penstock.js";
import { solve } from "./solver.js";
import { firstEnd } from "./states.js";

const DRAFT = "penstock.draft";
const PENDING = "penstock.pending";
const SENT = "penstock.sent";
const LONGEST_KEPT = 64 << 10;
const RESEND_MS = [1000, 2000, 4000, 8000, 15_000];
const LIMITS_AGAIN_MS = 5000;  // while as many tasks go on as may
const SLOW_CHECK_MS = 20_000;
const CALENDAR = { d: "day", w: "week", M: "month" };
// Where a server does not say what a model makes, its name may.
const PICTURE_NAMES = /image|picture|draw|paint|flux|diffusion|sdxl|\bsd\d|dall|digits|photo/i;

const stored = {
  get: (key) => {
    try {
      return sessionStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set: (key, value) => {
    try {
      value === null ? sessionStorage.removeItem(key) : sessionStorage.setItem(key, value);
    } catch {
      // Without storage a reload forgets the draft, and nothing else.
    }
  },
};

/** @returns {*} what was stored; null of what is not there, or was not stored whole */
function read(key) {
  try {
    return JSON.parse(stored.get(key));
  } catch {
    return null;
  }
}

/** What this tab has sent, so that it can be sent again: the newest 64 KiB of it. */
export class Sent {
  #all = new Map(read(SENT) ?? []);

  /** @returns {{path: string, body: Object, prompt: string, kind: string}|undefined} */
  get(id) {
    return this.#all.get(id);
  }

  keep(id, request) {
    this.#all.set(id, request);
    while (this.#all.size > 0 && JSON.stringify([...this.#all]).length > LONGEST_KEPT) {
      this.#all.delete(this.#all.keys().next().value);
    }
    stored.set(SENT, JSON.stringify([...this.#all]));
  }
}

/** The request of a form. */
export function requestOf({ model, kind, prompt, length, size, steps }) {
  if (kind === "image") {
    const body = { model, prompt, ...(size && { size }), ...(steps && { steps: Number(steps) }) };
    return { path: "/v1/images/generations", body, prompt, kind };
  }
  const body = { model, messages: [{ role: "user", content: prompt }], stream: true, ...(length && { max_tokens: Number(length) }) };
  return { path: "/v1/chat/completions", body, prompt, kind };
}

export class Create {
  #page;
  #models;
  #refused = null;    // {error, until}: why nothing can be sent, and until when, ms of the page's clock
  #pending = null;    // the request that has no answer yet
  #trying = null;     // an AbortController while it is being sent
  #unsure = false;
  #slow = false;
  #checking = null;   // a challenge that is being solved: {fraction, seconds, began, until}
  #problem = "";
  #limitsRead = -Infinity;
  #parts = Object.fromEntries(["form", "model", "kind", "kind-label", "length", "size", "steps", "done", "prompt", "why", "send",
    "stop", "hint", "check"].map((id) => [id, document.getElementById(id)]));

  constructor(page) {
    this.#page = page;
    this.#models = new Models(page, () => this.#showModels());
    const part = this.#parts;
    part.prompt.value = stored.get(DRAFT) ?? "";
    part.prompt.addEventListener("input", () => {
      stored.set(DRAFT, part.prompt.value.slice(0, LONGEST_KEPT));
      this.#problem = "";
      this.render();
    });
    part.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        part.form.requestSubmit();
      }
    });
    part.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    part.stop.addEventListener("click", () => this.#forget());
    part.model.addEventListener("change", () => this.#chooseModel());
    part.kind.addEventListener("change", () => this.render());
    part.done.addEventListener("change", () => page.notices.want(part.done.value === "notify").then(() => this.render()));
    const pending = read(PENDING);
    if (pending) {
      this.#unsure = true;
      this.#submit(pending);
    }
  }

  kindOf(model) {
    const known = this.#models.get(model);
    return known?.kind ?? (model && PICTURE_NAMES.test(model) ? "image" : "text");
  }

  readModels() {
    return this.#models.read();
  }

  #showModels() {
    const { model } = this.#parts;
    const chosen = model.value;
    const { list } = this.#models;
    if ([...model.options].map(({ value }) => value).join("\n") !== list.map(({ id }) => id).join("\n")) {
      model.replaceChildren(...list.map(({ id }) => el("option", { value: id, selected: id === chosen }, plain(id, 80))));
      this.#chooseModel();
      this.#page.tasks.lookAgain();
    }
    this.render();
  }

  #chooseModel() {
    const { model, kind } = this.#parts;
    const told = this.#models.get(model.value)?.kind;
    kind.value = this.kindOf(model.value) === "image" ? "image" : "text";
    this.#parts["kind-label"].hidden = told !== undefined;
    this.render();
  }

  tick() {
    const now = performance.now();
    const { form, prompt } = this.#parts;
    this.#models.tick(prompt.value !== "" || form.contains(document.activeElement));
    const full = this.#full();
    if (full && !this.#page.store.hearsLimits() && now - this.#limitsRead > LIMITS_AGAIN_MS && navigator.onLine) {
      this.#limitsRead = now;
      this.#page.limits.read();
    }
    if (this.#refused && now >= this.#refused.until && !(full && isFull(this.#refused))) {
      this.#refused = null;
      this.#page.announce(this.#page.words.say("refused.open"));
    }
    this.render();
  }

  /** A task of the caller's is over: one more may be sent. */
  taskEnded() {
    if (this.#refused && isFull(this.#refused)) {
      this.#refused = null;
    }
    this.#models.waitsChanged();
    this.render();
  }

  // {limit, in_use}, if as many of the caller's tasks go on as may at the same time; else null.
  #full() {
    const { concurrency } = this.#page.store.quota ?? {};
    return concurrency && concurrency.in_use >= concurrency.limit ? concurrency : null;
  }

  /** Puts a request back into the form, and sends it if that is wanted. */
  fill(request, send) {
    const { model, kind, prompt, length, size, steps } = this.#parts;
    if (request.body) {
      model.value = request.body.model;
      this.#chooseModel();
      length.value = request.body.max_tokens ?? "";
      size.value = request.body.size ?? "";
      steps.value = request.body.steps ?? "";
    }
    kind.value = request.kind ?? kind.value;
    prompt.value = request.prompt;
    stored.set(DRAFT, prompt.value.slice(0, LONGEST_KEPT));
    this.render();
    if (send) {
      this.send();
    } else {
      prompt.focus();
    }
  }

  send() {
    const { model, kind, prompt, length, size, steps, send } = this.#parts;
    this.#problem = "";
    if (this.#pending || send.getAttribute("aria-disabled") === "true") {
      return;
    }
    if (prompt.value.trim() === "") {
      this.#problem = this.#page.words.say("form.empty");
      this.render();
      prompt.focus();
      return;
    }
    const request = requestOf({ model: model.value, kind: kind.value, prompt: prompt.value.trim(), length: length.value,
      size: size.value, steps: steps.value });
    this.#unsure = false;
    this.#submit({ ...request, key: newKey() });
  }

  async #submit(request) {
    const { client, store, sent, limits, announce, words } = this.#page;
    this.#pending = request;
    this.#slow = false;
    stored.set(PENDING, JSON.stringify(request));
    setTimeout(() => ((this.#slow = true), this.render()), 300);
    this.render();
    for (let i = 0; this.#pending === request; ++i) {
      this.#trying = new AbortController();
      try {
        const job = await client.submit(request.path, request.body,
          { key: request.key, label: request.prompt, signal: this.#trying.signal });
        sent.keep(job.id, { path: request.path, body: request.body, prompt: request.prompt, kind: request.kind });
        this.#forget();
        if (this.#parts.prompt.value.trim() === request.prompt) {
          this.#parts.prompt.value = "";
          stored.set(DRAFT, null);
        }
        store.add(job);
        this.#models.waitsChanged();
      } catch (error) {
        if (this.#pending !== request) {
          return;  // it was stopped
        }
        const lost = error instanceof PenstockError && (error.status === 0 || (error.status >= 500 && error.retryAfter === null && !error.code));
        if (lost) {
          this.#unsure = true;
          this.render();
          await this.#pause(RESEND_MS[Math.min(i, RESEND_MS.length - 1)]);
          continue;
        }
        this.#forget();
        this.#refuse(error);
        announce(this.#parts.why.textContent);
      }
      limits.read();
    }
    this.render();
  }

  /** Solves a challenge, in sight; Stop ends it. @returns {Promise<string>} */
  async check(challenge, { signal, retryAfter }) {
    const now = performance.now();
    const checking = { fraction: NaN, seconds: null, began: now, until: now + (retryAfter ?? 0) * 1000 };
    this.#checking = checking;
    this.render();
    try {
      return await solve(challenge, { signal, onProgress: (progress) => (Object.assign(checking, progress), this.render()) });
    } finally {
      this.#checking = null;
      this.render();
    }
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, navigator.onLine ? ms : 60_000);
      window.addEventListener("online", () => (clearTimeout(timer), resolve()), { once: true });
      this.#trying.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
    });
  }

  #forget() {
    this.#pending = null;
    this.#trying?.abort();
    stored.set(PENDING, null);
    this.render();
  }

  #refuse(error) {
    if (error instanceof PenstockError && error.retryAfter !== null) {
      this.#refused = { error, until: performance.now() + error.retryAfter * 1000 };
    } else {
      this.#problem = reasonOf(error, this.#page.store.quota, this.#page.words).why || plain(error.message);
    }
    this.render();
  }

  render() {
    const { words } = this.#page;
    const part = this.#parts;
    const kind = part.kind.value === "image" ? "image" : "text";
    for (const option of part.form.querySelectorAll("[data-kind]")) {
      option.hidden = option.dataset.kind !== kind;
    }
    part.prompt.placeholder = words.say(`form.prompt.${kind}`);
    const left = this.#refused ? (this.#refused.until - performance.now()) / 1000 : 0;
    const offline = !navigator.onLine;
    const state = this.#pending && this.#checking ? "checking" : this.#pending ? "sending" : offline ? "offline" : this.#refused ? "refused" : "ready";
    part.form.dataset.state = state;
    const blocked = state !== "ready" || this.#models.list.length === 0;
    blocked ? part.send.setAttribute("aria-disabled", "true") : part.send.removeAttribute("aria-disabled");
    say(part.send, this.#pending && this.#slow ? words.say("form.sending")
      : state === "refused" && !isFull(this.#refused) ? words.say("form.again", { t: words.clock(left) }) : words.say(`form.send.${kind}`));
    part.stop.hidden = !(this.#pending && (this.#unsure || this.#checking));
    this.#renderCheck(part.check);
    this.#renderWhy(state, left);
    part.prompt.toggleAttribute("aria-invalid", this.#problem !== "");
    say(part.hint, this.#hint(state));
  }

  #renderCheck(bar) {
    bar.hidden = !this.#checking;
    const fraction = this.#checking?.fraction ?? 0;
    Number.isNaN(fraction) ? bar.removeAttribute("value") : (bar.value = fraction);
  }

  #checkWords({ seconds, began, until }) {
    const { words } = this.#page;
    const now = performance.now();
    return now - began > SLOW_CHECK_MS && until > now ? words.say("check.slow", { t: words.time((until - now) / 1000) })
      : words.say("check.run", { t: seconds === null ? words.say("eta.few") : words.about(seconds) });
  }

  #renderWhy(state, left) {
    const { words, store } = this.#page;
    const { why, send } = this.#parts;
    let parts = [];
    if (state === "refused") {
      const { error } = this.#refused;
      const reason = reasonOf(error, store.quota, words);
      const plans = error.status === 429 ? linkTo(error.documentation || store.quota?.documentation, words.say("refused.plans")) : null;
      const gap = words.say("join");
      parts = [el("b", {}, reason.why), gap, words.say(reason.whenKey, { t: words.time(left) }), ...(plans ? [gap, plans] : [])];
    } else if (this.#problem) {
      parts = [this.#problem];
    } else if (this.#models.state) {
      parts = [words.say(`form.models.${this.#models.state}`)];
    } else if (this.#pending && this.#unsure) {
      parts = [words.say("form.resend")];
    }
    const text = parts.map((each) => each.textContent ?? each).join("");
    if (why.textContent !== text) {
      why.replaceChildren(...parts);
    }
    why.hidden = text === "";
    why.hidden ? send.removeAttribute("aria-describedby") : send.setAttribute("aria-describedby", "why");
  }

  // How long it would take, and which of how many it would be; or what must happen first.
  #hint(state) {
    const { words, store, notices } = this.#page;
    if (this.#checking) {
      return this.#checkWords(this.#checking);
    }
    if (state === "offline") {
      return words.say("form.offline");
    }
    if (state === "refused" && isFull(this.#refused)) {
      return this.#whenOneEnds();  // why stands above
    }
    if (state !== "ready") {
      return "";
    }
    if (this.#parts.done.value === "notify" && notices.trouble) {
      return words.say(notices.trouble);
    }
    const full = this.#full();
    if (full) {
      return words.join(words.say("form.full", { n: full.in_use }), this.#whenOneEnds());
    }
    const limit = store.quota?.limits.find(({ unit, period_seconds }) => unit === "requests" && period_seconds === undefined);
    const calendar = limit && CALENDAR[calendarOf(limit.name)];
    const nth = limit && limit.remaining > 0 ? words.say(calendar ? `form.nth.${calendar}` : "form.nth", { n: limit.used + 1, m: limit.limit }) : "";
    return words.join(this.#models.sayWait(this.#parts.model.value), nth);
  }

  #whenOneEnds() {
    const { words, store } = this.#page;
    const seconds = firstEnd([...store.tasks.values()], performance.now());
    return seconds === null ? "" : words.say("form.full.when", { t: words.about(seconds) });
  }
}

const isFull = ({ error }) => error.code === "concurrency_exceeded";
