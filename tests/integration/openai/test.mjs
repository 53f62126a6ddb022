// The official client, unmodified, against a running Penstock: node test.mjs CASE BASE_URL
// Models there: "demo", the demo model; "slow", one slot and words at a walking pace.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [, , name, baseURL] = process.argv;
const client = (options) => new OpenAI({ baseURL, apiKey: "sk-pro-test", maxRetries: 0, ...options });
const openai = client();
const prompt = "The ";
const messages = [{ role: "user", content: "Hello" }];

const cases = {
  async lists_models() {
    const ids = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    assert.deepEqual(ids.sort(), ["demo", "slow"]);
  },

  async completes() {
    const { data, response } = await openai.completions
      .create({ model: "demo", prompt, max_tokens: 16 }).withResponse();
    assert.equal(data.object, "text_completion");
    assert.ok(data.choices[0].text.length > 0);
    assert.ok(["length", "stop"].includes(data.choices[0].finish_reason));
    assert.ok(data.usage.completion_tokens <= 16 && data.usage.prompt_tokens > 0);
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(response.headers.get("penstock-job-id"), /^job_/);
  },

  async streams() {
    const options = { model: "demo", prompt, max_tokens: 16, temperature: 0 };
    const whole = await openai.completions.create(options);
    let text = "";
    let usage;
    const stream = await openai.completions.create({ ...options, stream: true, stream_options: { include_usage: true } });
    for await (const part of stream) {
      text += part.choices[0]?.text ?? "";
      usage = part.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].text);
    assert.deepEqual(usage, whole.usage);
  },

  async hears_nothing_of_the_wait_but_the_answer() {
    const options = { model: "slow", prompt, stream: true };
    const first = await openai.completions.create({ ...options, max_tokens: 40 });
    const waits = Date.now();
    const stream = await openai.completions.create({ ...options, max_tokens: 4 });
    assert.ok(Date.now() - waits < 1000, "its head came while it waited");
    let text = "";
    const read = async () => { for await (const part of stream) text += part.choices[0]?.text ?? ""; };
    const other = async () => { for await (const part of first) assert.ok(part.choices); };
    await Promise.all([read(), other()]);
    assert.ok(text.length > 0);
  },

  async chats() {
    const answer = await openai.chat.completions.create({ model: "demo", messages, max_tokens: 16 });
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.equal(typeof answer.choices[0].message.content, "string");
  },

  async streams_chat() {
    const runner = openai.beta.chat.completions.stream({ model: "demo", messages, max_tokens: 16 });
    let text = "";
    runner.on("content", (delta) => (text += delta));
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
  },

  async tells_logprobs() {
    const options = { model: "demo", prompt, max_tokens: 8, temperature: 0, logprobs: 0 };
    const whole = (await openai.completions.create(options)).choices[0];
    assert.equal(whole.logprobs.tokens.join(""), whole.text);
    assert.equal(whole.logprobs.token_logprobs.length, whole.logprobs.tokens.length);
    const streamed = [];
    for await (const part of await openai.completions.create({ ...options, stream: true }))
      streamed.push(...(part.choices[0]?.logprobs?.token_logprobs ?? []));
    assert.deepEqual(streamed, whole.logprobs.token_logprobs);
    const chat = (await openai.chat.completions.create({ model: "demo", messages, max_tokens: 8, logprobs: true })).choices[0];
    assert.ok(chat.logprobs.content.every((token) => token.logprob <= 0 && token.bytes.length > 0));
    assert.equal(Buffer.from(chat.logprobs.content.flatMap((token) => token.bytes)).toString().trim(), chat.message.content.trim());
  },

  // The only slot of "slow" is free again as soon as the stream is left: the next request does not wait a minute.
  async abort_frees_the_slot() {
    const stream = await openai.completions.create({ model: "slow", prompt, max_tokens: 2000, stream: true });
    for await (const part of stream) {
      assert.equal(part.object, "text_completion");
      break;
    }
    stream.controller.abort();
    const next = await openai.completions.create({ model: "slow", prompt, max_tokens: 1 }, { timeout: 10_000 });
    assert.equal(next.usage.completion_tokens, 1);
  },

  async a_refusal_is_a_rate_limit_error() {
    const free = client({ apiKey: "sk-free-test" });
    await free.models.list();
    await free.models.list();
    const error = await free.models.list().then(() => assert.fail("admitted"), (e) => e);
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.status, 429);
    assert.equal(error.code, "rate_limit_exceeded");
    assert.equal(error.type, "rate_limit_error");
    assert.match(error.message, /Plan free allows 2 requests an hour/);
    assert.equal(error.headers["retry-after"], "1800");
    assert.equal(error.headers["x-ratelimit-remaining-requests"], "0");
  },

  // Retry-After is what the client's own retries wait for: two are admitted at once, the third after a second.
  async its_own_retries_obey_retry_after() {
    const patient = client({ apiKey: "sk-second-test", maxRetries: 2 });
    const start = Date.now();
    for (let i = 0; i < 3; i++) await patient.models.list();
    assert.ok(Date.now() - start >= 950, "the third was retried too early");
  },

  async mistakes_are_typed_errors() {
    const wrong = (body) => openai.completions.create({ model: "demo", prompt, ...body }).then(assert.fail, (e) => e);
    const unknown = await wrong({ model: "gpt-9" });
    assert.ok(unknown instanceof OpenAI.NotFoundError);
    assert.equal(unknown.param, "model");
    const impossible = await wrong({ temperature: 9 });
    assert.ok(impossible instanceof OpenAI.BadRequestError);
    assert.equal(impossible.param, "temperature");
    const misspelt = await wrong({ max_token: 3 });
    assert.ok(misspelt instanceof OpenAI.BadRequestError);
    assert.equal(misspelt.param, "max_token");
    assert.match(misspelt.message, /max_tokens/);
  },
};

if (name === undefined) {
  console.log(Object.keys(cases).join("\n"));
} else {
  await cases[name]();
}
