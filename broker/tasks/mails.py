"""The task that empties the outbox."""

from __future__ import annotations

from celery import shared_task

from broker.services import mails, nudges
from broker.tasks.database import with_database


@shared_task(name=nudges.MAIL)
@with_database
def send_mail(outbox: str) -> None:
    """There is one outbox; a hint names it as hints name what they are about."""
    mails.send()
