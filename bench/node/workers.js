// One worker in this process, or several, each in a process of its own.
const cluster = require('cluster');

const processes = Number(process.env.PROCESSES);
if (processes > 1 && cluster.isPrimary) {
  for (let i = 0; i < processes; i++) cluster.fork();
} else {
  require('./worker');
}
