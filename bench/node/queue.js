// The queue, as API and worker see it.
const url = new URL(process.env.REDIS_URL);

module.exports = {
  NAME: 'jobs',
  connection: { host: url.hostname, port: Number(url.port), password: url.password, maxRetriesPerRequest: null },
  // As BullMQ's documentation advises for production: what has ended is not kept for ever.
  options: { attempts: 4, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: { count: 1000 } },
};
