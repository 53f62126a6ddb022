// Signing in: the reader types a key once, and a cookie that is no key tells whose it is from then on.
// The key is kept nowhere.

import { plain, say } from "./el.js";

export class SignIn {
  #page;
  #button = document.querySelector("#sign-in-button");
  #dialog = document.querySelector("#sign-in");
  #key = document.querySelector("#sign-in-key");
  #why = document.querySelector("#sign-in-why");

  constructor(page) {
    this.#page = page;
    this.#button.addEventListener("click", () => this.#press());
    document.querySelector("#sign-in-close").addEventListener("click", () => this.#dialog.close());
    document.querySelector("#sign-in form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#dialog.addEventListener("close", () => {
      this.#key.value = "";
      say(this.#why, "");
    });
  }

  /** As quota() has told: whether one may sign in here, and who has. */
  render() {
    const { words } = this.#page;
    const told = this.#told;
    this.#button.hidden = !told;
    if (told) {
      say(this.#button, told.owner ? words.say("sign.out", { owner: plain(told.owner, 40) }) : words.say("sign.in"));
    }
  }

  get #told() {
    return this.#page.store.quota?.signed_in;
  }

  async #press() {
    if (!this.#told.owner) {
      this.#dialog.showModal();
      return;
    }
    try {
      await this.#page.client.signOut(this.#told.at);
      location.reload();
    } catch (error) {
      this.#page.announce(plain(error.message), true);
    }
  }

  async #send() {
    const key = this.#key.value.trim();
    if (!key) {
      return;
    }
    try {
      await this.#page.client.signIn(key, this.#told.at);
      location.reload();  // tasks, limits and streams are another's now
    } catch (error) {
      say(this.#why, error.code === "invalid_api_key" ? this.#page.words.say("sign.unknown") : plain(error.message));
      this.#key.select();
    }
  }
}
