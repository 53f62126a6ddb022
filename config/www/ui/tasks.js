// My tasks: a card for each. A card's nodes stay as long as it does, and only what differs is written,
// so that focus and selection are never lost to an event.

import { LiveAnswer, wholeAnswer } from "./answer.js";
import { bdi, el, plain, say, set } from "./el.js";
import { hasEnded } from "./penstock.js";
import { extensionOf, readResult, save } from "./results.js";
import { describe } from "./states.js";

const PLACES_EVERY_MS = 30_000;

class Card {
  #page;
  #id;
  #buttons = new Map();
  #live = null;        // the answer that is being made
  #result = null;      // {result, node}, once it was read
  #open = false;
  #reading = null;     // the promise of #result
  #urls = [];
  #spoken = { state: "", at: 0, quarter: 0 };
  #parts;
  node;

  constructor(page, id) {
    this.#page = page;
    this.#id = id;
    const part = {
      picture: el("img", { class: "pic", alt: "", hidden: true }),
      ask: el("p", { class: "ask", id: `ask-${id}` }),
      spinner: el("span", { class: "spinner", "aria-hidden": "true" }),
      place: el("span", { class: "place", "aria-hidden": "true" }),
      title: el("b", { class: "title" }),
      detail: el("span", { class: "mute detail" }),
      band: el("div", { class: "bandbox", "aria-hidden": "true", hidden: true }),
      bar: el("progress", { max: "1", hidden: true, "aria-labelledby": `ask-${id}` }),
      notes: el("p", { class: "mute notes" }),
      body: el("div", { class: "body", hidden: true }),
      acts: el("div", { class: "acts" }),
    };
    this.#parts = part;
    const state = el("p", { class: "state" }, part.spinner, part.place, part.title, " ", part.detail);
    this.node = el("li", { class: "task card", tabindex: "-1", "data-id": id, "aria-labelledby": `ask-${id}` },
      part.picture, el("div", { class: "what" }, part.ask, state, part.band, part.bar, part.notes, part.body), part.acts);
    part.picture.addEventListener("click", () => this.act("open"));
  }

  get task() {
    return this.#page.store.tasks.get(this.#id);
  }

  get label() {
    const { job } = this.task;
    return plain(job.label ?? this.#page.sent.get(this.#id)?.prompt ?? job.model ?? this.#id, 200);
  }

  get isPicture() {
    const sent = this.#page.sent.get(this.#id);
    return (sent?.kind ?? this.#page.kindOf(this.task.job.model)) === "image";
  }

  update() {
    const { words, store } = this.#page;
    const { task } = this;
    const part = this.#parts;
    const saying = describe(task, {
      words,
      now: performance.now(),
      serverNow: store.now(),
      answered: store.watched !== this.#id ? null : this.#live?.words ?? 0,
      open: this.#open,
    });
    this.saying = saying;
    this.node.dataset.state = saying.state;
    if (part.ask.textContent !== this.label) {
      part.ask.replaceChildren(bdi(this.label));
    }
    say(part.title, saying.title);
    say(part.detail, saying.detail);
    say(part.notes, words.join(...saying.notes.map((note) => plain(note))));
    part.spinner.hidden = saying.state !== "processing" || !Number.isNaN(saying.progress);
    this.#showPlace(saying.place);
    this.#showBand(saying.band);
    part.bar.hidden = saying.progress === null || Number.isNaN(saying.progress);
    if (!part.bar.hidden) {
      part.bar.value = saying.progress;
    }
    if (this.#live) {
      this.#live.node.setAttribute("aria-label", words.say("answering"));
      this.#live.node.classList.toggle("caret", saying.state === "answering");
    }
    this.#showActs(saying);
    this.#speak(saying);
  }

  #showPlace(count) {
    const { place } = this.#parts;
    place.hidden = count === 0;
    while (place.childElementCount < count) {
      place.prepend(el("i"));
    }
    while (place.childElementCount > count) {
      place.firstElementChild.remove();
    }
  }

  #showBand(band) {
    const { band: box } = this.#parts;
    box.hidden = band === null;
    if (band === null) {
      return;
    }
    if (box.childElementCount === 0) {
      box.append(el("div", { class: "band" }, el("i"), el("u")),
        el("div", { class: "scale" }, ...Array.from({ length: 4 }, () => el("span"))));
    }
    const { words } = this.#page;
    const [range, mark] = box.firstElementChild.children;
    const at = (seconds) => `${Math.min(100, (100 * seconds) / band.end)}%`;
    range.hidden = !band.known;
    set(range, { style: { left: at(band.soon), width: at(band.late - band.soon) } });
    set(mark, { style: { left: at(Math.max(0, band.now)) } });
    const marks = [[0, words.say("scale.now")], band.known ? [band.soon, words.about(band.soon)] : null,
      [band.known ? band.late : band.now, words.about(band.known ? band.late : band.now)], [band.end, words.time(band.end)]];
    marks.forEach((one, i) => {
      const span = box.lastElementChild.children[i];
      // Two marks that would touch are one.
      const crowded = one === null || (i > 0 && i < 3 && (one[0] < 0.14 * band.end || one[0] > 0.86 * band.end))
        || (i === 1 && band.late - band.soon < 0.16 * band.end);
      span.hidden = crowded;
      if (!crowded) {
        say(span, i === 0 || i === 3 ? one[1] : words.short(one[0]));
        set(span, { style: { left: at(one[0]) } });
      }
    });
  }

  #showActs({ acts, undo }) {
    const { acts: box, ask } = this.#parts;
    const { words } = this.#page;
    const hadFocus = box.contains(document.activeElement);
    for (const [act, button] of this.#buttons) {
      if (!acts.includes(act)) {
        button.remove();
      }
    }
    let behind = null;
    for (const act of acts) {
      if (!this.#buttons.has(act)) {
        this.#buttons.set(act, el("button", { type: "button", "data-act": act, "aria-describedby": ask.id,
          on: { click: () => this.act(act) } }));
      }
      const button = this.#buttons.get(act);
      say(button, words.say(`act.${act}`, { n: undo }));
      const wanted = behind ? behind.nextElementSibling : box.firstElementChild;
      if (button !== wanted) {
        box.insertBefore(button, wanted);
      }
      behind = button;
    }
    box.hidden = acts.length === 0;
    if (hadFocus && !box.contains(document.activeElement)) {
      (box.querySelector("button") ?? this.node).focus();
    }
  }

  // A change of state at once; places at most once in 30 s; of a bar, each quarter.
  #speak({ state, title, detail, progress }) {
    const now = performance.now();
    const quarter = Math.floor((progress || 0) * 4);
    const old = this.#spoken;
    const first = old.state === "";
    const changed = old.state !== state;
    const moved = old.title !== title && now - old.at > PLACES_EVERY_MS;
    if (!first && !changed && !moved && quarter <= old.quarter) {
      return;
    }
    this.#spoken = { state, title, at: now, quarter };
    if (!first) {
      const percent = !changed && quarter > old.quarter ? `${quarter * 25} %` : "";
      this.#page.announce(`${this.label}: ${[title, percent || detail].filter(Boolean).join(", ")}`);
    }
  }

  act(name) {
    const { store } = this.#page;
    if (!this.saying?.acts.includes(name)) {
      return false;
    }
    const doing = {
      cancel: () => store.cancel(this.#id),
      stop: () => store.cancel(this.#id),
      undo: () => store.undo(this.#id),
      watch: () => this.#page.tasks.choose(this.#id),
      open: () => this.open(),
      close: () => this.close(),
      download: () => this.#download(),
      again: () => this.#page.again(this.#id, this.label),
      retry: () => this.#page.again(this.#id, this.label),
    };
    doing[name]();
    return true;
  }

  // ---- its answer ----

  words(chunk) {
    if (!this.#live) {
      this.#live = new LiveAnswer();
      this.#parts.body.replaceChildren(this.#live.node);
    }
    this.#live.push(chunk);
    this.#parts.body.hidden = this.#live.words === 0;
  }

  preview({ url, step }) {
    const { picture } = this.#parts;
    const { words } = this.#page;
    const steps = this.task.job.progress?.steps;
    picture.alt = steps ? words.say("preview", { n: step, m: steps }) : words.say("preview.plain");
    picture.src = url;
    picture.hidden = false;
    picture.classList.add("preview");
  }

  ended() {
    const { picture } = this.#parts;
    picture.classList.remove("preview");
    if (this.task.job.status !== "completed") {
      picture.hidden = true;
    } else if (this.#live && this.#live.words > 0) {
      this.open();  // it was read as it was made
    } else if (this.isPicture) {
      this.showPicture();
    }
    this.#live = null;
  }

  /** The small picture of a task that made one. */
  async showPicture() {
    if (this.#urls.length > 0 || this.task.job.status !== "completed") {
      return;
    }
    const kept = await this.#read().catch(() => null);
    if (kept?.result.kind === "pictures" && this.#urls.length === 0) {
      this.#urls = kept.result.blobs.map((blob) => URL.createObjectURL(blob));
      set(this.#parts.picture, { src: this.#urls[0], alt: `${this.#page.words.say("result.picture")}: ${this.label}` });
      this.#parts.picture.hidden = false;
    }
  }

  async open() {
    this.#open = true;
    const { words } = this.#page;
    const { body } = this.#parts;
    body.hidden = false;
    if (!this.#result && !this.#live) {
      body.replaceChildren(el("p", { class: "mute" }, words.say("result.reading")));
    }
    this.update();
    try {
      const { result } = await this.#read();
      if (result.kind === "pictures") {
        await this.showPicture();
        this.#open = false;
        body.hidden = true;
        this.#page.showPictures(this.#urls, this.label);
      } else if (result.kind === "text") {
        body.replaceChildren(wholeAnswer(result.text, words),
          ...(result.error ? [el("p", { class: "bad" }, plain(result.error))] : []));
      } else {
        body.replaceChildren(el("p", { class: "mute" }, words.say("result.file", { type: plain(result.type, 100) })));
      }
    } catch (error) {
      body.replaceChildren(el("p", { class: "bad" }, words.say("result.failed", { why: plain(error.message) })));
    }
    this.update();
  }

  close() {
    this.#open = false;
    this.#parts.body.hidden = true;
    this.#parts.body.replaceChildren();
    this.update();
  }

  #read() {
    this.#reading ??= this.#page.client.result(this.#id).then(readResult).then((result) => (this.#result = { result }));
    this.#reading.catch(() => (this.#reading = null));
    return this.#reading;
  }

  async #download() {
    const { words } = this.#page;
    try {
      const { result } = await this.#read();
      if (result.kind === "text") {
        save(new Blob([result.text], { type: "text/plain" }), `${this.#id}.txt`);
      } else if (result.kind === "pictures") {
        result.blobs.forEach((blob, i) => save(blob, `${this.#id}${i ? `-${i + 1}` : ""}.${extensionOf(blob.type)}`));
      } else {
        el("a", { href: this.task.job.result_url, download: "" }).click();
      }
    } catch (error) {
      this.#page.announce(words.say("result.failed", { why: plain(error.message) }), true);
    }
  }

  remove() {
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.node.remove();
  }
}

export class Tasks {
  #page;
  #cards = new Map();
  #chosen = "";
  #seen;
  #now = document.querySelector("#now");
  #ended = document.querySelector("#ended");

  constructor(page) {
    this.#page = page;
    // The small pictures of what is in sight.
    this.#seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = this.#cards.get(target.dataset.id);
        if (isIntersecting && card?.task && card.isPicture) {
          card.showPicture();
        }
      }
    });
    document.querySelector("#older").addEventListener("click", () => {
      page.store.older().catch((error) => page.announce(page.words.say("act.failed", { why: plain(error.message) }), true));
    });
    document.addEventListener("focusout", () => setTimeout(() => this.render()));
  }

  card(id) {
    return this.#cards.get(id);
  }

  /** The one that has the focus. */
  get focused() {
    return this.#cards.get(document.activeElement?.closest?.(".task")?.dataset.id);
  }

  /** Its output is shown as it is made. */
  choose(id) {
    this.#chosen = id;
    this.#watch();
    this.render();
  }

  render() {
    const { store, words } = this.#page;
    for (const [id, card] of this.#cards) {
      if (!store.tasks.has(id)) {
        card.remove();
        this.#cards.delete(id);
      }
    }
    const live = [];
    const ended = [];
    for (const task of store.tasks.values()) {
      (hasEnded(task.job) ? ended : live).push(task);
    }
    live.sort(nextFirst);
    ended.sort((a, b) => b.job.finished_at - a.job.finished_at || (a.job.id < b.job.id ? 1 : -1));
    this.#watch();
    this.#place(this.#now, live);
    this.#place(this.#ended, ended);
    say(document.querySelector("#now-count"), live.length ? words.number(live.length) : "");
    document.querySelector("#empty").hidden = store.tasks.size > 0 || store.heardAt() === null;
    document.querySelector("#older").hidden = !store.more;
  }

  /** It is known now which models make pictures. */
  lookAgain() {
    for (const { node } of this.#cards.values()) {
      this.#seen.unobserve(node);
      this.#seen.observe(node);
    }
  }

  ended(id) {
    this.#cards.get(id)?.ended();
  }

  words(chunk) {
    this.#cards.get(chunk.id)?.words(chunk);
  }

  preview(preview) {
    this.#cards.get(preview.id)?.preview(preview);
  }

  /** To the next card, or the one before. */
  step(by) {
    const all = [...document.querySelectorAll(".task")];
    const at = all.indexOf(document.activeElement?.closest?.(".task"));
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  // One output is listened to: the one that was asked for, else the one it was, else the first that runs.
  #watch() {
    const { store } = this.#page;
    const runs = (id) => store.tasks.get(id)?.job.status === "processing";
    if (document.hidden) {
      store.watch("");
      return;
    }
    const first = () => [...store.tasks.values()].filter(({ job }) => job.status === "processing").sort(nextFirst)[0]?.job.id ?? "";
    store.watch(runs(this.#chosen) ? this.#chosen : runs(store.watched) ? store.watched : first());
  }

  #place(section, tasks) {
    const list = section.querySelector("ol");
    section.hidden = tasks.length === 0 && list.childElementCount === 0;
    // Who walks through the list by keys finds it as it was.
    const held = document.querySelector("#tasks .list :focus-visible, #tasks .list .task:focus-visible") !== null;
    let behind = null;
    for (const { job } of tasks) {
      let card = this.#cards.get(job.id);
      if (!card) {
        card = new Card(this.#page, job.id);
        this.#cards.set(job.id, card);
        this.#seen.observe(card.node);
      }
      card.update();
      const wanted = behind ? behind.nextElementSibling : list.firstElementChild;
      if (card.node !== wanted && !(held && card.node.isConnected)) {
        list.insertBefore(card.node, wanted);
      }
      behind = card.node.parentElement === list ? card.node : behind;
    }
    section.hidden = list.childElementCount === 0;
  }
}

// Those that run, the oldest first; those that wait, by their place; those that are to start later.
function nextFirst({ job: a }, { job: b }) {
  const rank = { processing: 0, queued: 1, scheduled: 2 };
  return rank[a.status] - rank[b.status]
    || (a.started_at ?? 0) - (b.started_at ?? 0)
    || (a.position ?? Infinity) - (b.position ?? Infinity)
    || (a.not_before ?? 0) - (b.not_before ?? 0)
    || (a.id < b.id ? -1 : 1);
}
