// The worker: a job's row says PROCESSING, then it runs, then the row says COMPLETED.
const fs = require('fs');
const { setTimeout: sleep } = require('timers/promises');
const { Worker } = require('bullmq');
const { NAME, connection } = require('./queue');
const store = require('./store');

const handlers = {
  TEST_JOB: async ({ payload }) => {
    if (payload.durationMs) await sleep(payload.durationMs);
  },
  SENT: async () => {},
  NOTE_START: async ({ id, payload }) => {
    fs.appendFileSync(payload.path, `${id} ${Date.now() / 1000}\n`);
  },
};

const worker = new Worker(
  NAME,
  async (job) => {
    await store.setStatus(job.data.id, 'PROCESSING');
    const result = await handlers[job.name](job.data);
    await store.setStatus(job.data.id, 'COMPLETED');
    return result;
  },
  { connection, concurrency: Number(process.env.CONCURRENCY) },
);
worker.on('error', (error) => console.error(error));
