// The models that are served, and how long what is sent now would wait: read again and again, as waits change.

// How often: while somebody writes, else, where each time is counted, and where nothing is known.
const AGAIN_MS = { used: 3000, idle: 10_000, counted: 25_000, unknown: 2000 };
const WAIT_KNOWN_MS = 30_000;  // an older wait is not that of now

export class Models {
  #page;
  #told;
  #asked = -Infinity;     // when they were asked for, and
  #answered = -Infinity;  // when they were told last, ms of the page's clock
  #reading = false;
  #counted = [];          // the limits under which it was counted
  #earliest = 0;          // the server wants to be asked no sooner
  list = [];
  /** "" once they are known; else "", "none" or "failed". */
  state = "";

  /** @param {function(): void} told  called when they were read */
  constructor(page, told) {
    this.#page = page;
    this.#told = told;
  }

  get(id) {
    return this.list.find((model) => model.id === id);
  }

  async read() {
    const asked = (this.#asked = performance.now());
    this.#reading = true;
    const answer = await this.#page.client.askModels().catch((error) => ({ error }));
    if (asked !== this.#asked) {
      return;  // a newer question is on its way
    }
    this.#reading = false;
    if (answer.models) {
      this.list = answer.models;
      this.#counted = answer.policies;
      this.#answered = performance.now();
    } else {
      this.#earliest = performance.now() + (answer.error.retryAfter ?? 0) * 1000;
    }
    this.state = this.list.length > 0 ? "" : answer.models ? "none" : "failed";
    this.#told();
  }

  /** Once a second while the page is seen. @param {boolean} used  somebody is about to send */
  tick(used) {
    const now = performance.now();
    const pause = AGAIN_MS[this.state ? "unknown" : this.#isCounted() ? "counted" : used ? "used" : "idle"];
    if (!this.#reading && now >= this.#earliest && now - this.#asked > pause && navigator.onLine) {
      this.read();
    }
  }

  /** The caller's own task has come or gone: what was told of waits holds no longer. */
  waitsChanged() {
    this.#answered = -Infinity;
    if (!document.hidden && !this.#isCounted()) {
      this.read();
    }
  }

  /** What it means for who sends now; "" where nobody knows. */
  sayWait(id) {
    const { words } = this.#page;
    const model = this.get(id);
    if (!model || performance.now() - this.#answered > WAIT_KNOWN_MS) {
      return "";
    }
    if (typeof model.eta_seconds === "number") {
      return words.say("form.if", { t: words.guess(model.eta_seconds, model.eta_range) });
    }
    const key = `form.if.${model.eta_reason}`;
    return words.has(key) ? words.say(key) : "";
  }

  // To ask takes of what the caller may send: of a quota, or of a rate below one a second.
  #isCounted() {
    const limits = this.#page.store.quota?.limits ?? [];
    return limits.some(({ name, unit, amount, period_seconds: period }) =>
      unit === "requests" && this.#counted.includes(name) && (period === undefined || amount < period));
  }
}
