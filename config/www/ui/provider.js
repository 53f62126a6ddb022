// The small page of a challenge that a provider asks: its widget makes a token, which is brought to the server.

import { say } from "./el.js";
import { readersLanguage } from "./reader.js";
import { Words } from "./words.js";

const AGAIN_MS = 500;

const asked = JSON.parse(document.querySelector("#challenge").textContent);
const began = performance.now();
const [form, button, line] = ["form", "go", "say"].map((id) => document.querySelector(`#check-${id}`));
const loaded = new Promise((done) => document.readyState === "complete" ? done() : addEventListener("load", done));

// Widgets call it by its name.
globalThis.penstockSolved = () => form.requestSubmit();

/** Seconds until it goes without. */
const left = () => asked.retry_after - (performance.now() - began) / 1000;

async function fail() {
  await loading;
  say(line, words.say("check.failed"));
  button.textContent = words.say("check.again");
  button.onclick = (event) => (event.preventDefault(), location.reload());
}

const loading = Words.load(readersLanguage());

// Before anything is waited for: a widget may be done at once.
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  // Where it leads to does not matter: this page asks for its own address again.
  const body = new URLSearchParams(new FormData(form));
  const reply = await fetch(form.action, { method: "POST", body, redirect: "manual" }).catch(() => null);
  reply?.type === "opaqueredirect" ? location.reload() : fail();
});

const words = await loading;

/** The widget's script did not come. Whether the provider is away is seen by who asks it: the server. */
function goWithoutWidget() {
  say(line, words.say("check.failed"));
  form.append(Object.assign(document.createElement("input"), { type: "hidden", name: asked.field, value: `unavailable-${crypto.getRandomValues(new Uint32Array(2)).join("")}` }));
}

document.documentElement.lang = words.language === "zh" ? "zh-Hans" : words.language;
for (const node of document.querySelectorAll("[data-word]")) {
  node.textContent = words.say(node.dataset.word);
}
say(line, words.join(words.say("check.provider"), words.say("check.wait", { t: words.time(left()) })));
// The limit has room again: nothing is asked for any more.
setInterval(() => left() <= 0 && location.reload(), Math.max(AGAIN_MS, Math.min(asked.retry_after * 1000, 2 ** 31 - 1)));
await loaded;
if (!globalThis.turnstile && !globalThis.hcaptcha && !globalThis.grecaptcha) {
  goWithoutWidget();
}
document.documentElement.dataset.ready = "";
