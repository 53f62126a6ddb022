// What solves a challenge, and the client that asks once more with the answer.
import assert from "node:assert/strict";
import { createHash, pbkdf2Sync, webcrypto } from "node:crypto";
import { test } from "node:test";
import { load } from "./ui.mjs";

globalThis.crypto ??= webcrypto;  // Node.js 18 has it under another name
const { isKnown, payloadOf, search } = await load("solve.js");
const { Penstock, PenstockError } = await load("penstock.js");

const hash = (text) => createHash("sha256").update(text).digest("hex");
const challengeOf = (salt, n, maxnumber = 1000) => ({ algorithm: "SHA-256", challenge: hash(`${salt}${n}`), maxnumber, salt, signature: "00" });

test("the number is found, however long the salt", async () => {
  for (let size = 0; size < 140; ++size) {
    const salt = "s".repeat(size);
    for (const n of [0, 7, 999]) {
      assert.equal((await search(challengeOf(salt, n))).number, n, `${size} ${n}`);
    }
  }
});

test("several search together, and nothing is found that is not there", async () => {
  const challenge = challengeOf("salt", 501);
  assert.equal((await search(challenge, { from: 1, step: 4 })).number, 501);
  await assert.rejects(search(challenge, { from: 0, step: 4 }), RangeError);
  await assert.rejects(search(challengeOf("salt", 501, 500)), RangeError);
});

test("a key is found, with crypto.subtle and without", async () => {
  const parameters = { algorithm: "PBKDF2/SHA-256", cost: 5, nonce: "ab".repeat(16), salt: "cd".repeat(16), keyLength: 32 };
  const password = Buffer.concat([Buffer.from(parameters.nonce, "hex"), Buffer.of(0, 0, 1, 2)]);
  const key = pbkdf2Sync(password, Buffer.from(parameters.salt, "hex"), 5, 32, "sha256").toString("hex");
  const challenge = { parameters: { ...parameters, keyPrefix: key.slice(0, 32) }, signature: "00" };
  const wanted = { counter: 258, derivedKey: key };
  const whole = crypto;
  for (const given of [whole, undefined]) {
    Object.defineProperty(globalThis, "crypto", { value: given, configurable: true });
    const { solution, challenge: told } = await search(challenge);
    assert.deepEqual({ ...solution, time: undefined }, { ...wanted, time: undefined });
    assert.deepEqual(told, challenge);
  }
  Object.defineProperty(globalThis, "crypto", { value: whole, configurable: true });
});

test("a search can be stopped, and what is not known is not searched for", async () => {
  const stop = new AbortController();
  const searching = search(challengeOf("salt", 1e7, 1e7), { signal: stop.signal, onTried: () => stop.abort() });
  await assert.rejects(searching, { name: "AbortError" });
  assert.equal(isKnown({ algorithm: "SHA-512" }), false);
  await assert.rejects(search({ parameters: { algorithm: "ARGON2ID" } }), TypeError);
});

/** A client whose server wants a challenge solved until it is, and what it was asked. */
function behindChallenge(challenge) {
  const asked = [];
  const fetch = async (url, { headers }) => {
    asked.push(headers);
    const open = headers["Penstock-Solution"] === "right" || headers["Penstock-Pass"] === "p1";
    return open ? Response.json({ data: [] }, { headers: { "Penstock-Pass": "p1" } })
      : Response.json({ challenge: { salt: "s" }, error: { code: "challenge_required" } }, { status: 403, headers: { "Retry-After": "60" } });
  };
  return { client: new Penstock({ fetch, challenge }), asked };
}

test("the client asks once more with what solves it, and goes on under the pass", async () => {
  const told = [];
  const { client, asked } = behindChallenge(async (challenge, { retryAfter }) => (told.push(challenge.salt, retryAfter), "right"));
  await client.models();
  await client.models();
  assert.deepEqual(told, ["s", 60]);
  assert.deepEqual(asked.map((headers) => [headers["Penstock-Solution"], headers["Penstock-Pass"]]),
    [[undefined, undefined], ["right", undefined], [undefined, "p1"]]);
});

test("each of several limits may have a challenge", async () => {
  const asked = [];
  const fetch = async (url, { headers }) => {
    const passes = (headers["Penstock-Pass"] ?? "").split("~").filter(Boolean);
    asked.push(headers["Penstock-Solution"]);
    const wanted = ["a", "b", "c"].find((limit) => !passes.includes(limit));
    if (headers["Penstock-Solution"] === wanted) {
      passes.push(wanted);
    }
    const next = ["a", "b", "c"].find((limit) => !passes.includes(limit));
    return next === undefined ? Response.json({ data: [] })
      : Response.json({ challenge: { salt: next } }, { status: 403, headers: { "Penstock-Pass": passes.join("~") } });
  };
  await new Penstock({ fetch, challenge: async ({ salt }) => salt }).models();
  assert.deepEqual(asked, [undefined, "a", "b", "c"]);
});

test("wrong answers come to an end, and without a solver a challenge is an error", async () => {
  const wrong = behindChallenge(async () => "wrong");
  await assert.rejects(wrong.client.models(), { code: "challenge_required" });
  assert.equal(wrong.asked.length, 5);
  const { client, asked } = behindChallenge(null);
  const error = await client.models().catch((each) => each);
  assert.ok(error instanceof PenstockError);
  assert.deepEqual([error.challenge, error.retryAfter, error.passing, asked.length], [{ salt: "s" }, 60, false, 1]);
});

test("a payload is base 64 of JSON", () => {
  assert.deepEqual(JSON.parse(atob(payloadOf({ number: 1 }))), { number: 1 });
});
