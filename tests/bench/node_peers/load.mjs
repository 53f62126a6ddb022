// One load on a queue whose usual client is Node.js, and what came of it as queue_load's line of name=value.
//
//   node load.mjs rabbitmq|bullmq ADDRESS enqueue|whole [--clients N] [--seconds S] [--outstanding N] [--body BYTES]
//
// ADDRESS: the port of RabbitMQ, whose queue is a quorum queue and whose publishers wait for each confirm; the Unix socket of
// BullMQ's Redis. Each client is a connection with one job under way; where jobs are also taken, as many take and acknowledge.
import amqp from 'amqplib';
import { Queue, Worker } from 'bullmq';

const [peer, address, mode, ...more] = process.argv.slice(2);
const options = { clients: 1, seconds: 3, outstanding: Infinity, body: 1024 };
for (let i = 0; i + 1 < more.length; i += 2) {
  options[more[i].slice(2)] = Number(more[i + 1]);
}
const takes = mode === 'whole';
const body = 'x'.repeat(options.body);
const tally = { sent: 0, answered: 0, completed: 0, latency_us: [] };

// Each opens what its peer needs, and tells how a client puts a job in (resolved once the queue has said that it is safe); those
// that take begin by `take()`.
async function rabbitmq() {
  const name = 'jobs';
  const open = async (confirms) => {
    const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${address}`, { noDelay: true });
    const channel = await (confirms ? connection.createConfirmChannel() : connection.createChannel());
    await channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    return channel;
  };
  const message = Buffer.from(body);
  const puts = [], takers = [];
  for (let i = 0; i < options.clients; i++) {
    const channel = await open(true);
    puts.push(() => new Promise((done, failed) => {
      channel.sendToQueue(name, message, { persistent: true }, (error) => (error ? failed(error) : done()));
    }));
    if (takes) {
      const taker = await open(false);
      await taker.prefetch(1);
      takers.push(taker);
    }
  }
  const take = (taker) => taker.consume(name, (job) => {
    taker.ack(job);
    tally.completed++;
  });
  return { puts, take: () => Promise.all(takers.map(take)) };
}

async function bullmq() {
  const connection = { path: address, maxRetriesPerRequest: null };
  const puts = [];
  for (let i = 0; i < options.clients; i++) {
    const queue = new Queue('jobs', { connection });
    await queue.waitUntilReady();
    puts.push(() => queue.add('job', { body }, { removeOnComplete: true }));
  }
  if (!takes) {
    return { puts };
  }
  const worker = new Worker('jobs', async () => {}, { connection, concurrency: options.clients, autorun: false });
  worker.on('completed', () => tally.completed++);
  worker.on('error', fail);
  await worker.waitUntilReady();
  return { puts, take: () => worker.run() };
}

function fail(error) {
  console.error(`load.mjs: ${peer}: ${error.stack ?? error}`);
  process.exit(1);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const { puts, take } = await (peer === 'rabbitmq' ? rabbitmq() : bullmq());
const began = performance.now();
const end = began + options.seconds * 1000;

async function produce(put) {
  while (performance.now() < end) {
    if (tally.sent - tally.completed >= options.outstanding) {
      await pause(1);
      continue;
    }
    tally.sent++;
    const since = performance.now();
    await put();
    tally.answered++;
    tally.latency_us.push((performance.now() - since) * 1000);
  }
}

if (takes) {
  take().catch(fail);
}
puts.forEach((put) => produce(put).catch(fail));
await pause(options.seconds * 1000);
const seconds = (performance.now() - began) / 1000;
const sorted = Float64Array.from(tally.latency_us).sort();
const percentile = (share) => (sorted.length ? sorted[Math.floor(share * (sorted.length - 1))].toFixed(0) : 0);
const rate = (takes ? tally.completed : tally.answered) / seconds;
console.log(`jobs_s=${rate.toFixed(0)} p50_us=${percentile(0.5)} p99_us=${percentile(0.99)} answered=${tally.answered} `
  + `completed=${tally.completed} seconds=${seconds.toFixed(3)}`);
await pause(100);  // what was acknowledged last leaves, too
process.exit(0);
