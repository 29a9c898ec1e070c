"""Database connections in a thread-pool worker: checked before a task, given back after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import structlog
from django.db import InterfaceError, OperationalError, close_old_connections
from django.db.models import ObjectDoesNotExist

P = ParamSpec("P")
log = structlog.get_logger()


def with_database(task: Callable[P, None]) -> Callable[P, None]:
    """Run a task with a live connection. A row that vanished or a database that went away ends the task quietly:
    the rows hold the truth and the clock comes again."""

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        close_old_connections()
        try:
            task(*args, **kwargs)
        except ObjectDoesNotExist as error:
            log.info("task.subject_gone", task=task.__name__, reason=str(error))
        except (OperationalError, InterfaceError) as error:
            log.warning("task.database_away", task=task.__name__, reason=str(error).strip())
        finally:
            close_old_connections()

    return run
