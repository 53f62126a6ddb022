// The page's words in the reader's language, and the wording of numbers and times.
//
// An entry of words.LANGUAGE.json is a text with {names} in it, or several of them by the plural
// form of {n}. {n, ordinal} is "5th".

export const LANGUAGES = ["en", "zh"];

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** @returns {string} the first of the reader's languages that there is */
export function chosenLanguage(wanted) {
  for (const tag of wanted) {
    const language = tag.toLowerCase().split("-")[0];
    if (LANGUAGES.includes(language)) {
      return language;
    }
  }
  return LANGUAGES[0];
}

export class Words {
  #entries;
  #plural;
  #order;
  #number;

  /** @param {string} language @param {Object} entries  those of words.LANGUAGE.json */
  constructor(language, entries) {
    this.language = language;
    this.#entries = entries;
    this.#plural = new Intl.PluralRules(language);
    this.#order = new Intl.PluralRules(language, { type: "ordinal" });
    this.#number = new Intl.NumberFormat(language);
  }

  static async load(language) {
    return new Words(language, await (await fetch(`/ui/words.${language}.json`)).json());
  }

  has(key) {
    return key in this.#entries;
  }

  /** @param {string} key @param {Object} [values] */
  say(key, values = {}) {
    let text = this.#entries[key];
    if (text === undefined) {
      return key;
    }
    if (typeof text === "object") {
      text = text[this.#plural.select(values.n)] ?? text.other;
    }
    return text.replace(/\{(\w+)(, ordinal)?\}/g, (_, name, ordinal) => {
      const value = values[name];
      return ordinal ? this.ordinal(value) : typeof value === "number" ? this.number(value) : String(value ?? "");
    });
  }

  /** Sentences, one behind the other. */
  join(...sentences) {
    return sentences.filter(Boolean).join(this.say("join"));
  }

  number(value) {
    return this.#number.format(value);
  }

  ordinal(n) {
    const forms = this.#entries.ordinal;
    return (forms[this.#order.select(n)] ?? forms.other).replace("{n}", this.number(n));
  }

  // ---- lengths of time, in seconds ----

  /** As it is: "40 s", "1.5 min", "9 h 48 min", "3 days". Nothing is rounded to please. */
  time(seconds) {
    const s = Math.max(0, Math.ceil(seconds));
    if (s < 100) {
      return this.say("time.s", { n: s });
    }
    if (s < HOUR) {
      const minutes = Math.floor(s / MINUTE);
      return s % MINUTE === 0 || minutes >= 10 ? this.say("time.min", { n: Math.round(s / MINUTE) })
        : this.say("time.min.s", { n: minutes, s: s % MINUTE });
    }
    if (s < 2 * DAY) {
      const minutes = Math.round(s / MINUTE);
      return minutes % 60 === 0 ? this.say("time.h", { n: minutes / 60 })
        : this.say("time.h.min", { n: Math.floor(minutes / 60), m: minutes % 60 });
    }
    return this.say("time.day", { n: Math.round(s / DAY) });
  }

  /** A countdown: "0:12". */
  clock(seconds) {
    const s = Math.max(0, Math.ceil(seconds));
    if (s >= HOUR) {
      return this.time(s);
    }
    return `${Math.floor(s / MINUTE)}:${String(s % MINUTE).padStart(2, "0")}`;
  }

  /** What is guessed: "about 40 s", "a few seconds". */
  about(seconds) {
    const step = stepOf(seconds);
    return step === 0 ? this.say("eta.few") : this.say("eta.about", { t: this.#rounded(Math.round(seconds / step) * step) });
  }

  /** "about 40 s (30 to 70)", of a guess and the range that it is in, which may be missing. */
  guess(seconds, range) {
    if (!range || range[1] - range[0] < 5) {
      return this.about(seconds);
    }
    const [soon, late] = outward(range);
    if (range[1] > 3 * Math.max(range[0], 1) && late >= 15) {
      return this.say("eta.between", this.#pair(soon, late));
    }
    const about = this.about(seconds);
    if (stepOf(seconds) === 0) {
      return about;
    }
    const { a, b } = this.#pair(soon, late, unitOf(seconds));
    return this.say("eta.range", { about, a, b });
  }

  /** A guess on a scale: "30 s". */
  short(seconds) {
    const step = stepOf(seconds) || 5;
    return this.#rounded(Math.round(seconds / step) * step);
  }

  // Two times; the first has its unit only if the second's is another, and the second only if `said` is.
  #pair(soon, late, said = null) {
    const same = unitOf(soon || late) === unitOf(late);
    const a = same ? this.number(amountOf(soon, unitOf(late))) : this.#rounded(soon);
    const b = same && said === unitOf(late) ? this.number(amountOf(late, unitOf(late))) : this.#rounded(late);
    return { a, b };
  }

  #rounded(seconds) {
    const unit = unitOf(seconds);
    return this.say(unit === 1 ? "time.s" : unit === MINUTE ? "time.min" : "time.h", { n: amountOf(seconds, unit) });
  }

  // ---- moments, in Unix seconds ----

  /** "14:02", "tomorrow, 14:02", "1 December, 14:02", of a moment as seen at another. */
  moment(at, now, timeZone = undefined) {
    const date = new Date(at * 1000);
    const time = new Intl.DateTimeFormat(this.language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone }).format(date);
    const dayOf = (seconds) => new Intl.DateTimeFormat("en-CA", { timeZone }).format(new Date(seconds * 1000));
    if (dayOf(at) === dayOf(now)) {
      return time;
    }
    if (dayOf(at) === dayOf(now + DAY)) {
      return this.say("day.tomorrow", { t: time });
    }
    if (dayOf(at) === dayOf(now - DAY)) {
      return this.say("day.yesterday", { t: time });
    }
    const day = new Intl.DateTimeFormat(this.language, { day: "numeric", month: "long", timeZone }).format(date);
    return this.say("day.other", { d: day, t: time });
  }
}

// Under 10 s nobody knows better; to 90 s by 5 s; to 10 min by half minutes; then minutes, then half hours.
function stepOf(seconds) {
  return seconds < 10 ? 0 : seconds < 90 ? 5 : seconds < 600 ? 30 : seconds < HOUR ? MINUTE : HOUR / 2;
}

const unitOf = (seconds) => (seconds < 90 ? 1 : seconds < HOUR ? MINUTE : HOUR);
const amountOf = (seconds, unit) => Math.round((seconds / unit) * 2) / 2;

function outward([soon, late]) {
  const step = (seconds) => stepOf(seconds) || 5;
  return [Math.max(0, Math.floor(soon / step(soon)) * step(soon)), Math.ceil(late / step(late)) * step(late)];
}
