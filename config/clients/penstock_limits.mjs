// Penstock's limits for a service that stands behind something else (docs/DECISIONS.md).
//
//   const answer = await charged('http://127.0.0.1:8081', { caller: 'team-a', plan: 'free', tokens: 1200 },
//     async (charge) => { const answer = await work(); charge.used = { tokens: answer.tokens }; return answer; });
//
// Throws Refused if it is over a limit. What it charged is given back if work() throws, and settled by `used` if not.
export class Refused extends Error {
  constructor(response, body) {
    super(body);
    Object.assign(this, { status: response.status, retryAfter: Number(response.headers.get('retry-after')) });
  }
}

export async function charged(url, asked, work) {
  let receipt;
  const ask = async (method, path, words = {}) => {
    const headers = Object.fromEntries(Object.entries(words).map(([name, value]) => [`Penstock-${name.replace('_', '-')}`, String(value)]));
    const response = await fetch(url + path, { method, headers: receipt ? { ...headers, 'Penstock-Receipt': receipt } : headers });
    if (!response.ok) throw new Refused(response, await response.text());
    await response.arrayBuffer();
    receipt = response.headers.get('penstock-receipt') ?? receipt;
  };
  await ask('POST', '/decide', asked);
  const keep = receipt && setInterval(() => ask('PUT', '/settle').catch(() => {}), 5000);  // what it holds of `concurrency`
  const charge = { used: {} };
  try {
    const answer = await work(charge);
    if (receipt) await ask('POST', '/settle', charge.used);
    return answer;
  } catch (error) {
    if (receipt) await ask('DELETE', '/settle');
    throw error;
  } finally {
    clearInterval(keep);
  }
}
