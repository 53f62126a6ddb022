// The small page in place of one that was asked for by somebody over a limit with action=challenge.

import { say } from "./el.js";
import { readersLanguage } from "./reader.js";
import { solve } from "./solver.js";
import { Words } from "./words.js";

const SLOW_MS = 20_000;
const AGAIN_MS = 500;

const asked = JSON.parse(document.querySelector("#challenge").textContent);
const began = performance.now();
const [button, bar, line] = ["go", "bar", "say"].map((id) => document.querySelector(`#check-${id}`));
const words = await Words.load(readersLanguage());

/** Seconds until it goes without. */
const left = () => asked.retry_after - (performance.now() - began) / 1000;

async function answer(payload) {
  // Where it leads to does not matter: this page asks for its own address again.
  const body = new URLSearchParams({ altcha: payload, to: "/" });
  const reply = await fetch("/challenge", { method: "POST", body, redirect: "manual" });
  return reply.type === "opaqueredirect";
}

async function check() {
  const start = performance.now();
  button.hidden = true;
  bar.hidden = false;
  say(line, words.say("check.run", { t: words.say("eta.few") }));
  const payload = await solve(asked.challenge, {
    onProgress: ({ fraction, seconds }) => {
      Number.isNaN(fraction) ? bar.removeAttribute("value") : (bar.value = fraction);
      say(line, performance.now() - start > SLOW_MS && left() > 0 ? words.say("check.slow", { t: words.time(left()) })
        : words.say("check.run", { t: seconds === null ? words.say("eta.few") : words.about(seconds) }));
    },
  });
  bar.value = 1;
  if (await answer(payload)) {
    location.reload();
    return;
  }
  bar.hidden = true;
  say(line, words.say("check.failed"));
  button.textContent = words.say("check.again");
  button.hidden = false;
  button.onclick = () => location.reload();
}

document.documentElement.lang = words.language === "zh" ? "zh-Hans" : words.language;
for (const node of document.querySelectorAll("[data-word]")) {
  node.textContent = words.say(node.dataset.word);
}
say(line, words.join(words.say("check.why"), words.say("check.wait", { t: words.time(left()) })));
button.onclick = () => check().catch(() => {
  bar.hidden = true;
  button.hidden = false;
  say(line, words.say("check.failed"));
});
// The limit has room again: nothing is asked for any more.
setInterval(() => left() <= 0 && bar.hidden && location.reload(), Math.max(AGAIN_MS, Math.min(asked.retry_after * 1000, 2 ** 31 - 1)));
document.documentElement.dataset.ready = "";
