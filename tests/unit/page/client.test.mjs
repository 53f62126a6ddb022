// ui/penstock.js without a browser and without a server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./ui.mjs";

const { AnswerText, EventParser, Penstock, PenstockError, readEvents } = await load("penstock.js");

const parsed = (text) => new EventParser().push(text).map(({ type, id, data }) => [type, id, data]);

test("the parser knows events as the standard has them", () => {
  const cases = [
    ["data: a\n\n", [["message", "", "a"]]],
    ["\uFEFFdata: a\n\n", [["message", "", "a"]]],
    ["data:a\ndata\ndata:  b\n\n", [["message", "", "a\n\n b"]]],
    ["event: queued\nid: 7\ndata: {}\n\ndata: x\n\n", [["queued", "7", "{}"], ["message", "7", "x"]]],
    ["event: lonely\n\ndata: x\n\n", [["message", "", "x"]]],
    ["id: a\0b\ndata: x\n\n", [["message", "", "x"]]],
    ["unknown: 1\nnothing\ndata: x\n\n", [["message", "", "x"]]],
    [": still here\n\ndata: x\n\n", [["comment", "", "still here"], ["message", "", "x"]]],
    ["data: not yet\n", []],
    ["data: a: b\n\n", [["message", "", "a: b"]]],
  ];
  for (const [text, expected] of cases) {
    assert.deepEqual(parsed(text), expected, JSON.stringify(text));
    for (const end of ["\r", "\r\n"]) {
      assert.deepEqual(parsed(text.replaceAll("\n", end)), expected, JSON.stringify(text) + JSON.stringify(end));
    }
  }
});

test("wherever the pieces are cut, the events are the same", async () => {
  const text = "\uFEFF: hi\r\nid: 3\r\nevent: chunk\r\ndata: 压力 \u{1F6B0}\r\ndata: two\r\n\r\nretry: 250\rdata: last\r\r";
  const bytes = new TextEncoder().encode(text);
  const expected = [["comment", "", "hi"], ["chunk", "3", "压力 \u{1F6B0}\ntwo"], ["message", "3", "last"]];
  for (let cut = 0; cut <= bytes.length; ++cut) {
    const parser = new EventParser();
    const body = new ReadableStream({
      start(stream) {
        stream.enqueue(bytes.subarray(0, cut));
        stream.enqueue(bytes.subarray(cut));
        stream.close();
      },
    });
    const events = [];
    for await (const { type, id, data } of readEvents(body, parser)) {
      events.push([type, id, data]);
    }
    assert.deepEqual(events, expected, `cut at ${cut}`);
    assert.equal(parser.retry, 250);
  }
});

test("a line without an end is refused", () => {
  const parser = new EventParser();
  assert.throws(() => {
    for (let i = 0; i < 20; ++i) {
      parser.push("data: ".padEnd(1 << 17, "x"));
    }
  }, /longer than 1 MiB/);
});

test("the words of an answer are found in whatever form it has", () => {
  const event = (delta) => `data: ${JSON.stringify({ choices: [{ delta }] })}\n\n`;
  const cases = [
    [event({ role: "assistant", content: "" }) + event({ content: "Hi" }) + event({ content: " you" }) + "data: [DONE]\n\n", "Hi you"],
    ['data: {"choices":[{"text":"old"}]}\n\n', "old"],
    [": queued\n\n" + event({ content: "x" }), "x"],
    ['{"choices":[{"message":{"content":"whole"}}]}', "whole"],
    ['{"choices":[{"text":"whole"}]}', "whole"],
    ["{ broken", "{ broken"],
    ["plain text: {}", "plain text: {}"],
    ["ab", "ab"],
    ["", ""],
    ["data: not json\n\n" + event({ content: "y" }), "y"],
  ];
  for (const [raw, expected] of cases) {
    for (let cut = 0; cut <= raw.length; ++cut) {
      const answer = new AnswerText();
      assert.equal(answer.push(raw.slice(0, cut)) + answer.push(raw.slice(cut)) + answer.end(), expected, `${raw} cut at ${cut}`);
    }
  }
  const answer = new AnswerText();
  answer.push('data: {"error":{"message":"It broke."}}\n\n');
  assert.equal(answer.error, "It broke.");
});

/** A server that answers with these, one after the other, and remembers what it was asked. */
function server(...answers) {
  const asked = [];
  const fetch = async (url, options) => {
    asked.push({ url, ...options });
    const answer = answers.shift();
    if (!answer) {
      throw new TypeError("fetch failed");
    }
    const [status, body, headers = {}] = answer;
    return new Response([204].includes(status) ? null : typeof body === "string" ? body : JSON.stringify(body), { status, headers });
  };
  return { asked, client: new Penstock({ base: "http://x/", headers: () => ({ Authorization: "Bearer k" }), fetch }) };
}

test("what is submitted carries a key, a label and who asks", async () => {
  const { client, asked } = server([202, { object: "job", id: "job_1", status: "queued" }]);
  const job = await client.submit("/v1/chat/completions", { model: "m" }, { key: "k1", label: `  ü\n\uD800 ${"x".repeat(200)}`, delay: 1.5 });
  assert.equal(job.id, "job_1");
  const { url, method, headers, body } = asked[0];
  assert.deepEqual([url, method, body], ["http://x/v1/chat/completions", "POST", '{"model":"m"}']);
  assert.deepEqual([headers.Authorization, headers.Prefer, headers["Idempotency-Key"], headers["Penstock-Delay"]],
    ["Bearer k", "respond-async", '"k1"', "2"]);
  const label = decodeURIComponent(headers["Penstock-Label"]);
  assert.equal(label, `ü \uFFFD ${"x".repeat(116)}`);
});

test("an answer under a key that was used is the job that there is", async () => {
  const { client, asked } = server([200, { object: "chat.completion" }, { "Penstock-Job-Id": "job_9" }], [200, { object: "job", id: "job_9" }]);
  assert.equal((await client.submit("/v1/x", {})).id, "job_9");
  assert.equal(asked[1].url, "http://x/jobs/job_9");
});

test("a refusal says why and when", async () => {
  const problem = { detail: "d", "violated-policies": ["free-rate"], error: { message: "Plan free allows 10.", code: "rate_limit_exceeded" } };
  const { client } = server([429, problem, { "Retry-After": "12" }], [429, problem, { "Retry-After": "12", "retry-after-ms": "11500" }],
    [502, "<html>", {}], [503, {}, { "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", Date: "Wed, 21 Oct 2015 07:28:00 GMT" }]);
  const errors = [];
  for (let i = 0; i < 5; ++i) {
    errors.push(await client.quota().catch((error) => error));
  }
  assert.ok(errors.every((error) => error instanceof PenstockError));
  assert.deepEqual(errors.map(({ status, retryAfter }) => [status, retryAfter]), [[429, 12], [429, 11.5], [502, null], [503, 30], [0, null]]);
  assert.deepEqual([errors[0].message, errors[0].code, errors[0].policies], ["Plan free allows 10.", "rate_limit_exceeded", ["free-rate"]]);
});

test("a stream that breaks goes on from its last event, and ends with the job", async () => {
  const { client, asked } = server(
    [200, 'retry: 0\n\ndata: no JSON\n\nevent: processing\nid: 5-0\ndata: {"status":"processing"}\n\nevent: chunk\nid: 5-2\ndata: {"offset":0,"text":"Hi"}\n\nevent: chu'],
    [503, {}, { "Retry-After": "0" }],
    [200, 'event: completed\nid: end\ndata: {"status":"completed"}\n\nevent: never\ndata: {}\n\n']);
  const types = [];
  for await (const { type } of client.follow("job_1")) {
    types.push(type);
  }
  assert.deepEqual(types, ["processing", "chunk", "completed"]);
  assert.deepEqual(asked.map(({ headers }) => headers["Last-Event-ID"]), [undefined, "5-2", "5-2"]);
});

test("a job that is over ends its stream; one that is not there says so", async () => {
  const { client } = server([204], [404, { error: { code: "not_found", message: "No such job." } }]);
  for await (const event of client.follow("job_1")) {
    assert.fail(`nothing more is to come, but ${event.type}`);
  }
  await assert.rejects(client.follow("job_2").next(), { status: 404, code: "not_found" });
});

test("trouble is told, and waking tries at once", async (t) => {
  const { client, asked } = server([503, {}, { "Retry-After": "3600" }], [200, 'event: snapshot\ndata: {"jobs":[]}\n\n']);
  const stop = new AbortController();
  t.after(() => stop.abort());
  const troubles = [];
  const events = client.events({ signal: stop.signal, onTrouble: (trouble) => (troubles.push(trouble), setImmediate(() => client.wake())) });
  assert.equal((await events.next()).value.type, "snapshot");
  assert.deepEqual(troubles, [{ failures: 1, retryAfter: 3600, status: 503 }]);
  assert.equal(asked.length, 2);
  const end = events.next();
  stop.abort();
  assert.equal((await end).done, true);
});
