// llama.cpp behind Penstock: node llama.mjs MODEL.gguf, as docs/PROCESS_PROTOCOL.md has it. Answers /v1/completions.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { getLlama, LlamaCompletion } from 'node-llama-cpp';

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
say({ penstock: 1 });
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: Number(process.env.THREADS) || undefined });
const model = await llama.loadModel({ modelPath: process.argv[2] });
const context = await model.createContext({ contextSize: model.trainContextSize });
const completion = new LlamaCompletion({ contextSequence: context.getSequence() });
say({ ready: true });

async function answer(job, signal) {
  const request = { ...JSON.parse(job.body ?? readFileSync(job.body_file)), ...job.override };
  const frame = (choices, more) => ({ id: `cmpl-${job.job}`, object: 'text_completion', created: Math.floor(Date.now() / 1000),
                                      model: job.model, choices, ...more });
  const event = (value) => say({ job: job.job, type: 'text/event-stream', chunk: `data: ${value}\n\n` });
  const usage = { prompt_tokens: model.tokenize(request.prompt).length, completion_tokens: 0 };
  const { response, metadata } = await completion.generateCompletionWithMeta(request.prompt, {
    maxTokens: request.max_tokens ?? 16, temperature: request.temperature ?? 1, topP: request.top_p ?? 1, seed: request.seed,
    signal,
    onToken: (tokens) => { usage.completion_tokens += tokens.length; },
    onTextChunk: (text) => request.stream && event(JSON.stringify(frame([{ index: 0, text, finish_reason: null }]))),
  });
  usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
  const end = { index: 0, text: request.stream ? '' : response, finish_reason: metadata.stopReason === 'maxTokens' ? 'length' : 'stop' };
  if (!request.stream) return say({ job: job.job, result: { type: 'application/json', body: frame([end], { usage }) }, usage });
  event(JSON.stringify(frame([end])));
  if (request.stream_options?.include_usage) event(JSON.stringify(frame([], { usage })));
  event('[DONE]');
  say({ job: job.job, result: {}, usage });
}

let stop;
for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  if (job.cancel) stop?.abort();  // it ends before the next token
  if (!job.job) continue;
  stop = new AbortController();
  const { signal } = stop;
  answer(job, signal).catch(({ message }) => say({ job: job.job, error: { code: signal.aborted ? 'cancelled' : 'invalid_request', message } }));
}
