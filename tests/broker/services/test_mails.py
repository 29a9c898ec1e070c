"""The outbox, sent to a mail server on a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from broker.config.mail import mail_of
from broker.domain.notices import Kind
from broker.models import Mail, Notice, Preferences
from broker.services import clock, mails, notices, nudges
from tests.broker.portal.cast import Estate
from tests.support.smtp import MailServer, mail_server


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with mail_server() as running:
        settings.MAIL_IS_ON, settings.PUBLIC_URL = True, "https://desk.example"
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", running.port
        yield running


@pytest.fixture
def bob(house: Estate) -> User:
    User.objects.filter(pk=house.bob.pk).update(email="bob@example.org")
    house.bob.refresh_from_db()
    return house.bob


def tell(house: Estate, *people: User, **facts: Any) -> None:
    known = {"pool": "Office", "desktop": "office-001"} | facts
    ids = [person.pk for person in people]
    notices.tell(ids, Kind.DESKTOP_READY, now=timezone.now(), pool_id=house.pool.pk, facts=known)


def only() -> Mail:
    return Mail.objects.get()


def come_due() -> None:
    Mail.objects.filter(next_at__isnull=False).update(next_at=timezone.now())


def test_a_notice_goes_out_as_a_mail_once(house: Estate, bob: User, server: MailServer) -> None:
    tell(house, bob, words="Welcome, Bob")
    assert mails.due()
    assert mails.send() == 1
    (mail,) = server.mails
    assert mail["To"] == "bob@example.org"
    assert mail["Subject"] == "Your desktop of Office is ready"
    assert mail["Message-ID"] == f"<{Notice.objects.get().pk}@desk.example>"
    text = mail.get_payload()
    assert "office-001 waits for you in the portal." in text
    assert "Welcome, Bob" in text
    assert "https://desk.example/notices/" in text
    assert only().state == Mail.State.SENT
    assert not mails.due()
    assert mails.send() == 0
    assert len(server.mails) == 1


def test_names_with_every_sign_stay_words(house: Estate, bob: User, server: MailServer) -> None:
    tell(house, bob, pool="R&D <Büro> 100 %", words="It's “so”")
    mails.send()
    assert server.mails[0]["Subject"] == "Your desktop of R&D <Büro> 100 % is ready"
    body = server.mails[0].get_payload(decode=True)
    assert "It's “so”" in body.decode()  # type: ignore[union-attr]


def test_many_go_out_over_one_connection(house: Estate, bob: User, server: MailServer) -> None:
    User.objects.filter(pk=house.alice.pk).update(email="alice@example.org")
    tell(house, bob, house.alice)
    assert mails.send() == 2
    assert server.connections == 1


def test_whoever_wants_none_has_no_address_or_is_gone_gets_none(house: Estate, bob: User, server: MailServer) -> None:
    tell(house, bob, house.alice, house.dana)
    Preferences.objects.create(user=bob, wants_mail=False)
    User.objects.filter(pk=house.dana.pk).update(email="dana@example.org", is_active=False)
    assert mails.send() == 0
    assert server.mails == []
    assert set(Mail.objects.values_list("state", flat=True)) == {"unwanted"}
    assert Notice.objects.filter(user=bob).count() == 1


def test_without_a_mail_server_nothing_lies_in_the_outbox(house: Estate, bob: User) -> None:
    tell(house, bob)
    assert Notice.objects.count() == 1
    assert not Mail.objects.exists()
    assert not mails.due()


def test_a_server_that_is_away_is_tried_again_later_and_later(
    house: Estate, bob: User, server: MailServer, settings: Settings
) -> None:
    settings.EMAIL_PORT = 9
    User.objects.filter(pk=house.alice.pk).update(email="alice@example.org")
    tell(house, bob, house.alice)
    waits = []
    for _ in range(3):
        Mail.objects.exclude(attempts=0).update(next_at=timezone.now() - timedelta(seconds=1))
        assert mails.send() == 0
        tried = Mail.objects.exclude(attempts=0).get()
        assert tried.next_at is not None
        waits.append((tried.next_at - timezone.now()).total_seconds())
    assert waits[0] < waits[1] < waits[2]
    assert Mail.objects.filter(attempts=0).count() == 1, "the next one was not tried at a server that is away"
    settings.EMAIL_PORT = server.port
    come_due()
    assert mails.send() == 2


def test_a_reader_that_is_refused_for_good_is_given_up_and_the_next_goes_out(
    house: Estate, bob: User, server: MailServer
) -> None:
    server.refusals["RCPT"] = "550 No such user"
    tell(house, bob)
    assert mails.send() == 0
    assert (only().state, only().next_at) == (Mail.State.FAILED, None)
    assert "No such user" in only().error
    server.refusals.clear()
    tell(house, bob)
    assert mails.send() == 1


@pytest.mark.parametrize(
    "refusal", [{"RCPT": "450 Later"}, {"DATA": "451 Later"}, {"MAIL": "550 Not you"}, {"MAIL": ""}]
)
def test_what_may_go_well_next_time_is_tried_again(
    house: Estate, bob: User, server: MailServer, refusal: dict[str, str]
) -> None:
    server.refusals |= refusal
    tell(house, bob)
    assert mails.send() == 0
    assert only().state == Mail.State.QUEUED
    server.refusals.clear()
    come_due()
    assert mails.send() == 1


def test_where_the_answer_was_lost_it_is_sent_again_as_the_same_mail(
    house: Estate, bob: User, server: MailServer
) -> None:
    server.refusals["AFTER"] = ""
    tell(house, bob)
    assert mails.send() == 0
    server.refusals.clear()
    come_due()
    assert mails.send() == 1
    first, second = server.mails
    assert first["Message-ID"] == second["Message-ID"]


def test_what_a_dead_worker_left_is_sent_by_another_and_not_before_it_is_given_up(
    house: Estate, bob: User, server: MailServer
) -> None:
    tell(house, bob)
    mail = mails._take(only().pk, only().next_at)
    assert mail is not None
    assert mails.send() == 0
    come_due()
    assert mails.send() == 1
    mails._fail(mail, OSError("thawed"))
    assert only().state == Mail.State.SENT, "the frozen one has nothing to say any more"


def test_two_workers_send_it_once(house: Estate, bob: User, server: MailServer) -> None:
    tell(house, bob)
    pk, before = only().pk, only().next_at
    assert mails._take(pk, before) is not None
    assert mails._take(pk, before) is None


def test_old_news_is_not_sent_any_more(house: Estate, bob: User, server: MailServer) -> None:
    tell(house, bob)
    Notice.objects.update(created_at=timezone.now() - timedelta(days=3))
    assert mails.send() == 0
    assert only().state == Mail.State.FAILED


def test_an_address_that_is_none_blocks_nobody(house: Estate, bob: User, server: MailServer) -> None:
    User.objects.filter(pk=house.alice.pk).update(email="alice\n@example.org")
    tell(house, house.alice)
    tell(house, bob)
    assert mails.send() == 1
    assert server.mails[0]["To"] == "bob@example.org"


class AskingBackend(BaseEmailBackend):
    """Asks whether a transaction is open while mail goes out."""

    in_transaction: list[bool] = []

    def send_messages(self, email_messages: Any) -> int:
        self.in_transaction.append(connection.in_atomic_block)
        return len(email_messages)


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_the_server_is_spoken_to(bob: User, house: Estate, settings: Settings) -> None:
    settings.MAIL_IS_ON, settings.EMAIL_BACKEND = True, f"{__name__}.AskingBackend"
    tell(house, bob)
    assert mails.send() == 1
    assert AskingBackend.in_transaction == [False]


def test_the_clock_hints_at_the_outbox(house: Estate, bob: User, server: MailServer, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        clock.tick()
    assert (nudges.MAIL, "outbox") not in sent
    tell(house, bob)
    with hints() as sent:
        clock.tick()
    assert (nudges.MAIL, "outbox") in sent


# --- where it goes ---------------------------------------------------------------------------------------------------


def test_one_address_says_where_mail_goes() -> None:
    assert not mail_of("").is_on
    assert mail_of("console:").backend.endswith("console.EmailBackend")
    assert mail_of("file:///var/mails").folder == "/var/mails"
    plain = mail_of("smtp://mail.example")
    assert (plain.host, plain.port, plain.use_tls, plain.use_ssl) == ("mail.example", 25, False, False)
    signed = mail_of("smtp+tls://desk%40example.org:s%3Acret@mail.example:2587")
    assert (signed.user, signed.password, signed.port, signed.use_tls) == ("desk@example.org", "s:cret", 2587, True)
    assert (mail_of("smtps://mail.example").port, mail_of("smtps://mail.example").use_ssl) == (465, True)


@pytest.mark.parametrize("url", ["mail.example", "http://user:secret@mail.example", "smtp://", "file://host/folder"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="DESKYARD_EMAIL_URL is none of") as refused:
        mail_of(url)
    assert "secret" not in str(refused.value)
