"""Whether Postgres and Redis are of a kind that jobsvc can use, asked when a program starts."""

from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from jobsvc import rqsettings
from jobsvc.db import disconnect, engine
from jobsvc.errors import WrongServer
from jobsvc.ownership import NamespaceTaken
from jobsvc.poolmode import REFUSED, pools_by_statement
from jobsvc.rqsettings import ClusterRefused
from jobsvc.startup import refuse_start


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
        rqsettings.probe()
    except (ClusterRefused, NamespaceTaken) as error:
        refuse_start(str(error))
    except RedisError:
        pass
    finally:
        disconnect()
        rqsettings.connection().connection_pool.disconnect()
