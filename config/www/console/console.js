// The operator's console: reads what is there every two seconds, shows one of five places, and gives orders.

import { plain, say } from "../ui/el.js";
import { changeTheme, inOtherLanguage, readersLanguage, remembered, translateDocument } from "../ui/reader.js";
import { Words } from "../ui/words.js";
import { Callers } from "./callers.js";
import { DeadLetters } from "./dead.js";
import { Figures } from "./figures.js";
import { Jobs } from "./jobs.js";
import { Keys } from "./keys.js";
import { Now } from "./now.js";
import { Predictions } from "./predictions.js";
import { Question } from "./question.js";
import { order, read, readText, Refused } from "./server.js";

const LOCK = "penstock.console.lock";
const POLL_MS = 2000;
const POLL_REFUSED_MS = 10_000;
const HISTORY_MS = 10_000;
const REMEMBERED_MS = 300_000;  // so far back what is "recent" reaches
const STALE_S = 5;
const DEAF_S = 15;
const PLACES = ["now", "jobs", "dead", "callers", "predictions"];

const $ = (selector) => document.querySelector(selector);

async function wordsOf(language) {
  const files = ["../ui/words", "words"].map((name) => new URL(`${name}.${language}.json`, import.meta.url));
  return new Words(language, Object.assign({}, ...await Promise.all(files.map(async (file) => (await fetch(file)).json()))));
}

class Console {
  /** What was read last; null before. */
  seen = null;
  session = null;
  #readings = [];  // figures of the last minutes, the oldest first
  #history = { at: -Infinity, value: null };
  #heard = null;   // when, steady
  #trouble = null;
  #looking = false;
  #again = 0;
  #spoken = 0;

  constructor(words) {
    this.words = words;
    this.question = new Question(this);
    this.places = { now: new Now(this), jobs: new Jobs(this), dead: new DeadLetters(this), callers: new Callers(this), predictions: new Predictions(this) };
    this.keys = new Keys(this);
    $("#language").addEventListener("click", () => this.#changeLanguage());
    $("#theme").addEventListener("click", () => this.#changeTheme());
    $("#lock").addEventListener("click", () => this.#toggleLock());
    window.addEventListener("hashchange", () => this.#show());
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  async start() {
    this.#translate();
    this.#show();
    setInterval(() => this.#showLink(), 1000);
    await this.look();
    document.documentElement.dataset.ready = "";
  }

  /** @returns {string} */
  say(key, values) {
    return this.words.say(key, values);
  }

  percent(part) {
    return this.say("con.percent", { p: this.words.number(Math.round(part * 1000) / 10) });
  }

  /** A length of time, in a table: "0:04", "2:31", "1 h 20 min"; "none" where it is not known. */
  clock(seconds) {
    return seconds === null || seconds === undefined ? this.say("con.none") : this.words.clock(seconds);
  }

  at(unixSeconds) {
    return this.words.moment(unixSeconds, Date.now() / 1000);
  }

  /** Whether orders may be given here. */
  get mayOrder() {
    return this.session !== null && !this.session.read_only && remembered.get(LOCK) !== "on" && !this.isDeaf;
  }

  get isDeaf() {
    return this.#heard !== null && (performance.now() - this.#heard) / 1000 > DEAF_S;
  }

  get place() {
    return PLACES.includes(location.hash.slice(1)) ? location.hash.slice(1) : "now";
  }

  goTo(place) {
    location.hash = place;
    $(`#h-${place}`).focus();
  }

  announce(text) {
    clearTimeout(this.#spoken);
    $("#status").textContent = "";
    this.#spoken = setTimeout(() => ($("#status").textContent = text), 200);
  }

  order(method, path, headers) {
    return order(method, path, headers);
  }

  /** Reads all that the place needs, and shows it. The next time comes after this one has ended. */
  async look() {
    clearTimeout(this.#again);
    if (this.#looking) {
      return;
    }
    this.#looking = true;
    try {
      await this.#read();
      this.#trouble = null;
      this.#heard = performance.now();
    } catch (error) {
      if (!(error instanceof Refused)) {
        console.error(error);
      }
      this.#trouble = error;
    }
    this.#looking = false;
    this.#render();
    if (!document.hidden) {
      this.#again = setTimeout(() => this.look(), this.#trouble?.status === 403 ? POLL_REFUSED_MS : POLL_MS);
    }
  }

  async #read() {
    this.session ??= await read("session");
    if (this.place === "callers") {  // is Nginx's own, whatever penstockd says
      await this.places.callers.read();
    }
    const [status, text] = await Promise.all([read("status"), readText("metrics")]);
    const now = performance.now();
    if (now - this.#history.at > HISTORY_MS) {
      this.#history = { at: now, value: await read("history") };
    }
    const figures = new Figures(text, now);
    this.#readings = [...this.#readings.filter(({ at }) => now - at < REMEMBERED_MS), figures];
    this.seen = { status, figures, before: this.#readings.length > 1 ? this.#readings[0] : new Figures(), history: this.#history.value };
    await (this.place === "callers" ? null : this.places[this.place].read?.());
  }

  #render() {
    this.#showLink();
    if (this.place === "callers") {
      this.places.callers.render();
    } else if (this.seen) {
      this.places[this.place].render();
    }
    if (this.seen) {
      const { dead_letters: dead = 0 } = this.seen.status.state ?? {};
      say($("#dead-count"), dead > 0 ? this.words.number(dead) : "");
    }
  }

  #show() {
    for (const place of PLACES) {
      $(`#${place}`).hidden = place !== this.place;
    }
    for (const link of document.querySelectorAll("nav a")) {
      link.hash === `#${this.place}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    }
    document.title = `${this.say(`con.${this.place}`)} · ${this.say("con.title")}`;
    this.#render();
    this.look();
  }

  #showLink() {
    const age = this.#heard === null ? null : (performance.now() - this.#heard) / 1000;
    const state = age === null ? "connecting" : age > STALE_S ? "quiet" : "live";
    const link = $("#link");
    link.dataset.state = state;
    const values = { host: plain(this.session?.host, 64), t: this.words.time(age ?? 0), at: this.at(Date.now() / 1000 - (age ?? 0)) };
    say(link, this.say(`con.${state}`, values));
    document.body.classList.toggle("stale", age !== null && age > DEAF_S);
    const why = this.#trouble ? plain(this.#trouble.message, 400) : "";
    say($("#notice"), this.#trouble && (age === null || age > STALE_S) ? this.say(this.#trouble.status === 403 ? "con.refused" : "con.trouble", { why }) : "");
    this.#showLock();
  }

  #showLock() {
    const lock = $("#lock");
    const fixed = this.session?.read_only ?? false;
    const on = fixed || remembered.get(LOCK) === "on";
    lock.setAttribute("aria-pressed", String(on));
    fixed ? lock.setAttribute("aria-disabled", "true") : lock.removeAttribute("aria-disabled");
    say(lock, this.say(on ? "con.lock.on" : "con.lock.off"));
  }

  #toggleLock() {
    if (this.session?.read_only) {
      this.announce(this.say("con.lock.fixed"));
      return;
    }
    remembered.set(LOCK, remembered.get(LOCK) === "on" ? null : "on");
    this.#render();
  }

  async #changeLanguage() {
    this.words = await inOtherLanguage(this.words, wordsOf);
    this.#translate();
    this.#show();
  }

  #changeTheme() {
    changeTheme();
    this.#translate();
  }

  #translate() {
    translateDocument(this.words);
    this.keys.render();
    for (const place of Object.values(this.places)) {
      place.translate?.();
    }
  }
}

new Console(await wordsOf(readersLanguage())).start();
