// The tasks as the server tells of them, the same in every tab.
//
// A tab owns nothing: a task is what the last snapshot or event said. One tab of a browser, which
// holds the Web Lock, listens to the owner's stream (GET /jobs/events) and passes all of it on by a
// BroadcastChannel. Where the server has no such stream, that tab asks for the list again and again.
// Where the browser has no locks (plain http), each of the first two tabs listens by itself, and
// from the third on they ask, as a browser opens six connections to a host at most.

import { hasEnded, PenstockError, QUIET_MS } from "./penstock.js";

const CHANNEL = "penstock-events";
const UNDO_MS = 5000;
const HIDDEN_MS = 5 * 60_000;
const FIRST_POLL_MS = 2000;
const LAST_POLL_MS = 10_000;
const PAGE = 50;

/**
 * @typedef {Object} Task
 * @property {import("./penstock.js").Job} job
 * @property {number} told       when that was heard, ms of this page's clock
 * @property {number} moved      the place it had before others went ahead; 0: none did
 * @property {string} movedBy    by their "class" or their "share"; "": not told
 * @property {number} promised   server's seconds by which it was to start, as first said; 0: never said
 * @property {number} undoUntil  ms of this page's clock: until then its cancel can be taken back; 0: none
 * @property {boolean} leaving   its cancel is on the way
 */

/** The state of the connection, from what was heard last. Pure, so that it can be tested.
 * @returns {{state: string, seconds: number}} */
export function connectionState({ online, signedOut, heard, failures, retryAt }, now) {
  const age = heard === null ? 0 : now - heard;
  if (!online) {
    return { state: "offline", seconds: age / 1000 };
  }
  if (signedOut) {
    return { state: "signed-out", seconds: 0 };
  }
  if (retryAt > now) {
    return { state: "restarting", seconds: (retryAt - now) / 1000 };
  }
  if (failures >= 3) {
    return { state: "unreachable", seconds: age / 1000 };
  }
  if (heard === null || failures > 0) {
    return { state: "connecting", seconds: 0 };
  }
  return age > QUIET_MS ? { state: "quiet", seconds: age / 1000 } : { state: "live", seconds: 0 };
}

/** What is known of a task once the server has told of it again.
 * @param {Task|undefined} before @param {import("./penstock.js").Job} job @returns {Task} */
export function withNews(before, job, now, serverNow) {
  const task = { told: now, moved: 0, movedBy: "", promised: 0, undoUntil: 0, leaving: false, ...before, job };
  task.told = now;
  const old = before?.job;
  if (job.status !== "queued") {
    task.moved = 0;
  } else if (old?.status === "queued" && job.attempts === old.attempts) {
    if (job.position > old.position) {
      task.moved = old.position;
      task.movedBy = job.moved?.by ?? "";
    } else if (job.position <= task.moved) {
      task.moved = 0;
    }
  }
  if (job.status !== "queued") {
    task.promised = 0;
  } else if (task.promised === 0 && job.eta_seconds !== null) {
    task.promised = serverNow + (job.eta_range?.[1] ?? job.eta_seconds * 1.25 + 5);
  }
  if (hasEnded(job)) {
    task.undoUntil = 0;
    task.leaving = false;
  }
  return task;
}

export class Store {
  #client;
  #listeners = new Set();
  #channel = null;
  #leading = null;     // an AbortController while this tab listens, or waits for its turn to
  #neighbours = 0;     // other tabs that listen for themselves
  #pollSoon = () => {};
  #hiddenTimer = 0;
  #watching = null;    // {id, stop} of the one task whose output is listened to
  #untold = new Set(); // tasks whose output the server does not tell
  #stole = -Infinity;  // when this tab took the lock from one that had fallen silent
  #limitsHeard = false;
  #offset = 0;         // server's seconds minus this page's
  #link = { signedOut: false, heard: null, failures: 0, retryAt: 0 };

  /** @type {Map<string, Task>} */
  tasks = new Map();
  more = false;
  quota = null;
  notice = null;
  /** The page wants news although it is hidden: the reader asked for a notice. */
  keepWhenHidden = () => false;

  /** @param {import("./penstock.js").Penstock} client */
  constructor(client) {
    this.#client = client;
  }

  /** @param {function(string, *): void} listener  told "task" and its id, "ended", "limits", "notice",
   *     "link", "words" {id, offset, text}, "preview" {id, url, step} */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /** The server's time now, in Unix seconds. The reader's clock may be wrong: only its pace is used. */
  now() {
    return this.#offset + performance.now() / 1000;
  }

  connection() {
    return connectionState({ ...this.#link, online: navigator.onLine }, performance.now());
  }

  /** When something was heard last, in the server's time; null: never. */
  heardAt() {
    return this.#link.heard === null ? null : this.#offset + this.#link.heard / 1000;
  }

  start() {
    if (typeof BroadcastChannel === "function") {
      this.#channel = new BroadcastChannel(CHANNEL);
      this.#channel.onmessage = ({ data }) => this.#hear(data);
    }
    document.addEventListener("visibilitychange", () => this.#seenOrNot());
    for (const name of ["pageshow", "online"]) {
      window.addEventListener(name, () => this.wake());
    }
    window.addEventListener("offline", () => this.#tell("link"));
    window.addEventListener("pagehide", () => this.#sendHeldCancels());
    this.#listen();
  }

  /** Once a second while the page is seen: a leader that has fallen silent is replaced. */
  tick() {
    this.#listen();
  }

  wake() {
    this.#client.wake();
    this.#pollSoon();
    this.#listen();
    this.#tell("link");
  }

  /** A task that was just promised, before any event tells of it. */
  add(job) {
    this.#take("job", job);
    this.#channel?.postMessage({ type: "job", data: job });
    this.#pollSoon();
  }

  /** Of one that has not started the cancel is held back for 5 s, in which it can be undone. */
  async cancel(id) {
    const task = this.tasks.get(id);
    if (!task || hasEnded(task.job) || task.leaving || task.undoUntil) {
      return;
    }
    if (task.job.status === "processing") {
      await this.#cancelNow(id);
      return;
    }
    task.undoUntil = performance.now() + UNDO_MS;
    const { undoUntil } = task;
    setTimeout(() => this.tasks.get(id)?.undoUntil === undoUntil && this.#cancelNow(id), UNDO_MS);
    this.#tell("task", id);
  }

  undo(id) {
    const task = this.tasks.get(id);
    if (task?.undoUntil) {
      task.undoUntil = 0;
      this.#tell("task", id);
    }
  }

  async older() {
    const last = [...this.tasks.keys()].sort().at(0);
    const page = await this.#client.jobs({ limit: PAGE, after: last });
    this.more = page.has_more;
    for (const job of page.data) {
      this.#put(job);
    }
    this.#tell("tasks");
  }

  async readQuota() {
    const quota = await this.#client.quota();
    this.#take("limits", quota);
    this.#say("quota", quota);
  }

  /** The stream tells of the limits when they change: they need not be asked for. */
  hearsLimits() {
    return this.#limitsHeard && this.connection().state === "live";
  }

  /** Listens to the words and previews of one task, the one in view; "" of none. */
  watch(id) {
    if (this.#watching?.id === id || this.#untold.has(id)) {
      return;
    }
    this.#watching?.stop.abort();
    this.#watching = null;
    if (id) {
      this.#watching = { id, stop: new AbortController() };
      this.#follow(this.#watching);
    }
  }

  get watched() {
    return this.#watching?.id ?? "";
  }

  // ---- what is heard ----

  #tell(what, about) {
    for (const listener of this.#listeners) {
      listener(what, about);
    }
  }

  #heard() {
    const was = this.connection().state;
    Object.assign(this.#link, { heard: performance.now(), failures: 0, retryAt: 0 });
    if (was !== this.connection().state) {
      this.#tell("link");
    }
  }

  #put(job) {
    const before = this.tasks.get(job.id);
    // A repeated list that says the same is no news: the countdown goes on from when it was told.
    if (before && JSON.stringify(before.job) === JSON.stringify(job) && job.status !== "queued") {
      return false;
    }
    const task = withNews(before, job, performance.now(), this.now());
    this.tasks.set(job.id, task);
    if (task.undoUntil && job.status === "processing") {
      this.#cancelNow(job.id);  // it began while its cancel was held back
    }
    if (before && hasEnded(job) && !hasEnded(before.job)) {
      this.#tell("ended", job.id);
    }
    return true;
  }

  // An event of the stream, from whichever tab.
  #take(type, data) {
    if (type === "snapshot") {
      // The head of a polled answer has whole seconds only: what fits them is kept.
      if (Math.abs(data.server_time - this.now()) > 1.5) {
        this.#offset = data.server_time - performance.now() / 1000;
      }
      const told = new Set(data.jobs.map((job) => job.id));
      for (const [id, { job }] of this.tasks) {
        if (!told.has(id) && !hasEnded(job)) {
          this.tasks.delete(id);
        }
      }
      data.jobs.forEach((job) => this.#put(job));
      this.more = Boolean(data.more) && (this.tasks.size === data.jobs.length || this.more);
      this.#tell("tasks");
    } else if (type === "job") {
      this.#put(data);
      this.#tell("task", data.id);
    } else if (type === "gone") {
      this.tasks.delete(data.id);
      this.#tell("tasks");
    } else if (type === "limits") {
      this.quota = data;
      this.#tell("limits");
    } else if (type === "notice") {
      this.notice = data;
      this.#tell("notice");
    }
  }

  // A message of another tab.
  #hear({ type, data }) {
    this.#limitsHeard ||= type === "limits";
    if (type === "who") {
      if (this.#leading?.listens) {
        this.#channel.postMessage({ type: "here" });
        this.#say("snapshot", { server_time: this.now(), jobs: [...this.tasks.values()].map(({ job }) => job), more: this.more });
      }
    } else if (type === "here") {
      ++this.#neighbours;
    } else if (type === "trouble") {
      this.#trouble(data);
    } else if (type === "quota") {
      this.#take("limits", data);
    } else {
      this.#heard();
      this.#take(type, data);
    }
  }

  #say(type, data) {
    this.#channel?.postMessage({ type, data });
  }

  // ---- the stream ----

  #seenOrNot() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => this.keepWhenHidden() || this.#leading?.abort(), HIDDEN_MS);
    } else {
      this.wake();
    }
  }

  async #listen() {
    const now = performance.now();
    // Another tab leads, and has fallen silent: its turn is over.
    const steal = Boolean(this.#leading?.waits) && this.connection().state === "quiet" && now - this.#stole > QUIET_MS;
    if (this.#leading && !this.#leading.signal.aborted && !steal) {
      return;
    }
    if (steal) {
      this.#stole = now;
      this.#leading.abort();
    }
    const turn = (this.#leading = new AbortController());
    turn.waits = true;
    this.#neighbours = 0;
    this.#say("who");
    try {
      if (navigator.locks) {
        await navigator.locks.request(CHANNEL, steal ? { steal } : { signal: turn.signal }, () => this.#lead(turn));
      } else {
        await new Promise((resolve) => setTimeout(resolve, 300));
        await (this.#neighbours >= 2 ? this.#poll(turn) : this.#lead(turn));
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        throw error;
      }
      if (!turn.signal.aborted) {
        turn.abort();  // another tab took the lock: this one stands behind it
        this.#listen();
      }
    }
  }

  async #lead(turn) {
    turn.waits = false;
    turn.listens = true;
    const stream = new AbortController();
    turn.signal.addEventListener("abort", () => stream.abort());
    const onTrouble = (trouble) => {
      this.#passTrouble(trouble);
      if (trouble.status === 429) {
        stream.abort();  // we have as many streams as we may
      }
    };
    try {
      for await (const { type, data } of this.#client.events({ signal: stream.signal, onTrouble })) {
        this.#heard();
        this.#limitsHeard = type === "limits" || (this.#limitsHeard && type !== "snapshot");
        this.#take(type, data);
        this.#say(type, data);
      }
    } catch (error) {
      if (!(error instanceof PenstockError)) {
        throw error;
      }
      if (error.status === 401) {
        this.#signedOut();
        return;
      }
      // The server is older than this page.
    }
    await this.#poll(turn);
    turn.listens = false;
  }

  // The next question after the last answer, sooner where something is going on.
  async #poll({ signal }) {
    let failures = 0;
    for (let pause = FIRST_POLL_MS; !signal.aborted; ) {
      try {
        const { data, has_more, server_time } = await this.#client.jobs({ limit: PAGE });
        const snapshot = { server_time, jobs: data, more: has_more };
        failures = 0;
        this.#heard();
        this.#take("snapshot", snapshot);
        this.#say("snapshot", snapshot);
        pause = data.some((job) => !hasEnded(job)) ? FIRST_POLL_MS : Math.min(pause * 1.5, LAST_POLL_MS);
      } catch (error) {
        if (error.status === 401) {
          this.#signedOut();
          return;
        }
        pause = Math.min((error.retryAfter ?? 0) * 1000 || pause * 1.5, LAST_POLL_MS);
        this.#passTrouble({ failures: ++failures, retryAfter: error.retryAfter ?? null, status: error.status });
      }
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#pollSoon = () => {
          clearTimeout(timer);
          resolve();
        };
        signal.onabort = this.#pollSoon;
      });
    }
  }

  #signedOut() {
    this.#link.signedOut = true;
    this.#tell("link");
  }

  #passTrouble(trouble) {
    this.#trouble(trouble);
    this.#say("trouble", trouble);
  }

  #trouble({ failures, retryAfter, status }) {
    this.#link.failures = failures;
    this.#link.retryAt = retryAfter !== null && status !== 429 ? performance.now() + retryAfter * 1000 : 0;
    this.#tell("link");
  }

  async #follow({ id, stop }) {
    try {
      for await (const { type, data } of this.#client.follow(id, { signal: stop.signal })) {
        if (type === "chunk") {
          this.#tell("words", { id, ...data });
        } else if (type === "preview") {
          this.#tell("preview", { id, ...data });
        } else {
          this.#take("job", data);
        }
      }
    } catch (error) {
      if (!(error instanceof PenstockError)) {
        throw error;
      }
      this.#untold.add(id);
    }
    if (this.#watching?.id === id) {
      this.#watching = null;
      this.#tell("task", id);
    }
  }

  // ---- cancels ----

  async #cancelNow(id, keepalive = false) {
    const task = this.tasks.get(id);
    task.undoUntil = 0;
    task.leaving = true;
    this.#tell("task", id);
    try {
      this.#take("job", await this.#client.cancel(id, { keepalive }));
      this.#pollSoon();
    } catch (error) {
      const now = this.tasks.get(id);
      if (now) {
        now.leaving = false;
        now.trouble = error.message;
        this.#tell("task", id);
      }
    }
  }

  #sendHeldCancels() {
    for (const [id, task] of this.tasks) {
      if (task.undoUntil) {
        this.#cancelNow(id, true);
      }
    }
  }
}
