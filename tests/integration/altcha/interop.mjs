// altcha-lib, as it comes from npm, solves and verifies what Penstock asks for, and so does the page's own solver:
// node interop.mjs BASE_URL FORMAT SIGNATURE_KEY NUMBER_KEY WWW
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { pathToFileURL } from "node:url";

globalThis.crypto ??= webcrypto;  // Node.js 18 has it under another name
const [, , base, format, signatureKey, numberKey, www] = process.argv;
const v1 = await import("altcha-lib/v1");
const v2 = await import("altcha-lib");
const { deriveKey } = await import("altcha-lib/algorithms/pbkdf2");
const own = await import(pathToFileURL(`${www}/ui/solve.js`));

let callers = 0;

/** A challenge of a caller's own, and what asks for the same again with an answer to it. */
async function asked() {
  const url = `${base}/?key=caller-${++callers}`;
  assert.equal((await fetch(url)).status, 200);
  const refused = await fetch(url);
  assert.equal(refused.status, 403);
  const answer = async (solution) => (await fetch(url, { headers: { "Penstock-Solution": btoa(JSON.stringify(solution)) } })).status;
  return { challenge: (await refused.json()).challenge, answer };
}

async function solvedByLib(challenge) {
  if (format !== "sha-256") {
    return { challenge, solution: await v2.solveChallenge({ challenge, deriveKey }) };
  }
  const { algorithm, salt, signature, maxnumber } = challenge;
  const { number } = await v1.solveChallenge(challenge.challenge, salt, algorithm, maxnumber).promise;
  return { algorithm, challenge: challenge.challenge, number, salt, signature };
}

async function isVerifiedByLib(solution) {
  if (format === "sha-256") {
    return v1.verifySolution(btoa(JSON.stringify(solution)), signatureKey);
  }
  return (await v2.verifySolution({ ...solution, deriveKey, hmacSignatureSecret: signatureKey, hmacKeySignatureSecret: numberKey })).verified;
}

const byLib = await asked();
const solution = await solvedByLib(byLib.challenge);
assert.equal(await isVerifiedByLib(solution), true);
assert.equal(await byLib.answer(solution), 200);
assert.equal(await byLib.answer(solution), 403);

const byPage = await asked();
const found = await own.search(byPage.challenge);
assert.equal(await isVerifiedByLib(found), true);
assert.equal(await byPage.answer(found), 200);

// Without crypto.subtle, as on plain http.
Object.defineProperty(globalThis, "crypto", { value: undefined });
const byHand = await asked();
assert.equal(await byHand.answer(await own.search(byHand.challenge)), 200);
