// POST /jobs and POST /jobs/batch: a row, then the queue, then 202.
process.env.NODE_ENV = 'production';
const express = require('express');
const { Queue } = require('bullmq');
const { NAME, connection, options } = require('./queue');
const store = require('./store');

const queue = new Queue(NAME, { connection, defaultJobOptions: options });
const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.json({ limit: '1mb' }));

app.post('/jobs', async (request, response) => {
  const { type = 'TEST_JOB', payload = {} } = request.body;
  const id = await store.insertOne(type, payload);
  await queue.add(type, { id, payload }, { jobId: id });
  response.status(202).json({ jobId: id });
});

app.post('/jobs/batch', async (request, response) => {
  const jobs = request.body.jobs.map(({ type = 'TEST_JOB', payload = {} }) => ({ type, payload }));
  const ids = await store.insert(
    jobs.map((job) => job.type),
    jobs.map((job) => JSON.stringify(job.payload)),
  );
  await queue.addBulk(
    jobs.map((job, i) => ({ name: job.type, data: { id: ids[i], payload: job.payload }, opts: { jobId: ids[i] } })),
  );
  response.status(202).json({ jobIds: ids });
});

app.listen(Number(process.env.PORT), '127.0.0.1');
