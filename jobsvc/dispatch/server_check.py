"""Checks at start that jobsvc can use this Postgres and this Redis."""

from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from jobsvc import jobs
from jobsvc.db.engine import disconnect, engine
from jobsvc.db.poolmode import REFUSED, pools_by_statement
from jobsvc.db.revision import check_tables
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.ownership import NamespaceTaken
from jobsvc.dispatch.rq_redis import ClusterRefused
from jobsvc.errors import WrongServer
from jobsvc.processes.refusal import refuse_start


def check_servers() -> None:
    """Exit with one line on stderr if a server is unsuitable; doesn't wait for one that is unavailable.

    Registers this process' job types in Postgres.
    An unavailable server is checked when it is first used; if unsuitable, it stays unavailable and the log says why.
    """
    check_postgres()
    try:
        rq_redis.probe()
    except (ClusterRefused, NamespaceTaken) as error:
        refuse_start(str(error))
    except RedisError:
        pass
    finally:
        disconnect()  # fork: child processes open their own connections
        rq_redis.connection().connection_pool.disconnect()


def check_postgres() -> None:
    """Exit as `check_servers` does if Postgres or its tables are unsuitable; else register this process' job types."""
    try:
        with engine().begin() as connection:
            check_tables(connection)
    except WrongServer as error:
        refuse_start(str(error))
    except SQLAlchemyError:
        if pools_by_statement():
            refuse_start(REFUSED)
    else:
        jobs.register_at_start()
