// The queue, as API and worker see it.
const url = new URL(process.env.REDIS_URL);

module.exports = {
  NAME: 'jobs',
  connection: {
    host: url.hostname,
    port: Number(url.port) || 6379,
    username: url.username,
    password: url.password,
    db: Number(url.pathname.slice(1)),
    maxRetriesPerRequest: null,
  },
  // As BullMQ's documentation advises for production: what has ended is not kept for ever.
  options: { attempts: 4, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: { count: 1000 } },
};
