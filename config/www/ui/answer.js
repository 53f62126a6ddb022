// The words of an answer on a card: as they come, and when it is whole.

import { el } from "./el.js";
import { AnswerText } from "./penstock.js";

const SHOWN = 2000;      // characters, before "Show all"
const LIVE = 64 << 10;   // characters of an answer that is still being made; earlier ones come back at its end
const PIECE = 64 << 10;

const CJK = /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}/u;

/** Counts words as their text comes in pieces; a character of Chinese is one. */
export class WordCount {
  #inWord = false;
  count = 0;

  push(text) {
    for (const character of text) {
      if (CJK.test(character)) {
        ++this.count;
        this.#inWord = false;
      } else if (/\s/.test(character)) {
        this.#inWord = false;
      } else if (!this.#inWord) {
        this.#inWord = true;
        ++this.count;
      }
    }
    return this.count;
  }
}

/** An answer that is being made. */
export class LiveAnswer {
  #reader = new AnswerText();
  #count = new WordCount();
  #text = "";
  #shown = 0;      // characters of it that are on the page, from #first on
  #first = 0;
  #frame = 0;
  node = el("div", { class: "out live", tabindex: "0", role: "group", dir: "auto" });

  /** @param {{offset: number, text: string}} chunk @returns {number} words so far */
  push({ offset, text }) {
    if (offset === 0) {
      this.#restart();
    }
    const words = this.#reader.push(text);
    this.#text += words;
    this.#frame ||= requestAnimationFrame(() => this.#draw());
    return this.#count.push(words);
  }

  get words() {
    return this.#count.count;
  }

  #restart() {
    this.#reader = new AnswerText();
    this.#count = new WordCount();
    this.#text = "";
    this.#shown = this.#first = 0;
    this.node.replaceChildren();
  }

  #draw() {
    this.#frame = 0;
    const atEnd = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 24;
    this.node.append(this.#text.slice(this.#shown));
    this.#shown = this.#text.length;
    while (this.#shown - this.#first > LIVE && this.node.childNodes.length > 1) {
      this.#first += this.node.firstChild.length;
      this.node.firstChild.remove();
    }
    if (atEnd) {
      this.node.scrollTop = this.node.scrollHeight;
    }
  }
}

/** A whole answer: its beginning, and all of it if that is wanted. */
export function wholeAnswer(text, words) {
  const node = el("div", { class: "out", dir: "auto" });
  if (text.trim() === "") {
    node.classList.add("mute");
    node.append(words.say("result.empty"));
    return node;
  }
  const body = text.trim();
  node.append(body.slice(0, SHOWN));
  if (body.length <= SHOWN) {
    return node;
  }
  const button = el("button", { type: "button", on: { click: () => showAll(node, button, body) } },
    words.say("show.all", { n: body.length }));
  node.append("… ", button);
  return node;
}

// By pieces, so that the page stays at hand.
function showAll(node, button, text) {
  const focused = document.activeElement === button;
  node.replaceChildren(text.slice(0, SHOWN));
  node.classList.add("long");
  node.tabIndex = 0;
  if (focused) {
    node.focus();
  }
  let at = SHOWN;
  const more = () => {
    node.append(text.slice(at, at + PIECE));
    at += PIECE;
    if (at < text.length && node.isConnected) {
      requestAnimationFrame(more);
    }
  };
  more();
}
