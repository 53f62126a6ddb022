// What a challenge asks for is searched here: numbers one after the other, until one fits. As a
// worker it runs beside the page; imported, `search` does the same anywhere. It needs no
// crypto.subtle, which browsers keep from plain http; where there is one, it is faster for keys.
//
// The formats are ALTCHA's: version 1 (SHA-256) and version 2 (PBKDF2/SHA-256).

const BLOCK = 64;
const SAY_EACH_MS = 50;

// FIPS 180-4: the first 32 bits of the fractions of the first primes' roots.
const primes = [];
for (let n = 2; primes.length < 64; ++n) {
  if (primes.every((p) => n % p !== 0)) {
    primes.push(n);
  }
}
const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32) | 0;
const ROUNDS = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
const START = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
const schedule = new Int32Array(64);

/** One block of SHA-256: `state` becomes the next. @param {Int32Array} state @param {DataView} view */
function compress(state, view, at) {
  const w = schedule;
  for (let i = 0; i < 16; ++i) {
    w[i] = view.getInt32(at + 4 * i);
  }
  for (let i = 16; i < 64; ++i) {
    const x = w[i - 15], y = w[i - 2];
    w[i] = (w[i - 16] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3) + w[i - 7]
      + ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10)) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; ++i) {
    const one = (h + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
    const two = (((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g, g = f, f = e, e = (d + one) | 0, d = c, c = b, b = a, a = (one + two) | 0;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/** Text of which the beginning is known: its whole blocks are hashed once. */
class Beginning {
  #state = Int32Array.from(START);
  #out = new Int32Array(8);
  #bytes = new Uint8Array(2 * BLOCK);
  #view = new DataView(this.#bytes.buffer);
  #hashed;
  #rest;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#hashed = bytes.length - (bytes.length % BLOCK);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let at = 0; at < this.#hashed; at += BLOCK) {
      compress(this.#state, view, at);
    }
    this.#bytes.set(bytes.subarray(this.#hashed));
    this.#rest = bytes.length - this.#hashed;
  }

  /** @param {Uint8Array} end  63 bytes at most @returns {Int32Array} the digest, until the next call */
  digest(end) {
    const size = this.#rest + end.length;
    const whole = size + 9 <= BLOCK ? BLOCK : 2 * BLOCK;
    this.#bytes.set(end, this.#rest);
    this.#bytes[size] = 0x80;
    this.#bytes.fill(0, size + 1, whole);
    this.#view.setUint32(whole - 4, 8 * (this.#hashed + size));
    this.#out.set(this.#state);
    for (let at = 0; at < whole; at += BLOCK) {
      compress(this.#out, this.#view, at);
    }
    return this.#out;
  }
}

const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const bytesOfWords = (words) => {
  const bytes = new Uint8Array(4 * words.length);
  words.forEach((word, i) => new DataView(bytes.buffer).setInt32(4 * i, word));
  return bytes;
};
const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** RFC 8018 with HMAC-SHA-256, to 32 bytes. REQUIRES: the password has a block at most. */
function deriveHere(password, salt, cost) {
  const padded = (by) => Uint8Array.from({ length: BLOCK }, (_, i) => (password[i] ?? 0) ^ by);
  const inner = new Beginning(padded(0x36));
  const outer = new Beginning(padded(0x5c));
  const mac = (bytes) => bytesOfWords(outer.digest(bytesOfWords(inner.digest(bytes))));
  let round = mac(Uint8Array.of(...salt, 0, 0, 0, 1));
  const key = Uint8Array.from(round);
  for (let i = 1; i < cost; ++i) {
    round = mac(round);
    round.forEach((byte, at) => (key[at] ^= byte));
  }
  return key;
}

async function deriveByBrowser(password, salt, cost) {
  const material = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations: cost }, material, 256));
}

/** Whether the key of a counter fits, and if so what to say of it. */
function counterJudge({ parameters }) {
  const nonce = bytesOf(parameters.nonce);
  const salt = bytesOf(parameters.salt);
  const derive = globalThis.crypto?.subtle ? deriveByBrowser : deriveHere;
  return async (counter) => {
    const password = new Uint8Array(nonce.length + 4);
    password.set(nonce);
    new DataView(password.buffer).setUint32(nonce.length, counter);
    const key = hexOf(await derive(password, salt, parameters.cost));
    return key.startsWith(parameters.keyPrefix) ? { counter, derivedKey: key } : null;
  };
}

/** The same of a number. */
function numberJudge({ salt, challenge }) {
  const text = new TextEncoder();
  const beginning = new Beginning(text.encode(salt));
  const wanted = bytesOf(challenge);
  const first = new DataView(wanted.buffer).getInt32(0);
  return (number) => {
    const digest = beginning.digest(text.encode(String(number)));
    return digest[0] === first && hexOf(bytesOfWords(digest)) === challenge ? { number } : null;
  };
}

const ALGORITHMS = ["SHA-256", "PBKDF2/SHA-256"];

/** @returns {boolean} whether `search` knows what the challenge asks for */
export const isKnown = (challenge) => ALGORITHMS.includes(challenge?.parameters?.algorithm ?? challenge?.algorithm);

/**
 * @param {Object} challenge  as the server gave it
 * @param {Object} [how]
 * @param {number} [how.from]  the first number that is tried
 * @param {number} [how.step]  from one to the next: so several search together
 * @param {AbortSignal} [how.signal]
 * @param {function(number): void} [how.onTried]  each 50 ms or so: how many were tried
 * @returns {Promise<Object>}  what `Penstock-Solution` wants, before it is base 64
 */
export async function search(challenge, { from = 0, step = 1, signal, onTried = () => {} } = {}) {
  if (!isKnown(challenge)) {
    throw new TypeError("This challenge asks for something that is not known here.");
  }
  const byKey = challenge.parameters !== undefined;
  const judge = byKey ? counterJudge(challenge) : numberJudge(challenge);
  const most = byKey ? 2 ** 32 : challenge.maxnumber;
  const began = Date.now();
  let said = began;
  for (let n = from, tried = 1; n <= most; n += step, ++tried) {
    const found = byKey ? await judge(n) : judge(n);
    if (found) {
      return solutionOf(challenge, found, Date.now() - began);
    }
    if ((byKey || tried % 256 === 0) && Date.now() - said >= SAY_EACH_MS) {
      said = Date.now();
      onTried(tried);
      await new Promise((resolve) => setTimeout(resolve));
      signal?.throwIfAborted();
    }
  }
  throw new RangeError("No number solves this challenge.");
}

function solutionOf(challenge, found, took) {
  if (challenge.parameters) {
    return { challenge: { parameters: challenge.parameters, signature: challenge.signature }, solution: { ...found, time: took } };
  }
  const { algorithm, salt, signature } = challenge;
  return { algorithm, challenge: challenge.challenge, number: found.number, salt, signature, took };
}

/** @returns {string} a solution as the header and the form want it */
export const payloadOf = (solution) => btoa(JSON.stringify(solution));

if (typeof DedicatedWorkerGlobalScope !== "undefined" && globalThis instanceof DedicatedWorkerGlobalScope) {
  globalThis.onmessage = async ({ data: { challenge, from, step } }) => {
    try {
      postMessage({ solution: await search(challenge, { from, step, onTried: (tried) => postMessage({ tried }) }) });
    } catch (error) {
      postMessage({ failed: error.message });
    }
  };
}
