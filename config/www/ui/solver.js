// Solves a challenge beside the page, in as many workers as make sense, and tells how it goes.

import { payloadOf } from "./solve.js";
import { SOLVER, scriptUrl } from "./workers.js";

const MOST_WORKERS = 4;

// Keys that are signed come from a range that is not told.
const usualTries = ({ maxnumber, parameters }) => (maxnumber ? maxnumber / 2
  : parameters.keySignature ? null : 16 ** parameters.keyPrefix.length);

/**
 * @param {Object} challenge
 * @param {Object} [how]
 * @param {AbortSignal} [how.signal]
 * @param {function({fraction: number, seconds: ?number}): void} [how.onProgress]  how much of the
 *     usual work is done (NaN: not known), and how long the rest takes at this pace
 * @returns {Promise<string>}  the payload
 */
export function solve(challenge, { signal, onProgress = () => {} } = {}) {
  const count = Math.max(1, Math.min(MOST_WORKERS, navigator.hardwareConcurrency ?? 1));
  const usual = usualTries(challenge);
  const began = performance.now();
  const tried = new Array(count).fill(0);
  const workers = [];
  const tell = () => {
    const all = tried.reduce((sum, each) => sum + each);
    const pace = (all * 1000) / (performance.now() - began);
    onProgress(usual === null || all === 0 ? { fraction: NaN, seconds: null }
      : { fraction: Math.min(all / usual, 0.95), seconds: Math.max(0, usual - all) / pace });
  };
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    signal?.addEventListener("abort", () => reject(signal.reason));
    for (let i = 0; i < count; ++i) {
      const worker = new Worker(scriptUrl(SOLVER), { type: "module" });
      workers.push(worker);
      worker.onmessage = ({ data }) => {
        if (data.solution) {
          resolve(payloadOf(data.solution));
        } else if (data.failed) {
          reject(new Error(data.failed));
        } else {
          tried[i] = data.tried;
          tell();
        }
      };
      worker.onerror = () => reject(new Error("The worker could not be started."));
      worker.postMessage({ challenge, from: i, step: count });
    }
  }).finally(() => workers.forEach((worker) => worker.terminate()));
}
