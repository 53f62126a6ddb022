/**
 * A client of Penstock: submit, stream, follow, cancel, quota, challenge. It needs nothing but `fetch`, so it
 * runs in browsers and in Node.js 18 or later. Copy the file. docs/CLIENT.md shows it at work.
 *
 * Whatever the server refuses is a PenstockError. What comes as a stream is an async generator.
 *
 * @typedef {"scheduled"|"queued"|"processing"|"completed"|"failed"|"cancelled"|"expired"} Status
 *
 * @typedef {Object} Job
 * @property {string} id
 * @property {Status} status
 * @property {?number} position         1 is the next to start; null unless it is queued
 * @property {?number} eta_seconds      until it starts; while it runs, until it is done; null: not known
 * @property {?[number, number]} [eta_range]  between these, four times of five
 * @property {string} [eta_reason]  why it is not known: "loading", "paused", "no_worker", "learning"
 * @property {{from: number, by: string}} [moved]  others went ahead, by their "class" or "share"
 * @property {?{fraction: number, step?: number, steps?: number}} progress
 * @property {number} attempts          tries that failed
 * @property {number} created_at        Unix seconds, as all times here
 * @property {number} [not_before]      of one that is scheduled
 * @property {?number} started_at
 * @property {?number} finished_at
 * @property {?string} result_url
 * @property {?{code: string, message: string}} error
 * @property {?number} [expires_at]   of one that has ended: how long its result is kept
 * @property {boolean} [counted]       likewise: whether it counts against its limits
 * @property {?string} [model]
 * @property {?string} [label]          what the submitter called it: text from anybody
 *
 * @typedef {Object} StreamEvent
 * @property {string} type  the event's name; "message" without one; "comment" for a comment
 * @property {string} id    the last id that the stream gave
 * @property {string} data
 */

const LONGEST_LINE = 1 << 20;
const KEEP_ALIVE_MS = 15_000;
/** A stream that has said nothing for so long is opened anew: two signs of life are missing. */
export const QUIET_MS = 2 * KEEP_ALIVE_MS + 4_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
const LONGEST_LABEL = 120;
const MOST_CHALLENGES = 4;  // of one request: each of several limits may have its own
const ENDED = new Set(["completed", "failed", "cancelled", "expired"]);

/** @param {Job} job */
export const hasEnded = (job) => ENDED.has(job.status);

/** What the server refused, and why. Without an answer at all, `status` is 0. */
export class PenstockError extends Error {
  /** @param {number} status @param {Object} problem  an RFC 9457 body @param {?number} retryAfter */
  constructor(status, problem = {}, retryAfter = null) {
    super(problem.error?.message ?? problem.detail ?? problem.title ?? `The server answered ${status}.`);
    this.name = "PenstockError";
    this.status = status;
    /** rate_limit_exceeded, quota_exceeded, concurrency_exceeded, busy, not_found ... */
    this.code = problem.error?.code ?? "";
    /** Seconds after which it is worth another try; null: not told. */
    this.retryAfter = retryAfter;
    /** Names of the limits that were exceeded, as `quota()` has them. */
    this.policies = problem["violated-policies"] ?? [];
    /** What is to be solved, where the code is challenge_required; else null. */
    this.challenge = problem.challenge ?? null;
    /** Where the operator explains the plans, or "". */
    this.documentation = problem.documentation ?? "";
  }

  /** It may pass by itself: nothing is wrong with the question. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** @param {Response} reply */
  static async from(reply) {
    let problem = {};
    try {
      problem = await reply.json();
    } catch {
      // It was not Penstock that answered.
    }
    return new PenstockError(reply.status, problem ?? {}, retryAfterOf(reply.headers));
  }
}

/** @param {Headers} headers */
function retryAfterOf(headers) {
  const ms = headers.get("retry-after-ms");
  if (ms !== null && /^\d+(\.\d+)?$/.test(ms)) {
    return Number(ms) / 1000;
  }
  const text = headers.get("retry-after");
  if (text === null) {
    return null;
  }
  if (/^\d+$/.test(text)) {
    return Number(text);
  }
  const seconds = (Date.parse(text) - Date.parse(headers.get("date") ?? "")) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/**
 * Server-sent events out of text that comes in pieces:
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
 * Besides, comments are told: they are signs of life.
 */
export class EventParser {
  #rest = "";
  #started = false;
  #skipLineFeed = false;
  #type = "";
  #data = [];
  #size = 0;
  /** The last id that was given, and the pause in ms that the server wants before another connection. */
  lastEventId = "";
  retry = null;

  /** @param {string} piece @returns {StreamEvent[]} those that are complete by now */
  push(piece) {
    if (!this.#started && piece !== "") {
      this.#started = true;
      piece = piece.replace(/^\uFEFF/, "");
    }
    // A line ends by CR, LF or CR LF; a LF may come in the piece behind its CR.
    if (this.#skipLineFeed && piece !== "") {
      piece = piece.replace(/^\n/, "");
      this.#skipLineFeed = false;
    }
    this.#skipLineFeed = piece.endsWith("\r");
    const lines = piece.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      this.#check(line);
      this.#take(line, events);
    }
    this.#check(this.#rest);
    return events;
  }

  #check(line) {
    if (line.length > LONGEST_LINE) {
      throw new RangeError("A line of an event stream is longer than 1 MiB.");
    }
  }

  #take(line, events) {
    if (line === "") {
      this.#dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (colon === 0) {
      events.push({ type: "comment", id: this.lastEventId, data: value });
    } else if (field === "data") {
      this.#size += value.length;
      if (this.#size > 4 * LONGEST_LINE) {
        throw new RangeError("An event is longer than 4 MiB.");
      }
      this.#data.push(value);
    } else if (field === "event") {
      this.#type = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.lastEventId = value;
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.retry = Number(value);
    }
  }

  #dispatch(events) {
    if (this.#data.length > 0) {
      events.push({ type: this.#type || "message", id: this.lastEventId, data: this.#data.join("\n") });
    }
    this.#type = "";
    this.#data = [];
    this.#size = 0;
  }
}

/**
 * The events of a body, as they come.
 * @param {ReadableStream<Uint8Array>} body
 * @param {EventParser} parser
 * @returns {AsyncGenerator<StreamEvent>}
 */
export async function* readEvents(body, parser = new EventParser()) {
  const reader = body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * The words of an answer whose raw text comes in pieces: of OpenAI's event stream, or of its JSON;
 * of anything else, the text itself.
 */
export class AnswerText {
  #kind = "";
  #raw = "";
  #parser = new EventParser();
  /** What the answer says went wrong in its midst, or "". */
  error = "";

  /** @param {string} piece @returns {string} the words that are new */
  push(piece) {
    if (this.#kind === "") {
      this.#raw += piece;
      const start = this.#raw.trimStart();
      if (start.length < 6) {
        return "";
      }
      this.#kind = /^(data|event|id|retry)?:/.test(start) ? "events" : start[0] === "{" ? "json" : "text";
      piece = this.#raw;
      this.#raw = "";
    }
    if (this.#kind === "events") {
      return this.#parser.push(piece).map((event) => this.#wordsOf(event)).join("");
    }
    if (this.#kind === "json") {
      this.#raw += piece;
      return "";
    }
    return piece;
  }

  /** @returns {string} the words that were held back for the end */
  end() {
    if (this.#kind === "events") {
      return this.push("\n\n");
    }
    const raw = this.#raw;
    this.#raw = "";
    if (this.#kind !== "json") {
      return raw;
    }
    try {
      const answer = JSON.parse(raw);
      const choice = answer.choices?.[0];
      return choice?.message?.content ?? choice?.text ?? JSON.stringify(answer, null, 2);
    } catch {
      return raw;
    }
  }

  #wordsOf(event) {
    if (event.type === "comment" || event.data === "[DONE]") {
      return "";
    }
    try {
      const { choices, error } = JSON.parse(event.data);
      this.error = error?.message ?? this.error;
      return choices?.[0]?.delta?.content ?? choices?.[0]?.text ?? "";
    } catch {
      return "";
    }
  }
}

/** @param {StreamEvent} event @returns {?Object} null where it is no JSON */
function dataOf(event) {
  try {
    return event.type === "comment" ? null : JSON.parse(event.data);
  } catch {
    return null;
  }
}

/** A key that makes a repeated request the same one. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} text @returns {string} as the header Penstock-Label wants it */
function labelHeader(text) {
  const line = text.replace(/[\uD800-\uDFFF]/gu, "\uFFFD").replace(/\s+/g, " ").trim();
  return encodeURIComponent(Array.from(line).slice(0, LONGEST_LABEL).join(""));
}

export class Penstock {
  #fetch;
  #headers;
  #solve;
  #pass = "";
  #naps = new Set();
  #checks = new Set();

  /**
   * @param {Object} [options]
   * @param {string} [options.base]     where Penstock is: "https://api.example"; "": this page's origin
   * @param {Object|function(): Object} [options.headers]  for each request, such as Authorization
   * @param {function(Object, {signal: ?AbortSignal, retryAfter: ?number}): Promise<string>}
   *     [options.challenge]  solves a challenge, as solver.js does in a browser; what was asked is
   *     then asked again with the payload, four times at most, as several limits may each have a
   *     challenge. Without it a challenge is a PenstockError
   * @param {typeof fetch} [options.fetch]
   */
  constructor({ base = "", headers = {}, challenge = null, fetch = globalThis.fetch.bind(globalThis) } = {}) {
    this.base = base.replace(/\/$/, "");
    this.#headers = typeof headers === "function" ? headers : () => headers;
    this.#solve = challenge;
    this.#fetch = fetch;
  }

  /** @returns {Promise<Array<{id: string, kind?: string}>>} the models that are served */
  async models() {
    return (await this.askModels()).models;
  }

  /** Likewise, and in `policies` the names of the limits under which the question was counted. */
  async askModels() {
    const reply = await this.#ask("GET", "/v1/models");
    const policies = [...(reply.headers.get("ratelimit-policy") ?? "").matchAll(/"([^"]+)"/g)].map(([, name]) => name);
    return { models: (await reply.json()).data, policies };
  }

  /** The caller's limits and what is left of them, as docs/CLIENT.md tells; it costs nothing. */
  quota() {
    return this.#json("/quota");
  }

  /**
   * Signs this browser in with a key: what it asks for from then on is the key's, by a cookie that
   * is no key. `at` is where, as quota() tells in `signed_in`.
   * @param {string} key
   * @param {string} [at]
   * @returns {Promise<{owner: ?string, tier: ?string, key: ?string}>}
   */
  async signIn(key, at = "/session") {
    return (await this.#ask("POST", at, { headers: { Authorization: `Bearer ${key}` } })).json();
  }

  /** The key is known here no longer. */
  async signOut(at = "/session") {
    await this.#ask("DELETE", at);
  }

  /**
   * Promises a job: it outlives this page, this connection, and restarts of the server.
   * @param {string} path  "/v1/chat/completions"
   * @param {Object} body
   * @param {Object} [options]
   * @param {string} [options.key]    makes a repetition the same job; give your own to ask again
   *                                  after an answer that got lost
   * @param {string} [options.label]  what to call it; its first 120 characters are kept
   * @param {number} [options.delay]  seconds before which it must not start
   * @param {string} [options.callback]  URL for a webhook when it is over
   * @param {AbortSignal} [options.signal]
   * @returns {Promise<Job>}
   */
  async submit(path, body, { key = newKey(), label = "", delay = 0, callback = "", signal } = {}) {
    const headers = { "Content-Type": "application/json", Prefer: "respond-async", "Idempotency-Key": `"${key}"` };
    if (label) {
      headers["Penstock-Label"] = labelHeader(label);
    }
    if (delay > 0) {
      headers["Penstock-Delay"] = String(Math.ceil(delay));
    }
    if (callback) {
      headers["Penstock-Callback"] = callback;
    }
    const reply = await this.#ask("POST", path, { headers, body: JSON.stringify(body), signal });
    const job = await reply.json();
    // The job was over, under this key: that is its answer.
    return job.object === "job" ? job : this.job(reply.headers.get("penstock-job-id") ?? "");
  }

  /**
   * Waits for the answer on this connection. Whoever leaves (`break`, or the signal) cancels it.
   * @param {string} path
   * @param {Object} body  `stream: true` is put in
   * @param {{signal?: AbortSignal}} [options]
   * @returns {AsyncGenerator<StreamEvent>}  comments tell of the wait: "queued position=5 eta=42"
   */
  async *stream(path, body, { signal } = {}) {
    const leave = new AbortController();
    const unlink = link(signal, leave);
    try {
      const reply = await this.#ask("POST", path, {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...body, stream: true }),
        signal: leave.signal,
      });
      yield* readEvents(reply.body);
    } finally {
      unlink();
      leave.abort();
    }
  }

  /** @param {string} id @returns {Promise<Job>} */
  job(id) {
    return this.#json(`/jobs/${encodeURIComponent(id)}`);
  }

  /**
   * The caller's own jobs, newest first.
   * @param {{status?: string, limit?: number, after?: string}} [options]
   * @returns {Promise<{data: Job[], has_more: boolean, server_time: number}>}
   */
  async jobs(options = {}) {
    const reply = await this.#ask("GET", `/jobs?${new URLSearchParams(options)}`);
    const seconds = Date.parse(reply.headers.get("date") ?? "") / 1000;
    return { server_time: Number.isFinite(seconds) ? seconds : Date.now() / 1000, ...(await reply.json()) };
  }

  /**
   * @param {string} id
   * @param {{keepalive?: boolean}} [options]  keepalive: it is sent even if the page goes
   * @returns {Promise<Job>}
   */
  async cancel(id, { keepalive = false } = {}) {
    return (await this.#ask("DELETE", `/jobs/${encodeURIComponent(id)}`, { keepalive })).json();
  }

  /** The engine's answer. It is text or bytes from anybody: never put it into a page as HTML.
   * @param {string} id @param {{signal?: AbortSignal}} [options] @returns {Promise<Response>} */
  result(id, { signal } = {}) {
    return this.#ask("GET", `/jobs/${encodeURIComponent(id)}/result`, { signal });
  }

  /**
   * One job as it goes, over broken connections, to its end. Events: the job's status, with the
   * job; `chunk`, with {offset, text} of the raw answer, which begins at 0 again if the job does;
   * `preview`, with {url, step}.
   * @param {string} id
   * @param {{signal?: AbortSignal}} [options]
   * @returns {AsyncGenerator<{type: string, data: Object}>}
   */
  async *follow(id, { signal } = {}) {
    for await (const event of this.#listen(`/jobs/${encodeURIComponent(id)}/events`, { signal })) {
      const data = dataOf(event);
      if (data !== null) {
        yield { type: event.type, data };
      }
      if (ENDED.has(event.type)) {
        return;
      }
    }
  }

  /**
   * All of the caller's jobs in one stream, for ever: `snapshot` at each connection, then `job`
   * (whole), `gone` ({id}), `limits` (as quota()), `notice`; and "comment" as a sign of life.
   * @param {Object} [options]
   * @param {AbortSignal} [options.signal]
   * @param {function({failures: number, retryAfter: ?number, status: number}): void} [options.onTrouble]
   * @returns {AsyncGenerator<{type: string, data: ?Object}>}
   */
  async *events({ signal, onTrouble } = {}) {
    for await (const event of this.#listen("/jobs/events", { signal, onTrouble })) {
      const data = dataOf(event);
      if (data !== null || event.type === "comment") {
        yield { type: event.type, data };
      }
    }
  }

  /** The page is seen again, or the network is back: what waits tries at once. */
  wake() {
    for (const end of [...this.#naps]) {
      end();
    }
    for (const check of [...this.#checks]) {
      check();
    }
  }

  async #json(path) {
    return (await this.#ask("GET", path)).json();
  }

  async #ask(method, path, options = {}) {
    let headers = options.headers;
    for (let solved = 0; ; ++solved) {
      try {
        return await this.#askOnce(method, path, { ...options, headers });
      } catch (error) {
        if (!error.challenge || !this.#solve || solved === MOST_CHALLENGES) {
          throw error;
        }
        const payload = await this.#solve(error.challenge, { signal: options.signal, retryAfter: error.retryAfter });
        headers = { ...options.headers, "Penstock-Solution": payload };
      }
    }
  }

  async #askOnce(method, path, { headers = {}, ...rest }) {
    let reply;
    try {
      reply = await this.#fetch(this.base + path, {
        method,
        headers: { ...this.#headers(), ...(this.#pass && { "Penstock-Pass": this.#pass }), ...headers },
        cache: "no-store",
        ...rest,
      });
    } catch (error) {
      if (rest.signal?.aborted) {
        throw error;
      }
      throw new PenstockError(0, { detail: "The server could not be reached." });
    }
    this.#pass = reply.headers.get("penstock-pass") ?? this.#pass;
    if (!reply.ok) {
      throw await PenstockError.from(reply);
    }
    return reply;
  }

  // Events for as long as the signal wants them. Ends by 204; throws what will not pass by itself.
  async *#listen(path, { signal, onTrouble = () => {} }) {
    const parser = { lastEventId: "", retry: null };
    for (let failures = 0; !signal?.aborted; ) {
      let retryAfter = null;
      try {
        for await (const event of this.#connection(path, parser, signal)) {
          failures = 0;
          yield event;
        }
        if (parser.ended) {
          return;
        }
      } catch (error) {
        if (signal?.aborted) {
          return;
        }
        if (error instanceof PenstockError && !error.passing) {
          throw error;
        }
        retryAfter = error.retryAfter ?? null;
        ++failures;
        onTrouble({ failures, retryAfter, status: error.status ?? 0 });
      }
      const usual = failures === 0 ? parser.retry ?? FIRST_PAUSE_MS
        : Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS);
      await this.#nap(retryAfter === null ? usual * (0.7 + 0.6 * Math.random()) : retryAfter * 1000, signal);
    }
  }

  async *#connection(path, told, signal) {
    const attempt = new AbortController();
    const unlink = link(signal, attempt);
    let heard = Date.now();
    const check = () => Date.now() - heard >= QUIET_MS && attempt.abort();
    const clock = setInterval(check, 1000);
    this.#checks.add(check);
    try {
      const headers = { Accept: "text/event-stream" };
      if (told.lastEventId) {
        headers["Last-Event-ID"] = told.lastEventId;
      }
      const reply = await this.#ask("GET", path, { headers, signal: attempt.signal });
      told.ended = reply.status === 204;
      if (told.ended) {
        return;
      }
      const parser = new EventParser();
      parser.lastEventId = told.lastEventId;
      for await (const event of readEvents(reply.body, parser)) {
        heard = Date.now();
        told.lastEventId = event.id;
        told.retry = parser.retry;
        yield event;
      }
    } finally {
      clearInterval(clock);
      this.#checks.delete(check);
      unlink();
      attempt.abort();
    }
  }

  #nap(ms, signal) {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#naps.delete(end);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#naps.add(end);
      signal?.addEventListener("abort", end);
    });
  }
}

/** @returns {function(): void} undoes it */
function link(signal, controller) {
  const abort = () => controller.abort(signal.reason);
  if (signal?.aborted) {
    abort();
  }
  signal?.addEventListener("abort", abort);
  return () => signal?.removeEventListener("abort", abort);
}
