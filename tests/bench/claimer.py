"""One client process of the claim bench. Imports nothing of Django's before it is set up: the process is spawned."""

from __future__ import annotations

import time
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from uuid import UUID

WAIT_S = 300


def claim_for(people: list[int], pool_id: UUID, together: Barrier, spent: Synchronized[float]) -> None:
    """Get ready, wait for the others, then claim for each of these people without a pause, and wait again.

    Adds the seconds on a core that the claims took this process to `spent`.
    """
    import django

    django.setup()

    from django.contrib.auth.models import User

    from broker.models import Request
    from broker.services import brokering

    users = list(User.objects.filter(pk__in=people))
    together.wait(WAIT_S)
    began = time.process_time()
    for user in users:
        request, _ = brokering.request_desktop(user=user, pool_id=pool_id)
        if request.state != Request.State.READY:
            raise AssertionError(f"{user} was not served: {request.state} {request.reason}")
    with spent.get_lock():
        spent.value += time.process_time() - began
    together.wait(WAIT_S)
    # The connection stays until its server's time has been read.
    together.wait(WAIT_S)
