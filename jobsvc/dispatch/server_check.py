"""Whether Postgres and Redis are of a kind that jobsvc can use, asked when a program starts."""

from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from jobsvc.db.engine import disconnect, engine
from jobsvc.db.poolmode import REFUSED, pools_by_statement
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.ownership import NamespaceTaken
from jobsvc.dispatch.rq_redis import ClusterRefused
from jobsvc.errors import WrongServer
from jobsvc.processes.refusal import refuse_start


def check_servers() -> None:
    """End the process with one line if a server will never do; one that is unavailable is not waited for.

    What is unavailable now is checked as soon as it is used: then it stays unavailable, and the log says why.
    """
    try:
        with engine().begin():
            pass
    except WrongServer as error:
        refuse_start(str(error))
    except SQLAlchemyError:
        if pools_by_statement():
            refuse_start(REFUSED)
    finally:
        disconnect()  # the processes that are forked later make their own
    try:
        rq_redis.probe()
    except (ClusterRefused, NamespaceTaken) as error:
        refuse_start(str(error))
    except RedisError:
        pass
    finally:
        disconnect()
        rq_redis.connection().connection_pool.disconnect()
