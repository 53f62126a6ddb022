// What a task's card says, by its state: words first, then what repeats them. Pure: no DOM here.

import { hasEnded } from "./penstock.js";

/**
 * @typedef {Object} Saying
 * @property {string} state     a name for style and tests
 * @property {string} title     "Queued, 5th in line"
 * @property {string} detail    "about 40 s (30 to 70)"
 * @property {string[]} notes   sentences below
 * @property {number} place     as many ticks; 0: none
 * @property {?{now: number, soon: number, late: number, end: number}} band  seconds from now
 * @property {?number} progress 0 to 1; NaN: it runs, nobody knows how far; null: no bar
 * @property {string[]} acts    of cancel stop undo watch open download again retry
 */

/**
 * @param {import("./store.js").Task} task
 * @param {Object} page
 * @param {import("./words.js").Words} page.words
 * @param {number} page.now        ms of the page's clock
 * @param {number} page.serverNow  Unix seconds
 * @param {?number} [page.answered]  words of its answer that are shown so far; null: not listened to
 * @param {boolean} [page.open]    its result is open
 * @returns {Saying}
 */
export function describe(task, page) {
  const { job } = task;
  const saying = { state: job.status, title: "", detail: "", notes: [], place: 0, band: null, progress: null, acts: [] };
  if (task.undoUntil) {
    const left = Math.max(1, Math.ceil((task.undoUntil - page.now) / 1000));
    return { ...saying, state: "undo", title: page.words.say("cancelled"), acts: ["undo"], undo: left };
  }
  if (task.leaving && !hasEnded(job)) {
    return { ...saying, state: "cancelling", title: page.words.say("cancelling") };
  }
  SAY[job.status]?.(saying, task, page);
  if (task.trouble) {
    saying.notes.push(page.words.say("act.failed", { why: task.trouble }));
  }
  if (hasEnded(job) && job.counted === false) {
    saying.notes.push(page.words.say("not.counted"));
  }
  return saying;
}

/** Seconds until the first of the tasks that run is done; null: nobody knows. @param {import("./store.js").Task[]} tasks */
export function firstEnd(tasks, now) {
  const left = tasks.filter(({ job }) => job.status === "processing" && job.eta_seconds !== null)
    .map(({ job, told }) => Math.max(0, job.eta_seconds - (now - told) / 1000));
  return left.length > 0 ? Math.min(...left) : null;
}

const SAY = {
  scheduled(saying, { job }, { words, serverNow }) {
    saying.title = words.say("scheduled", { at: words.moment(job.not_before ?? job.created_at, serverNow) });
    saying.acts = ["cancel"];
  },

  queued(saying, task, page) {
    const { job, moved, movedBy } = task;
    const { words } = page;
    saying.title = job.position === null ? words.say("queued")
      : job.position === 1 ? words.say("queued.next") : words.say("queued.place", { n: job.position });
    saying.place = Math.min(job.position ?? 0, 10);
    sayWait(saying, task, page);
    if (job.attempts > 0) {
      saying.notes.push(words.say("again.try", { n: job.attempts + 1 }));
    } else if (moved > 0) {
      saying.notes.push(words.say(words.has(`moved.${movedBy}`) ? `moved.${movedBy}` : "moved.up", { n: moved }));
    }
    saying.acts = ["cancel"];
  },

  processing(saying, { job, told }, { words, now, serverNow, answered }) {
    const { progress } = job;
    const gone = (now - told) / 1000;
    const ran = Math.max(0, serverNow - (job.started_at ?? serverNow));
    const waited = Math.max(0, (job.started_at ?? job.created_at) - job.created_at);
    if (answered) {
      saying.state = "answering";
      saying.title = words.say("answering");
      saying.detail = words.say("answering.words", { n: answered });
      saying.acts = ["stop"];
      return;
    }
    saying.title = words.say("run");
    if (progress && job.eta_seconds !== null) {
      const left = job.eta_seconds - gone;
      saying.detail = left < 1 ? words.say("eta.now.done")
        : words.say("run.left", { t: words.guess(left, shifted(job.eta_range, gone)) });
    }
    saying.progress = progress ? progress.fraction : NaN;
    saying.notes.push(words.join(
      progress?.steps ? words.say("run.step", { n: progress.step, m: progress.steps })
        : progress ? words.say("run.done", { n: Math.floor(progress.fraction * 100) })
          : words.say("run.for", { t: words.time(ran) }),
      waited >= 1 ? words.say("run.waited", { t: words.time(waited) }) : "",
    ));
    saying.acts = answered === null ? ["watch", "cancel"] : ["cancel"];
  },

  completed(saying, { job }, { words, serverNow, open }) {
    saying.title = words.say("completed");
    saying.detail = words.moment(job.finished_at, serverNow);
    const times = [words.say("done.times", {
      w: words.time((job.started_at ?? job.finished_at) - job.created_at),
      r: words.time(job.finished_at - (job.started_at ?? job.finished_at)),
    })];
    const gone = job.expires_at !== undefined && job.expires_at !== null && job.expires_at <= serverNow;
    if (gone) {
      times.push(words.say("done.gone"));
    } else if (job.expires_at) {
      times.push(words.say("done.kept", { at: words.moment(job.expires_at, serverNow) }));
    }
    saying.notes.push(words.join(...times));
    saying.acts = gone ? ["again"] : [open ? "close" : "open", "download", "again"];
  },

  failed(saying, { job }, { words }) {
    const code = job.error?.code ?? "";
    const tries = code === "engine_failed" && job.attempts > 1;
    const key = tries ? "fail.engine_failed.tries" : words.has(`fail.${code}`) ? `fail.${code}` : "fail.other";
    saying.title = words.say("failed");
    saying.detail = words.say(key, { n: job.attempts });
    if (job.error?.message) {
      saying.notes.push(job.error.message);
    }
    saying.acts = ["retry"];
  },

  cancelled(saying, _, { words }) {
    saying.title = words.say("cancelled");
    saying.acts = ["again"];
  },

  expired(saying, { job }, { words }) {
    saying.title = words.say(job.started_at ? "expired.ran" : "expired");
    saying.notes.push(words.say("expired.waited", { t: words.time((job.started_at ?? job.finished_at) - job.created_at) }));
    saying.acts = ["retry"];
  },
};

const shifted = (range, gone) => range && range.map((seconds) => Math.max(0, seconds - gone));

// How long it is until it starts. Between two events the page counts down as far as `soon`, and no further.
function sayWait(saying, { job, told, promised }, { words, now, serverNow }) {
  if (job.eta_seconds === null) {
    const key = `eta.none.${job.eta_reason}`;
    saying.detail = words.say(words.has(key) ? key : "eta.none");
    return;
  }
  const gone = (now - told) / 1000;
  const [soon, late] = job.eta_range ?? [job.eta_seconds, job.eta_seconds * 1.25 + 5];
  const left = job.eta_seconds - gone;
  const isLate = promised > 0 && serverNow + Math.max(left, 0) > promised + 3;
  if (isLate) {
    saying.state = "late";
    saying.detail = `${words.say("late")}: ${words.say("late.more", { t: words.guess(Math.max(left, 1), shifted(job.eta_range, gone)) })}`;
  } else if (gone >= soon) {
    saying.detail = words.say("eta.now");
  } else {
    saying.detail = words.guess(left, shifted(job.eta_range, gone));
  }
  if (late - gone >= 15) {
    saying.band = { now: left, soon: Math.max(0, soon - gone), late: late - gone, end: roundEnd((late - gone) * 1.6), known: Boolean(job.eta_range) };
  }
}

// A round number of seconds that is no less.
function roundEnd(seconds) {
  const steps = [20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200];
  return steps.find((step) => step >= seconds) ?? Math.ceil(seconds / 86_400) * 86_400;
}

/** The tab's title: the task that will be next to change. */
export function titleOf(tasks, page) {
  const { words } = page;
  const live = tasks.filter(({ job, undoUntil }) => !hasEnded(job) && !undoUntil);
  const k = live.length;
  const running = live.find(({ job }) => job.status === "processing");
  if (running) {
    const left = running.job.eta_seconds === null ? 0 : running.job.eta_seconds - (page.now - running.told) / 1000;
    return left >= 1 && running.job.progress ? words.say("title.run", { k, t: words.about(left) }) : words.say("title.running", { k });
  }
  const queued = live.filter(({ job }) => job.status === "queued" && job.position !== null);
  if (queued.length > 0) {
    const { job, told } = queued.reduce((a, b) => (b.job.position < a.job.position ? b : a));
    const left = job.eta_seconds === null ? 0 : job.eta_seconds - (page.now - told) / 1000;
    return left >= 1 ? words.say("title.place", { k, n: job.position, t: words.about(left) })
      : words.say("title.line", { k, n: job.position });
  }
  return words.say("title.idle");
}
