// What the console asks, below its own address, and how it gives orders.

const BASE = new URL("../", import.meta.url);
const PATIENCE_MS = 10_000;

/** Why it was refused, in the server's words. Without an answer, `status` is 0. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(new URL(path, BASE), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  } catch (error) {
    throw new Refused(0, String(error?.message ?? error));
  }
  if (reply.ok) {
    return reply;
  }
  let problem = null;
  try {
    problem = await reply.json();
  } catch {
    // It was not Penstock that answered.
  }
  throw new Refused(reply.status, problem?.error?.message ?? problem?.detail ?? `${reply.status}`);
}

export const read = async (path, headers = {}) => (await ask(path, { headers })).json();
export const readText = async (path) => (await ask(path)).text();

/** An order: its token is asked for just before, as it holds for an hour. */
export async function order(method, path, headers = {}) {
  const { token } = await read("session");
  return (await ask(path, { method, headers: { ...headers, "Penstock-Order": token } })).json();
}

/** A name or an id as a part of a path. */
export const part = (text) => encodeURIComponent(text);
