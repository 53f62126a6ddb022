// The page: puts its parts together, in the reader's language and theme, and moves its clock.

import { Create, Sent } from "./create.js";
import { bdi, el, plain, say } from "./el.js";
import { Keys } from "./keys.js";
import { Limits } from "./limits.js";
import { Notices } from "./notices.js";
import { Penstock } from "./penstock.js";
import { changeTheme, inOtherLanguage, readersLanguage, remembered, translateDocument } from "./reader.js";
import { titleOf } from "./states.js";
import { SignIn } from "./sign_in.js";
import { Store } from "./store.js";
import { Tasks } from "./tasks.js";
import { Words } from "./words.js";

const LIMITS_AGAIN_MS = 30_000;
const SAY_AGAIN_MS = 200;
const SHOWN_MS = 8000;

class Page {
  client = new Penstock({ challenge: (challenge, about) => this.create.check(challenge, about) });
  sent = new Sent();
  notices = new Notices(remembered);
  #limitsRead = 0;
  #spoken = 0;
  #toSay = [];
  #shown = { text: "", until: 0 };  // what was to be seen, too

  constructor(words) {
    this.words = words;
    this.announce = this.announce.bind(this);
    this.store = new Store(this.client);
    this.store.keepWhenHidden = () => this.notices.wanted;
    this.tasks = new Tasks(this);
    this.limits = new Limits(this);
    this.create = new Create(this);
    this.keys = new Keys(this);
    this.signIn = new SignIn(this);
    this.store.subscribe((what, about) => this.#hear(what, about));
    document.querySelector("#done").value = this.notices.wanted ? "notify" : "stay";
    document.querySelector("#language").addEventListener("click", () => this.#changeLanguage());
    document.querySelector("#theme").addEventListener("click", () => this.#changeTheme());
    document.querySelector("#picture-close").addEventListener("click", () => document.querySelector("#picture").close());
    for (const link of document.querySelectorAll("nav a")) {
      link.addEventListener("click", () => this.#mark(link.hash));
    }
    window.addEventListener("hashchange", () => this.#mark(location.hash));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#translate());
    document.addEventListener("visibilitychange", () => this.#draw());
  }

  start() {
    this.#translate();
    this.#mark(location.hash || "#create");
    this.store.start();
    this.create.readModels();
    this.#readLimits();
    setInterval(() => this.#tick(), 1000);
    document.documentElement.dataset.ready = "";
  }

  kindOf(model) {
    return this.create.kindOf(model);
  }

  /** Sends the same once more; or, where only its label is known here, puts that into the form. */
  again(id, label) {
    const request = this.sent.get(id);
    this.create.fill(request ?? { prompt: label }, Boolean(request));
    if (!request) {
      this.announce(this.words.say("act.again.edit"), true);
    }
  }

  /** Says it to who hears the page; to who sees it, too, if they must know. */
  announce(text, seen = false) {
    this.#toSay.push(text);
    this.#spoken ||= setTimeout(() => {
      document.querySelector("#status").textContent = this.#toSay.splice(0).slice(-3).join(" ");
      this.#spoken = 0;
    }, SAY_AGAIN_MS);
    if (seen) {
      this.#shown = { text, until: performance.now() + SHOWN_MS };
      this.#showNotice();
    }
  }

  goTo(place) {
    this.#mark(`#${place}`);
    document.querySelector(`#h-${place}`).focus({ preventScroll: true });
    document.getElementById(place).scrollIntoView({ block: "start" });
  }

  showPictures(urls, label) {
    const dialog = document.querySelector("#picture");
    dialog.querySelector("h1").replaceChildren(bdi(label));
    dialog.querySelector(".pictures").replaceChildren(...urls.map((src) => el("img", { src, alt: plain(label, 200) })));
    dialog.showModal();
  }

  #hear(what, about) {
    if (what === "words") {
      this.tasks.words(about);
      this.tasks.card(about.id)?.update();
      return;
    }
    if (what === "preview") {
      this.tasks.preview(about);
      return;
    }
    if (what === "limits") {
      this.limits.told();
      this.create.render();
      this.signIn.render();
      return;
    }
    if (what === "ended") {
      this.tasks.ended(about);
      this.create.taskEnded();
      this.#readLimits();
      this.#notify(about);
      return;
    }
    this.#draw();
  }

  #notify(id) {
    const { job } = this.store.tasks.get(id);
    if (document.hidden && (job.status === "completed" || job.status === "failed")) {
      this.notices.show(this.words.say(`notice.${job.status}`), id, this.tasks.card(id)?.label ?? "");
    }
  }

  #readLimits() {
    this.#limitsRead = performance.now();
    this.limits.read();
  }

  #tick() {
    if (document.hidden) {
      document.title = titleOf([...this.store.tasks.values()], this.#moment());
      return;
    }
    this.store.tick();
    this.create.tick();
    this.limits.render();
    if (performance.now() - this.#limitsRead > LIMITS_AGAIN_MS && navigator.onLine && !this.store.hearsLimits()) {
      this.#readLimits();
    }
    this.#draw();
  }

  #moment() {
    return { words: this.words, now: performance.now(), serverNow: this.store.now() };
  }

  #draw() {
    this.tasks.render();
    this.#showLink();
    this.#showNotice();
    this.create.render();
    this.signIn.render();
    document.title = titleOf([...this.store.tasks.values()], this.#moment());
  }

  #showLink() {
    const { words, store } = this;
    const { state, seconds } = store.connection();
    const heard = store.heardAt();
    const key = heard === null && words.has(`${state}.start`) ? `${state}.start` : state;
    const link = document.querySelector("#link");
    if (link.dataset.state !== state) {
      const before = link.dataset.state;
      link.dataset.state = state;
      if (before !== "connecting" || state !== "live") {
        this.announce(this.#linkText(key, seconds, heard));
      }
    }
    say(link, this.#linkText(key, seconds, heard));
  }

  #linkText(key, seconds, heard) {
    return this.words.say(key, { t: this.words.time(seconds), at: heard === null ? "" : this.words.moment(heard, this.store.now()) });
  }

  #showNotice() {
    const { notice } = this.store;
    const key = notice?.draining ? "notice.draining" : notice?.paused ? "notice.paused" : "";
    const { text, until } = this.#shown;
    say(document.querySelector("#notice"), performance.now() < until ? text : key ? this.words.say(key) : "");
  }

  #mark(hash) {
    for (const link of document.querySelectorAll("nav a")) {
      link.hash === hash ? link.setAttribute("aria-current", "location") : link.removeAttribute("aria-current");
    }
  }

  async #changeLanguage() {
    this.words = await inOtherLanguage(this.words, (language) => Words.load(language));
    this.#translate();
    this.limits.render();
    this.#draw();
  }

  #changeTheme() {
    changeTheme();
    this.#translate();
  }

  #translate() {
    translateDocument(this.words);
    this.keys.render();
  }
}

const words = await Words.load(readersLanguage());
new Page(words).start();
