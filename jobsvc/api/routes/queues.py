"""/queues and /workers: state of the queues, pause and resume, state of the workers."""

from flask import Blueprint

from jobsvc import jobs
from jobsvc.api.operation import Operation, Reply
from jobsvc.api.responses import QueueShown, QueuesReply, WorkersReply, dump_queue, dump_worker
from jobsvc.api.submit import relay
from jobsvc.api.validation import known_queue
from jobsvc.config import settings
from jobsvc.dispatch import rq_workers
from jobsvc.dispatch.duties import Duty

blueprint = Blueprint("queues", __name__)


@blueprint.get("/queues")
@Operation("read", {200: Reply("The queues, in the order in which they are served.", QueuesReply)})
def list_queues() -> QueuesReply:
    """List the queues."""
    return {"queues": [dump_queue(queue) for queue in jobs.queue_states(settings().JOBSVC_QUEUES)]}


@blueprint.post("/queues/<name>/pause")
@Operation("admin", {200: Reply("The queue, now paused.", QueueShown)}, errors=(404,))
def pause_queue(name: str) -> QueueShown:
    """Pause a queue: its jobs stay waiting until it is resumed. It accepts jobs; running ones continue."""
    jobs.pause(known_queue(name))
    return dump_queue(jobs.queue_states([name])[0])


@blueprint.post("/queues/<name>/resume")
@Operation("admin", {200: Reply("The queue, no longer paused.", QueueShown)}, errors=(404,))
def resume_queue(name: str) -> QueueShown:
    """Resume a queue."""
    jobs.resume(known_queue(name))
    relay().notify(Duty.SWEEP)
    return dump_queue(jobs.queue_states([name])[0])


@blueprint.get("/workers")
@Operation("read", {200: Reply("The workers.", WorkersReply)})
def list_workers() -> WorkersReply:
    """List the workers."""
    return {"workers": [dump_worker(worker) for worker in rq_workers.known()]}
