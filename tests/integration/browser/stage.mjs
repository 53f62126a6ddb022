// The far end of relay.py: a test plays the model. Every job that starts is a Part in the play.
import { once } from "node:events";
import net from "node:net";

class Part {
  constructor(socket, job) {
    this.job = job;
    this.body = JSON.parse(job.body ?? '{"prompt":""}');  // a long one comes as a file
    this.prompt = this.body.prompt ?? this.body.messages.at(-1).content;
    this.cancelled = false;
    this.socket = socket;
  }

  say(line) {
    this.socket.write(`${JSON.stringify({ job: this.job.job, ...line })}\n`);
  }

  // Words as OpenAI streams them.
  words(...words) {
    for (const content of words) {
      const data = JSON.stringify({ choices: [{ index: 0, delta: { content } }] });
      this.say({ chunk: `data: ${data}\n\n`, type: "text/event-stream" });
    }
  }

  step(step, steps) {
    this.say({ progress: step / steps, step, steps });
  }

  preview(png) {
    this.say({ preview: { type: "image/png", base64: png } });
  }

  end() {
    this.say({ result: { body: "data: [DONE]\n\n", type: "text/event-stream" } });
  }

  picture(png) {
    this.say({ result: { type: "application/json", body: { created: 1, data: [{ b64_json: png }] } } });
  }

  fail(code, message) {
    this.say({ error: { code, message } });
  }
}

export class Stage {
  #parts = [];
  #waiting = [];

  static async open(path) {
    const stage = new Stage();
    stage.server = net.createServer((socket) => stage.#serve(socket)).listen(path);
    await once(stage.server, "listening");
    return stage;
  }

  /** The next job that starts. */
  next() {
    return this.#parts.length > 0 ? this.#parts.shift() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  #serve(socket) {
    let rest = "";
    const parts = new Map();
    socket.on("error", () => {});
    socket.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const told = JSON.parse(line);
        if (told.job === undefined) {
          parts.get(told.cancel)?.fail("cancelled", "as told");
          continue;
        }
        const part = new Part(socket, told);
        parts.set(told.job, part);
        const waiting = this.#waiting.shift();
        waiting ? waiting(part) : this.#parts.push(part);
      }
    });
  }
}
