// The one thing that may become code by a name: these paths, and no others.

export const NOTIFIER = "/ui/notify.js";
export const SOLVER = "/ui/solve.js";

const policy = globalThis.trustedTypes?.createPolicy("penstock", {
  createScriptURL: (url) => {
    if (url !== NOTIFIER && url !== SOLVER) {
      throw new TypeError(`${url} is no script of this page`);
    }
    return url;
  },
}) ?? { createScriptURL: (url) => url };

/** @param {string} path @returns {TrustedScriptURL|string} */
export const scriptUrl = (path) => policy.createScriptURL(path);
