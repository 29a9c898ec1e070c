"""Sends what lies in the outbox. Runs in a worker; never inside a transaction, as the server may let it wait.

A mail is taken by compare-and-swap and committed as *being sent* before the server is spoken to. One whose fate is not
known (the worker died, the server never answered) is sent again: rather twice than not at all, and under the same
Message-ID, by which readers' programs know it again. One that has gone out, or was refused for good, never is.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.core import mail as django_mail
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models import F
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from broker.domain import backoff, notices
from broker.models import Mail
from broker.selectors.notices import wants_mail
from broker.services import nudges

log = structlog.get_logger()

BATCH = 200
GIVEN_UP = timedelta(minutes=5)
"""Whoever has been sending one for so long is dead."""
AT_MOST = timedelta(days=2)
"""What could not be sent for so long is old news: it stands in the portal."""
BASE_S, CAP_S = 30.0, 3600.0


def due() -> bool:
    return settings.MAIL_IS_ON and Mail.objects.filter(next_at__lte=timezone.now()).exists()


def send() -> int:
    """Send what is due, the oldest first, over one connection. Returns how many went out.

    A server that cannot be reached ends the round: the next ones would only wait for it too.
    """
    nudges.taken(nudges.MAIL, "outbox")
    sent = 0
    with _Line() as line:
        for notice_id, before in _waiting():
            mail = _take(notice_id, before)
            if mail is None:
                continue
            sent += _deliver(mail, line)
            if line.is_down:
                break
    return sent


def _waiting() -> Iterable[tuple[UUID, datetime | None]]:
    waiting = Mail.objects.filter(next_at__lte=timezone.now()).order_by("next_at", "pk")
    return list(waiting.values_list("pk", "next_at")[:BATCH])


def _take(notice_id: UUID, before: datetime | None) -> Mail | None:
    """Take a mail to send it; None if another worker has it."""
    now = timezone.now()
    taken = Mail.objects.filter(pk=notice_id, next_at=before).update(
        state=Mail.State.SENDING, next_at=now + GIVEN_UP, attempts=F("attempts") + 1
    )
    return Mail.objects.select_related("notice__user__preferences").get(pk=notice_id) if taken else None


class _Line:
    """The connection to the server, opened with the first mail that needs it."""

    def __init__(self) -> None:
        self._backend: BaseEmailBackend | None = None
        self.is_down = False

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._backend:
            self._backend.close()

    def send(self, message: EmailMessage) -> None:
        """Raises OSError (SMTP's errors are such too); `is_down` if it is not about this mail alone. ValueError for
        what is no mail."""
        try:
            if self._backend is None:
                self._backend = django_mail.get_connection(fail_silently=False)
                self._backend.open()
            self._backend.send_messages([message])
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError):
            raise
        except OSError:
            self.is_down = True
            raise


def _deliver(mail: Mail, line: _Line) -> bool:
    """Send it and write down what became of it. Whether it went out."""
    now = timezone.now()
    if not wants_mail(mail.notice.user):
        _end(mail, Mail.State.UNWANTED)
        return False
    if now - mail.notice.created_at > AT_MOST:
        _end(mail, Mail.State.FAILED, mail.error or "It could not be sent in time.")
        return False
    try:
        line.send(message_of(mail))
    except (OSError, ValueError) as fault:
        _fail(mail, fault)
        return False
    _end(mail, Mail.State.SENT)
    log.info("mail.sent", notice=str(mail.pk), attempt=mail.attempts)
    return True


def _is_final(fault: Exception) -> bool:
    """Whether the server, or our own library, would say the same of this mail next time."""
    if isinstance(fault, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _words in fault.recipients.values())
    if isinstance(fault, smtplib.SMTPDataError):
        return fault.smtp_code >= 500
    return isinstance(fault, ValueError)


def _fail(mail: Mail, fault: Exception) -> None:
    words = " ".join(str(fault).split())[:500] or type(fault).__name__
    is_final = _is_final(fault)
    log.warning("mail.failed", notice=str(mail.pk), attempt=mail.attempts, reason=words, is_final=is_final)
    if is_final:
        _end(mail, Mail.State.FAILED, words)
    else:
        later = timedelta(seconds=backoff.delay_s(mail.attempts, str(mail.pk), base_s=BASE_S, cap_s=CAP_S))
        _mine(mail, state=Mail.State.QUEUED, next_at=timezone.now() + later, error=words)


def _end(mail: Mail, state: Mail.State, error: str = "") -> None:
    _mine(mail, state=state, next_at=None, ended_at=timezone.now(), error=error)


def _mine(mail: Mail, **values: object) -> None:
    """Unless another worker has taken it meanwhile for given up."""
    Mail.objects.filter(pk=mail.pk, state=Mail.State.SENDING, attempts=mail.attempts).update(**values)


def message_of(mail: Mail) -> EmailMessage:
    """The notice as a mail, in plain text."""
    notice = mail.notice
    title = _(notices.title_of(notice.kind)) % notice.facts
    context = {
        "user": notice.user,
        "title": title,
        "sentences": [_(one) % notice.facts for one in notices.sentences_of(notice.kind, notice.facts)],
        "words": notice.facts.get("words", ""),
        "address": settings.PUBLIC_URL,
    }
    host = settings.PUBLIC_URL.partition("://")[2].partition("/")[0].partition(":")[0]
    return EmailMessage(
        subject=" ".join(title.split()),
        body=render_to_string("mail/notice.txt", context),
        to=[notice.user.email],
        headers={"Message-ID": f"<{notice.pk}@{host}>", "Auto-Submitted": "auto-generated"},
    )
