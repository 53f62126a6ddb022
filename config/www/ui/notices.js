// The browser's notices, for who wants to be told while the page is not seen. Nothing is asked for
// before the reader chooses it.

import { plain } from "./el.js";
import { NOTIFIER, scriptUrl } from "./workers.js";

const WANTED = "penstock.notify";

export class Notices {
  #worker = null;
  /** Why there can be none: a key of the words, or "". */
  trouble = "";

  constructor(remembered) {
    this.remembered = remembered;
    this.wanted = remembered.get(WANTED) === "yes";
    if (this.wanted) {
      this.#prepare();
    }
  }

  /** REQUIRES: a gesture of the reader's, where it is wanted. */
  async want(wanted) {
    this.wanted = wanted;
    this.remembered.set(WANTED, wanted ? "yes" : null);
    this.trouble = "";
    if (!wanted) {
      return;
    }
    if (!("Notification" in globalThis) || !isSecureContext) {
      this.trouble = "form.notify.none";
    } else if (await Notification.requestPermission() !== "granted") {
      this.trouble = "form.notify.denied";
    } else {
      await this.#prepare();
    }
  }

  async #prepare() {
    try {
      this.#worker = await navigator.serviceWorker?.register(scriptUrl(NOTIFIER), { scope: "/ui/" });
    } catch {
      this.#worker = null;  // then the page shows them itself, where the browser lets it
    }
  }

  async show(title, id, label) {
    if (!this.wanted || globalThis.Notification?.permission !== "granted") {
      return;
    }
    const options = { body: plain(label, 80), tag: id, icon: "/ui/icon.svg" };
    try {
      if (this.#worker?.active) {
        await this.#worker.showNotification(title, options);
      } else {
        new Notification(title, options).onclick = () => window.focus();
      }
    } catch {
      // Phones have notices by a worker only; the title tells anyway.
    }
  }
}
